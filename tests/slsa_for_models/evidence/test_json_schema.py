"""The published schemas mean for others what they mean for us: an independent validator agrees."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model_signing.errors import Error
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence import training_record as record
from slsa_for_models.verdict import policy_file
from tests.slsa_for_models.evidence.test_training_record import DOCUMENT

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(ROOT.glob("slsa_for_models/schemas/*.json"))
DIGEST = "0123456789abcdef" * 4
POLICY = {
    "version": 1,
    "source": {"uri": "github.com/octo-org/models", "commit": "c" * 40},
    "build": {"dataset_sha256": DIGEST, "dependencies": {"requirements": DIGEST}},
}


def example(document: str, language: str) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")
    return text.split(f"```{language}\n")[1].split("```")[0]


def read_policy(document: dict[str, Any], folder: Path) -> None:
    """As TOML: the basic strings and the tables of these documents are written as JSON's."""
    lines = ["version = 1"]
    for table in ("source", "build"):
        for name, value in document[table].items():
            inner = json.dumps(value) if isinstance(value, str) else None
            pairs = (
                [] if inner else [f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items()]
            )
            lines.append(f"{table}.{name} = {inner or '{' + ', '.join(pairs) + '}'}")
    path = folder / "policy.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    policy_file.load_policy(path)


def read_record(document: dict[str, Any], folder: Path) -> None:
    record.parse(json.dumps(document).encode())


def read_predicate(document: dict[str, Any], folder: Path) -> None:
    json_schema.check(document, json_schema.load("buildtype-train.v1.json"), Error, "It")


CASES = {
    "policy.v1.json": (POLICY, read_policy),
    "training-record.v1.json": (DOCUMENT, read_record),
    "buildtype-train.v1.json": (
        json.loads(example("docs/buildtypes/train-v1.md", "json")),
        read_predicate,
    ),
}


def subschemas(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for inner in schema.values() if isinstance(schema, dict) else ():
        yield from subschemas(inner)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_pattern_is_of_the_whole_text(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in subschemas(schema):
        pattern = part.get("pattern")
        if not isinstance(pattern, str) or part == schema["$defs"].get("oneLine", {}).get("not"):
            continue
        assert pattern[0] == "^" and pattern[-1] == "$"
        for text in ("", "0" * 40, "0" * 64, "a", "2026-01-02T03:04:05Z", "https://github.com/a/b"):
            broken = {"$defs": schema.get("$defs", {}), **part}
            assert not jsonschema.Draft202012Validator(broken).is_valid(f"{text}\n")


def texts(value: object, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The paths of all texts in a JSON value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(inner, *path, key)


def with_text(document: Any, path: tuple[str | int, ...], change: Callable[[str], str]) -> Any:
    document = copy.deepcopy(document)
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = change(target[path[-1]])
    return document


CHANGES: dict[str, Callable[[str], str]] = {
    "a line break after it": lambda text: f"{text}\n",
    "a carriage return after it": lambda text: f"{text}\r",
    "a line break before it": lambda text: f"\n{text}",
    "something before it": lambda text: f"not {text}",
    "something after it": lambda text: f"{text}{'a' * 80}",
    "a line separator in it": lambda text: f"{text[:9]}\u2028{text[9:]}",
    "nothing": lambda text: "",
    "the same": lambda text: text,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CASES)
def test_an_independent_validator_agrees_on_every_text(
    name: str, change: str, tmp_path: Path
) -> None:
    document, read = CASES[name]
    validator = jsonschema.Draft202012Validator(json_schema.load(name))
    refused = 0
    for path in texts(document):
        other = with_text(document, path, CHANGES[change])
        accepted = True
        try:
            read(other, tmp_path)
        except Error as refusal:
            # What no schema can say, such as what a repository is, has words of its own.
            accepted = not re.search("cannot have|lacks a key", refusal.message)
        assert validator.is_valid(other) is accepted, f"{path}, {other}"
        refused += not accepted
    assert (refused == 0) is (change == "the same")


SHAPES = {
    "type": "object",
    "properties": {
        "one": {"const": 1},
        "text": {"type": "string", "pattern": "^a$", "description": "The first letter."},
        "short": {"maxLength": 2},
        "closed": {"properties": {"colour": {}, "c": {}}, "additionalProperties": False},
        "open": {"required": ["a"]},
        "named": {"propertyNames": {"pattern": "^a$"}},
        "list": {"items": {"type": ["integer", "null"], "maximum": 3}},
        "either": {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"pattern": {"type": "string"}}},
            ]
        },
    },
}
TOLD = [
    ({"one": 2}, "one", "1", "2"),
    ({"one": "1"}, "one", "1", '"1"'),
    ({"text": "a\n"}, "text", "text of the form ^a$ (The first letter)", '"a\\n"'),
    ({"text": None}, "text", "text (The first letter)", "null"),
    ({"short": "abc"}, "short", "text of 2 or fewer characters", '"abc"'),
    ({"closed": {"b": 1, "a": 1}}, "closed.a", "one of colour, c", None),
    ({"open": {}}, "open.a", "a value", "nothing"),
    ({"named": {"b": 1}}, "named", "names that are text of the form ^a$", '"b"'),
    ({"list": [0, 4]}, "list number 2", "at most 3", "4"),
    ({"list": [True]}, "list number 1", "null or a whole number", "true"),
    ({"either": 1}, "either", "text or a table", "1"),
    ({"either": {"pattern": 1}}, "either.pattern", "text", "1"),
    ({"list": [date(2026, 1, 2)]}, "list number 1", "text, a whole number", "2026-01-02"),
    ([], "the top level", "a table", "[]"),
]


@pytest.mark.parametrize(("value", "where", "expected", "found"), TOLD)
def test_a_refusal_says_where_what_was_expected_and_found(
    value: object, where: str, expected: str, found: str | None
) -> None:
    with pytest.raises(
        Error, match=r"It (has a (key|value) that it cannot have|lacks a key)"
    ) as refusal:
        json_schema.check(value, SHAPES, Error, "It")
    assert (refusal.value.where, refusal.value.found) == (where, found)
    assert (refusal.value.expected or "").startswith(expected)
    assert not re.search(r"schema|additionalProp|anyOf|enum|const|\$\.", str(refusal.value))


def test_a_mistyped_key_is_told_the_one_that_was_meant() -> None:
    with pytest.raises(Error) as refusal:
        json_schema.check({"closed": {"color": 1}}, SHAPES, Error, "It")
    assert refusal.value.fix == "did you mean `colour`?"


def test_a_refusal_is_short_whatever_was_found() -> None:
    for value in ({"text": "b" * 10_000}, {"closed": {"b" * 10_000: 1}}):
        with pytest.raises(Error) as refusal:
            json_schema.check(value, SHAPES, Error, "It")
        assert len(str(refusal.value)) < 1000
