"""The training record: what comes back is what was written, and nothing else gets in."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slsa_for_models.errors import RecordError
from slsa_for_models.evidence import json_schema, training_record
from tests.support import records

DIGEST = "0123456789abcdef" * 4
RECORD = dataclasses.replace(
    records.RECORD,
    model=training_record.Model(
        "saved_model", 3, DIGEST, (training_record.File("variables/index of", DIGEST, 3),)
    ),
)
DOCUMENT = json.loads(training_record.encode(RECORD))
SCHEMA = json_schema.load("training-record.v1.json")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def parse(document: object) -> training_record.TrainingRecord:
    return training_record.parse(json.dumps(document).encode())


def test_record_comes_back():
    assert training_record.parse(training_record.encode(RECORD)) == RECORD


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("parameters", {"train.n_est": 50, "C": 1.0, "shuffle": True, "betas/0": "0.9"}),
        ("metrics", {"roc_auc": 0.9, "roc auc (macro)": -1e9, "loss.val": 0}),
        ("metrics", {}),
        ("dataset", {"sha256": None, "files": []}),
        ("environment.python", None),
        ("environment.accelerators", ["Model: Tesla T4"]),
        ("environment.network", "allowed"),
    ],
)
def test_any_training_has_an_honest_record(path: str, value: object):
    """Other frameworks, data, metrics and names of parameters than those of the recipes."""
    read = parse(changed(path, value))
    assert json.loads(training_record.encode(read)) == changed(path, value)


def test_schema_is_one_and_describes_what_is_written():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DOCUMENT, SCHEMA)
    assert SCHEMA["$id"] == training_record.SCHEMA


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"schema": 1, "schema": 1}',
        b"[" * 100_000,
        b" " * (training_record.MAX_BYTES + 1),
        training_record.encode(RECORD).replace(b"2.25", b"NaN"),
        training_record.encode(RECORD).replace(b"2.25", b"1e999"),
        training_record.encode(RECORD).replace(b"2.25", b"9" * 5000),
    ],
    ids=[
        "nothing",
        "empty",
        "list",
        "null",
        "not UTF-8",
        "duplicate key",
        "deep",
        "large",
        "NaN",
        "infinity",
        "digits",
    ],
)
def test_bytes_that_are_no_record(data: bytes):
    with pytest.raises(RecordError):
        training_record.parse(data)


def changed(path: str, value: object) -> dict[str, Any]:
    document: Any = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    target = document
    for name in parents:
        target = target[int(name)] if isinstance(target, list) else target[name]
    target[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "https://example.org/another"),
        ("extra", 1),
        ("model.extra", 1),
        ("model.name", ""),
        ("model.name", "a" * 129),
        ("model.name", "a\nb"),
        ("model.name", "a b"),
        ("model.size", -1),
        ("model.size", 1.5),
        ("model.size", True),
        ("model.size", 2**60),
        ("model.sha256", DIGEST.upper()),
        ("model.sha256", DIGEST + "\n"),
        ("model.sha256", DIGEST[1:]),
        ("model.format", "pytorch_model.pth"),
        ("model.files", [{"name": "a", "sha256": DIGEST}]),
        ("model.files", [DOCUMENT["model"]["files"][0]] * 1001),
        ("model.files.0.name", "a\x1b[2Jb"),
        ("dataset.sha256", "none"),
        ("dataset.files", [DOCUMENT["dataset"]["files"][0]] * 1001),
        ("dataset.files.0.uri", "\x1b[2J"),
        ("command", []),
        ("command", "python train.py"),
        ("command", [1]),
        ("parameters", []),
        ("parameters", {"a": None}),
        ("parameters", {"1a": 1}),
        ("parameters", {f"a{n}": 1 for n in range(257)}),
        ("parameters", {"note": "x" * 4097}),
        ("metrics", []),
        ("metrics", {"a": "0.9"}),
        ("metrics", {"a": True}),
        ("metrics", {"a\nb": 1}),
        ("metrics", {f"a{n}": 1 for n in range(1001)}),
        ("environment.network", "some"),
        ("environment.confinement", "yes"),
        ("environment.cpus", 1.5),
        ("environment.packages", {"a": 1}),
        ("environment.packages", {"../a": "1"}),
        ("environment.requirements_sha256", "none"),
        ("environment.cpu_features", ["x"] * 65),
        ("started", "2026-01-02T03:04:05+00:00"),
        ("started", 0),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(path: str, value: object):
    document = changed(path, value)
    with pytest.raises(RecordError, match=r"cannot have|lacks a key") as refusal:
        parse(document)
    assert refusal.value.where
    assert refusal.value.expected
    # An independent reader of the same schema.
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


def test_a_count_may_be_written_with_a_fraction_of_nothing():
    """1.0 is an integer in JSON Schema; for whoever reads the record it is one, too."""
    document = json.loads(json.dumps(DOCUMENT))
    document["model"]["size"] = float(document["model"]["size"])
    document["environment"]["cpus"] = float(document["environment"]["cpus"])
    read = parse(document)
    assert read == RECORD
    assert (type(read.model.size), type(read.environment.cpus)) == (int, int)


@pytest.mark.parametrize("path", ["model", "model.sha256", "environment.network", "finished"])
def test_what_the_schema_requires_is_missed(path: str):
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    target = document
    for name in parents:
        target = target[name]
    del target[last]
    with pytest.raises(RecordError, match="the training record lacks a key"):
        parse(document)


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _FLOATS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    where=st.sampled_from(["model", "dataset", "parameters", "metrics", "started"]),
    value=_JSON | st.dictionaries(st.from_regex("[a-z]{1,3}\n?"), _FLOATS | st.text(), max_size=3),
)
def test_our_reader_of_the_schema_accepts_what_an_independent_one_does(where, value):
    document = {**DOCUMENT, where: value}
    accepted = True
    try:
        parse(document)
    except RecordError:
        accepted = False
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(document) is accepted
