"""Base models, recursively (SLSA v1.2 verifying-artifacts, step 3).

A provenance names a base model by the digest of its signed OMS statement. Where the base model's
files are given, it is verified like the model itself, with its own expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from model_signing.errors import BundleError
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle
from model_signing.safe_files import read_bounded
from model_signing.sources import AnyPath, Source, can_attach, is_address, open_source
from slsa_for_models.errors import LineageError
from slsa_for_models.evidence import beside, envelopes
from slsa_for_models.evidence.statement_names import BASE_MODEL
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import (
    NO_PROVENANCE,
    Evidence,
    Verdict,
    builders_word,
    claimed_by,
    dependencies,
)
from slsa_for_models.verdict.table import SLSA, Table

CLAUSE = f"{SLSA}, 3"


@dataclass(frozen=True)
class BaseModel:
    """A model that another one starts from, with its evidence.

    Attributes:
        model: A file or a directory, or where else it lies.
        signature: Its OMS signature, or its address; None: what lies with a model elsewhere.
        provenance: Its provenance files, or their addresses; with none, what is attached to a model
            in a registry.
        expected: What is expected of it; by default the same as of the model.
    """

    model: AnyPath | Source
    signature: AnyPath | None
    provenance: tuple[AnyPath, ...]
    expected: Expectations | None = None

    @classmethod
    def beside(cls, model: AnyPath, expected: Expectations | None = None) -> BaseModel:
        """A base model with the files beside it that have the names our workflow gives.

        `MODEL.sig`, and provenance by the names in `beside.PROVENANCE`; of a model at an address,
        what its place keeps with it.

        Raises:
            LineageError: It has no signature, or no provenance.
        """
        if isinstance(model, str) and is_address(model):
            return cls(model, None, (), expected)
        path = Path(model)
        signature, found = beside.find(path)
        if signature is None or not found:
            signatures, provenance = map(" or ".join, beside.names(path))
            raise LineageError(
                "a base model's evidence is not beside it",
                where=str(path),
                expected=f"{signatures}, and {provenance}",
            )
        return cls(path, signature, found, expected)


class Given(NamedTuple):
    """A base model's evidence, at hand, and what is expected of it, if that is its own."""

    evidence: Evidence
    expected: Expectations | None

    def policies(self, expected: Expectations) -> tuple[Expectations, ...]:
        """One of these has to accept it; `expected` is of the model that starts from it."""
        alike = replace(expected, resource_uri=None)  # another model has another one
        return (self.expected,) if self.expected else expected.base_policies or (alike,)


@contextmanager
def at_hand(bases: Iterable[BaseModel], trust: SigstoreTrust) -> Iterator[dict[str, Given]]:
    """SHA-256 of the OMS statement in each signature file, hexadecimal -> the base model.

    Nothing is verified yet: the digest only chooses the evidence.

    Raises:
        FileError, BundleError: There is no well-formed signature.
        LineageError: Two are the same model; or no signature lies with one.
    """
    with ExitStack() as stack:
        given: dict[str, Given] = {}
        for base in bases:
            source = open_source(base.model)
            found = stack.enter_context(beside.fetched(source, base.signature, look=True))
            provenance = stack.enter_context(beside.at_hand(*base.provenance))
            if not provenance and can_attach(source):
                attached = beside.attached(source, provenance=True, vsa=False)
                provenance = stack.enter_context(attached).provenance
            if found.path is None:
                raise LineageError("no signature lies with a base model", where=str(source))
            evidence = Evidence(source, provenance, found.path, inside=found.inside, trust=trust)
            one = Given(evidence, base.expected)
            for digest in _statements(found.path):
                if given.setdefault(digest, one) is not one:
                    fix = "give each --base-model once"
                    raise LineageError("two base models are the same", fix=fix)
        yield given


def _statements(signature: Path) -> Iterator[str]:
    """SHA-256 of what each signature in a file is about, hexadecimal.

    Raises:
        FileError, BundleError: It cannot be read, or is no signature.
    """
    several = envelopes.several(signature)
    for item in several:
        with suppress(BundleError):  # another kind of evidence; a signature is verified later
            yield sha256(bundle.parse(item.data).payload).hexdigest()
    if not several:
        yield sha256(bundle.parse(read_bounded(signature)).payload).hexdigest()


def verify_all(
    table: Table,
    verdict: Verdict,
    given: Mapping[str, Given],
    verify: Callable[[Given], Verdict],
    *,
    required: bool,
) -> dict[str, Verdict]:
    """Adds the steps of every base model that is named, and of the base models' own.

    Args:
        table: Where the steps go, after those of the model itself.
        verdict: The model's own.
        given: From `at_hand`.
        verify: Gives a base model's own verdict, its base models left aside.
        required: Whether a base model that is named has to be given.

    Returns:
        The verdict of each that is named and given, by its digest.
    """
    found: dict[str, Verdict] = {}

    def descend(child: Verdict, path: tuple[str | None, ...]) -> None:
        for digest in child.named_base_models:
            name = f"base model {digest[:12]}" if digest else BASE_MODEL
            refusal = _refusal(digest, path, given=not required or digest in given)
            if refusal is not None:
                title = "Lineage" if digest in path else "Base model"
                table.refused(name, title, CLAUSE, refusal)
            elif digest not in given:
                why = f"its files were not given{_claimed(child, digest)}"
                table.not_checked(name, "Base model", CLAUSE, why)
            elif digest not in found:
                table.note(name, "Named", CLAUSE, f"{digest}{_claimed(child, digest)}")
                found[digest] = verify(given[digest])
                _add(table, found[digest], digest)
                descend(found[digest], (*path, digest))

    descend(verdict, (verdict.model.payload_sha256 if verdict.signer else None,))
    for digest in (one for one in given if one not in found):
        name = given[digest].evidence.model.name
        if not verdict.accepted and verdict.refusal:
            table.not_checked(name, "Base model", CLAUSE, f"not checked: {NO_PROVENANCE}")
        else:
            message = "no accepted provenance names this base model"
            error = LineageError(message, where=name, found=digest)
            table.refused(name, "Base model", CLAUSE, error)
    return found


def _add(table: Table, verdict: Verdict, digest: str) -> None:
    name, payload = verdict.model.name, verdict.model.payload_sha256
    # The digest chose the evidence before it was verified: it must still be its own.
    if verdict.signer is not None and payload != digest:
        error = LineageError(
            "the base model's signature changed while it was verified",
            where=name,
            expected=digest,
            found=payload,
            fix="wait until nothing writes to it, then try again",
        )
        table.refused(name, "Base model", CLAUSE, error)
    table.steps += [replace(step, subject=f"{name}: {step.subject}") for step in verdict.steps]


def _claimed(child: Verdict, digest: str) -> str:
    """Whose word it is that training started from it: the builder's, or whom it passes on."""
    named = [
        (one, item)
        for item in child.accepted
        for one in dependencies([item], BASE_MODEL)
        if one.sha256 == digest
    ]
    if claims := claimed_by(one for one, _ in named):
        return claims
    trained = (item for _, item in named if item.provenance.kind.trains)
    says = (f", verified before the command started{builders_word(item)}" for item in trained)
    return next(says, "")


def _refusal(digest: str, path: tuple[str | None, ...], *, given: bool) -> LineageError | None:
    """Why a base model that is named cannot be accepted, whatever its files say; or None."""
    if not digest:
        return LineageError(
            "a base model is named without a SHA-256, so that none can be compared with it",
            where=f"resolvedDependencies, {BASE_MODEL}",
            expected="the SHA-256 of its OMS statement",
            found="other digests, or none",
        )
    if digest in path:
        return LineageError(
            "a model is named as its own ancestor",
            where="resolvedDependencies",
            expected="base models that came before",
            found=digest,
        )
    if not given:
        return LineageError(
            "a base model has to be verified, and its files were not given",
            expected=digest,
            found="nothing",
            fix="give it with --base-model",
        )
    return None
