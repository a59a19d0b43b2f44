"""GitHub artifact attestations: GitHub's workflow build type v1 (SLSA v1).

Under its older name, which npm still writes, the builder is only the kind of runner: which workflow
ran on it stands in the certificate alone.
"""

from __future__ import annotations

from slsa_for_models.evidence.provenance import (
    PREDICATE_V1,
    Kind,
    Provenance,
    build_type,
    claims_of,
    split_source,
)
from slsa_for_models.evidence.statement import (
    Statement,
    object_at,
    refuse_unknown,
    resources_at,
    text_at,
)

CLAIMS = {
    "runDetails.builder.id": "builder",
    "runDetails.metadata.invocationId": "invocation",
    "buildDefinition.externalParameters.workflow.repository": "repository",
    "buildDefinition.externalParameters.workflow.ref": "ref",
    "buildDefinition.externalParameters.workflow.path": "workflow path",
    "buildDefinition.resolvedDependencies.0.uri": "source at ref",
    "buildDefinition.resolvedDependencies.0.digest.gitCommit": "commit",
}
_OLDER = "https://slsa-framework.github.io/github-actions-buildtypes/workflow/v1"
_RUNNER = "https://github.com/actions/runner/"

OPTIONAL_CLAIMS = {
    "buildDefinition.internalParameters.github.event_name": "event",
    "buildDefinition.internalParameters.github.repository_id": "repository id",
    "buildDefinition.internalParameters.github.repository_owner_id": "owner id",
    "buildDefinition.internalParameters.github.runner_environment": "runner",
}


def read(statement: Statement) -> Provenance:
    """Reads provenance of GitHub's build type; ours is one more of that form.

    Raises:
        ParameterError: External parameters that the build type does not define.
        ProvenanceError: Malformed.
    """
    predicate = statement.predicate
    external = object_at(predicate, "buildDefinition.externalParameters")
    refuse_unknown(external, {"workflow"}, "externalParameters")
    workflow = object_at(external, "workflow")
    refuse_unknown(workflow, {"ref", "repository", "path"}, "externalParameters.workflow")

    builder_id, confirmed = text_at(predicate, "runDetails.builder.id"), CLAIMS
    if build_type(statement) == _OLDER and builder_id.startswith(_RUNNER):
        builder_id, confirmed = "", {**CLAIMS, "runDetails.builder.id": "runner as builder"}
    claims = claims_of(predicate, confirmed, OPTIONAL_CLAIMS)
    dependencies = resources_at(object_at(predicate, "buildDefinition"), "resolvedDependencies")
    source_uri, ref = split_source(dependencies[0].uri, "resolvedDependencies[0].uri")
    return Provenance(
        kind=KIND,
        build_type=build_type(statement),
        subjects=statement.subjects,
        builder_id=builder_id,
        source_uri=source_uri,
        source_commit=dependencies[0].commit or "",
        ref=ref,
        inputs={},
        claims=claims,
        dependencies=dependencies,
        invocation=text_at(predicate, "runDetails.metadata.invocationId"),
    )


KIND = Kind(
    name="github-attestation",
    build_types=("https://actions.github.io/buildtypes/workflow/v1", _OLDER),
    predicate_type=PREDICATE_V1,
    read=read,
)
