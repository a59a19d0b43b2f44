"""OMS method `certificate`: an EC key that an authority certified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from cryptography.hazmat.primitives import hashes

from model_signing.errors import CertificateError, UsageError
from model_signing.methods import Authenticated, Signer, Verifier, dsse, keys, timestamps, x509
from model_signing.methods.keys import Password
from model_signing.oms import bundle
from model_signing.safe_files import Pem


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
    sign, public_key = keys.software(private_key, password)
    certified, ders = x509.signing_chain(signing_certificate, certificate_chain)
    if certified != public_key:
        raise CertificateError("the signing certificate is not of this private key")
    return dsse.signer(sign, public_key, timestamp_url, ders)


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
    anchors = keys.load_certificates(certificate_chain)
    if not anchors:
        raise UsageError("no trusted certificate was named")
    authority = keys.load_certificates(tsa_certificate_chain)

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.1: a well-formed bundle, 4.1: of this method.
        parsed = bundle.parse(data, "certificate")
        leaf, *others = map(x509.parse, parsed.certificates)
        if log_fingerprints is not None:
            for name, listed in (("anchor", anchors), ("bundle", [leaf, *others])):
                for one in listed:
                    fingerprint = one.fingerprint(hashes.SHA256()).hex(":").upper()
                    key = keys.fingerprint(one.public_key())
                    log_fingerprints(f"[{name}] key {key}, certificate sha256 {fingerprint}")
        # 2. RFC 3161: the trusted time of the signature; without one, now.
        time = timestamps.trusted_time(parsed, authority)
        when = time.get("signed_at") or now or datetime.now(timezone.utc)
        # 3. OMS 8.2: the leaf is valid at that time, and for signing.
        option = "--tsa-certificate-chain" if parsed.timestamps else "--timestamp-url when signing"
        fix = f"an expired certificate needs a trusted timestamp: {option}"
        x509.check_leaf(leaf, when, fix)
        # 4. OMS 8.2: it chains to an anchor. The bundle's certificates are never anchors.
        x509.verify_chain(leaf, others, anchors, when)
        # 5. OMS 8.2: the DSSE signature.
        dsse.verify(keys.supported(leaf.public_key()), parsed)
        who = (x509.holder(leaf), leaf.issuer.rfc4514_string(), parsed.certificates[0])
        return Authenticated(parsed.payload, parsed.payload_type, "certificate", *who, **time)

    return verify
