"""A trusted verifier's summary of its verdict (SLSA v1.2 VSA, "How to verify", steps 1 to 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from model_signing.methods import Authenticated
from model_signing.methods.fulcio import certificate_claims
from model_signing.methods.sigstore_trust import SigstoreTrust
from slsa_for_models.errors import SignerError, SummaryError
from slsa_for_models.evidence import claims as certificates
from slsa_for_models.evidence import (
    envelopes,
    predicate_types,
    statement,
    statement_names,
    subjects,
)
from slsa_for_models.evidence.github import GITHUB_ISSUER
from slsa_for_models.evidence.statement import Statement
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.verdict import checks, signers
from slsa_for_models.verdict.expectations import Expectations, SummaryVerifier
from slsa_for_models.verdict.result import Vouched
from slsa_for_models.verdict.table import VSA as CLAUSE
from slsa_for_models.verdict.table import Table

_CLOCKS_DIFFER = timedelta(minutes=5)
_LEVEL = re.compile(r"SLSA_BUILD_LEVEL_([0-3])")
"""Build levels of SLSA v1.2; no other is known."""


def examine_all(
    table: Table,
    paths: Sequence[Path],
    model: ModelDigests,
    expected: Expectations,
    trust: SigstoreTrust,
) -> tuple[Path | None, str | None, Vouched | None]:
    """Adds the steps for the first summary that holds, or else for the first.

    Returns:
        Which it is, if there is any, and what `examine` returns.

    Raises:
        FileError: As `examine`.
    """
    first: tuple[Table, tuple[Path, str | None, None]] | None = None
    for path in paths:
        tried = Table()
        digest, vouched = examine(tried, path, model, expected, trust)
        if vouched is not None:
            table.steps += tried.steps
            return path, digest, vouched
        first = first or (tried, (path, digest, None))
    if first is None:
        return None, None, None
    table.steps += first[0].steps
    return first[1]


def examine(
    table: Table,
    path: Path,
    model: ModelDigests,
    expected: Expectations,
    trust: SigstoreTrust,
) -> tuple[str | None, Vouched | None]:
    """Adds the steps for one summary.

    Returns:
        The SHA-256, hexadecimal, of the file as it was read; and what it vouches for, or None if
        it was refused.

    Raises:
        FileError: The file or the trust root cannot be read.
    """
    keys = [item.public_key for item in expected.verifiers if item.public_key is not None]
    label, digest, own = path.name, None, Table()

    # 1. The signature on the envelope. 3. The predicate type.
    def read() -> tuple[Authenticated, Statement]:
        nonlocal digest
        (attestation,) = _only_one(path)
        digest = attestation.file_sha256
        authenticated = envelopes.authenticate(attestation, trust, keys)
        versions = {statement_names.VSA: statement.STATEMENT_V1}
        said = statement.read(authenticated.payload, versions)
        predicate_types.check(said.predicate, said.predicate_type, SummaryError)
        return authenticated, said

    found = own.step(
        label,
        "Signature and predicate type",
        f"{CLAUSE}, 1 and 3",
        read,
        lambda result: f"{result[0].method}, {statement_names.VSA}",
    )
    if found is None:
        own.not_checked(label, "Everything else", CLAUSE, "the summary cannot be used")
        table.steps += own.steps
        return digest, None
    _, said = found
    if said.remark:
        own.note(label, "Statement", f"{CLAUSE}, 3", f"{said.remark}, as cosign writes it")
    _add_checks(own, label, found, model, expected)
    level = own.step(
        label,
        "Result and level",
        f"{CLAUSE}, 6 and 7",
        partial(check_result, said.predicate),
        lambda result: f"PASSED, Build L{result}",
    )
    table.steps += own.steps
    if level is None or own.any_refused:
        return digest, None
    certificate = found[0].certificate
    event = None if certificate is None else certificate_claims(certificate).build_trigger
    return digest, Vouched(level, event)


def _add_checks(
    own: Table,
    label: str,
    found: tuple[Authenticated, Statement],
    model: ModelDigests,
    expected: Expectations,
) -> None:
    """Adds the steps that say whether the summary is to be believed about this model."""
    authenticated, said = found
    about, predicate = said.subjects, said.predicate

    # 2. The subject. 4. The verifier and its signer. 5. What it vouches for.
    own.step(label, "Subject is this model", f"{CLAUSE}, 2", partial(subjects.check, about, model))
    own.step(
        label,
        "Verifier",
        f"{CLAUSE}, 4",
        partial(check_verifier, predicate, authenticated, expected),
    )
    own.step(
        label, "Resource", f"{CLAUSE}, 5", partial(check_resource, predicate, expected.resource_uri)
    )
    own.step(
        label, "Policy and time", f"{CLAUSE}, schema", partial(check_policy_and_time, predicate)
    )
    if expected.summary_age is not None:
        own.step(label, "Age", "policy, vsa.max_age", partial(check_age, authenticated, expected))


def _only_one(path: Path) -> tuple[envelopes.Attestation, ...]:
    loaded = envelopes.load(path)
    if len(loaded) != 1:
        raise SummaryError(
            "a file of summaries has to hold exactly one",
            where=path.name,
            expected="1",
            found=str(len(loaded)),
        )
    return loaded


def check_verifier(
    predicate: Mapping[str, Any], authenticated: Authenticated, expected: Expectations
) -> str:
    """The verifier is one the policy trusts, and signed as the policy says it does.

    Raises:
        SummaryError: It is not trusted.
        SignerError: Somebody else signed in its name.
    """
    stated = predicate.get("verifier")
    name = stated.get("id") if isinstance(stated, dict) else None
    trusted = next((item for item in expected.verifiers if item.id == name), None)
    if trusted is None:
        raise SummaryError(
            "not a verifier that the policy trusts",
            where="verifier.id",
            expected=", ".join(item.id for item in expected.verifiers) or "none named in a policy",
            found=str(name)[:200],
        )
    _check_signer(authenticated, trusted, expected)
    return trusted.id


def _check_signer(
    authenticated: Authenticated, trusted: SummaryVerifier, expected: Expectations
) -> None:
    if authenticated.certificate is None:
        key = trusted.public_key
        fingerprint = None if key is None else envelopes.fingerprint(key)
        if fingerprint != authenticated.identity:
            raise SignerError(
                "signed with another key than this verifier's",
                where=trusted.id,
                expected=fingerprint or "a keyless signature",
                found=authenticated.identity,
            )
        return
    claims = certificate_claims(authenticated.certificate)
    if trusted.identity is None:
        raise SignerError(
            "signed keyless, but this verifier signs with a key",
            where=trusted.id,
            found=claims.identity,
        )
    signers.check_identity(claims, trusted.identity, trusted.issuer or GITHUB_ISSUER)
    if trusted.source_uri is not None or certificates.is_workflow(claims):
        signers.check_repository(claims, trusted.source_uri, "source_uri of the verifier")
        signers.check_run(claims, expected)
        checks.check_event(expected, claims.build_trigger)


def check_resource(predicate: Mapping[str, Any], expected: str | None) -> str:
    """The summary is about the resource the consumer means.

    Raises:
        SummaryError: It is not, or the consumer did not say.
    """
    found = predicate.get("resourceUri")
    if expected is None or found != expected:
        raise SummaryError(
            "the summary is about another resource",
            where="resourceUri",
            expected=expected or "the URI you fetched the model from (--resource-uri)",
            found=str(found)[:200],
        )
    return expected


def check_policy_and_time(predicate: Mapping[str, Any]) -> str:
    """The summary says by which policy it was decided, and not before it can have been.

    Raises:
        SummaryError: It names no policy or no time (RFC 3339), or one that has not come.
    """
    policy, when = predicate.get("policy"), predicate.get("timeVerified")
    named = policy if isinstance(policy, dict) else {}
    if not (named.get("uri") or named.get("digest")):
        raise SummaryError(
            "the summary does not say by which policy it was decided",
            where="policy",
            expected="a uri or a digest",
            found=str(policy)[:200],
        )
    time = predicate_types.moment(when)
    if time is None or time > datetime.now(timezone.utc) + _CLOCKS_DIFFER:
        raise SummaryError(
            "the summary does not say when it was decided"
            if time is None
            else "the summary is of a time that has not come",
            where="timeVerified",
            expected="a time with a time zone (RFC 3339), not in the future",
            found=str(when)[:200],
        )
    return f"{str(named.get('uri') or named.get('digest'))[:200]}, {when}"


def check_age(authenticated: Authenticated, expected: Expectations) -> str:
    """The summary was signed not longer ago than the policy allows, by a trusted clock.

    Raises:
        SummaryError: It is older, or nobody proves when it was signed.
    """
    signed, allowed = authenticated.signed_at, expected.summary_age or timedelta()
    age = None if signed is None else datetime.now(timezone.utc) - signed
    if signed is None or age is None or age > allowed:
        raise SummaryError(
            "the summary is too old" if signed else "nothing proves when the summary was signed",
            where="the signature's time",
            expected=f"signed at most {allowed} ago",
            found=f"{signed:%Y-%m-%d %H:%M:%SZ}" if signed else "no trusted timestamp",
            fix="have the model verified again",
        )
    return f"signed {signed:%Y-%m-%d %H:%M:%SZ}, {authenticated.time_source}"


def check_result(predicate: Mapping[str, Any]) -> int:
    """The verifier accepted the model, and at which SLSA Build level.

    Raises:
        SummaryError: It did not, or the levels are malformed.
    """
    if predicate.get("verificationResult") != "PASSED":
        raise SummaryError(
            "the verifier did not accept the model",
            where="verificationResult",
            expected="PASSED",
            found=str(predicate.get("verificationResult"))[:200],
        )
    stated = predicate.get("verifiedLevels")
    texts = [str(item) for item in stated] if isinstance(stated, list) else []
    levels = [match for item in texts if (match := _LEVEL.fullmatch(item))]
    if len(levels) != 1:
        raise SummaryError(
            "the summary does not state one SLSA Build level",
            where="verifiedLevels",
            expected="one SLSA_BUILD_LEVEL_n",
            found=", ".join(texts)[:200] or "none",
        )
    return int(levels[0][1])
