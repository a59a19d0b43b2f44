"""Who signed, and for whom they may speak (SLSA v1.2 verifying-artifacts, 1.1 and 1.4).

Three kinds of signers: a GitHub Actions workflow, whose certificate says where, from what and how
it ran; another keyless identity, such as a person or a cluster's service account; and a key.
"""

from __future__ import annotations

from collections.abc import Iterable

from model_signing.methods import Authenticated
from model_signing.methods.fulcio import Claims, certificate_claims
from slsa_for_models.errors import SignerError
from slsa_for_models.evidence import envelopes
from slsa_for_models.evidence.claims import Facts, certified_facts, is_workflow
from slsa_for_models.evidence.github import is_github
from slsa_for_models.evidence.provenance import Provenance
from slsa_for_models.verdict.expectations import (
    Builder,
    Expectations,
    Expected,
    builder_from_identity,
    check_reference,
    matches,
)
from slsa_for_models.verdict.result import Signed


def check_model_signer(label: str, authenticated: Authenticated, expected: Expectations) -> Signed:
    """Whether this signer may sign the model.

    A key: authentication compared it with the expected one. Everybody else: the expected identity
    and issuer or, where none is expected, a trusted builder. A workflow besides has to come from
    the expected source repository.

    Raises:
        SignerError: They may not.
    """
    signer = expected.signer
    if authenticated.method == "key":
        return Signed(label, authenticated, {})
    claims = certificate_claims(authenticated.certificate or b"")
    if signer is not None and signer.public_key is not None:
        raise SignerError(
            "signed keyless, and a key was expected",
            where=label,
            expected=f"key {envelopes.fingerprint(signer.public_key)}",
            found=f"{claims.identity} ({claims.issuer})",
            fix="name the signer with --identity and --identity-provider, and a builder's key "
            "with --builder-key",
        )
    if signer is not None and signer.identity is not None:
        check_identity(claims, signer.identity, signer.issuer or expected.issuer)
    elif claims.issuer != expected.issuer or not any(
        builder.accepts(claims.identity) for builder in expected.builders
    ):
        _check_reference(claims, expected.builders, expected.issuer)
        raise SignerError(
            "signed by somebody who was not named",
            where="certificate: subject alternative name, issuer (.8)",
            expected="the identity given, or a trusted builder",
            found=f"{claims.identity} ({claims.issuer})",
            fix="if you trust them, name them with --identity and --identity-provider",
        )
    return Signed(label, authenticated, _workflow_facts(claims, expected))


def check_identity(claims: Claims, identity: Expected, issuer: str) -> None:
    """A keyless identity and its issuer.

    Raises:
        SignerError: Another one.
    """
    if not matches(identity, claims.identity) or claims.issuer != issuer:
        named = builder_from_identity(identity) if isinstance(identity, str) else None
        _check_reference(claims, filter(None, [named]), issuer)
        raise SignerError(
            "signed by somebody else",
            where="certificate: subject alternative name, issuer (.8)",
            expected=f"{identity} ({issuer})",
            found=f"{claims.identity} ({claims.issuer})",
        )


def _check_reference(claims: Claims, trusted: Iterable[Builder], issuer: str) -> None:
    """Somebody else it is not, if only the git reference is another one."""
    if claims.issuer == issuer:
        message = "signed by the workflow expected, at another reference"
        where = "certificate: subject alternative name"
        check_reference(claims.identity, trusted, SignerError, message, where)


def check_provenance_signer(
    label: str, authenticated: Authenticated, provenance: Provenance, expected: Expectations
) -> Signed:
    """Whether this signer may make provenance of this kind ("only specific signer-builder pairs").

    GitHub's kinds are signed by a workflow, whose certificate can be compared with them; Tekton's
    by the key or identity of a builder.

    Raises:
        SignerError: They may not.
    """
    certificate = authenticated.certificate
    claims = None if certificate is None else certificate_claims(certificate)
    if provenance.kind.signed_by_github_workflow:
        if claims is None or claims.issuer != expected.issuer:
            raise SignerError(
                f"provenance of the kind {provenance.kind} is signed by a GitHub workflow",
                where=label,
                expected=expected.issuer,
                found=claims.issuer if claims else "a key",
                fix="an enterprise's own issuer is named with --identity-provider, or in a policy",
            )
        facts = _workflow_facts(claims, expected)
        builders = [item for item in expected.builders if item.is_workflow]
        return Signed(label, authenticated, facts, tuple(builders))
    builders = [
        item for item in expected.builders if _speaks_for(authenticated.identity, claims, item)
    ]
    if not builders:
        raise SignerError(
            "this signer may not speak for any trusted builder",
            where=label,
            expected="the key or identity of a builder (--builder-id, --public-key, a policy)",
            found=str(authenticated.identity),
        )
    return Signed(label, authenticated, {}, tuple(builders))


def _speaks_for(identity: str | None, claims: Claims | None, builder: Builder) -> bool:
    if claims is None:
        key = builder.public_key
        return key is not None and envelopes.fingerprint(key) == identity
    wanted = builder.identity
    return (
        wanted is not None
        and matches(wanted, claims.identity)
        and builder.issuer == claims.issuer
        and not is_workflow(claims)  # whoever calls it could write what no certificate confirms
    )


def _workflow_facts(claims: Claims, expected: Expectations) -> Facts:
    """A workflow's certificate: the repository that ran it, and how it ran."""
    if not is_workflow(claims):
        return {}
    check_repository(claims, expected.source_uri)
    check_run(claims, expected)
    return certified_facts(claims)


def check_run(claims: Claims, expected: Expectations) -> None:
    """How a workflow ran: under its own identity, on a runner that is accepted.

    Both are GitHub's: elsewhere .9 and .11 have other values.

    Raises:
        SignerError: It did not.
    """
    for what, extension, accepted, found in (
        ("identity", ".9", (claims.identity,), claims.build_signer_uri),
        ("runner", ".11", expected.runners, claims.runner_environment),
    ):
        if found not in accepted and is_github(claims.issuer):
            raise SignerError(
                f"the signing workflow has another {what}",
                where=f"certificate: {what} ({extension})",
                expected=" or ".join(accepted),
                found=found or "nothing",
            )


def check_repository(claims: Claims, wanted: Expected | None, option: str = "--source-uri") -> None:
    """The repository that a workflow ran for, extension .12 of its certificate.

    The identity of a reusable workflow is the same whoever calls it, so that it never suffices.

    Args:
        claims: What the certificate says.
        wanted: The repository expected.
        option: Where it is named.

    Raises:
        SignerError: Another one, or none was named.
    """
    found = claims.source_repository_uri
    where = "certificate: source repository (.12)"
    if wanted is None:
        raise SignerError(
            f"a workflow signed, so {option} is required",
            where=where,
            expected=f"the repository it ran for, named with {option} or in a policy",
            found=f"{found} (compared with nothing)" if found else "no repository",
            fix=found
            and f"if you expect that repository, pass {option} {found.removeprefix('https://')}",
        )
    if found is None or not matches(wanted, f"git+{found}"):
        raise SignerError(
            "the signing workflow ran for another repository"
            if found
            else "the certificate names no repository",
            where=where,
            expected=str(wanted),
            found=found or "no repository",
        )
