"""Published schemas as validators, with refusals that say where, what was expected and found.

A published schema is the specification of what is accepted; checking against that very file keeps
the two from drifting apart. The validator is jsonschema-rs: it has no dependencies, and is imported
in a third of the time that jsonschema takes.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from model_signing.errors import Error

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

_SHOWN = 200  # characters of a value or a path
_KNOWN = "text, a whole number, true, false, a list or a table"


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
        what: What the value is, for messages: "The training record".

    Raises:
        Error: As `refusal`, with the JSON path of something that does not fit.
    """
    from jsonschema_rs import Draft202012Validator

    message = f"{what} does not follow its schema"
    if (foreign := _foreign(value, "$")) is not None:
        where, text = foreign
        raise refusal(message, where=where[:_SHOWN], expected=_KNOWN, found=text[:_SHOWN])
    problem = next(iter(Draft202012Validator(schema, offline=True).iter_errors(value)), None)
    if problem is not None:
        where, expected, found = _told(problem)
        raise refusal(message, where=where[:_SHOWN], expected=expected, found=found)


def _told(problem: ValidationError) -> tuple[str, str, str | None]:
    """Where a value departs from its schema, what was expected there, and what was found."""
    kind = problem.kind.as_dict()
    where = ".".join(["$", *map(str, problem.instance_path)])
    if problem.kind.name == "additionalProperties":
        return f"{where}.{min(kind['unexpected'])}", "no such field", None
    if problem.kind.name == "required":
        return f"{where}.{kind['property']}", "this field", "none"
    if problem.kind.name == "propertyNames":
        _, expected, name = _told(kind["error"])
        return where, f"a name with {expected}", name
    if problem.kind.name == "anyOf":
        # What was meant: the first alternative that takes a value of this type, else the first.
        firsts = [problems[0] for problems in kind["context"]]
        depth = len(problem.instance_path)
        meant = (one for one in firsts if one.kind.name != "type" or len(one.instance_path) > depth)
        return _told(next(meant, firsts[0]))
    wanted = problem.kind.value
    if problem.kind.name == "type" and len(wanted) == 1:
        wanted = wanted[0]
    found = json.dumps(problem.instance, ensure_ascii=False)
    return where, f"{problem.kind.name} {json.dumps(wanted)}", found[:_SHOWN]


def _foreign(value: object, where: str) -> tuple[str, str] | None:
    """The first value that no schema here knows, such as a date of TOML: where, and its text."""
    if isinstance(value, dict):
        inner = [(f"{where}.{name}", child) for name, child in value.items()]
    elif isinstance(value, list):
        inner = [(f"{where}.{index}", child) for index, child in enumerate(value)]
    elif value is None or isinstance(value, (str, int, float)):
        return None
    else:
        return where, str(value)
    return next(filter(None, (_foreign(child, path) for path, child in inner)), None)
