"""Attestation files -> envelopes -> authenticated statements (SLSA verifying-artifacts, step 1.1).

Reads Sigstore bundles, JSON lines of them, and bare DSSE envelopes as Tekton Chains stores them,
also base64-encoded as in a Kubernetes annotation. What cannot be verified from files alone is
named, not skipped: older slsa-github-generator output and `intoto` log entries.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from model_signing.errors import (
    BundleError,
    CertificateError,
    Error,
    FileError,
    LogError,
    SignatureError,
)
from model_signing.methods import Authenticated, keys, sigstore
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle, strict_json
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import UnsupportedError
from slsa_for_models.evidence import statement

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_LINES = 1_000
MAX_LOOKED_AT = 1024 * 1024  # only to say more of what is refused

_NEEDS_LOOK_UP = (
    "verify it with slsa-verifier, or have it made again by slsa-github-generator v2.1.0 or later"
)


@dataclass(frozen=True)
class Attestation:
    """One envelope of a file, not yet verified.

    Attributes:
        label: The file's name, with the line's number where it has several.
        data: The envelope's own JSON bytes.
        document: The same, parsed.
        file_sha256: Of the whole file, hexadecimal.
    """

    label: str
    data: bytes
    document: dict[str, Any]
    file_sha256: str


def load(path: Path) -> tuple[Attestation, ...]:
    """The envelopes of a file: one JSON document, JSON lines, or base64 of either.

    Raises:
        FileError: The file cannot be read.
        BundleError: Too large, empty, or not made of JSON objects.
    """
    read = read_bounded(path, MAX_FILE_BYTES)
    digest, data = sha256(read).hexdigest(), read.strip()
    if not data.startswith((b"{", b"[")):
        try:
            data = base64.b64decode(data, validate=True).strip()
        except ValueError:
            data = b""
    lines = [line for line in data.splitlines() if line.strip()]
    # Pretty-printed JSON is one document: its first line is not a whole object.
    one = len(lines) == 1 or (bool(lines) and not lines[0].rstrip().endswith(b"}"))
    if not lines or (not one and len(lines) > MAX_LINES):
        raise BundleError(
            "not a file of attestations",
            where=str(path),
            expected=f"a Sigstore bundle, a DSSE envelope, or at most {MAX_LINES} lines of them",
        )
    if one:
        return (parse(path.name, data, digest),)
    return tuple(
        parse(f"{path.name}, line {number}", line, digest) for number, line in enumerate(lines, 1)
    )


def parse(label: str, data: bytes, file_sha256: str) -> Attestation:
    """One envelope of a file with this digest.

    Raises:
        BundleError: Not a JSON object.
    """
    document = strict_json.loads(data, BundleError, f"The attestation {label}")
    if not isinstance(document, dict):
        raise BundleError("an attestation is a JSON object", where=label)
    return Attestation(label, data, document, file_sha256)


def authenticate(
    attestation: Attestation, trust: SigstoreTrust, public_keys: Iterable[bytes]
) -> Authenticated:
    """Verifies an envelope's signature, and for Sigstore all that comes with it.

    Args:
        attestation: From `load`.
        trust: The Sigstore instance for keyless signatures.
        public_keys: PEM keys, one of which has to fit where the signature was made with a key.

    Returns:
        The signed bytes and who signed them; for keys, `identity` is the key's fingerprint as
        `fingerprint` computes it. Whether that somebody may speak is not decided here.

    Raises:
        BundleError, SignatureError and its subclasses: It does not hold.
        UnsupportedError: It cannot be verified from files alone.
    """
    if "payloadType" in attestation.document:
        return _authenticate_envelope(attestation, tuple(public_keys))
    _refuse_unsupported_log(attestation)
    return authenticate_bundle(attestation.label, attestation.data, trust, public_keys)


def authenticate_bundle(
    label: str, data: bytes, trust: SigstoreTrust, public_keys: Iterable[bytes]
) -> Authenticated:
    """The same for the bytes of a Sigstore bundle.

    Raises:
        FileError: The trust root cannot be read or refreshed, so nothing was looked at.
    """
    try:
        parsed = bundle.parse(data)
        if parsed.method == "certificate" and parsed.log_entries:
            data = _with_one_certificate(data)
            parsed = bundle.parse(data)
        if parsed.method == "sigstore":
            return sigstore.authenticate_sigstore(data, trust)
    except (BundleError, CertificateError, LogError) as error:
        _name_instance(error, data)
        raise
    if parsed.method == "certificate":
        raise UnsupportedError(
            "signed with a private certificate chain, which is not supported here",
            where=label,
            expected="a Sigstore identity, or a public key",
            fix="a model's signature alone is verified by `model_signing verify certificate`",
        )
    return _authenticated_by_key(label, parsed.payload, parsed.signature, tuple(public_keys))


def _with_one_certificate(data: bytes) -> bytes:
    """A keyless bundle before v0.3, which has a chain, as v0.3: the leaf is first (OMS v1.0, 11.1).

    Nothing is believed by that: the certificate is verified as every other.
    """
    document = json.loads(data)
    material = document["verificationMaterial"]
    if document["mediaType"] == bundle.MEDIA_TYPE:
        return data
    material["certificate"] = material.pop("x509CertificateChain")["certificates"][0]
    return json.dumps({**document, "mediaType": bundle.MEDIA_TYPE}).encode()


def _name_instance(error: Error, data: bytes) -> None:
    """Adds to a refusal whose Sigstore issued the certificate, where it is not the public one's."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    if len(data) > MAX_LOOKED_AT:
        return
    try:
        document = strict_json.loads(data, BundleError, "the bundle")
        raw = statement.value_at(document, "verificationMaterial.certificate.rawBytes")
        issuer = x509.load_der_x509_certificate(base64.b64decode(str(raw))).issuer
        names = issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except (Error, ValueError):
        return
    organization = str(names[0].value) if names else issuer.rfc4514_string()
    if organization != "sigstore.dev":
        fix = "name that instance with --trust-config"
        if organization.startswith("GitHub"):
            fix = "`gh attestation verify` knows it: GitHub signs for private repositories"
        made = f"made by the Sigstore instance of {organization!r}"
        error.found = f"{error.found}; {made}" if error.found else made
        error.fix = fix


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of a PEM public key's DER form, hexadecimal.

    Raises:
        FileError: Not a public key of a supported type.
    """
    key = _load(public_key)
    return sha256(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


def _refuse_unsupported_log(attestation: Attestation) -> None:
    material = attestation.document.get("verificationMaterial")
    entries = material.get("tlogEntries") if isinstance(material, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        version = entry.get("kindVersion") if isinstance(entry, dict) else None
        if isinstance(version, dict) and version.get("kind") == "intoto":
            raise UnsupportedError(
                "its transparency-log entry is of the kind `intoto`, which cannot be verified here",
                where=attestation.label,
                expected="a log entry of the kind dsse or hashedrekord",
                fix=_NEEDS_LOOK_UP,
            )


def _authenticate_envelope(
    attestation: Attestation, public_keys: tuple[bytes, ...]
) -> Authenticated:
    """DSSE envelope v1, without a bundle around it."""
    document = attestation.document
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise BundleError(
            "the envelope must carry exactly one signature",
            where=f"{attestation.label}: signatures",
        )
    signature = signatures[0] if isinstance(signatures[0], dict) else {}
    if signature.get("cert") and not public_keys:
        raise UnsupportedError(
            "a bare DSSE envelope with a certificate beside its signature: when it was signed can "
            "only be looked up in the transparency log",
            where=attestation.label,
            expected="a Sigstore bundle, or an envelope signed with a known public key",
            fix=_NEEDS_LOOK_UP,
        )
    if document["payloadType"] != bundle.PAYLOAD_TYPE:
        raise BundleError(
            "the payload is not an in-toto statement",
            where=f"{attestation.label}: payloadType",
            expected=bundle.PAYLOAD_TYPE,
            found=ascii(document["payloadType"])[:100],
        )
    try:
        payload, raw = (
            base64.b64decode(str(value), validate=True)
            for value in (document.get("payload"), signature.get("sig"))
        )
    except ValueError:
        raise BundleError("payload or signature is not base64", where=attestation.label) from None
    return _authenticated_by_key(attestation.label, payload, raw, public_keys)


def _authenticated_by_key(
    label: str, payload: bytes, signature: bytes, public_keys: tuple[bytes, ...]
) -> Authenticated:
    if not public_keys:
        raise SignatureError(
            "signed with a key, and no public key was given",
            where=label,
            fix="name the builder's key with --public-key, or in the policy",
        )
    signed = bundle.pae(bundle.PAYLOAD_TYPE, payload)
    for public_key in public_keys:
        if _fits(_load(public_key), signature, signed):
            return Authenticated(
                payload, bundle.PAYLOAD_TYPE, "key", identity=fingerprint(public_key)
            )
    raise SignatureError(
        "the signature does not match: another key, or an altered payload", where=label
    )


def _load(public_key: bytes) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(public_key)
    except ValueError:
        raise FileError("not a public key", expected="a PEM public key") from None
    return key if isinstance(key, ed25519.Ed25519PublicKey) else keys.supported(key)


def _fits(
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, signature: bytes, signed: bytes
) -> bool:
    """Chains hashes with SHA-256 whatever the curve; KMS keys with the curve's own hash.

    An ECDSA signature is in DER, or as `r` and `s` of the curve's length (IEEE P1363, RFC 7518).
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True
    size, forms = (key.curve.key_size + 7) // 8, [signature]
    if len(signature) == 2 * size:
        r, s = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
        forms.append(utils.encode_dss_signature(r, s))
    for algorithm, form in product((keys.signature_hash(key), hashes.SHA256()), forms):
        try:
            key.verify(form, signed, ec.ECDSA(algorithm))
        except InvalidSignature:
            continue
        return True
    return False
