"""The types that the fields of a predicate have: a field of another type is refused.

A field may be absent, or null as protobuf's JSON says it; one that is not specified is ignored.
Other verifiers refuse a predicate for a type alone, and two readers of one must not differ.

Sources: SLSA provenance v0.2 and v1, SLSA verification summary v1, in-toto ResourceDescriptor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from model_signing.errors import Error
from slsa_for_models.evidence import statement_names
from slsa_for_models.evidence.provenance import PREDICATE_V02, PREDICATE_V1

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def moment(value: object) -> datetime | None:
    """A time as RFC 3339 writes it, to the second; None for anything else."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    try:
        return datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")) if match else None
    except ValueError:  # the 30th of February
        return None


# A type is a name below, {field: type} for an object, {"*": type} for one with any names,
# and [type] for a list.
_Type = str | dict[str, Any] | list[Any]

_NAMED: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "JSON object": lambda value: isinstance(value, dict),
    "time (RFC 3339)": lambda value: moment(value) is not None,
}
_TIME_TYPE, _FLAG = "time (RFC 3339)", "true or false"
_DIGESTS: _Type = {"*": "text"}
_RESOURCE: _Type = {
    **dict.fromkeys(("uri", "name", "downloadLocation", "mediaType", "content"), "text"),
    "digest": _DIGESTS,
    "annotations": "JSON object",
}
_VERSIONED: dict[str, Any] = {"id": "text", "version": {"*": "text"}}

_PREDICATES: dict[str, _Type] = {
    PREDICATE_V1: {
        "buildDefinition": {
            "buildType": "text",
            "externalParameters": "JSON object",
            "internalParameters": "JSON object",
            "resolvedDependencies": [_RESOURCE],
        },
        "runDetails": {
            "builder": {**_VERSIONED, "builderDependencies": [_RESOURCE]},
            "metadata": {
                "invocationId": "text",
                "startedOn": _TIME_TYPE,
                "finishedOn": _TIME_TYPE,
            },
            "byproducts": [_RESOURCE],
        },
    },
    PREDICATE_V02: {
        "builder": {"id": "text"},
        "buildType": "text",
        "invocation": {
            "configSource": {"uri": "text", "digest": _DIGESTS, "entryPoint": "text"},
        },
        "metadata": {
            "buildInvocationID": "text",
            "buildStartedOn": _TIME_TYPE,
            "buildFinishedOn": _TIME_TYPE,
            "completeness": dict.fromkeys(("parameters", "environment", "materials"), _FLAG),
            "reproducible": _FLAG,
        },
        "materials": [{"uri": "text", "digest": _DIGESTS}],
    },
    statement_names.VSA: {
        "verifier": _VERSIONED,
        "timeVerified": _TIME_TYPE,
        "resourceUri": "text",
        "policy": _RESOURCE,
        "inputAttestations": [_RESOURCE],
        "verificationResult": "text",
        "verifiedLevels": ["text"],
        "dependencyLevels": {"*": "whole number"},
        "slsaVersion": "text",
    },
}


def check(predicate: Mapping[str, object], predicate_type: str, refusal: type[Error]) -> None:
    """Raises `refusal` if a field of the predicate has another type than it is specified with."""
    _check(predicate, _PREDICATES[predicate_type], "predicate", refusal)


def _check(value: Any, expected: _Type, where: str, refusal: type[Error]) -> None:  # noqa: ANN401
    if value is None:
        return
    if isinstance(expected, str):
        if not _NAMED[expected](value):
            _refuse(value, expected, where, refusal)
    elif isinstance(expected, list):
        if not isinstance(value, list):
            _refuse(value, "list", where, refusal)
        for index, item in enumerate(value):
            if item is None:  # only a field can be absent
                _refuse(item, "no null in a list", where, refusal)
            _check(item, expected[0], f"{where}[{index}]", refusal)
    elif not isinstance(value, dict):
        _refuse(value, "JSON object", where, refusal)
    else:
        for name, item in value.items():
            kind = expected.get(name) or expected.get("*")
            if kind is not None:
                _check(item, kind, f"{where}.{name}", refusal)


def _refuse(value: object, expected: str, where: str, refusal: type[Error]) -> None:
    found = ascii(value)[:80]
    raise refusal("a field is of another type", where=where, expected=expected, found=found)
