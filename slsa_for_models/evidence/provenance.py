"""What a provenance says, in the words that all kinds share; and what a kind is.

Nothing here decides about trust; the folder `verdict` does.

Sources: SLSA Provenance v0.2 and v1 (SLSA v1.2, build-provenance).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slsa_for_models.errors import PredicateTypeError, ProvenanceError
from slsa_for_models.evidence.statement import (
    STATEMENT_V01,
    STATEMENT_V1,
    Json,
    Resource,
    Statement,
    text_at,
    value_at,
)

PREDICATE_V02 = "https://slsa.dev/provenance/v0.2"
PREDICATE_V1 = "https://slsa.dev/provenance/v1"
VERSIONS = {PREDICATE_V02: STATEMENT_V01, PREDICATE_V1: STATEMENT_V1}
"""A predicate's type -> the type of the statement it is used with."""


@dataclass(frozen=True)
class Kind:
    """A kind of provenance: how it is read, and what is true of all of that kind.

    Attributes:
        name: As in a policy's `require.evidence`.
        build_types: The buildType URIs it goes by.
        predicate_type: `PREDICATE_V02` or `PREDICATE_V1`.
        read: Reads a statement of one of its build types; see `kinds.read`.
        signed_by_github_workflow: Its signer is a GitHub workflow, whose certificate confirms it;
            else the key or identity of a builder.
        runs_a_pipeline: It says which pipeline its builder ran (Tekton).
        trains: It is of a training, so that its level depends on the runner it records.
        only_builder: The id of the one builder that makes it, and makes no other kind.
    """

    name: str
    build_types: tuple[str, ...]
    predicate_type: str
    read: Callable[[Statement], Provenance]
    signed_by_github_workflow: bool = True
    runs_a_pipeline: bool = False
    trains: bool = False
    only_builder: str | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Claim:
    """One field of the predicate that the signing certificate has to confirm.

    Attributes:
        field: Where it stands in the predicate.
        value: What stands there.
        certified: The name of the certified fact it has to equal; see `claims.certified_facts`.
    """

    field: str
    value: str
    certified: str


@dataclass(frozen=True)
class Provenance:
    """What a provenance says, in the words that all kinds share.

    Attributes:
        kind: Its kind.
        build_type: Its buildType URI.
        subjects: What was built.
        builder_id: Who says it built it; "" where only the certificate says which workflow did.
        source_uri: `git+https://HOST/ORG/REPO`, without a git reference.
        source_commit: The commit, hexadecimal.
        ref: The source's full git reference, or None where the provenance names none.
        inputs: The parameters the caller chose, as text.
        claims: What the certificate has to confirm.
        dependencies: `resolvedDependencies`, or the materials of v0.2.
        invocation: The run, as the builder names it.
        record: The training record among the by-products, if any.
        signature: The model's signature file among them, if any.
        remark: As `Statement.remark`.
        pipeline: Tekton: what ran, `URI@ALGORITHM:DIGEST#PATH`, as Tekton's resolver fetched it;
            None where it stood in the run itself, written by whoever started it.
    """

    kind: Kind
    build_type: str
    subjects: tuple[Resource, ...]
    builder_id: str
    source_uri: str
    source_commit: str
    ref: str | None
    inputs: Mapping[str, str]
    claims: tuple[Claim, ...]
    dependencies: tuple[Resource, ...]
    invocation: str
    record: Resource | None = None
    signature: Resource | None = None
    pipeline: str | None = None
    remark: str = ""

    @property
    def branch(self) -> str:
        """The branch that the reference is, by its short name; or ""."""
        return _below("refs/heads/", self.ref)

    @property
    def tag(self) -> str:
        """The tag that it is, likewise."""
        return _below("refs/tags/", self.ref)


def _below(prefix: str, ref: str | None) -> str:
    return ref.removeprefix(prefix) if ref and ref.startswith(prefix) else ""


def build_type(statement: Statement) -> str:
    """A provenance's buildType URI, wherever its version has it.

    Raises:
        PredicateTypeError: The predicate is of the other version.
        ProvenanceError: It has none.
    """
    paths = {PREDICATE_V02: "buildType", PREDICATE_V1: "buildDefinition.buildType"}
    mine = paths.pop(statement.predicate_type)
    for other, path in paths.items():
        if value_at(statement.predicate, mine) is None and value_at(statement.predicate, path):
            raise PredicateTypeError(
                "the predicate is of another version than its type says",
                where=mine,
                expected=statement.predicate_type,
                found=f"{path}, as in {other}",
            )
    return text_at(statement.predicate, mine)


def split_source(uri: str, where: str) -> tuple[str, str | None]:
    """`git+https://HOST/PATH@REF` -> (`git+https://HOST/PATH`, `REF` or None).

    Raises:
        ProvenanceError: Another form.
    """
    match = re.fullmatch(r"(git\+https://[^@\s?#]+)(?:@([^@\s]+))?", uri)
    if match is None:
        raise ProvenanceError(
            "this is not a git source", where=where, expected="git+https://...@REF", found=uri
        )
    return match[1], match[2]


def claims_of(
    predicate: Json, required: Mapping[str, str], optional: Mapping[str, str]
) -> tuple[Claim, ...]:
    """What a predicate says that its certificate says, too.

    Args:
        predicate: The predicate.
        required: Path in it -> certified fact.
        optional: The same of what is compared only where it is stated.

    Raises:
        ProvenanceError: A field is not text, or a required one is absent.
    """
    stated = {
        path: name for path, name in optional.items() if value_at(predicate, path) is not None
    }
    return tuple(
        Claim(path, text_at(predicate, path), name) for path, name in {**required, **stated}.items()
    )
