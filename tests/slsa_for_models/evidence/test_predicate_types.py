"""Fields of a predicate have the types of their specification."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from slsa_for_models.errors import ProvenanceError, SummaryError
from slsa_for_models.evidence import predicate_types, statement_names
from slsa_for_models.evidence.provenance import PREDICATE_V02, PREDICATE_V1
from tests.support.crafted import SOURCE, Json, Workshop, generator_statement, refusals

RESOURCE = {
    "uri": "git+https://example.test/a",
    "digest": {"sha256": "a" * 64},
    "name": "a",
    "downloadLocation": "https://example.test/a",
    "mediaType": "text/plain",
    "content": "YQ==",
    "annotations": {"any": 1},
}
TIME = "2026-11-28T12:00:00.5+01:00"
BUILDER = {"id": "https://example.test/builder", "version": {"x": "1"}}
# Every field that the specifications have.
GOOD: dict[str, Json] = {
    PREDICATE_V1: {
        "buildDefinition": {
            "buildType": "https://example.test/type",
            "externalParameters": {"any": [1]},
            "internalParameters": {},
            "resolvedDependencies": [RESOURCE],
        },
        "runDetails": {
            "builder": {**BUILDER, "builderDependencies": [RESOURCE]},
            "metadata": {"invocationId": "1", "startedOn": TIME, "finishedOn": TIME},
            "byproducts": [RESOURCE],
        },
    },
    PREDICATE_V02: {
        "builder": {"id": "https://example.test/builder"},
        "buildType": "https://example.test/type",
        "invocation": {
            "configSource": {"uri": "u", "digest": {"sha1": "a"}, "entryPoint": "e"},
            "parameters": 1,
            "environment": 2,
        },
        "buildConfig": [],
        "metadata": {
            "buildInvocationID": "1",
            "buildStartedOn": TIME,
            "buildFinishedOn": TIME,
            "completeness": {"parameters": True, "environment": False, "materials": True},
            "reproducible": False,
        },
        "materials": [{"uri": "u", "digest": {"sha1": "a"}}],
    },
    statement_names.VSA: {
        "verifier": BUILDER,
        "timeVerified": TIME,
        "resourceUri": "https://example.test/model",
        "policy": RESOURCE,
        "inputAttestations": [RESOURCE],
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_3"],
        "dependencyLevels": {"SLSA_BUILD_LEVEL_3": 5},
        "slsaVersion": "1.2",
    },
}
FREE = ("externalParameters", "internalParameters", "annotations", "parameters", "environment")


def places(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """The paths of everything whose type is specified."""
    found = [path] if path else []
    if isinstance(value, dict) and not (path and path[-1] in FREE):
        for name, item in value.items():
            if name != "buildConfig" and not (path == ("invocation",) and name in FREE):
                found += places(item, *path, name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(item, *path, index)
    return found


CASES = [(kind, path) for kind, good in GOOD.items() for path in places(good)]


def put(document: Json, path: tuple[Any, ...], value: object) -> Json:
    changed = json.loads(json.dumps(document))  # parts that are one object become several
    inner: Any = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("kind", GOOD)
def test_every_field_of_its_type(kind: str) -> None:
    predicate_types.check(GOOD[kind], kind, ProvenanceError)
    predicate_types.check({**GOOD[kind], "later": [{}]}, kind, ProvenanceError)
    for name in GOOD[kind]:
        predicate_types.check({**GOOD[kind], name: None}, kind, ProvenanceError)


@pytest.mark.parametrize(("kind", "path"), CASES)
def test_every_field_of_another_type(kind: str, path: tuple[Any, ...]) -> None:
    good: Any = GOOD[kind]
    for name in path:
        good = good[name]
    for value in (7, 7.5, "x", True, [], ["x"], [[]], {}, {"x": 1}):
        same = type(value) is type(good) and not isinstance(value, list | dict)
        if (same and good != TIME) or (value in ([], {}) and isinstance(good, type(value))):
            continue
        if isinstance(good, dict) and isinstance(value, dict):
            continue  # the fields in it are cases of their own
        if good == ["SLSA_BUILD_LEVEL_3"] and value == ["x"]:
            continue
        with pytest.raises(SummaryError) as refusal:
            predicate_types.check(put(GOOD[kind], path, value), kind, SummaryError)
        assert refusal.value.message == "a field is of another type"
        assert str(path[0]) in (refusal.value.where or "")
        assert refusal.value.expected


@pytest.mark.parametrize(
    "time", ["2026-11-28", "2026-11-28 12:00:00Z", "2026-02-30T00:00:00Z", "2026-11-28T12:00:00"]
)
def test_times_are_those_of_rfc_3339(time: str) -> None:
    for kind, path in (
        (statement_names.VSA, ("timeVerified",)),
        (PREDICATE_V1, ("runDetails", "metadata", "startedOn")),
    ):
        with pytest.raises(ProvenanceError):
            predicate_types.check(put(GOOD[kind], path, time), kind, ProvenanceError)


def test_provenance_of_a_builder(workshop: Workshop) -> None:
    model = workshop.model()
    good = generator_statement(model)
    for field, value in (("buildStartedOn", 5), ("reproducible", "no"), ("completeness", [])):
        made = copy.deepcopy(good)
        made["predicate"]["metadata"][field] = value
        path = workshop.generator_provenance(model, made)
        code, verdict = workshop.verify(model, "--provenance", path, "--source-uri", SOURCE)
        assert (code, refusals(verdict)[0]) == (1, "ProvenanceError")
