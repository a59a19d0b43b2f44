"""OpenID Connect tokens for signing: where they come from, and what they say of themselves.

Nothing here verifies a token; the services that get it do.
"""

from __future__ import annotations

import base64
import json
import os
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from model_signing import errors

if TYPE_CHECKING:
    from sigstore.oidc import IdentityToken

    from model_signing.methods.services import Patience

NEW_TOKEN = "get a new token; in GitHub Actions use --use-ambient-credentials"  # noqa: S105
_FOREVER = 1e9  # seconds
_PROVIDER = "the identity provider"


def require_content(token: str | None, where: str = "--identity-token") -> None:
    """A `SigningError` for a token that is empty: it must not mean that there is none."""
    if token is not None and not token.strip():
        raise errors.SigningError(
            "the identity token is empty",
            where=where,
            fix="is a variable unset, or did the step before not write it? Get the token again",
        )


def ambient(client_id: str, patience: Patience) -> str:
    """The token that this environment has for its job; a `SigningError` if it has none."""
    from sigstore.oidc import IdentityError, detect_credential

    from model_signing.methods import services

    address = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    bearer = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if os.environ.get("GITHUB_ACTIONS") and address and bearer:
        session = services.Adapter(_provider(), patience).mounted()
        with session:
            answer = session.get(
                address,
                params={"audience": client_id},
                headers={"Authorization": f"bearer {bearer}"},
            ).json()
        token = answer.get("value") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token:
            words = "the identity provider gave no token"
            raise errors.SigningError(words, where=address.partition("?")[0])
        return token
    try:
        # Its own time limits are for a socket's silence.
        found = services.within(
            _PROVIDER, "this environment", lambda: detect_credential(client_id), patience
        )
    except IdentityError as error:
        words = "the identity token of this environment cannot be had"
        raise errors.SigningError(words, found=str(error), fix=_permission()) from None
    if not found:
        raise errors.SigningError(
            "no ambient credential in this environment",
            expected="an OIDC identity from GitHub Actions, GitLab, Google Cloud, …",
            fix=_permission(),
        )
    return found


def asked(
    address: str, client_id: str, secret: str | None, oob: bool, patience: Patience
) -> IdentityToken:
    """The token of a person, whom the provider asks in a browser; raises as sigstore-python."""
    from sigstore.oidc import Issuer, IssuerError, _OpenIDConfiguration

    from model_signing.methods import services

    class Provider(Issuer):
        """sigstore-python's, whose first request goes the way of all the others, too."""

        def __init__(self) -> None:
            adapter = services.Adapter(_provider(), patience)
            self.session = adapter.mounted()
            answer = self.session.get(f"{address.rstrip('/')}/.well-known/openid-configuration")
            try:
                self.oidc_config = _OpenIDConfiguration.model_validate(answer.json())
            except ValueError as error:
                raise IssuerError(str(error)) from None

    return Provider().identity_token(client_id, secret or "", oob)


def life(token: str) -> float:
    """Seconds until the token expires, as it says itself."""
    end = _claims(token).get("exp")
    return end - time.time() if isinstance(end, int | float) else _FOREVER


def told(token: str) -> str:
    """What a token says: issuer, audience, e-mail, validity; never the token."""
    claims = _claims(token)
    if not claims:
        return "the token cannot be read"
    parts = [f"issuer {claims.get('iss')}", f"audience {claims.get('aud')}"]
    if "email" in claims:
        verified = "verified" if _is_verified(claims) else "NOT verified"
        parts.append(f"e-mail {claims['email']} ({verified})")
    else:
        parts.append(f"subject {claims.get('sub')}")
    times = [f"{name} {_time(claims[key])}" for name, key in _TIMES if key in claims]
    return f"the token says: {', '.join([*parts, *times])}"


def unusable(token: str, audience: str, why: errors.Error) -> errors.SigningError:
    """The refusal of a token that no service needs to see, with what was expected of it."""
    return errors.SigningError(
        why.message,
        expected=f"a token for the audience {audience}, within its time",
        found=f"{why.found}; {told(token)}",
        fix=why.fix,
    )


def advice(token: str) -> str:
    """What helps with a token that was refused, by what it says of itself."""
    claims = _claims(token)
    if "email" in claims and not _is_verified(claims):
        return f"have the identity provider verify {claims['email']}, and {NEW_TOKEN}"
    issuer = claims.get("iss")
    return f"{NEW_TOKEN}; is {issuer} an issuer that this Fulcio takes?" if issuer else NEW_TOKEN


_TIMES = (("valid from", "nbf"), ("issued", "iat"), ("expires", "exp"))


def _is_verified(claims: dict[str, Any]) -> bool:
    """As Fulcio takes it: some providers write the word."""
    return claims.get("email_verified") in (True, "true")


def _provider() -> Any:  # noqa: ANN401 - services is imported when it is needed
    from model_signing.methods import services

    return services.Service(_PROVIDER, "the identity provider refused the request", _permission())


def _permission() -> str:
    return "in GitHub Actions grant `permissions: id-token: write`; elsewhere use --identity-token"


def _claims(token: str) -> dict[str, Any]:
    """RFC 7519: the middle part, without any verification."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _time(seconds: object) -> str:
    try:
        return f"{datetime.fromtimestamp(float(str(seconds)), timezone.utc):%Y-%m-%d %H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)
