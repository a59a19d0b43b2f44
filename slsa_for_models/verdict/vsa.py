"""A trusted verifier's summary of its verdict (SLSA v1.2 VSA, "How to verify", steps 1 to 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Vouched
from slsa_for_models.verdict.table import VSA as CLAUSE
from slsa_for_models.verdict.table import Step, Table

_CLOCKS_DIFFER = timedelta(minutes=5)
_LEVEL = re.compile(r"SLSA_BUILD_LEVEL_([0-3])")
"""Build levels of SLSA v1.2; no other is known."""


class Summary(NamedTuple):
    """A summary's steps, and what came of them.

    Attributes:
        path: The file.
        steps: Its steps.
        sha256: Of the file as it was read, hexadecimal.
        vouched: What it vouches for; None if it was refused.
    """

    path: Path
    steps: Sequence[Step]
    sha256: str | None
    vouched: Vouched | None = None


def examine_all(
    paths: Sequence[Path], model: ModelDigests, expected: Expectations, trust: SigstoreTrust
) -> Summary | None:
    """The first summary that holds, or else the first, if there is any.

    Raises:
        FileError: As `examine`.
    """
    first = None
    for path in paths:
        summary = examine(path, model, expected, trust)
        if summary.vouched is not None:
            return summary
        first = first or summary
    return first


def examine(
    path: Path, model: ModelDigests, expected: Expectations, trust: SigstoreTrust
) -> Summary:
    """All steps for one summary.

    Raises:
        FileError: The file or the trust root cannot be read.
    """
    keys = [item.public_key for item in expected.verifiers if item.public_key is not None]
    label, digest, own = path.name, None, Table()

    def read() -> tuple[Authenticated, Statement]:
        nonlocal digest
        attestation = _only_one(path)
        digest = attestation.file_sha256
        authenticated = envelopes.authenticate(attestation, trust, keys)
        versions = {statement_names.VSA: statement.STATEMENT_V1}
        said = statement.read(authenticated.payload, versions)
        predicate_types.check(said.predicate, said.predicate_type, SummaryError)
        return authenticated, said

    # 1. The signature on the envelope. 3. The predicate type.
    found = own.step(
        label,
        "Signature and predicate type",
        f"{CLAUSE}, 1 and 3",
        read,
        lambda result: f"{result[0].method}, {statement_names.VSA}",
    )
    if found is None:
        own.not_checked(label, "Everything else", CLAUSE, "the summary cannot be used")
        return Summary(path, own.steps, digest)
    authenticated, said = found
    if said.remark:
        own.note(label, "Statement", f"{CLAUSE}, 3", f"{said.remark}, as cosign writes it")
    # 2. The subject. 4. The verifier and its signer. 5. What it vouches for.
    for title, clause, check in (
        ("Subject is this model", "2", partial(subjects.check, said.subjects, model)),
        ("Verifier", "4", partial(check_verifier, said.predicate, authenticated, expected)),
        ("Resource", "5", partial(check_resource, said.predicate, expected.resource_uri)),
        ("Policy and time", "schema", partial(check_policy_and_time, said.predicate)),
    ):
        own.step(label, title, f"{CLAUSE}, {clause}", check)
    if expected.summary_age is not None:
        own.step(label, "Age", "policy, vsa.max_age", partial(check_age, authenticated, expected))
    level = own.step(
        label,
        "Result and level",
        f"{CLAUSE}, 6 and 7",
        partial(check_result, said.predicate),
        lambda result: f"PASSED, Build L{result}",
    )
    if level is None or own.refusal:
        return Summary(path, own.steps, digest)
    certificate = authenticated.certificate
    event = None if certificate is None else certificate_claims(certificate).build_trigger
    return Summary(path, own.steps, digest, Vouched(level, event))


def _only_one(path: Path) -> envelopes.Attestation:
    loaded = envelopes.load(path)
    if len(loaded) != 1:
        raise SummaryError(
            "a file of summaries has to hold exactly one",
            where=path.name,
            expected="1",
            found=str(len(loaded)),
        )
    return loaded[0]


def check_verifier(
    predicate: Mapping[str, Any], authenticated: Authenticated, expected: Expectations
) -> str:
    """The verifier is one the policy trusts, and signed as the policy says it does.

    Raises:
        SummaryError: It is not trusted.
        SignerError: Somebody else signed in its name.
    """
    name = statement.value_at(predicate, "verifier.id")
    trusted = next((item for item in expected.verifiers if item.id == name), None)
    if trusted is None:
        raise SummaryError(
            "not a verifier that the policy trusts",
            where="verifier.id",
            expected=", ".join(item.id for item in expected.verifiers) or "none named in a policy",
            found=str(name)[:200],
        )
    if authenticated.certificate is None:
        key = envelopes.fingerprint(trusted.public_key) if trusted.public_key else None
        if key != authenticated.identity:
            raise SignerError(
                "signed with another key than this verifier's",
                where=trusted.id,
                expected=key or "a keyless signature",
                found=authenticated.identity,
            )
        return trusted.id
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
    return trusted.id


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
    named = statement.value_at(policy, "uri") or statement.value_at(policy, "digest")
    if not named:
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
    return f"{str(named)[:200]}, {when}"


def check_age(authenticated: Authenticated, expected: Expectations) -> str:
    """The summary was signed not longer ago than the policy allows, by a trusted clock.

    Raises:
        SummaryError: It is older, or nobody proves when it was signed.
    """
    signed, allowed = authenticated.signed_at, expected.summary_age or timedelta()
    if signed is None or datetime.now(timezone.utc) - signed > allowed:
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
    texts = predicate.get("verifiedLevels") or []
    levels = [match for item in texts if (match := _LEVEL.fullmatch(item))]
    if len(levels) != 1:
        raise SummaryError(
            "the summary does not state one SLSA Build level",
            where="verifiedLevels",
            expected="one SLSA_BUILD_LEVEL_n",
            found=", ".join(texts)[:200] or "none",
        )
    return int(levels[0][1])
