"""A certificate authority of the sandbox: a root and an intermediate, made at start.

For demonstrations and tests only: the keys are kept in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

# `gh attestation verify` checks certificate timestamps (SCT) of this organisation's CA only.
ORGANIZATION = "sigstore.dev"
CA_LIFETIME = timedelta(days=3650)
# Authorities are older than the sandbox, so that a test may set a service's clock back.
CA_AGE = timedelta(days=60)


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


def make_authority(name: str, now: datetime, usage: ObjectIdentifier) -> Authority:
    """Makes a root and an intermediate, for certificates of one usage, with new P-384 keys."""
    root_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    start = now.replace(microsecond=0) - CA_AGE
    end = start + CA_LIFETIME
    root_name = certificate_name(f"{name}-root")

    def ca(
        subject: x509.Name, public_key: ec.EllipticCurvePublicKey, path_length: int
    ) -> x509.CertificateBuilder:
        return (
            _builder(public_key, subject, root_name, root_key, start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        )

    root = ca(root_name, root_key.public_key(), 1).sign(root_key, hashes.SHA384())
    intermediate = (
        ca(certificate_name(f"{name}-intermediate"), key.public_key(), 0)
        # Fulcio starts with an intermediate of its own usage only.
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(root_key, hashes.SHA384())
    )
    return Authority(root, intermediate, key)


def certificate_name(common_name: str) -> x509.Name:
    """The name of a certificate of the sandbox's organisation."""
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
