"""The sandbox's Fulcio: certificates for the holders of identity tokens, and a certificate log.

For demonstrations and tests only: the keys are made at start and kept in memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from sandbox.sigstore.authority import make_authority, public_key_bytes
from sandbox.sigstore.errors import RequestError, TokenError
from sandbox.sigstore.oidc import Claims, Clock, Oidc

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
    23: "{environment}",
    24: "{sub}",
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
        self.authority = make_authority("sandbox-fulcio", clock(), ExtendedKeyUsageOID.CODE_SIGNING)
        self.log_key = ec.generate_private_key(ec.SECP256R1())

    def signing_certificate(self, authorization: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers Fulcio's `POST /api/v2/signingCert`.

        Args:
            authorization: The HTTP header: `Bearer TOKEN`.
            request: `certificateSigningRequest`, PEM in base64; and `credentials.oidcIdentityToken`
                when the header is empty.

        Raises:
            RequestError: The token is refused, whatever of it; or the signing request is malformed,
                not signed by its own key, or of another key type than P-256.
        """
        credentials = request.get("credentials") or {}
        token = authorization.removeprefix("Bearer ") or credentials.get("oidcIdentityToken", "")
        try:
            claims = self.oidc.verify(token)
            identity = _identity(claims)
        except TokenError as error:
            raise RequestError("There was an error processing the identity token") from error
        public_key = _proven_public_key(request)
        certificates = [
            self._certificate(claims, identity, public_key),
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
        self, claims: Claims, identity: x509.GeneralName, public_key: ec.EllipticCurvePublicKey
    ) -> x509.Certificate:
        start = self.clock().replace(microsecond=0)
        builder = self.authority.builder(
            public_key,
            x509.Name([]),
            start,
            start + self.lifetime,
            ExtendedKeyUsageOID.CODE_SIGNING,
        ).add_extension(x509.SubjectAlternativeName([identity]), critical=True)
        for arc, value in certificate_extensions(claims).items():
            extension = x509.UnrecognizedExtension(
                ObjectIdentifier(f"{EXTENSION_ARC}.{arc}"), value
            )
            builder = builder.add_extension(extension, critical=False)
        # RFC 6962 3.2: the log signs the certificate as it is without the timestamp itself.
        precertificate = self.authority.sign(builder).tbs_certificate_bytes
        timestamps = x509.UnrecognizedExtension(SCT_LIST, self.timestamp_list(precertificate))
        return self.authority.sign(builder.add_extension(timestamps, critical=False))

    def timestamp_list(self, precertificate: bytes) -> bytes:
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
        return asn1.encode_der(struct.pack("!H", len(items)) + items)

    @property
    def log_id(self) -> bytes:
        """The certificate log's identifier: SHA-256 of its key (RFC 6962 3.2)."""
        return hashlib.sha256(public_key_bytes(self.log_key)).digest()


def certificate_extensions(claims: Claims) -> dict[int, bytes]:
    """The values of Fulcio's extensions for a token: 1-6 raw strings, 8-24 DER UTF8Strings."""
    extensions: dict[int, bytes] = {}
    for arc, template in {**RAW_EXTENSIONS, **UTF8_EXTENSIONS}.items():
        try:
            value = template.format(**claims)
        except KeyError:
            continue
        extensions[arc] = value.encode() if arc in RAW_EXTENSIONS else asn1.encode_der(value)
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
    if claims.get("email_verified") not in (True, "true"):
        raise TokenError("invalid identity token: the e-mail address is not verified")
    return x509.RFC822Name(email)


def _proven_public_key(request: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """The key of a certificate signing request, which its own signature proves to be held."""
    if not request.get("certificateSigningRequest"):  # then a bare key is looked for
        raise RequestError("The public key supplied in the request could not be parsed")
    try:
        pem = base64.b64decode(request["certificateSigningRequest"], validate=True)
        signing_request = x509.load_pem_x509_csr(pem)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise RequestError("The certificate signing request could not be parsed") from error
    if not signing_request.is_signature_valid:
        raise RequestError("The signature supplied in the request could not be verified")
    public_key = signing_request.public_key()
    if (
        not isinstance(public_key, ec.EllipticCurvePublicKey)
        or public_key.curve.name != "secp256r1"
    ):
        raise RequestError("the sandbox certifies P-256 keys only")
    return public_key
