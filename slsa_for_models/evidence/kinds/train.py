"""Provenance of a training by our own workflow: docs/buildtypes/train-v1.md (SLSA v1)."""

from __future__ import annotations

from dataclasses import replace

from slsa_for_models.evidence import statement_names
from slsa_for_models.evidence.kinds import github_attestation
from slsa_for_models.evidence.provenance import PREDICATE_V1, Kind, Provenance, claims_of
from slsa_for_models.evidence.statement import Statement, as_text, object_at, resources_at

BUILD_TYPE = "https://model-transparency.dev/buildtypes/train/v1"

_CLAIMS = {
    **github_attestation.CLAIMS,
    "buildDefinition.resolvedDependencies.1.uri": "builder source at ref",
    "buildDefinition.resolvedDependencies.1.digest.gitCommit": "builder commit",
}


def _read(statement: Statement) -> Provenance:
    """GitHub's build type plus `inputs`, a second dependency and a record (docs/buildtypes)."""
    predicate = statement.predicate
    external = dict(object_at(predicate, "buildDefinition.externalParameters"))
    inputs = object_at(external, "inputs")
    del external["inputs"]
    definition = {**predicate["buildDefinition"], "externalParameters": external}
    like_github = replace(statement, predicate={**predicate, "buildDefinition": definition})
    by_products = resources_at(object_at(predicate, "runDetails"), "byproducts")
    records = (item for item in by_products if item.name == statement_names.RECORD)
    return replace(
        github_attestation.read(like_github),
        kind=KIND,
        inputs=as_text(inputs),
        claims=claims_of(predicate, _CLAIMS, github_attestation.OPTIONAL_CLAIMS),
        record=next(records, None),
    )


KIND = Kind(
    name="train",
    build_types=(BUILD_TYPE,),
    predicate_type=PREDICATE_V1,
    read=_read,
    trains=True,
)
