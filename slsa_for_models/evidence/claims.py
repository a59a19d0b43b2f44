"""What a workflow's certificate says, and whether a predicate says the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from slsa_for_models.errors import CertificateClaimError
from slsa_for_models.evidence.github import GITHUB, is_github
from slsa_for_models.evidence.provenance import Provenance

if TYPE_CHECKING:
    from model_signing.methods.fulcio import Claims

Facts = Mapping[str, str | None]
"""What a certificate says, by the names of `Claim.certified`."""

_RUN = re.compile(r"(https://.+/actions/runs/([0-9]+))/attempts/([0-9]+)")
_WORKFLOW = re.compile(r"(https://[^/@]+/[^/@]+/[^/@]+)/([^@]+)@([^@]+)")


def is_workflow(claims: Claims) -> bool:
    """Whether a build ran, on GitHub or elsewhere (GitLab), rather than a person or a service."""
    return is_github(claims.issuer) or claims.source_repository_uri is not None


def certified_facts(claims: Claims) -> Facts:
    """What a workflow's certificate says, in the words of `Claim.certified`.

    Source: sigstore/fulcio docs/oid-info.md, 1.3.6.1.4.1.57264.1.9 to .24.
    """
    repository, owner = claims.source_repository_uri, claims.source_repository_owner_uri
    run = _RUN.fullmatch(claims.run_invocation_uri or "")
    workflow = _WORKFLOW.fullmatch(claims.build_config_uri or "")
    builder = _WORKFLOW.fullmatch(claims.build_signer_uri or "")
    return {
        "builder": claims.build_signer_uri,
        "builder commit": claims.build_signer_digest,
        "builder source at ref": f"git+{builder[1]}@{builder[3]}" if builder else None,
        "runner": claims.runner_environment,
        "runner as builder": f"{GITHUB}actions/runner/{claims.runner_environment}",
        "repository": repository,
        "source at ref": f"git+{repository}@{claims.source_repository_ref}",
        "commit": claims.source_repository_digest,
        "ref": claims.source_repository_ref,
        "repository id": claims.source_repository_identifier,
        "owner": owner.rpartition("/")[2] if owner else None,
        "owner id": claims.source_repository_owner_identifier,
        "workflow path": workflow[2] if workflow and workflow[1] == repository else None,
        "event": claims.build_trigger,
        "visibility": claims.source_repository_visibility,
        "environment": claims.deployment_environment,
        "token subject": claims.token_subject,
        "invocation": claims.run_invocation_uri,
        "run": run[2] if run else None,
        "attempt": run[3] if run else None,
        "run-attempt": f"{run[2]}-{run[3]}" if run else None,
        "run of repository": run[1] if run else None,
    }


def check_claims(facts: Facts, provenance: Provenance) -> str:
    """Field by field, the predicate against the certificate that signed it.

    Raises:
        CertificateClaimError: They differ, or the certificate does not say.
    """
    for claim in provenance.claims:
        certified = facts.get(claim.certified)
        if claim.value != certified:
            raise CertificateClaimError(
                "the predicate does not say what the certificate says",
                where=claim.field,
                expected=f"{certified or 'nothing'} (certificate: {claim.certified})",
                found=claim.value or "nothing",
            )
    if not provenance.claims:
        return "no certificate: the builder's key or identity vouches for every field"
    return f"{len(provenance.claims)} fields agree"
