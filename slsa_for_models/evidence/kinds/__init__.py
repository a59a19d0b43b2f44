"""The kinds of provenance that are known here: one file each, and this registry.

A kind's name is compared nowhere else: who wants to know something of a kind asks its traits.
"""

from __future__ import annotations

from dataclasses import replace

from slsa_for_models.errors import ProvenanceError, UnsupportedError
from slsa_for_models.evidence import predicate_types, provenance, statement
from slsa_for_models.evidence.kinds import github_attestation, slsa_generator, tekton, train
from slsa_for_models.evidence.provenance import Kind, Provenance

KINDS: tuple[Kind, ...] = (slsa_generator.KIND, github_attestation.KIND, train.KIND, tekton.KIND)

_BY_TYPE = {(kind.predicate_type, name): kind for kind in KINDS for name in kind.build_types}


def read(payload: bytes) -> Provenance:
    """Reads an authenticated statement (SLSA v1.2 verifying-artifacts, steps 1.3 and 2).

    Raises:
        PredicateTypeError: A statement, but not of provenance, or a mix of versions.
        UnsupportedError: Provenance of a build type that is not known here, whose parameters
            therefore cannot be judged.
        ParameterError: External parameters that the build type does not define.
        ProvenanceError: Malformed.
    """
    found = statement.read(payload, provenance.VERSIONS)
    predicate_types.check(found.predicate, found.predicate_type, ProvenanceError)
    build_type = provenance.build_type(found)
    kind = _BY_TYPE.get((found.predicate_type, build_type))
    if kind is None:
        raise UnsupportedError(
            "provenance of a build type that is not known here",
            where="buildType",
            expected=", ".join(sorted({known for _, known in _BY_TYPE})),
            found=build_type,
        )
    return replace(kind.read(found), remark=found.remark)
