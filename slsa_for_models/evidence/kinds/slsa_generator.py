"""Provenance by slsa-github-generator v2.1.0, generic generator (SLSA v0.2)."""

from __future__ import annotations

from collections.abc import Mapping

from slsa_for_models.evidence.provenance import (
    PREDICATE_V02,
    Kind,
    Provenance,
    build_type,
    claims_of,
    split_source,
)
from slsa_for_models.evidence.statement import (
    Json,
    Statement,
    as_text,
    object_at,
    refuse_unknown,
    resources_at,
    text_at,
    value_at,
)

REPOSITORY = "https://github.com/slsa-framework/slsa-github-generator/"
BUILDER_ID = f"{REPOSITORY}.github/workflows/generator_generic_slsa3.yml"

_CLAIMS = {
    "builder.id": "builder",
    "metadata.buildInvocationID": "run-attempt",
    "invocation.configSource.uri": "source at ref",
    "invocation.configSource.digest.sha1": "commit",
    "invocation.configSource.entryPoint": "workflow path",
    "invocation.environment.github_run_id": "run",
    "invocation.environment.github_run_attempt": "attempt",
    "invocation.environment.github_event_name": "event",
    "invocation.environment.github_ref": "ref",
    "invocation.environment.github_sha1": "commit",
    "materials.0.uri": "source at ref",
    "materials.0.digest.sha1": "commit",
}
_OPTIONAL_CLAIMS = {
    "invocation.environment.github_repository_owner": "owner",
    "invocation.environment.github_repository_id": "repository id",
    "invocation.environment.github_repository_owner_id": "owner id",
}


def _read(statement: Statement) -> Provenance:
    predicate = statement.predicate
    parameters = object_at(predicate, "invocation").get("parameters") or {}
    refuse_unknown(parameters, {"event_inputs", "vars"}, "invocation.parameters")
    environment = object_at(predicate, "invocation.environment")
    claims = claims_of(predicate, _CLAIMS, _OPTIONAL_CLAIMS)
    where = "invocation.configSource.uri"
    source_uri, _ = split_source(text_at(predicate, where), where)
    text_at(environment, "github_ref_type")
    return Provenance(
        kind=KIND,
        build_type=build_type(statement),
        subjects=statement.subjects,
        builder_id=text_at(predicate, "builder.id"),
        source_uri=source_uri,
        source_commit=text_at(predicate, "invocation.configSource.digest.sha1"),
        # As certified; slsa-verifier takes a tag's branch from the payload, which nobody certifies.
        ref=text_at(environment, "github_ref"),
        inputs=_inputs(environment),
        claims=claims,
        dependencies=resources_at(predicate, "materials"),
        invocation=text_at(predicate, "metadata.buildInvocationID"),
    )


def _inputs(environment: Json) -> Mapping[str, str]:
    """The inputs of a dispatched workflow; other events carry none (as in slsa-verifier)."""
    if environment["github_event_name"] != "workflow_dispatch":
        return {}
    inputs = value_at(environment, "github_event_payload.inputs")
    return as_text(inputs if isinstance(inputs, dict) else {})


KIND = Kind(
    name="slsa-github-generator",
    build_types=("https://github.com/slsa-framework/slsa-github-generator/generic@v1",),
    predicate_type=PREDICATE_V02,
    read=_read,
    only_builder=BUILDER_ID,
)
