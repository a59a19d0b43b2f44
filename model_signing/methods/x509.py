"""Certificates and their chains (RFC 5280)."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder

from model_signing.errors import CertificateError
from model_signing.methods import keys
from model_signing.methods.der import elements
from model_signing.safe_files import Pem

T = TypeVar("T", bound=x509.ExtensionType)
Chain = Iterable[x509.Certificate]


def parse(der: bytes) -> x509.Certificate:
    """A certificate from an untrusted place; a `CertificateError` if a field cannot be read."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        # cryptography parses these only when they are asked for, and raises what it likes.
        _ = certificate.subject, certificate.issuer, certificate.version
        _ = certificate.extensions, certificate.public_key(), certificate.not_valid_after_utc
        serial, (inner, outer) = certificate.serial_number, _algorithms(der)
    except Exception as error:
        raise CertificateError("the certificate is malformed", found=str(error)) from None
    if not der.endswith(b"\0" + certificate.signature):  # RFC 5280 4.1.1.3: no unused bits
        raise CertificateError("the certificate is malformed", where="signatureValue")
    if serial < 0:  # RFC 5280 4.1.2.2, which has verifiers bear with a zero
        raise CertificateError("the certificate is malformed", where="serialNumber")
    if inner != outer:  # RFC 5280 4.1.1.2
        raise CertificateError("the certificate is malformed", where="signatureAlgorithm")
    return certificate


def _algorithms(der: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """How a certificate is signed, by what is signed and by what is beside it (RFC 5280 4.1)."""
    ((_, certificate),) = elements(der)
    (_, signed), outer, _ = elements(certificate)
    fields = elements(signed)
    return fields[2 if fields[0][0] == _VERSION else 1], outer


_VERSION = 0xA0  # [0] EXPLICIT: there, unless it is v1


def holder(leaf: x509.Certificate) -> str:
    """The certificate's subject; where that is empty, its alternative names."""
    names = extension(leaf, x509.SubjectAlternativeName) or ()
    return leaf.subject.rfc4514_string() or ", ".join(str(name.value) for name in names)


def extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    """The certificate's extension of this class, if it has one."""
    return next((one.value for one in certificate.extensions if isinstance(one.value, kind)), None)


def check_leaf(leaf: x509.Certificate, when: datetime, fix: str | None = None) -> None:
    """Raises a `CertificateError` unless a certificate, whoever issued it, may sign models then."""
    # 1. RFC 5280 4.1.2.5, OMS 8.2: within its validity period.
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not start <= when <= end:
        fix = clock(when) if when < start else fix
        raise CertificateError(
            f"the signing certificate {'has expired' if when > end else 'is not valid yet'}",
            expected=f"a time from {start:%Y-%m-%d %H:%M:%SZ} to {end:%Y-%m-%d %H:%M:%SZ}",
            found=f"{when:%Y-%m-%d %H:%M:%SZ}",
            fix=fix,
        )
    usage, purposes = extension(leaf, x509.KeyUsage), extension(leaf, x509.ExtendedKeyUsage)
    # 2. RFC 5280 4.2.1.3: the key may make signatures.
    if usage is not None and not usage.digital_signature:
        raise CertificateError("the certificate's key usage does not include digitalSignature")
    # 3. RFC 5280 4.2.1.12: and signatures of code.
    if purposes is not None and Purpose.CODE_SIGNING not in purposes:
        raise CertificateError(
            "the certificate is not for code signing",
            expected="codeSigning in its extended key usage",
            found=", ".join(oid._name for oid in purposes),
        )
    if usage is None and purposes is None:
        raise CertificateError(
            "the certificate does not say that it is for signing",
            expected="digitalSignature in its key usage, or codeSigning in its extended key usage",
            found="neither, as OpenSSL makes certificates by default",
            fix="make it with: openssl req -x509 -addext keyUsage=critical,digitalSignature "
            "-addext extendedKeyUsage=codeSigning ...",
        )


def clock(when: datetime) -> str | None:
    """The fix where something is not valid yet, if that was judged by this machine's clock."""
    if abs((datetime.now(timezone.utc) - when).total_seconds()) > 60:
        return None
    return f"is this machine's clock right? It says {when:%Y-%m-%d %H:%M:%SZ}"


def signing_chain(leaf: Pem, others: Sequence[Pem]) -> tuple[object, list[bytes]]:
    """The leaf's public key; and all certificates, DER, leaf first, without repetition."""
    chain = list(dict.fromkeys(keys.load_certificates([leaf, *others])))
    check_leaf(chain[0], datetime.now(timezone.utc))
    return chain[0].public_key(), [certificate.public_bytes(Encoding.DER) for certificate in chain]


def verify_chain(leaf: x509.Certificate, others: Chain, anchors: Chain, when: datetime) -> None:
    """RFC 5280 6.1: a path, all valid at `when`, from leaf to anchor; else a CertificateError.

    The anchor counts as a certificate like the others: valid, a CA, for this use, of a length.
    """
    anyone = ExtensionPolicy.permit_all()
    code = partial(_require_purpose, Purpose.CODE_SIGNING)
    issuer = anyone.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _require_ca)
    issuer = issuer.may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_cert_sign)
    issuer = issuer.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, code)
    policy = PolicyBuilder().store(verification.Store(list(anchors))).time(when)
    policy = policy.extension_policies(ca_policy=issuer, ee_policy=anyone)
    try:
        policy.build_client_verifier().verify(leaf, list(others))
    except verification.VerificationError as error:
        reason = str(error).split(" (encountered")[0].rpartition(": ")[2]
        if reason.startswith("all candidates exhausted") or "max depth" in reason:
            reason = f"it ends at {_end(leaf, list(others)).rfc4514_string()}"
        fix: str | None = "name the right root certificate with --certificate-chain"
        early = "not valid at" in str(error)
        if early and any(when < one.not_valid_before_utc for one in (*others, *anchors)):
            fix = clock(when) or fix
        raise CertificateError(
            "the certificate does not chain to a trusted root",
            expected=" or ".join(one.subject.rfc4514_string() for one in anchors),
            found=reason,
            fix=fix,
        ) from None


def require_issuers(chain: Sequence[x509.Certificate], purpose: x509.ObjectIdentifier) -> None:
    """Raises a `ValueError` unless all above the first may issue, and for this purpose.

    It is what OpenSSL lets pass, where it found that the chain holds.
    """
    issuers = {one.subject for one in chain[1:]}
    for one in chain[:-1]:
        if one.issuer not in issuers:  # byte for byte, as `verify_chain` has it
            raise ValueError(f"no certificate has the name of the issuer of {holder(one)}")
    for one in chain[1:]:
        basic = extension(one, x509.BasicConstraints) or x509.BasicConstraints(False, None)
        _require_ca(None, one, basic)
        _require_cert_sign(None, one, extension(one, x509.KeyUsage))
        _require_purpose(purpose, None, one, extension(one, x509.ExtendedKeyUsage))


def _end(certificate: x509.Certificate, others: list[x509.Certificate]) -> x509.Name:
    """Whose certificate would have to be trusted: the last issuer that a chain names."""
    for _ in range(len(others)):
        above = [one for one in others if one.subject == certificate.issuer != one.issuer]
        if not above:
            break
        certificate = above[0]
    return certificate.issuer


def _require_ca(_: Policy | None, __: x509.Certificate, value: x509.BasicConstraints) -> None:
    if not value.ca:  # RFC 5280 6.1.4 (k)
        raise ValueError("an issuer is not a certification authority")


def _require_cert_sign(_: Policy | None, __: x509.Certificate, value: x509.KeyUsage | None) -> None:
    if value is not None and not value.key_cert_sign:  # RFC 5280 6.1.4 (n)
        raise ValueError("an issuer may not sign certificates")


def _require_purpose(
    purpose: x509.ObjectIdentifier,
    _: Policy | None,
    __: x509.Certificate,
    value: x509.ExtendedKeyUsage | None,
) -> None:
    """As OpenSSL and Windows nest purposes: an authority for servers is none for models."""
    if value and not {purpose, Purpose.ANY_EXTENDED_KEY_USAGE} & set(value):
        raise ValueError(f"an issuer may not certify {_PURPOSES[purpose]}")


_PURPOSES = {Purpose.CODE_SIGNING: "code signing", Purpose.TIME_STAMPING: "time stamping"}
