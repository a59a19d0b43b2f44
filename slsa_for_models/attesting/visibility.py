"""Whether this job may sign with the public Sigstore, whose logs name its repository for good."""

from __future__ import annotations

from slsa_for_models.attesting.build_context import token_claims
from slsa_for_models.errors import ContextError


def check_public(token: str) -> str:
    """Refuses to sign for a repository that is not public, or that may not be.

    Args:
        token: The job's OpenID Connect token, which GitHub made: its word is the only one that
            every kind of event has. Certificates say it as extension 1.3.6.1.4.1.57264.1.22.

    Returns:
        The repository, `OWNER/NAME`.

    Raises:
        ContextError: The repository is private or internal, or the token does not say.
    """
    claims = token_claims(token)
    visibility = claims.get("repository_visibility")
    if visibility != "public":
        raise ContextError(
            "signing would publish the name of a repository that is not public",
            where="claim repository_visibility",
            expected="public",
            found="nothing" if visibility is None else ascii(visibility),
            fix="set the input 'private-repository' to true if that is meant, or sign with a "
            "private Sigstore by 'trust-config'",
        )
    return str(claims.get("repository"))
