"""The sandbox's certificate authorities: Fulcio with its certificate log, and a TSA (RFC 3161).

For demonstrations and tests only: the keys are made at start and kept in memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from sandbox.sigstore import der
from sandbox.sigstore.oidc import Claims, Clock, Oidc, TokenError

# `gh attestation verify` checks certificate timestamps (SCT) of this organisation's CA only.
ORGANIZATION = "sigstore.dev"
CA_LIFETIME = timedelta(days=3650)
# Authorities are older than the sandbox, so that a test may set a service's clock back.
CA_AGE = timedelta(days=60)


class RequestError(Exception):
    """A request that the real service would refuse, too."""


def public_key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The SubjectPublicKeyInfo of a key, in DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Authority:
    """A self-signed root and the intermediate under it that issues leaf certificates."""

    root: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def builder(
        self,
        public_key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        start: datetime,
        end: datetime,
        usage: ObjectIdentifier,
    ) -> x509.CertificateBuilder:
        """A leaf certificate for signatures with one extended key usage, before it is signed."""
        return (
            _builder(public_key, subject, self.intermediate.subject, self.key, start, end)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([usage]),
                # RFC 3161 2.3: critical for time stamping.
                critical=usage == ExtendedKeyUsageOID.TIME_STAMPING,
            )
        )

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """The certificate, signed by the intermediate."""
        return builder.sign(self.key, hashes.SHA384())


def make_authority(name: str, now: datetime) -> Authority:
    """Makes a root and an intermediate with new P-384 keys."""
    root_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    start = now.replace(microsecond=0) - CA_AGE
    end = start + CA_LIFETIME
    root_name = _name(f"{name}-root")

    def sign_ca(
        subject: x509.Name, public_key: ec.EllipticCurvePublicKey, path_length: int
    ) -> x509.Certificate:
        return (
            _builder(public_key, subject, root_name, root_key, start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(root_key, hashes.SHA384())
        )

    root = sign_ca(root_name, root_key.public_key(), 1)
    intermediate = sign_ca(_name(f"{name}-intermediate"), key.public_key(), 0)
    return Authority(root, intermediate, key)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    public_key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(issuer_id, critical=False)
    )


# Fulcio's certificate extensions, by the last arc of their object identifier. A template that
# names a claim which the token lacks leaves its extension out.
# Source: Fulcio, docs/oid-info.md ("Sigstore OID information").
EXTENSION_ARC = "1.3.6.1.4.1.57264.1"
RAW_EXTENSIONS: Mapping[int, str] = {
    1: "{iss}",
    2: "{event_name}",
    3: "{sha}",
    4: "{workflow}",
    5: "{repository}",
    6: "{ref}",
}
UTF8_EXTENSIONS: Mapping[int, str] = {
    8: "{iss}",
    9: "https://github.com/{job_workflow_ref}",
    10: "{job_workflow_sha}",
    11: "{runner_environment}",
    12: "https://github.com/{repository}",
    13: "{sha}",
    14: "{ref}",
    15: "{repository_id}",
    16: "https://github.com/{repository_owner}",
    17: "{repository_owner_id}",
    18: "https://github.com/{workflow_ref}",
    19: "{workflow_sha}",
    20: "{event_name}",
    21: "https://github.com/{repository}/actions/runs/{run_id}/attempts/{run_attempt}",
    22: "{repository_visibility}",
}
SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


class Fulcio:
    """Issues short-lived certificates to the holders of identity tokens.

    Attributes:
        authority: Issues the certificates.
        log_key: Signs their certificate timestamps (SCT).
        lifetime: How long a certificate lasts.
        clock: When it starts; tests replace it.
    """

    def __init__(self, oidc: Oidc, clock: Clock) -> None:
        self.oidc = oidc
        self.clock = clock
        self.lifetime = timedelta(minutes=10)
        self.authority = make_authority("sandbox-fulcio", clock())
        self.log_key = ec.generate_private_key(ec.SECP256R1())

    def signing_certificate(self, authorization: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers Fulcio's `POST /api/v2/signingCert`.

        Args:
            authorization: The HTTP header: `Bearer TOKEN`.
            request: `certificateSigningRequest`, PEM in base64; and `credentials.oidcIdentityToken`
                when the header is empty.

        Raises:
            TokenError: The token's signature, issuer, audience, time or e-mail is refused.
            RequestError: The signing request is malformed, not signed by its own key, or of
                another key type than P-256.
        """
        credentials = request.get("credentials") or {}
        token = authorization.removeprefix("Bearer ") or credentials.get("oidcIdentityToken", "")
        claims = self.oidc.verify(token)
        public_key = _proven_public_key(request)
        certificates = [
            self._certificate(claims, public_key),
            self.authority.intermediate,
            self.authority.root,
        ]
        chain = [certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def trust_bundle(self) -> dict[str, Any]:
        """Answers Fulcio's `GET /api/v2/trustBundle`."""
        certificates = [self.authority.intermediate, self.authority.root]
        chain = [certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates]
        return {"chains": [{"certificates": chain}]}

    def _certificate(
        self, claims: Claims, public_key: ec.EllipticCurvePublicKey
    ) -> x509.Certificate:
        start = self.clock().replace(microsecond=0)
        builder = self.authority.builder(
            public_key,
            x509.Name([]),
            start,
            start + self.lifetime,
            ExtendedKeyUsageOID.CODE_SIGNING,
        ).add_extension(x509.SubjectAlternativeName([_identity(claims)]), critical=True)
        for arc, value in certificate_extensions(claims).items():
            extension = x509.UnrecognizedExtension(
                ObjectIdentifier(f"{EXTENSION_ARC}.{arc}"), value
            )
            builder = builder.add_extension(extension, critical=False)
        # RFC 6962 3.2: the log signs the certificate as it is without the timestamp itself.
        precertificate = self.authority.sign(builder).tbs_certificate_bytes
        timestamps = x509.UnrecognizedExtension(SCT_LIST, self._timestamp_list(precertificate))
        return self.authority.sign(builder.add_extension(timestamps, critical=False))

    def _timestamp_list(self, precertificate: bytes) -> bytes:
        """An RFC 6962 SignedCertificateTimestampList (3.3) with one timestamp (3.2)."""
        milliseconds = int(self.clock().timestamp() * 1000)
        version_and_type = b"\0\0"  # v1, certificate_timestamp
        no_extensions = b"\0\0"
        entry_type = struct.pack("!H", 1)  # precert_entry
        issuer_key_hash = hashlib.sha256(public_key_bytes(self.authority.key)).digest()
        signed = b"".join(
            [
                version_and_type,
                struct.pack("!Q", milliseconds),
                entry_type,
                issuer_key_hash,
                len(precertificate).to_bytes(3, "big"),
                precertificate,
                no_extensions,
            ]
        )
        signature = self.log_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        timestamp = b"".join(
            [
                b"\0",  # v1
                self.log_id,
                struct.pack("!Q", milliseconds),
                no_extensions,
                b"\x04\x03",  # SHA-256, ECDSA
                struct.pack("!H", len(signature)),
                signature,
            ]
        )
        items = struct.pack("!H", len(timestamp)) + timestamp
        return der.octet_string(struct.pack("!H", len(items)) + items)

    @property
    def log_id(self) -> bytes:
        """The certificate log's identifier: SHA-256 of its key (RFC 6962 3.2)."""
        return hashlib.sha256(public_key_bytes(self.log_key)).digest()


def certificate_extensions(claims: Claims) -> dict[int, bytes]:
    """The values of Fulcio's extensions for a token: 1-6 raw strings, 8-22 DER UTF8Strings."""
    extensions: dict[int, bytes] = {}
    for arc, template in {**RAW_EXTENSIONS, **UTF8_EXTENSIONS}.items():
        try:
            value = template.format(**claims)
        except KeyError:
            continue
        extensions[arc] = value.encode() if arc in RAW_EXTENSIONS else der.utf8_string(value)
    return extensions


def _identity(claims: Claims) -> x509.GeneralName:
    """The subject alternative name that Fulcio gives: a workflow, a Kubernetes service account, or
    a verified e-mail address.
    """  # noqa: D205
    if "job_workflow_ref" in claims:
        return x509.UniformResourceIdentifier(f"https://github.com/{claims['job_workflow_ref']}")
    if "kubernetes.io" in claims:
        place = claims["kubernetes.io"]
        path = f"namespaces/{place['namespace']}/serviceaccounts/{place['serviceaccount']['name']}"
        return x509.UniformResourceIdentifier(f"https://kubernetes.io/{path}")
    email = claims.get("email")
    if not email:
        raise TokenError("invalid identity token: no e-mail address")
    if claims.get("email_verified") is not True:
        raise TokenError("invalid identity token: the e-mail address is not verified")
    return x509.RFC822Name(email)


def _proven_public_key(request: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """The key of a certificate signing request, which its own signature proves to be held."""
    try:
        pem = base64.b64decode(request["certificateSigningRequest"], validate=True)
        signing_request = x509.load_pem_x509_csr(pem)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise RequestError("the certificate signing request could not be parsed") from error
    if not signing_request.is_signature_valid:
        raise RequestError("the signature of the signing request could not be verified")
    public_key = signing_request.public_key()
    if (
        not isinstance(public_key, ec.EllipticCurvePublicKey)
        or public_key.curve.name != "secp256r1"
    ):
        raise RequestError("the sandbox certifies P-256 keys only")
    return public_key


SHA256 = "2.16.840.1.101.3.4.2.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
TIMESTAMP_INFO = "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"
TIMESTAMP_POLICY = "1.3.6.1.4.1.57264.2"


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: ObjectIdentifier
    parameters: asn1.Null | None


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


class TimestampAuthority:
    """Says when it saw a SHA-256 digest (RFC 3161).

    Attributes:
        authority: Issued the certificate.
        certificate: Of the key that signs timestamps.
        clock: The time it states, in whole seconds; tests replace it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.authority = make_authority("sandbox-tsa", clock())
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.authority.sign(
            self.authority.builder(
                self.key.public_key(),
                _name("sandbox-tsa"),
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
            raise RequestError("not an RFC 3161 request without extensions") from error
        imprint = request.message_imprint
        if imprint.hash_algorithm.algorithm.dotted_string != SHA256:
            raise RequestError("the sandbox timestamps SHA-256 digests only")
        info = self._timestamp_info(imprint.hashed_message, request.nonce)
        granted = der.sequence(der.integer(0))
        token = self._signed_data(info, with_certificates=request.certificate_requested)
        return der.sequence(granted, token)

    def _timestamp_info(self, digest: bytes, nonce: int | None) -> bytes:
        """TSTInfo (RFC 3161 2.4.2)."""
        # Whole seconds: JavaScript verifiers trim fractions and then fail on the signature.
        time = self.clock().strftime("%Y%m%d%H%M%SZ")
        return der.sequence(
            der.integer(1),
            der.object_identifier(TIMESTAMP_POLICY),
            der.sequence(der.sequence(der.object_identifier(SHA256)), der.octet_string(digest)),
            der.integer(x509.random_serial_number()),
            der.generalized_time(time),
            der.integer(nonce) if nonce is not None else b"",
        )

    def _signed_data(self, info: bytes, *, with_certificates: bool) -> bytes:
        """CMS SignedData (RFC 5652 5.1) around a TSTInfo, signed over attributes (5.4)."""
        certificate = self.certificate.public_bytes(Encoding.DER)
        sha256 = der.sequence(der.object_identifier(SHA256))
        certificate_id = der.sequence(der.octet_string(hashlib.sha256(certificate).digest()))
        attributes = der.set_of(
            _attribute(CONTENT_TYPE, der.object_identifier(TIMESTAMP_INFO)),
            _attribute(MESSAGE_DIGEST, der.octet_string(hashlib.sha256(info).digest())),
            # RFC 5816: ties the token to this certificate.
            _attribute(SIGNING_CERTIFICATE_V2, der.sequence(der.sequence(certificate_id))),
        )
        signer = der.sequence(
            der.integer(1),
            der.sequence(
                self.certificate.issuer.public_bytes(),
                der.integer(self.certificate.serial_number),
            ),
            sha256,
            der.implicit(0, attributes),
            der.sequence(der.object_identifier(ECDSA_WITH_SHA256)),
            der.octet_string(self.key.sign(attributes, ec.ECDSA(hashes.SHA256()))),
        )
        intermediate = self.authority.intermediate.public_bytes(Encoding.DER)
        certificates = der.implicit(0, der.set_of(certificate, intermediate))
        signed_data = der.sequence(
            der.integer(3),
            der.set_of(sha256),
            der.sequence(
                der.object_identifier(TIMESTAMP_INFO), der.explicit(0, der.octet_string(info))
            ),
            certificates if with_certificates else b"",
            der.set_of(signer),
        )
        return der.sequence(der.object_identifier(SIGNED_DATA), der.explicit(0, signed_data))


def _attribute(identifier: str, value: bytes) -> bytes:
    return der.sequence(der.object_identifier(identifier), der.set_of(value))
