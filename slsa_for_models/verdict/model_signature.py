"""A. The model's signature, and the model's digests by it (OMS v1.0, 8)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from functools import partial
from hashlib import sha256

from model_signing import api
from model_signing.api import Verified
from model_signing.comparison import some
from model_signing.errors import BundleError
from model_signing.hashing import Means
from model_signing.methods import Authenticated, Verifier
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import statement
from model_signing.oms.names import GIT_PATHS, HUB_PATH
from model_signing.sources import Source
from model_signing.sources.local import LocalSource
from slsa_for_models.evidence import envelopes, subjects
from slsa_for_models.evidence.envelopes import Attestation
from slsa_for_models.evidence.statement import value_at
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.verdict import checks, signers
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Evidence, Signed, logged
from slsa_for_models.verdict.table import OMS, Step, T, Table, counted

_TITLE = "Model signature"
_WHO = ("Who signed the model", f"{OMS}.2")
_MOST_STATEMENTS = 10


def examine(
    table: Table, evidence: Evidence, expected: Expectations, means: Means
) -> tuple[ModelDigests, tuple[Signed, ...], str | None]:
    """Adds the steps for the signature, if there is one, and hashes the model once.

    A file may hold several signatures, among other attestations (`claims.jsonl`): those of one
    model whose signers are accepted are all returned, for the rest of the evidence to decide; who
    is chosen is for `show`.

    Returns:
        The model as hashed; who signed it, as far as that was accepted; and the SHA-256,
        hexadecimal, of the signature file as it was read.

    Raises:
        FileError: The model or the trust root cannot be read.
    """
    path, digest = evidence.signature, None
    if path is None:
        table.not_checked("signature", _TITLE, OMS, "none was given")
        _note_excused(table, evidence.model, {HUB_PATH})
        return subjects.measure(evidence.model, means, evidence.copy), (), None
    signer = expected.signer
    keys = [signer.public_key] if signer and signer.public_key else []
    held: list[tuple[str, Authenticated]] = []
    several = envelopes.several(path)

    def check() -> Verified:
        nonlocal digest
        if not several:
            return _verified(evidence, means, alone)
        digest = several[0].file_sha256
        held.extend(_signatures(several, evidence, expected, keys))
        return _first_that_verifies(evidence, means, [one for _, one in held])

    def alone(data: bytes) -> Authenticated:
        nonlocal digest
        digest = sha256(data).hexdigest()
        held[:] = [
            (path.name, envelopes.authenticate_bundle(path.name, data, evidence.trust, keys))
        ]
        return held[0][1]

    # OMS 8: the envelope, the statement, the same files with the same bytes.
    verified = table.step(
        path.name,
        _TITLE,
        OMS,
        check,
        lambda result: (
            f"{counted(result.files, 'file')} as signed{logged(result.authenticated, ', ')}"
        ),
    )
    if verified is None:
        table.not_checked(path.name, *_WHO, "not looked at: the signature was not accepted")
        return subjects.measure(evidence.model, means), (), digest
    excused = {*verified.manifest.serialization.ignore_paths, *verified.unsigned}
    _note_excused(table, evidence.model, excused)
    payload = verified.authenticated.payload
    about_it, tried = [one for one in held if one[1].payload == payload], Table()
    accepted = tuple(who for one in about_it if (who := _may_sign(tried, *one, expected)))
    table.steps += [] if accepted else tried.steps[:1]
    return subjects.of_verified(evidence.model, verified, evidence.copy), accepted, digest


def _note_excused(table: Table, model: Source, excused: Set[str]) -> None:
    """What lies in the model and is no part of it: nobody vouches for that."""
    if not isinstance(model, LocalSource):
        return  # what is excused there is not asked for once more
    names = sorted({*GIT_PATHS, *excused})
    there = [name for name in names if os.path.lexists(f"{model.path}/{name}")]
    if there:
        what = (
            f"{counted(len(there), 'path')} in the folder that no signature covers: {some(there)}"
        )
        table.note(model.name, "Not part of it", "OMS v1.0, 6.2", what)


def show(
    table: Table, signers: Sequence[Signed], chosen: Signed | None, expected: Expectations
) -> None:
    """Adds who signed the model, of those who may have."""
    if chosen is not None:
        run = checks.check_run(expected, chosen.facts) if chosen.facts else ""
        said = f"{chosen}; {run}" if run else str(chosen)
        table.steps.append(Step(chosen.label, *_WHO, "passed", said))
    for other in signers:
        if other is not chosen:
            table.not_checked(other.label, "Other signature", OMS, "not relied on: it holds, too")


def _signatures(
    several: Sequence[Attestation],
    evidence: Evidence,
    expected: Expectations,
    keys: Sequence[bytes],
) -> list[tuple[str, Authenticated]]:
    """The model signatures among them that hold: of those who may sign, or else the first.

    Raises:
        Error: Why it does not; or that there is none.
    """
    tried, trust = Table(), evidence.trust
    said: list[tuple[Attestation, Authenticated]] = []
    for item in several:
        one = _try(tried, partial(_of_a_model, item, trust, keys))
        said += [] if one is None else [(item, one)]
    likely = [item for item, one in said if _may_sign(Table(), item.label, one, expected)]
    found: list[tuple[str, Authenticated]] = []
    for item in likely or [item for item, _ in said[:1]]:
        one = _try(tried, partial(envelopes.authenticate, item, trust, keys))
        found += [] if one is None else [(item.label, one)]
    if not found:
        raise tried.refusal or BundleError(
            "no signature of a model is among the attestations",
            expected=statement.PREDICATE_TYPE,
            fix="name the file that signs the model with --signature",
        )
    return found


def _of_a_model(
    item: Attestation, trust: SigstoreTrust, keys: Sequence[bytes]
) -> Authenticated | None:
    """Who says that they signed a model; None where it is other evidence."""
    one = envelopes.claimed(item, trust, keys)
    said = statement.read(one.payload, BundleError, "the payload")
    return one if value_at(said, "predicateType") == statement.PREDICATE_TYPE else None


def _try(table: Table, check: Callable[[], T]) -> T | None:
    """What a check returns; None where it refuses, as one of several may."""
    return table.step("", _TITLE, OMS, check, lambda _: "")


def _may_sign(
    table: Table, label: str, one: Authenticated, expected: Expectations
) -> Signed | None:
    """Who signed, if they may; else the table has why not."""

    def check() -> Signed:
        signed = signers.check_model_signer(label, one, expected)
        if signed.facts:
            checks.check_run(expected, signed.facts)
        return signed

    return table.step(label, *_WHO, check)


def _first_that_verifies(
    evidence: Evidence, means: Means, held: Sequence[Authenticated]
) -> Verified:
    """Each different statement needs the model to be hashed: only so many are tried."""
    different, tried = {one.payload: one for one in reversed(held)}, Table()
    for one in [one for one in held if different[one.payload] is one][:_MOST_STATEMENTS]:
        verified = _try(tried, partial(_verified, evidence, means, partial(_already, one)))
        if verified is not None:
            return verified
    raise tried.refusal or BundleError("no signature of a model")


def _already(authenticated: Authenticated, _: bytes) -> Authenticated:
    return authenticated


def _verified(evidence: Evidence, means: Means, authenticate: Verifier) -> Verified:
    return api.verify(
        evidence.model,
        evidence.signature or "",
        authenticate,
        **means._asdict(),
        ignore_paths=evidence.inside,
        copy_to=evidence.copy,
    )
