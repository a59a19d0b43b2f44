"""Published schemas as validators, with refusals that say where, what was expected and found.

A published schema is the specification of what is accepted; checking against that very file keeps
the two from drifting apart. The validator is jsonschema-rs: it has no dependencies, and is imported
in a third of the time that jsonschema takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from model_signing.errors import Error
from model_signing.terminal.command_line import suggestion

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

_SHOWN = 200  # characters of a value or a path
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "null",
}
_KNOWN = "text, a whole number, true, false, a list or a table"
_Path = Sequence[str | int]
_Told = tuple[str, _Path, str, str | None, str | None]
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "text of {} or more characters",
    "maxLength": "text of {} or fewer characters",
    "minItems": "a list of {} or more",
    "maxItems": "a list of {} or fewer",
    "minProperties": "a table of {} or more",
    "maxProperties": "a table of {} or fewer",
}
"""What is expected, in words of whoever wrote the value and never saw a schema."""


def load(name: str) -> dict[str, Any]:
    """The schema `slsa_for_models/schemas/NAME`."""
    file = resources.files("slsa_for_models").joinpath("schemas").joinpath(name)
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema


def check(value: object, schema: dict[str, Any], refusal: type[Error], what: str) -> None:
    """Checks a value against a schema.

    Args:
        value: As parsed from JSON, or from TOML.
        schema: A whole schema, as `load` returns it.
        refusal: The error class to raise.
        what: What the value is, for messages: "the training record".

    Raises:
        Error: As `refusal`, with the place of something that does not fit.
    """
    from jsonschema_rs import Draft202012Validator

    if (foreign := _foreign(value, ())) is not None:
        path, text = foreign
        told: _Told = (f"{what} has a value that it cannot have", path, _KNOWN, text, None)
    else:
        validator = Draft202012Validator(schema, offline=True)
        problem = next(iter(validator.iter_errors(value)), None)
        if problem is None:
            return
        told = _told(problem, schema, what)
    message, path, expected, found, fix = told
    raise refusal(
        message,
        where=_place(path)[:_SHOWN],
        expected=expected[: 4 * _SHOWN],
        found=None if found is None else found[:_SHOWN],
        fix=fix,
    )


def _place(path: _Path) -> str:
    """`builder number 2, level`, or `build.inputs`; the document itself is `the top level`."""
    place = ""
    for part in path:
        joint = ", " if place.rpartition(" ")[2].isdecimal() else "." if place else ""
        place += f" number {part + 1}" if isinstance(part, int) else f"{joint}{part}"
    return place.strip() or "the top level"


def _told(problem: ValidationError, schema: dict[str, Any], what: str) -> _Told:
    """What is wrong, where, what was expected there, what was found, and a fix if one is known."""
    kind, path = problem.kind.as_dict(), list(problem.instance_path)
    if problem.kind.name == "additionalProperties":
        name, known = min(kind["unexpected"]), list(_around(problem, schema).get("properties", {}))
        expected = _one_of(known) if known else "nothing"
        fix = suggestion(name, known)
        return f"{what} has a key that it cannot have", [*path, name], expected, None, fix
    if problem.kind.name == "required":
        return f"{what} lacks a key", [*path, kind["property"]], "a value", "nothing", None
    message = f"{what} has a value that it cannot have"
    if problem.kind.name == "propertyNames":
        _, _, expected, name, _ = _told(kind["error"], schema, what)
        return message, path, f"names that are {expected}", name, None
    if problem.kind.name == "anyOf":
        # What was meant: the first alternative that takes a value of this type.
        firsts = [problems[0] for problems in kind["context"]]
        for one in firsts:
            if one.kind.name != "type" or len(one.instance_path) > len(path):
                return _told(one, schema, what)
    found = json.dumps(problem.instance, ensure_ascii=False)
    return message, path, _wanted(problem, schema), found, None


def _wanted(problem: ValidationError, schema: dict[str, Any]) -> str:
    """What a schema asks for at one place, in words."""
    name, around = problem.kind.name, _around(problem, schema)
    about = str(around.get("description", "")).rstrip(".")
    if name == "anyOf":
        kinds = [one[0].kind.value for one in problem.kind.as_dict()["context"]]
        words = " or ".join(_TYPES[kind] for types in kinds for kind in types)
    elif name == "type":
        words = " or ".join(_TYPES[kind] for kind in problem.kind.value)
    elif name in ("const", "enum"):
        options = problem.kind.value if name == "enum" else [problem.kind.value]
        return _one_of([one if isinstance(one, str) else json.dumps(one) for one in options])
    elif name == "not":  # of what stands beside each pattern
        return "a single line"
    elif name == "pattern":
        words = f"text of the form {problem.kind.value}"
    else:
        return _LIMITS.get(name, f"{name} {{}}").format(problem.kind.value)
    return f"{words} ({about})" if about else words


def _one_of(options: Sequence[str]) -> str:
    return options[0] if len(options) == 1 else f"one of {', '.join(options)}"


def _around(problem: ValidationError, schema: dict[str, Any]) -> dict[str, Any]:
    """The part of the schema that a value departs from."""
    part: Any = schema
    for name in list(problem.schema_path)[:-1]:
        part = part[name]
    found: dict[str, Any] = part
    return found


def _foreign(value: object, path: tuple[str | int, ...]) -> tuple[_Path, str] | None:
    """The first value that no schema here knows, such as a date of TOML: where, and its text."""
    inner: Iterable[tuple[str | int, object]]
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    elif value is None or isinstance(value, (str, int, float)):
        return None
    else:
        return path, str(value)
    return next(filter(None, (_foreign(child, (*path, name)) for name, child in inner)), None)
