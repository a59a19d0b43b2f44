"""OMS 6.7, 6.8: signers, functions from the bytes of an in-toto statement to those of a bundle."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding

from model_signing.errors import CertificateError, Error, SigningError
from model_signing.methods import keys, sigstore_trust
from model_signing.methods.keys import Password
from model_signing.oms import bundle
from model_signing.oms.bundle import Pem

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.sign import Signer as _SigstoreSession

Signer = Callable[[bytes], bytes]
_Sign = Callable[[bytes], bytes]  # a digest to its DER signature
_SESSION_SECONDS = 300  # half of the ten minutes that a Fulcio certificate lives


def key_signer(
    private_key: Pem, password: Password = None, timestamp_url: str | None = None
) -> Signer:
    """Signs with a long-lived EC key (OMS 4.1, method `key`).

    `private_key` is PEM or its path: P-256, P-384 or P-521, perhaps encrypted, or else a
    `FileError`. `password` may be a function that asks for it. The RFC 3161 authority at
    `timestamp_url` timestamps every signature, or else a `SigningError`.
    """
    return _signer(*_software(private_key, password), timestamp_url)


def certificate_signer(
    private_key: Pem,
    signing_certificate: Pem,
    certificate_chain: Sequence[Pem] = (),
    password: Password = None,
    timestamp_url: str | None = None,
) -> Signer:
    """Signs as `key_signer`, with a certificate of the key (OMS 4.1, method `certificate`).

    `certificate_chain` has the certificates between it and the root, as PEM or paths. A `FileError`
    if a certificate cannot be used; a `CertificateError` if no verifier would accept it now, or it
    is of another key.
    """
    sign, public_key = _software(private_key, password)
    certified, ders = _certified(signing_certificate, certificate_chain)
    if certified != public_key:
        raise CertificateError("the signing certificate is not of this private key")
    return _signer(sign, public_key, timestamp_url, ders)


def pkcs11_key_signer(uri: str, pin: str | None = None, timestamp_url: str | None = None) -> Signer:
    """Signs as `key_signer`, with a key on a PKCS#11 token.

    The arguments and errors besides are those of `model_signing.methods.pkcs11.open_key`.
    """
    from model_signing.methods import pkcs11

    sign, public_key = pkcs11.open_key(uri, pin)
    return _signer(sign, public_key(), timestamp_url)


def pkcs11_certificate_signer(
    uri: str,
    signing_certificate: Pem,
    certificate_chain: Sequence[Pem] = (),
    pin: str | None = None,
    timestamp_url: str | None = None,
) -> Signer:
    """Signs as `certificate_signer`, with a key on a PKCS#11 token (see `pkcs11_key_signer`).

    The token needs no public key; a certificate of another key shows when the first signature
    does not verify.
    """
    from model_signing.methods import pkcs11

    certified, ders = _certified(signing_certificate, certificate_chain)
    return _signer(pkcs11.open_key(uri, pin)[0], keys.supported(certified), timestamp_url, ders)


def _software(pem: Pem, password: Password) -> tuple[_Sign, ec.EllipticCurvePublicKey]:
    key = keys.load_private_key(pem, password)
    algorithm = ec.ECDSA(utils.Prehashed(keys.signature_hash(key.public_key())))
    return lambda digest: key.sign(digest, algorithm), key.public_key()


def _certified(leaf: Pem, others: Sequence[Pem]) -> tuple[object, list[bytes]]:
    """The leaf's public key; and all certificates, DER, leaf first, without repetition."""
    from model_signing.methods import x509  # X.509 takes time to import: not for keys

    chain = list(dict.fromkeys(keys.load_certificates([leaf, *others])))
    x509.check_leaf(chain[0], datetime.now(timezone.utc))
    return chain[0].public_key(), [certificate.public_bytes(Encoding.DER) for certificate in chain]


def _signer(
    sign: _Sign,
    public_key: ec.EllipticCurvePublicKey,
    timestamp_url: str | None,
    ders: Sequence[bytes] = (),
) -> Signer:
    """What all keys have in common."""
    algorithm = keys.signature_hash(public_key)
    hint = None if ders else keys.fingerprints(public_key)[0]

    def sign_statement(statement: bytes) -> bytes:
        signed = bundle.pae(bundle.PAYLOAD_TYPE, statement)
        digest = hashlib.new(algorithm.name, signed).digest()
        signature = sign(digest)
        try:  # a token's key may be another than the certificate's
            public_key.verify(signature, digest, ec.ECDSA(utils.Prehashed(algorithm)))
        except InvalidSignature:
            raise SigningError("the private key does not match the public key") from None
        stamps = []
        if timestamp_url is not None:
            from model_signing.methods import x509

            stamps = [x509.timestamp(signature, timestamp_url)]
        return bundle.encode(
            statement, signature, key_hint=hint, certificates=ders, timestamps=stamps
        )

    return sign_statement


@dataclass(frozen=True)
class SigstoreSigning(sigstore_trust.SigstoreTrust):
    """Who signs with Sigstore, and where; without identity a browser asks the user who they are."""

    ambient: bool = False  # take the identity from the environment, such as GitHub Actions
    identity_token: str | None = None  # take that of this OIDC token
    client_id: str | None = None  # OAuth client, and the audience that the token must have
    client_secret: str | None = None
    oob: bool = False  # print the address instead of opening a browser


def sigstore_signer(options: SigstoreSigning) -> Signer:
    """Signs with a short-lived certificate for an OIDC identity (OMS 4.1, method `sigstore`).

    Imports, trust root, token and certificate are fetched by a thread that starts here, so that
    the caller's hashing hides them. A certificate that has grown old meanwhile is replaced. A
    person is asked only when the statement is ready.

    A `FileError` or `UsageError` if the trust configuration cannot be read. The signer raises
    `SigningError` for every failure of a service or credential, and `SignatureError` when what the
    services returned does not verify.
    """
    sigstore_trust.read(options)  # a missing file shows before the hashing, not after

    def prepare() -> tuple[ClientTrustConfig, _SigstoreSession | None, float]:
        config = sigstore_trust.load(options)
        known = options.ambient or options.identity_token
        return config, _session(options, config) if known else None, time.monotonic()

    prepared = sigstore_trust.in_background(prepare)

    def sign_statement(statement: bytes) -> bytes:
        from sigstore import dsse

        from model_signing.methods import verifiers

        try:
            config, session, since = prepared()
            if session is None or time.monotonic() - since > _SESSION_SECONDS:
                session = _session(options, config)
            data = session.sign_dsse(dsse.Statement(statement)).to_json().encode() + b"\n"
        except Error:
            raise
        except Exception as error:
            raise sigstore_trust.not_signed(error) from None
        # What the services answered is checked before anybody calls it a signature.
        if verifiers.authenticate_sigstore(data, options).payload != statement:
            raise SigningError("Sigstore signed something else than the statement")
        return data

    return sign_statement


def _session(options: SigstoreSigning, config: ClientTrustConfig) -> _SigstoreSession:
    """An identity token and a certificate for it."""
    from sigstore.oidc import IdentityToken, Issuer, detect_credential
    from sigstore.sign import Signer, SigningContext

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
