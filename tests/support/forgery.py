"""Sigstore bundles of which every part may be wrong, by somebody who has all the keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from model_signing.oms import bundle
from sandbox.sigstore import LocalSigstore
from sandbox.sigstore.authority import Authority
from sandbox.sigstore.fulcio import EXTENSION_ARC, SCT_LIST
from tests.support.material import base64_of, der, key_usage, sign_raw, statement

PERSON = "dev@example.test"


def ahead(**by: float) -> datetime:
    """A time so far from now. No test begins when its module is imported."""
    return datetime.now(timezone.utc).replace(microsecond=0) + timedelta(**by)


@dataclass(frozen=True)
class Leaf:
    """What a signing certificate says; by default what Fulcio's would.

    Attributes:
        issuer: Text of the extensions .1 and .8; None leaves one out.
        scts: Signers of certificate timestamps, by whose log; of another certificate if `strayed`.
    """

    names: Sequence[x509.GeneralName] = (x509.RFC822Name(PERSON),)
    names_critical: bool = True
    usages: Sequence[ObjectIdentifier] | None = (ExtendedKeyUsageOID.CODE_SIGNING,)
    key_uses: Sequence[str] | None = ("digital_signature",)
    issuers: tuple[str | None, str | None] = ("same", "same")
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()
    start: datetime = field(default_factory=lambda: ahead(minutes=-1))
    end: datetime = field(default_factory=lambda: ahead(minutes=9))
    subject: x509.Name = field(default_factory=lambda: x509.Name([]))
    scts: Sequence[LocalSigstore] | None = None
    strayed: bool = False


@dataclass(frozen=True)
class Issuer:
    """What a certificate of an authority says; by default what the sandbox's would.

    Attributes:
        path_length: How many authorities may be below it.
        foreign: Whom its own issuer is in truth: somebody of the same name, with another key.
    """

    is_ca: bool | None = True
    key_uses: Sequence[str] | None = ("key_cert_sign", "crl_sign")
    usages: Sequence[ObjectIdentifier] | None = None
    path_length: int | None = None
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()
    start: datetime = field(default_factory=lambda: ahead(days=-9))
    end: datetime = field(default_factory=lambda: ahead(days=9))
    issuer: x509.Name | None = None
    foreign: bool = False


def chain(authority: Authority, intermediate: Issuer, root: Issuer) -> list[bytes]:
    """The authority's intermediate and a root above it, DER, as they are said to be.

    Names, and the intermediate's key, stay: what was issued is issued by this one, too.
    """
    above, other = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    made = []
    for which, subject, key, length in (
        (intermediate, authority.intermediate.subject, authority.key, 0),
        (root, authority.root.subject, above, 1),
    ):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(which.issuer or authority.root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(which.start)
            .not_valid_after(which.end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), False
            )
        )
        if which.is_ca is not None:
            allowed = length if which.path_length is None else which.path_length
            basic = x509.BasicConstraints(which.is_ca, allowed if which.is_ca else None)
            builder = builder.add_extension(basic, True)
        if which.key_uses is not None:
            builder = builder.add_extension(key_usage(*which.key_uses), True)
        if which.usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(which.usages), False)
        for extension, critical in which.more:
            builder = builder.add_extension(extension, critical)
        signed = builder.sign(other if which.foreign else above, hashes.SHA384())
        made.append(signed.public_bytes(Encoding.DER))
    return made


def certify(
    instance: LocalSigstore, made: Leaf, authority: Authority | None = None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key and its certificate, by the instance's Fulcio or by another authority."""
    authority = authority or instance.fulcio.authority
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.subject)
        .issuer_name(authority.intermediate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made.start)
        .not_valid_after(made.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False
        )
    )
    if made.key_uses is not None:
        builder = builder.add_extension(key_usage(*made.key_uses), True)
    if made.usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(made.usages), False)
    if made.names:
        names = x509.SubjectAlternativeName(made.names)
        builder = builder.add_extension(names, made.names_critical)
    for arc, text in zip((1, 8), made.issuers, strict=True):
        if text is not None:
            text = instance.url if text == "same" else text
            value = text.encode() if arc == 1 else asn1.encode_der(text)
            oid = ObjectIdentifier(f"{EXTENSION_ARC}.{arc}")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), False)
    for extension, critical in made.more:
        builder = builder.add_extension(extension, critical)
    lists = [
        _list(one, authority, b"\x30\x00" if made.strayed else _tbs(builder, authority))
        for one in ([instance] if made.scts is None else made.scts)
    ]
    if lists:
        items = b"".join(lists)
        value = asn1.encode_der(len(items).to_bytes(2, "big") + items)
        builder = builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, value), False)
    return key, authority.sign(builder)


def _tbs(builder: x509.CertificateBuilder, authority: Authority) -> bytes:
    return authority.sign(builder).tbs_certificate_bytes


def _list(signer: LocalSigstore, authority: Authority, precertificate: bytes) -> bytes:
    """One item of a SignedCertificateTimestampList, by the log of `signer`."""
    before = signer.fulcio.authority
    signer.fulcio.authority = authority  # whose key the log names as the issuer's
    try:
        found: bytes = asn1.decode_der(bytes, signer.fulcio.timestamp_list(precertificate))
    finally:
        signer.fulcio.authority = before
    return found[2:]


def timestamp(instance: LocalSigstore, data: bytes) -> bytes:
    """A timestamp of the instance's authority."""
    request = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256).build()
    return instance.tsa.reply(request.as_bytes())


def forge(
    instance: LocalSigstore,
    made: Leaf | None = None,
    *,
    authority: Authority | None = None,
    log: LocalSigstore | None = None,
    clock: LocalSigstore | None = None,
    payload: bytes = statement(),
) -> bytes:
    """A bundle that is right but for what the certificate says, and whose log and clock it is."""
    key, certificate = certify(instance, made or Leaf(), authority)
    signature = sign_raw(key, payload)
    encoded = bundle.pae("application/vnd.in-toto+json", payload)
    request = {
        "hashedRekordRequestV002": {
            "digest": base64_of(hashlib.sha256(encoded).digest()),
            "signature": {
                "content": base64_of(signature),
                "verifier": {
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "x509Certificate": {"rawBytes": base64_of(der(certificate))},
                },
            },
        }
    }
    document = {
        "mediaType": bundle.MEDIA_TYPE,
        "verificationMaterial": {
            "certificate": {"rawBytes": base64_of(certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [(log or instance).rekor.add(request)],
            "timestampVerificationData": {
                "rfc3161Timestamps": [
                    {"signedTimestamp": base64_of(timestamp(clock or instance, signature))}
                ]
            },
        },
        "dsseEnvelope": {
            "payload": base64_of(payload),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64_of(signature)}],
        },
    }
    return json.dumps(document).encode()
