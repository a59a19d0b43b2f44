"""The sandbox's timestamp authority (RFC 3161): it says when it saw a digest.

For demonstrations and tests only: the keys are made at start and kept in memory. The structures
are those of RFC 3161 (TimeStampReq, TimeStampResp, TSTInfo), RFC 5652 (SignedData) and RFC 5816
(SigningCertificateV2), with the fields that this authority fills in.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from sandbox.sigstore.authority import certificate_name, make_authority
from sandbox.sigstore.errors import RequestError
from sandbox.sigstore.oidc import Clock

SHA1 = ObjectIdentifier("1.3.14.3.2.26")
SHA256 = ObjectIdentifier("2.16.840.1.101.3.4.2.1")
SIGNED_DATA = ObjectIdentifier("1.2.840.113549.1.7.2")
TIMESTAMP_INFO = ObjectIdentifier("1.2.840.113549.1.9.16.1.4")
CONTENT_TYPE = ObjectIdentifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST = ObjectIdentifier("1.2.840.113549.1.9.4")
SIGNING_CERTIFICATE_V2 = ObjectIdentifier("1.2.840.113549.1.9.16.2.47")
ECDSA_WITH_SHA256 = ObjectIdentifier("1.2.840.10045.4.3.2")
TIMESTAMP_POLICY = ObjectIdentifier("1.3.6.1.4.1.57264.2")


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: ObjectIdentifier
    parameters: asn1.Null | None = None


@asn1.sequence
class _MessageImprint:
    hash_algorithm: _AlgorithmIdentifier
    hashed_message: bytes


@asn1.sequence
class _TimeStampReq:
    """RFC 3161 2.4.1; a request with extensions does not parse: none is supported."""

    version: int
    message_imprint: _MessageImprint
    policy: ObjectIdentifier | None
    nonce: int | None
    certificate_requested: Annotated[bool, asn1.Default(value=False)]


@asn1.sequence
class _Accuracy:
    seconds: int


@asn1.sequence
class _TSTInfo:
    """RFC 3161 2.4.2."""

    version: int
    policy: ObjectIdentifier
    message_imprint: _MessageImprint
    serial_number: int
    time: asn1.GeneralizedTime
    accuracy: _Accuracy
    nonce: int | None
    name: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class _Attribute:
    """RFC 5652 5.3."""

    type: ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _ESSCertIDv2:
    """RFC 5035 4, with the default hash algorithm: SHA-256."""

    certificate_hash: bytes


@asn1.sequence
class _SigningCertificateV2:
    certificates: list[_ESSCertIDv2]


@asn1.sequence
class _IssuerAndSerialNumber:
    issuer: asn1.TLV
    serial_number: int


@asn1.sequence
class _SignerInfo:
    """RFC 5652 5.3."""

    version: int
    signer: _IssuerAndSerialNumber
    digest_algorithm: _AlgorithmIdentifier
    signed_attributes: Annotated[asn1.SetOf[_Attribute], asn1.Implicit(0)]
    signature_algorithm: _AlgorithmIdentifier
    signature: bytes


@asn1.sequence
class _EncapsulatedContent:
    type: ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class _SignedData:
    """RFC 5652 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[_AlgorithmIdentifier]
    content: _EncapsulatedContent
    certificates: Annotated[asn1.SetOf[x509.Certificate] | None, asn1.Implicit(0)]
    signers: asn1.SetOf[_SignerInfo]


@asn1.sequence
class _TimeStampToken:
    type: ObjectIdentifier
    content: Annotated[_SignedData, asn1.Explicit(0)]


@asn1.sequence
class _Status:
    status: int


@asn1.sequence
class _TimeStampResp:
    """RFC 3161 2.4.2."""

    status: _Status
    token: _TimeStampToken


GRANTED = 0


class TimestampAuthority:
    """Says when it saw a SHA-256 digest (RFC 3161).

    Attributes:
        authority: Issued the certificate.
        certificate: Of the key that signs timestamps.
        clock: The time it states, in whole seconds; tests replace it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.authority = make_authority("sandbox-tsa", clock(), ExtendedKeyUsageOID.TIME_STAMPING)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.authority.sign(
            self.authority.builder(
                self.key.public_key(),
                certificate_name("sandbox-tsa"),
                self.authority.intermediate.not_valid_before_utc,
                self.authority.intermediate.not_valid_after_utc,
                ExtendedKeyUsageOID.TIME_STAMPING,
            )
        )

    def reply(self, query: bytes) -> bytes:
        """A TimeStampResp (RFC 3161 2.4.2) for a TimeStampReq (2.4.1), both DER.

        Raises:
            RequestError: Not such a request, or its digest is not SHA-256.
        """
        try:
            request = asn1.decode_der(_TimeStampReq, query)
        except ValueError as error:
            raise RequestError("Error generating timestamp response") from error
        imprint = request.message_imprint
        if imprint.hash_algorithm.algorithm == SHA1:
            raise RequestError("Weak hash algorithm in timestamp request")
        if imprint.hash_algorithm.algorithm != SHA256:
            raise RequestError("the sandbox timestamps SHA-256 digests only")
        info = _TSTInfo(
            version=1,
            policy=TIMESTAMP_POLICY,
            message_imprint=_MessageImprint(
                hash_algorithm=_AlgorithmIdentifier(algorithm=SHA256),
                hashed_message=imprint.hashed_message,
            ),
            serial_number=x509.random_serial_number(),
            # Whole seconds: JavaScript verifiers trim fractions and then fail on the signature.
            time=asn1.GeneralizedTime(self.clock().replace(microsecond=0)),
            accuracy=_Accuracy(seconds=1),
            nonce=request.nonce,
            name=self._name(),
        )
        token = self._token(asn1.encode_der(info), certificates=request.certificate_requested)
        return asn1.encode_der(_TimeStampResp(status=_Status(status=GRANTED), token=token))

    def _name(self) -> asn1.TLV:
        """The certificate's subject as a GeneralName: [4] EXPLICIT Name (RFC 5280 4.2.1.6)."""
        name = self.certificate.subject.public_bytes()
        return _tlv(bytes([0xA4, len(name)]) + name)

    def _token(self, info: bytes, *, certificates: bool) -> _TimeStampToken:
        """CMS SignedData (RFC 5652 5.1) around a TSTInfo, signed over attributes (5.4)."""
        fingerprint = self.certificate.fingerprint(hashes.SHA256())
        attributes = asn1.SetOf(
            [
                _attribute(CONTENT_TYPE, TIMESTAMP_INFO),
                _attribute(MESSAGE_DIGEST, hashlib.sha256(info).digest()),
                # RFC 5816: ties the token to this certificate.
                _attribute(
                    SIGNING_CERTIFICATE_V2,
                    _SigningCertificateV2(
                        certificates=[_ESSCertIDv2(certificate_hash=fingerprint)]
                    ),
                ),
            ]
        )
        sha256 = _AlgorithmIdentifier(algorithm=SHA256)
        signer = _SignerInfo(
            version=1,
            signer=_IssuerAndSerialNumber(
                issuer=_tlv(self.certificate.issuer.public_bytes()),
                serial_number=self.certificate.serial_number,
            ),
            digest_algorithm=sha256,
            signed_attributes=attributes,
            signature_algorithm=_AlgorithmIdentifier(algorithm=ECDSA_WITH_SHA256),
            signature=self.key.sign(asn1.encode_der(attributes), ec.ECDSA(hashes.SHA256())),
        )
        chain = asn1.SetOf([self.certificate, self.authority.intermediate])
        signed = _SignedData(
            version=3,
            digest_algorithms=asn1.SetOf([sha256]),
            content=_EncapsulatedContent(type=TIMESTAMP_INFO, content=info),
            certificates=chain if certificates else None,
            signers=asn1.SetOf([signer]),
        )
        return _TimeStampToken(type=SIGNED_DATA, content=signed)


def _attribute(kind: ObjectIdentifier, value: object) -> _Attribute:
    return _Attribute(type=kind, values=asn1.SetOf([_tlv(asn1.encode_der(value))]))


def _tlv(encoded: bytes) -> asn1.TLV:
    """An already encoded value as a field of another."""
    return asn1.decode_der(asn1.TLV, encoded)
