"""The part of JSON Schema (2020-12) that this package's own schemas use, as a validator.

A published schema is the specification of what is accepted; checking against that very file keeps
the two from drifting apart, and costs no dependency. Not for schemas of others: a keyword that is
not handled here is an error in the schema. One reading is stricter than JSON Schema's: an integer
is written without a fraction, `1` and not `1.0`.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from model_signing.errors import Error

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description"}


def load(name: str) -> dict[str, Any]:
    """The schema `slsa_for_models/schemas/NAME`."""
    file = resources.files("slsa_for_models").joinpath("schemas").joinpath(name)
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema


def check(value: object, schema: dict[str, Any], refusal: type[Error], what: str) -> None:
    """Checks a JSON value against a schema.

    Args:
        value: As parsed from JSON.
        schema: A whole schema, as `load` returns it.
        refusal: The error class to raise.
        what: What the value is, for messages: "The training record".

    Raises:
        Error: As `refusal`, with the JSON path of the first thing that does not fit.
    """
    problem = _problem(value, schema, schema, "$")
    if problem:
        where, expected = problem
        raise refusal(f"{what} does not follow its schema", where=where, expected=expected)


def _problem(
    value: Any,  # noqa: ANN401 - JSON is untyped
    schema: dict[str, Any],
    root: dict[str, Any],
    where: str,
) -> tuple[str, str] | None:
    """Where `value` first departs from `schema`, and what was expected there."""
    for keyword, argument in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword == "$ref":
            target = root["$defs"][argument.removeprefix("#/$defs/")]
            if problem := _problem(value, target, root, where):
                return problem
        elif keyword == "anyOf":
            problems = [_problem(value, option, root, where) for option in argument]
            if all(problems):
                return problems[0]
        elif keyword == "not":
            if _problem(value, argument, root, where) is None:
                return where, f"not {json.dumps(argument)}"
        elif keyword == "propertyNames":
            for name in value if isinstance(value, dict) else ():
                if problem := _problem(name, argument, root, where):
                    return problem
        elif keyword in ("properties", "additionalProperties", "items"):
            for name, child, child_schema in _children(value, schema, keyword):
                if child_schema is False:
                    return f"{where}.{name}"[:200], "no such field"
                if problem := _problem(child, child_schema, root, f"{where}.{name}"[:200]):
                    return problem
        elif not _CHECKS[keyword](value, argument):
            return where, f"{keyword} {json.dumps(argument)}"
    return None


def _children(
    value: Any,  # noqa: ANN401 - JSON is untyped
    schema: dict[str, Any],
    keyword: str,
) -> list[tuple[str, Any, Any]]:
    """The members of an object or array that the keyword speaks of, each with its schema."""
    if keyword == "items" and isinstance(value, list):
        return [(str(index), child, schema["items"]) for index, child in enumerate(value)]
    if not isinstance(value, dict) or keyword == "items":
        return []
    known = schema.get("properties", {})
    if keyword == "properties":
        return [(name, value[name], child) for name, child in known.items() if name in value]
    return [
        (name, child, schema["additionalProperties"])
        for name, child in value.items()
        if name not in known
    ]


def _is_type(value: object, names: str | list[str]) -> bool:
    types = [name for name, kinds in _TYPES.items() if isinstance(value, kinds)]
    if isinstance(value, bool):  # a subclass of int in Python, not in JSON
        types = ["boolean"]
    return not set(types).isdisjoint([names] if isinstance(names, str) else names)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_CHECKS: dict[str, Any] = {
    "type": _is_type,
    "const": lambda value, wanted: value == wanted and type(value) is type(wanted),
    "enum": lambda value, wanted: value in wanted and not isinstance(value, bool),
    # Anywhere in the text, as others read it: what is meant as a whole has anchors in the schema.
    "pattern": lambda value, regex: not isinstance(value, str) or re.search(regex, value),
    "minLength": lambda value, least: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda value, most: not isinstance(value, str) or len(value) <= most,
    "minimum": lambda value, least: not _is_number(value) or value >= least,
    "maximum": lambda value, most: not _is_number(value) or value <= most,
    "maxItems": lambda value, most: not isinstance(value, list) or len(value) <= most,
    "maxProperties": lambda value, most: not isinstance(value, dict) or len(value) <= most,
    "required": lambda value, names: (
        not isinstance(value, dict) or all(name in value for name in names)
    ),
}
