"""The sandbox's identity provider: people with e-mail addresses, and GitHub Actions jobs.

For demonstrations and tests only: it hands out any identity to anyone who asks.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.sigstore.errors import TokenError

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
AUDIENCE = "sigstore"
KEY_ID = "sandbox"
DEVELOPER = "developer@example.test"

Claims = dict[str, Any]
Clock = Callable[[], datetime]


class Oidc:
    """Two issuers in one: `url` for people, `GITHUB_ISSUER` for jobs; each has its own key.

    Attributes:
        url: The issuer of people's tokens, where its configuration and keys are served.
        clock: The time at which tokens are issued and judged; tests replace it.
        keys: Issuer to the key that its tokens are signed with. What is not in here is unknown.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self.keys = {
            issuer: ec.generate_private_key(ec.SECP256R1()) for issuer in (url, GITHUB_ISSUER)
        }
        self._jobs: dict[str, Claims] = {}
        self._codes: set[str] = set()
        self._lock = threading.Lock()

    def token(
        self,
        email: str = DEVELOPER,
        *,
        issuer: str | None = None,
        audience: str = AUDIENCE,
        lifetime: timedelta = timedelta(minutes=5),
        key: ec.EllipticCurvePrivateKey | None = None,
        **claims: object,
    ) -> str:
        """An identity token (JWT, ES256) of a person with a verified e-mail address.

        Args:
            email: The person; also the token's `sub`.
            issuer: `iss`; another than the sandbox's own two is signed with a person's key.
            audience: `aud`; Sigstore takes `sigstore` only.
            lifetime: Until `exp`, from now.
            key: Signs instead of the issuer's key: a forgery.
            **claims: Added to the token, or replacing what is above.
        """
        person = {"sub": email, "email": email, "email_verified": True}
        return self._encode(issuer or self.url, audience, lifetime, key, {**person, **claims})

    def service_account_token(
        self, cluster: str, namespace: str, account: str, *, audience: str = AUDIENCE
    ) -> str:
        """An identity token as a Kubernetes cluster issues it to the pods of a service account.

        Args:
            cluster: The issuer; from here on it is known, with a key of its own.
            namespace: Of the service account.
            account: Its name.
            audience: `aud`; Sigstore takes `sigstore` only.
        """
        with self._lock:
            self.keys.setdefault(cluster, ec.generate_private_key(ec.SECP256R1()))
        claims = {
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account}},
        }
        return self._encode(cluster, audience, timedelta(minutes=10), None, claims)

    def github_token(
        self,
        *,
        audience: str = AUDIENCE,
        lifetime: timedelta = timedelta(minutes=5),
        key: ec.EllipticCurvePrivateKey | None = None,
        **claims: str,
    ) -> str:
        """An identity token as GitHub issues it to a job; see `job_claims` for `claims`."""
        return self._encode(GITHUB_ISSUER, audience, lifetime, key, job_claims(**claims))

    def _encode(
        self,
        issuer: str,
        audience: str,
        lifetime: timedelta,
        key: ec.EllipticCurvePrivateKey | None,
        claims: Mapping[str, object],
    ) -> str:
        now = int(self.clock().timestamp())
        standard = {
            "iss": issuer,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + int(lifetime.total_seconds()),
            "jti": secrets.token_hex(16),
        }
        signing_key = key or self.keys.get(issuer) or self.keys[self.url]
        return jwt.encode(
            {**standard, **claims}, signing_key, algorithm="ES256", headers={"kid": KEY_ID}
        )

    def verify(self, token: str) -> Claims:
        """The claims of a token that Fulcio may trust.

        Raises:
            TokenError: Not a JWT, unknown issuer, bad signature, other audience, outside its
                validity, or a claim that OpenID Connect Core 1.0 section 2 requires is missing.
        """
        try:
            unverified = jwt.decode(token, options={"verify_signature": False})
            key = self.keys.get(unverified.get("iss", ""))
            if key is None:
                raise TokenError(f"unknown issuer {unverified.get('iss')!r}")
            claims: Claims = jwt.decode(
                token,
                key.public_key(),
                algorithms=["ES256"],
                audience=AUDIENCE,
                # Judged below: PyJWT knows the machine's clock only.
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            raise TokenError(f"invalid identity token: {error}") from error
        now = self.clock().timestamp()
        if now >= claims["exp"]:
            raise TokenError("invalid identity token: it has expired")
        if "nbf" in claims and now < claims["nbf"]:
            raise TokenError("invalid identity token: it is not valid yet")
        return claims

    def jwks(self, issuer: str) -> dict[str, Any]:
        """The public key of one issuer as a JSON Web Key Set (RFC 7517)."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self.keys[issuer].public_key(), as_dict=True)
        return {"keys": [{**key, "kid": KEY_ID, "alg": "ES256", "use": "sig"}]}

    def configuration(self, issuer: str, keys: str) -> dict[str, Any]:
        """What an issuer says of itself, its keys being at `keys` (OpenID Connect Discovery 3)."""
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": keys,
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "scopes_supported": ["openid", "email"],
        }

    # What a job with `id-token: write` gets as ACTIONS_ID_TOKEN_REQUEST_TOKEN, and uses.

    def request_token_for(self, claims: Mapping[str, str]) -> str:
        """An opaque bearer token with which one job may ask for identity tokens of its own.

        Args:
            claims: As for `job_claims`; every token that the bearer gets has exactly these.
        """
        bearer = secrets.token_urlsafe(32)
        with self._lock:
            self._jobs[bearer] = job_claims(**claims)
        return bearer

    def revoke(self, bearer: str) -> None:
        """Ends a job's right to identity tokens, as the end of the job does on GitHub."""
        with self._lock:
            self._jobs.pop(bearer, None)

    def token_for_job(self, bearer: str, audience: str | None) -> str:
        """The identity token that a running job asks for.

        Args:
            bearer: From `request_token_for`.
            audience: `aud`; by default the URL of the repository's owner, as on GitHub.

        Raises:
            TokenError: The bearer token belongs to no running job.
        """
        with self._lock:
            claims = self._jobs.get(bearer)
        if claims is None:
            raise TokenError("this bearer token belongs to no running job")
        owner = f"https://github.com/{claims['repository_owner']}"
        return self._encode(GITHUB_ISSUER, audience or owner, timedelta(minutes=5), None, claims)

    # The browser's part of OpenID Connect: whoever asks is `DEVELOPER`.

    def authorization_code(self) -> str:
        """A one-time code for an identity token, granted without a question."""
        code = secrets.token_urlsafe(16)
        with self._lock:
            self._codes.add(code)
        return code

    def redeem(self, code: str) -> str:
        """The identity token for a code of `authorization_code`.

        Raises:
            TokenError: The code was never given, or already used.
        """
        with self._lock:
            if code not in self._codes:
                raise TokenError("unknown or used authorization code")
            self._codes.remove(code)
        return self.token()


def job_claims(
    *,
    repository: str = "octo-org/models",
    ref: str = "refs/heads/main",
    sha: str = "a" * 40,
    workflow: str = ".github/workflows/release.yml",
    event_name: str = "push",
    workflow_ref: str | None = None,
    workflow_sha: str | None = None,
    job_workflow_ref: str | None = None,
    job_workflow_sha: str | None = None,
    **others: str,
) -> Claims:
    """What GitHub says of a job in its identity token, beside the standard claims.

    Source: GitHub documentation, "OpenID Connect reference", claims of the token.

    Args:
        repository: `OWNER/NAME` of the repository whose workflow runs (a reusable one's caller).
        ref: The branch or tag that triggered the run, in full.
        sha: The commit that triggered it, 40 hexadecimal digits.
        workflow: The name of the workflow that was triggered, or its path if it has none.
        event_name: What triggered it.
        workflow_ref: `OWNER/NAME/PATH@REF` of that workflow; by default from the values above.
        workflow_sha: Its commit; by default `sha`.
        job_workflow_ref: The workflow that defines the job: the reusable one, if one was called.
        job_workflow_sha: Its commit.
        **others: More claims, or replacements.
    """
    owner = repository.partition("/")[0]
    workflow_ref = workflow_ref or f"{repository}/{workflow}@{ref}"
    workflow_sha = workflow_sha or sha
    return {
        "sub": f"repo:{repository}:ref:{ref}",
        "repository": repository,
        "repository_id": "1001",
        "repository_owner": owner,
        "repository_owner_id": "2002",
        "repository_visibility": "public",
        "actor": owner,
        "actor_id": "3003",
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "ref_protected": "true",
        "head_ref": "",
        "base_ref": "",
        "sha": sha,
        "workflow": workflow,
        "workflow_ref": workflow_ref,
        "workflow_sha": workflow_sha,
        "job_workflow_ref": job_workflow_ref or workflow_ref,
        "job_workflow_sha": job_workflow_sha or workflow_sha,
        "event_name": event_name,
        "run_id": "7",
        "run_number": "1",
        "run_attempt": "1",
        "runner_environment": "github-hosted",
        **others,
    }
