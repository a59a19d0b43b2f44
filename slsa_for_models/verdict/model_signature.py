"""A. The model's signature, and the model's digests by it (OMS v1.0, 8)."""

from __future__ import annotations

from functools import partial
from hashlib import sha256

from model_signing import api
from model_signing.hashing import Progress
from model_signing.methods import Authenticated
from slsa_for_models.evidence import envelopes, subjects
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.verdict import checks, signers
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Evidence, Signed, logged
from slsa_for_models.verdict.table import OMS, Table, counted

_TITLE = "Model signature"


def examine(
    table: Table, evidence: Evidence, expected: Expectations, progress: Progress | None
) -> tuple[ModelDigests, Signed | None, str | None]:
    """Adds the steps for the signature, if there is one, and hashes the model once.

    Returns:
        The model as hashed; who signed it, if that was accepted; and the SHA-256, hexadecimal, of
        the signature file as it was read.

    Raises:
        FileError: The model or the trust root cannot be read.
    """
    path, digest = evidence.signature, None
    if path is None:
        table.not_checked("signature", _TITLE, OMS, "none was given")
        return subjects.measure(evidence.model, progress), None, None
    signer = expected.signer
    keys = [signer.public_key] if signer and signer.public_key else []

    def authenticate(data: bytes) -> Authenticated:
        nonlocal digest
        digest = sha256(data).hexdigest()
        return envelopes.authenticate_bundle(path.name, data, evidence.trust, keys)

    # OMS 8: the envelope, the statement, the same files with the same bytes.
    verified = table.step(
        path.name,
        _TITLE,
        OMS,
        partial(api.verify, evidence.model, path, authenticate, progress=progress),
        lambda result: (
            f"{counted(result.files, 'file')} as signed{logged(result.authenticated, ', ')}"
        ),
    )
    who = "Who signed the model", f"{OMS}.2"
    if verified is None:
        table.not_checked(path.name, *who, "not looked at: the signature was not accepted")
        return subjects.measure(evidence.model, progress), None, digest

    def signer_and_run() -> tuple[Signed, str]:
        signed = signers.check_model_signer(path.name, verified.authenticated, expected)
        return signed, f"; {checks.check_run(expected, signed.facts)}" if signed.facts else ""

    signed = table.step(path.name, *who, signer_and_run, lambda result: "".join(map(str, result)))
    return subjects.of_verified(evidence.model, verified), signed and signed[0], digest
