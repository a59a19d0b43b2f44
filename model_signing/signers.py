"""OMS 6.7, 6.8: signers, functions from the bytes of an in-toto statement to those of a bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from model_signing import bundle, keys, trust
from model_signing.errors import CertificateError, SigningError

if TYPE_CHECKING:
    from cryptography import x509
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
        FileError: The key cannot be used. The signer raises `SigningError`: no timestamp.
    """
    key = keys.load_private_key(private_key, password)
    return _signer(_software(key), key.public_key(), timestamp_url)


def certificate_signer(
    private_key: bytes,
    signing_certificate: bytes,
    certificate_chain: Sequence[bytes] = (),
    password: bytes | None = None,
    timestamp_url: str | None = None,
) -> Signer:
    """Signs with a key that a certificate vouches for (OMS 4.1, method `certificate`).

    Args:
        private_key: As for `key_signer`.
        signing_certificate: PEM, of that key.
        certificate_chain: PEM files with the certificates between it and the root.
        password: As for `key_signer`.
        timestamp_url: As for `key_signer`.

    Raises:
        FileError: The key or a certificate cannot be used.
        CertificateError: No verifier would accept the certificate now, or it is of another key.
    """
    key = keys.load_private_key(private_key, password)
    chain = _chain(signing_certificate, certificate_chain, key.public_key())
    return _signer(_software(key), key.public_key(), timestamp_url, chain)


def pkcs11_key_signer(uri: str, pin: str | None = None, timestamp_url: str | None = None) -> Signer:
    """Signs with a key on a PKCS#11 token; the bundle is one of method `key`.

    Args:
        uri: RFC 7512 (see `model_signing.pkcs11`).
        pin: For a URI that has none.
        timestamp_url: As for `key_signer`.

    Raises:
        UsageError, DependencyError, SigningError: The URI, the module, the token or its key.
    """
    from model_signing import pkcs11

    token = pkcs11.open_key(uri, pin)
    public_key = token.public_key()
    return _signer(_token(token.sign, public_key), public_key, timestamp_url)


def pkcs11_certificate_signer(
    uri: str,
    signing_certificate: bytes,
    certificate_chain: Sequence[bytes] = (),
    pin: str | None = None,
    timestamp_url: str | None = None,
) -> Signer:
    """Signs with a certified key on a PKCS#11 token; the bundle is one of method `certificate`.

    Arguments and errors are those of `pkcs11_key_signer` and `certificate_signer`. The token needs
    no public key; a certificate of another key shows when the first signature does not verify.
    """
    from model_signing import pkcs11

    token = pkcs11.open_key(uri, pin)
    chain = _chain(signing_certificate, certificate_chain)
    public_key = keys.supported(chain[0].public_key())
    return _signer(_token(token.sign, public_key), public_key, timestamp_url, chain)


def _software(key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    return lambda data: key.sign(data, ec.ECDSA(keys.signature_hash(key.public_key())))


def _token(
    sign: Callable[[bytes], bytes], public_key: ec.EllipticCurvePublicKey
) -> Callable[[bytes], bytes]:
    return lambda data: sign(keys.digest(public_key, data))


def _chain(
    leaf: bytes, others: Sequence[bytes], key: ec.EllipticCurvePublicKey | None = None
) -> list[x509.Certificate]:
    """Leaf first, without repetition."""
    from model_signing import certificates  # X.509 takes time to import: not for keys

    chain = list(dict.fromkeys(certificates.load([leaf, *others])))
    certificates.check_leaf(chain[0], datetime.now(timezone.utc))
    if key is not None and chain[0].public_key() != key:
        raise CertificateError("the signing certificate is not of this private key")
    return chain


def _signer(
    sign: Callable[[bytes], bytes],
    public_key: ec.EllipticCurvePublicKey,
    timestamp_url: str | None,
    chain: Sequence[x509.Certificate] = (),
) -> Signer:
    hint = None if chain else keys.fingerprints(public_key)[0]

    def sign_statement(statement: bytes) -> bytes:
        signed = bundle.pae(bundle.PAYLOAD_TYPE, statement)
        signature = sign(signed)
        try:  # a token's key may be another than the certificate's
            public_key.verify(signature, signed, ec.ECDSA(keys.signature_hash(public_key)))
        except InvalidSignature:
            raise SigningError("the private key does not match the public key") from None
        ders = [certificate.public_bytes(Encoding.DER) for certificate in chain]
        stamps = []
        if timestamp_url is not None:
            from model_signing import certificates

            stamps.append(certificates.timestamp(signature, timestamp_url))
        return bundle.encode(
            statement, signature, key_hint=hint, certificates=ders, timestamps=stamps
        )

    return sign_statement


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

    Raises:
        FileError, UsageError: The trust configuration cannot be read. The signer raises
            `SigningError` for every failure of a service or credential, and `SignatureError` when
            what the services returned does not verify.
    """
    trusted = trust.SigstoreTrust(options.trust_config, options.staging, options.offline)
    trust.read(trusted)  # a missing file shows before the hashing, not after
    interactive = not (options.ambient or options.identity_token)

    def prepare() -> tuple[ClientTrustConfig, _SigstoreSession | None, float]:
        from sigstore import dsse, sign  # noqa: F401  (slow to import)

        config = trust.load(trusted)
        return config, None if interactive else _session(options, config), time.monotonic()

    prepared = trust.in_background(prepare)

    def sign_statement(statement: bytes) -> bytes:
        from sigstore import dsse

        from model_signing import verifiers

        with trust.signing_failures():
            config, session, since = prepared()
            if session is None or time.monotonic() - since > _SESSION_SECONDS:
                session = _session(options, config)
            data = session.sign_dsse(dsse.Statement(statement)).to_json().encode() + b"\n"
        # What the services answered is checked before anybody calls it a signature.
        if verifiers.authenticate_sigstore(data, trusted).payload != statement:
            raise SigningError("Sigstore signed something else than the statement")
        return data

    return sign_statement


def _session(options: SigstoreSigning, config: ClientTrustConfig) -> _SigstoreSession:
    """An identity token and a certificate for it."""
    from sigstore.oidc import IdentityToken, Issuer, detect_credential
    from sigstore.sign import Signer, SigningContext

    with trust.signing_failures():
        client_id = options.client_id or "sigstore"
        given = options.identity_token or (detect_credential(client_id) if options.ambient else "")
        if given is None:
            raise SigningError(
                "no ambient credential in this environment",
                expected="an OIDC identity from GitHub Actions, GitLab, Google Cloud, …",
                fix="in GitHub Actions grant `permissions: id-token: write`; "
                "elsewhere use --identity-token",
            )
        if given:
            token = IdentityToken(given, client_id)
        else:
            issuer = Issuer(config.signing_config.get_oidc_url())
            token = issuer.identity_token(client_id, options.client_secret or "", options.oob)
        return Signer(token, SigningContext.from_trust_config(config), cache=True)
