"""OMS 6.7, 6.8: signers, functions from the bytes of an in-toto statement to those of a bundle."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from model_signing import bundle, keys, trust
from model_signing.errors import SigningError

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.sign import Signer as _SigstoreSession

Signer = Callable[[bytes], bytes]
_SESSION_SECONDS = 300  # half of the ten minutes that a Fulcio certificate lives


def key_signer(
    private_key: bytes, password: bytes | None = None, timestamp_url: str | None = None
) -> Signer:
    """Signs with a long-lived EC key (OMS 4.1, method `key`).

    Args:
        private_key: PEM: P-256, P-384 or P-521, perhaps encrypted.
        password: Decrypts it.
        timestamp_url: An RFC 3161 authority that timestamps every signature.

    Raises:
        FileError: The key cannot be used.

    Example:
        >>> from pathlib import Path
        >>> signer = key_signer(Path("key.pem").read_bytes())  # doctest: +SKIP
    """
    key = keys.load_private_key(private_key, password)
    hint = keys.fingerprints(key.public_key())[0]

    def sign(statement: bytes) -> bytes:
        signature = _sign(key, statement)
        return bundle.encode(statement, signature, key_hint=hint)

    return sign


def _sign(key: ec.EllipticCurvePrivateKey, statement: bytes) -> bytes:
    algorithm = ec.ECDSA(keys.signature_hash(key.public_key()))
    return key.sign(bundle.pae(bundle.PAYLOAD_TYPE, statement), algorithm)


@dataclass(frozen=True)
class SigstoreSigning:
    """Who signs with Sigstore, and where.

    Attributes:
        trust_config: See `model_signing.trust.SigstoreTrust`, also for `staging` and `offline`.
        ambient: Take the identity from the environment, such as GitHub Actions.
        identity_token: This OIDC token; otherwise a browser asks the user who they are.
        client_id: OAuth client, and the audience that the token must have.
        client_secret: Its secret.
        oob: Print the address instead of opening a browser.
    """

    trust_config: Path | None = None
    staging: bool = False
    offline: bool = False
    ambient: bool = False
    identity_token: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    oob: bool = False


def sigstore_signer(options: SigstoreSigning) -> Signer:
    """Signs with a short-lived certificate for an OIDC identity (OMS 4.1, method `sigstore`).

    Imports, trust root, token and certificate are fetched by a thread that starts here, so that
    the caller's hashing hides them. A certificate that has grown old meanwhile is replaced. A
    person is asked only when the statement is ready.

    The returned signer raises `SigningError` for every failure of a service or credential, and
    `SignatureError` when what the services returned does not verify.
    """
    trusted = trust.SigstoreTrust(options.trust_config, options.staging, options.offline)
    interactive = not (options.ambient or options.identity_token)

    def prepare() -> tuple[ClientTrustConfig, _SigstoreSession | None, float]:
        from sigstore import dsse, sign  # noqa: F401  (slow to import)

        config = trust.load(trusted)
        session = None if interactive else _session(options, config)
        return config, session, time.monotonic()

    prepared = trust.in_background(prepare)

    def sign(statement: bytes) -> bytes:
        from sigstore import dsse

        from model_signing import verifiers

        with trust.signing_failures():
            config, session, since = prepared()
            if session is None or time.monotonic() - since > _SESSION_SECONDS:
                session = _session(options, config)
            data = session.sign_dsse(dsse.Statement(statement)).to_json().encode() + b"\n"
        # What the services answered is checked before it is published as a signature.
        if verifiers.authenticate_sigstore(data, trusted).payload != statement:
            raise SigningError("Sigstore signed something else than the statement")
        return data

    return sign


def _session(options: SigstoreSigning, config: ClientTrustConfig) -> _SigstoreSession:
    """An identity token and a certificate for it."""
    from sigstore.oidc import IdentityToken, Issuer, detect_credential
    from sigstore.sign import Signer, SigningContext

    with trust.signing_failures():
        client_id = options.client_id or "sigstore"
        if options.identity_token:
            token = IdentityToken(options.identity_token, client_id)
        elif options.ambient:
            credential = detect_credential(client_id)
            if credential is None:
                raise SigningError(
                    "no ambient credential in this environment",
                    expected="an OIDC identity from GitHub Actions, GitLab, Google Cloud, …",
                    fix="in GitHub Actions grant `permissions: id-token: write`, "
                    "elsewhere use --identity-token",
                )
            token = IdentityToken(credential, client_id)
        else:
            issuer = Issuer(config.signing_config.get_oidc_url())
            token = issuer.identity_token(client_id, options.client_secret or "", options.oob)
        return Signer(token, SigningContext.from_trust_config(config), cache=True)
