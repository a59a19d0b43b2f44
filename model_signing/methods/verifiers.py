"""OMS 8.1, 8.2: verifiers, functions from the bytes of a bundle to authenticated bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from model_signing import errors
from model_signing.methods import keys
from model_signing.methods.sigstore_trust import SigstoreTrust as SigstoreTrust
from model_signing.methods.sigstore_trust import load, not_verified
from model_signing.oms import bundle
from model_signing.oms.bundle import Bundle, Method, Pem
from model_signing.oms.statement import LEGACY_PREDICATE_TYPE

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True)
class LogEntry:
    """Where a log has the signature; its key id in hexadecimal, its name in its checkpoint."""

    log_index: int
    log_id: str
    origin: str


@dataclass(frozen=True)
class Authenticated:
    """What a verifier returns: these bytes were signed by this identity."""

    payload: bytes  # the signed in-toto statement
    payload_type: str  # always `application/vnd.in-toto+json`
    method: Method
    identity: str | None = None  # alternative name (Sigstore), subject, or the key's fingerprint
    issuer: str | None = None  # OIDC issuer (Sigstore), or the certificate's
    certificate: bytes | None = None  # the leaf, DER
    signed_at: datetime | None = None  # when the signature existed at the latest ...
    time_source: str | None = None  # ... by the trusted clock of a log or timestamp authority
    log: LogEntry | None = None  # Sigstore


Verifier = Callable[[bytes], Authenticated]
_GITHUB = "https://token.actions.githubusercontent.com"  # an enterprise's has a path, too


def key_verifier(public_key: Pem, tsa_certificate_chain: Sequence[Pem] = ()) -> Verifier:
    """Accepts signatures of one key (OMS 8.2, method `key`).

    `public_key` is PEM or its path: P-256, P-384 or P-521, or else a `FileError`;
    `tsa_certificate_chain` is that of the timestamp authority which is trusted for the time. The
    verifier raises `BundleError`, `SignatureError` and `LogError`.
    """
    key = keys.load_public_key(public_key)
    known = keys.fingerprints(key)
    authority = keys.load_certificates(tsa_certificate_chain) if tsa_certificate_chain else []

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.1: a well-formed bundle, 4.1: of this method.
        parsed = bundle.parse(data, "key")
        # 2. OMS 4.1: `hint` identifies the verification key; `rawBytes` of old bundles is unused.
        hint = parsed.key_hint
        if hint is not None and hint not in known:
            raise errors.SignatureError("signed with another key", expected=known[0], found=hint)
        # 3. OMS 8.2: the DSSE signature.
        _verify_envelope(key, parsed)
        # 4. RFC 3161: when, if a trusted clock says so.
        time = _timestamped(parsed, authority)
        who = f"sha256:{known[0]}"
        return Authenticated(parsed.payload, parsed.payload_type, "key", who, **time)

    return verify


def certificate_verifier(
    certificate_chain: Sequence[Pem],
    tsa_certificate_chain: Sequence[Pem] = (),
    log_fingerprints: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> Verifier:
    """Accepts signatures of anyone whom a trusted authority certified (OMS 8.2, `certificate`).

    Every certificate in `certificate_chain`, PEM or paths, is a trust anchor: a `FileError` if one
    cannot be read, a `UsageError` if there is none. `tsa_certificate_chain`, as for `key_verifier`,
    makes an expired certificate verifiable if the signature was timestamped in time.
    `log_fingerprints` receives a line for every certificate. `now` is the time of signatures
    without trusted timestamp; if None, that of verification.

    The verifier raises `BundleError`, `CertificateError`, `SignatureError` and `LogError`.
    """
    from model_signing.methods import x509 as certificates

    anchors = keys.load_certificates(certificate_chain)
    if not anchors:
        raise errors.UsageError("no trusted certificate was named")
    authority = keys.load_certificates(tsa_certificate_chain)

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.1: a well-formed bundle, 4.1: of this method.
        parsed = bundle.parse(data, "certificate")
        leaf, *others = map(certificates.parse, parsed.certificates)
        if log_fingerprints is not None:
            for name, listed in (("anchor", anchors), ("bundle", [leaf, *others])):
                for one in listed:
                    fingerprint = one.fingerprint(hashes.SHA256()).hex(":").upper()
                    log_fingerprints(f"[{name}] sha256 {fingerprint}")
        # 2. RFC 3161: the trusted time of the signature; without one, now.
        time = _timestamped(parsed, authority)
        when = time.get("signed_at") or now or datetime.now(timezone.utc)
        # 3. OMS 8.2: the leaf is valid at that time, and for signing.
        option = "--tsa-certificate-chain" if parsed.timestamps else "--timestamp-url when signing"
        fix = f"an expired certificate needs a trusted timestamp: {option}"
        certificates.check_leaf(leaf, when, fix)
        # 4. OMS 8.2: it chains to an anchor. The bundle's certificates are never anchors.
        certificates.verify_chain(leaf, others, anchors, when)
        # 5. OMS 8.2: the DSSE signature.
        _verify_envelope(keys.supported(leaf.public_key()), parsed)
        who = (certificates.holder(leaf), leaf.issuer.rfc4514_string(), parsed.certificates[0])
        return Authenticated(parsed.payload, parsed.payload_type, "certificate", *who, **time)

    return verify


def sigstore_verifier(
    identity: str,
    issuer: str,
    source_repository: str | None = None,
    trust: SigstoreTrust = SigstoreTrust(),  # noqa: B008  (frozen)
) -> Verifier:
    """Accepts signatures of one identity (OMS 8.2, method `sigstore`).

    The certificate's subject alternative name must be `identity` and its OIDC issuer `issuer`,
    exactly. `source_repository`, as `ORG/REPO` or a full URI, is what extension .12 must name. It
    is needed where a workflow of one repository signed for another: everyone who calls a reusable
    workflow gets its identity.

    The verifier raises `BundleError`, `SignatureError` and, for somebody else's, `IdentityError`.
    """
    from model_signing.methods import fulcio

    repository = fulcio.repository_uri(source_repository) if source_repository else None

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.2: everything cryptographic.
        authenticated = authenticate_sigstore(data, trust)
        # 2. The identity, exactly: no prefix, no pattern, no case folding.
        claims = fulcio.certificate_claims(authenticated.certificate or b"")
        for name, expected, found in (
            ("identity", identity, claims.identity),
            ("identity provider", issuer, claims.issuer),
            ("source repository", repository, claims.source_repository_uri),
        ):
            if expected is not None and found != expected:
                words = f"signed by another {name}"
                raise errors.IdentityError(words, expected=expected, found=found or "none")
        # 3. A workflow speaks for its own repository; for a caller only if the caller is named.
        source = claims.source_repository_uri
        workflow = source or issuer.startswith(_GITHUB)
        if repository is None and workflow and not identity.startswith(f"{source}/"):
            raise errors.IdentityError(
                "signed by a reusable workflow, which anyone may call",
                where="certificate extension .12, source repository",
                found=source or "none",
                fix="say whose model it has to be, with --source-repository",
            )
        return authenticated

    return verify


def authenticate_sigstore(data: bytes, trust: SigstoreTrust) -> Authenticated:
    """Verifies everything about a Sigstore bundle, JSON, but whose identity it ought to be.

    A `BundleError` if it is malformed or of another method; a `CertificateError`, `LogError` or
    `SignatureError` if one of the proofs does not hold.
    """
    # 1. OMS 8.1: a well-formed bundle with a Fulcio certificate.
    parsed = bundle.parse(data, "sigstore")
    from sigstore import models
    from sigstore.verify import verifier

    from model_signing.methods import fulcio

    root = load(trust).trusted_root
    try:
        # 2. Sigstore client specification, by sigstore-python: trusted time, certificate chain at
        #    that time, SCT, inclusion proof and checkpoint, DSSE signature, consistency of the log
        #    entry with the envelope.
        signed = models.Bundle.from_json(data)
        _, payload = verifier.Verifier(trusted_root=root).verify_dsse(signed, _AnyIdentity())
        # 3. Two parsers read the same bytes; they must agree.
        if payload != parsed.payload:
            raise errors.BundleError("the bundle is ambiguous", where="dsseEnvelope.payload")
        # 4. The key id is a hint to sigstore-python, so it must at least be a trusted log's.
        entry: Any = signed.log_entry._inner
        log_id, proof = entry.log_id.key_id, entry.inclusion_proof
        if log_id not in [log.log_id.key_id for log in root._inner.tlogs]:
            raise errors.LogError("the entry is of a log that is not trusted", found=log_id.hex())
        # 5. Rekor v1's promise covers time and index; of v2's fields only the proof's are covered.
        promised = entry.inclusion_promise and entry.integrated_time
        index = entry.log_index if promised else proof.log_index
        log = LogEntry(index, log_id.hex(), proof.checkpoint.envelope.split("\n", 1)[0])
        time: dict[str, Any] = {}
        if promised:
            when = datetime.fromtimestamp(promised, timezone.utc)
            time = {"signed_at": when, "time_source": "transparency log"}
        else:
            authorities = root.get_timestamp_authorities()
            chains = [authority.certificates(allow_expired=True) for authority in authorities]
            with contextlib.suppress(errors.LogError):  # of a response without its certificate, say
                time = _timestamped(parsed, [one for chain in chains for one in chain])
    except errors.Error:
        raise
    except Exception as error:  # whatever sigstore-python raises is never a pass
        raise not_verified(error) from None
    claims = fulcio.certificate_claims(parsed.certificates[0])
    who = (claims.identity, claims.issuer, parsed.certificates[0])
    return Authenticated(payload, parsed.payload_type, "sigstore", *who, log=log, **time)


class _AnyIdentity:
    """A sigstore-python policy: identities are compared by our own code, after everything else."""

    def verify(self, cert: x509.Certificate) -> None:
        """Accepts."""


def _timestamped(parsed: Bundle, authority: Sequence[x509.Certificate]) -> dict[str, Any]:
    """`signed_at`, `time_source` by a trusted authority; a `LogError` if no timestamp is its."""
    if not authority or not parsed.timestamps:
        return {}
    from model_signing.methods.x509 import timestamp_time

    when = timestamp_time(parsed.timestamps, parsed.signature, authority)
    return {"signed_at": when, "time_source": "timestamp authority"}


def _verify_envelope(key: ec.EllipticCurvePublicKey, parsed: Bundle) -> None:
    """DSSE protocol.md: the signature over the pre-authentication encoding."""
    kind, payload = parsed.payload_type, parsed.payload
    signed, algorithm = bundle.pae(kind, payload), keys.signature_hash(key)
    if b'"%s"' % LEGACY_PREDICATE_TYPE.encode() in payload:
        # OMS 11, v0.2.0: the payload as Python prints it, and always SHA-256. "DSSEV1" keeps the
        # two apart, and the statement's reader refuses this predicate type unless asked for.
        signed = f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode()
        algorithm = hashes.SHA256()
    try:
        key.verify(parsed.signature, signed, ec.ECDSA(algorithm))
    except InvalidSignature:
        words = "the signature does not match: another key, or an altered payload"
        raise errors.SignatureError(words, where="dsseEnvelope") from None
