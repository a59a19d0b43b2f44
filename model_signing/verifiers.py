"""OMS 8.1, 8.2: verifiers, functions from the bytes of a bundle to authenticated bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from model_signing import bundle, keys, trust
from model_signing.bundle import Bundle, Method
from model_signing.errors import BundleError, IdentityError, SignatureError
from model_signing.fulcio import Claims, certificate_claims, repository_uri
from model_signing.trust import SigstoreTrust

if TYPE_CHECKING:
    from cryptography import x509

__all__ = [
    "Authenticated",
    "Claims",
    "LogEntry",
    "SigstoreTrust",
    "Verifier",
    "authenticate_sigstore",
    "certificate_claims",
    "key_verifier",
    "sigstore_verifier",
]


@dataclass(frozen=True)
class LogEntry:
    """Where a transparency log has the signature.

    Attributes:
        log_index: Position in the log.
        log_id: The log's key id, hexadecimal.
        origin: The log's name in its checkpoint.
    """

    log_index: int
    log_id: str
    origin: str


@dataclass(frozen=True)
class Authenticated:
    """What a verifier returns: these bytes were signed by this identity.

    Attributes:
        payload: The signed in-toto statement.
        payload_type: Always `application/vnd.in-toto+json`.
        method: "sigstore", "key" or "certificate".
        identity: Sigstore: subject alternative name; certificate: subject; key: fingerprint.
        issuer: Sigstore: OIDC issuer; certificate: the issuer's name.
        certificate: The leaf certificate, DER.
        signed_at: When the signature existed at the latest, by a trusted clock.
        time_source: Whose clock that is.
        log: The transparency-log entry (Sigstore).
    """

    payload: bytes
    payload_type: str
    method: Method
    identity: str | None = None
    issuer: str | None = None
    certificate: bytes | None = None
    signed_at: datetime | None = None
    time_source: str | None = None
    log: LogEntry | None = None


Verifier = Callable[[bytes], Authenticated]


def key_verifier(public_key: bytes) -> Verifier:
    """Accepts signatures of one key (OMS 8.2, method `key`).

    Args:
        public_key: PEM: P-256, P-384 or P-521.

    Raises:
        FileError: The key cannot be used. The returned verifier raises `BundleError` and
            `SignatureError`.
    """
    key = keys.load_public_key(public_key)
    known = keys.fingerprints(key)

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.1: a well-formed bundle, 4.1: of this method.
        parsed = bundle.parse(data)
        _require_method(parsed, "key")
        # 2. OMS 4.1: `hint` identifies the verification key; `rawBytes` of old bundles is unused.
        if parsed.key_hint is not None and parsed.key_hint not in known:
            raise SignatureError(
                "signed with another key", expected=known[0], found=parsed.key_hint
            )
        # 3. OMS 8.2: the DSSE signature.
        _verify_envelope(key, parsed)
        return Authenticated(parsed.payload, parsed.payload_type, "key", identity=known[0])

    return verify


def sigstore_verifier(
    identity: str,
    issuer: str,
    source_repository: str | None = None,
    trust: SigstoreTrust = SigstoreTrust(),  # noqa: B008  (frozen)
) -> Verifier:
    """Accepts signatures of one identity (OMS 8.2, method `sigstore`).

    Args:
        identity: The certificate's subject alternative name, compared exactly.
        issuer: Its OIDC issuer, compared exactly.
        source_repository: `ORG/REPO` or a full URI: what extension .12 must name. An identity
            that is a reusable workflow says nothing about the repository that called it.
        trust: The Sigstore instance.

    The returned verifier raises `BundleError`, `SignatureError` and, for somebody else's valid
    signature, `IdentityError`.
    """
    repository = repository_uri(source_repository) if source_repository else None

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.2: everything cryptographic.
        authenticated = authenticate_sigstore(data, trust)
        # 2. The identity, exactly: no prefix, no pattern, no case folding.
        claims = certificate_claims(authenticated.certificate or b"")
        for name, expected, found in (
            ("identity", identity, claims.identity),
            ("identity provider", issuer, claims.issuer),
            ("source repository", repository, claims.source_repository_uri),
        ):
            if expected is not None and found != expected:
                raise IdentityError(
                    f"signed by another {name}", expected=expected, found=found or "none"
                )
        return authenticated

    return verify


def authenticate_sigstore(data: bytes, trust: SigstoreTrust) -> Authenticated:
    """Verifies everything about a Sigstore bundle but whose identity it ought to be.

    Args:
        data: The bundle, JSON.
        trust: The Sigstore instance.

    Raises:
        BundleError: Malformed, or not a Sigstore (keyless) bundle.
        CertificateError, LogError, SignatureError: One of the proofs does not hold.
    """
    # 1. OMS 8.1: a well-formed bundle with a Fulcio certificate.
    parsed = bundle.parse(data)
    _require_method(parsed, "sigstore")
    # 2. Sigstore client specification, by sigstore-python: trusted time, certificate chain at
    #    that time, SCT, inclusion proof and checkpoint, DSSE signature, consistency of the log
    #    entry with the envelope.
    payload, signed_at, time_source = _verify_sigstore(data, parsed, trust)
    # 3. Two parsers read the same bytes; they must agree.
    if payload != parsed.payload:
        raise BundleError("the bundle is ambiguous", where="dsseEnvelope.payload")
    claims = certificate_claims(parsed.certificates[0])
    return Authenticated(
        payload=payload,
        payload_type=parsed.payload_type,
        method="sigstore",
        identity=claims.identity,
        issuer=claims.issuer,
        certificate=parsed.certificates[0],
        signed_at=signed_at,
        time_source=time_source,
        log=_log_entry(parsed.log_entries[0]),
    )


class _AnyIdentity:
    """A sigstore-python policy: identities are compared by our own code, after everything else."""

    def verify(self, cert: x509.Certificate) -> None:
        """Accepts."""


def _verify_sigstore(
    data: bytes, parsed: Bundle, trusted: SigstoreTrust
) -> tuple[bytes, datetime | None, str | None]:
    from sigstore import models
    from sigstore.verify import verifier

    root = trust.load(trusted).trusted_root
    with trust.verification_failures():
        entry = models.Bundle.from_json(data)
        payload_type, payload = verifier.Verifier(trusted_root=root).verify_dsse(
            entry, _AnyIdentity()
        )
        if payload_type != parsed.payload_type:
            raise BundleError("the bundle is ambiguous", where="dsseEnvelope.payloadType")
        integrated = parsed.log_entries[0].get("integratedTime")
        if integrated and parsed.log_entries[0].get("inclusionPromise"):
            when = datetime.fromtimestamp(int(integrated), timezone.utc)
            return payload, when, "transparency log"
    return payload, None, None


def _log_entry(entry: dict[str, Any]) -> LogEntry:
    """Fields of a verified entry: the key id decides the log, the checkpoint names it."""
    import base64

    proof = entry["inclusionProof"]
    return LogEntry(
        log_index=int(entry.get("logIndex", 0)),
        log_id=base64.b64decode(entry["logId"]["keyId"]).hex(),
        origin=str(proof["checkpoint"]["envelope"]).split("\n", 1)[0],
    )


def _require_method(parsed: Bundle, method: Method) -> None:
    if parsed.method != method:
        raise BundleError(
            "signed by another method",
            where="verificationMaterial",
            expected=method,
            found=parsed.method,
            fix=f"verify it with `model_signing verify {parsed.method}`",
        )


def _verify_envelope(key: ec.EllipticCurvePublicKey, parsed: Bundle) -> None:
    """DSSE protocol.md: the signature over the pre-authentication encoding."""
    signed: bytes = bundle.pae(parsed.payload_type, parsed.payload)
    algorithm: hashes.HashAlgorithm = keys.signature_hash(key)
    if b'"%s"' % bundle.LEGACY_PREDICATE_TYPE.encode() in parsed.payload:
        # OMS 11, v0.2.0: another encoding and always SHA-256. "DSSEV1" keeps the two apart, and
        # the statement's reader refuses this predicate type unless asked for.
        signed, algorithm = bundle.legacy_pae(parsed.payload_type, parsed.payload), hashes.SHA256()
    try:
        key.verify(parsed.signature, signed, ec.ECDSA(algorithm))
    except InvalidSignature:
        raise SignatureError(
            "the signature does not match: another key, or an altered payload",
            where="dsseEnvelope",
        ) from None
