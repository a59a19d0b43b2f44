"""Attestation files -> envelopes -> authenticated statements (SLSA verifying-artifacts, step 1.1).

Reads Sigstore bundles and bare DSSE envelopes, alone or several in a file, in the forms in which
registries and tools hand them out. What cannot be verified from files alone is
named, not skipped: older slsa-github-generator output and `intoto` log entries.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from model_signing.errors import (
    BundleError,
    CertificateError,
    Error,
    LogError,
    SignatureError,
)
from model_signing.methods import Authenticated, keys, sigstore
from model_signing.methods.fulcio import certificate_claims
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle, strict_json
from model_signing.safe_files import read_bounded, read_pem
from slsa_for_models.errors import UnsupportedError
from slsa_for_models.evidence import statement

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ATTESTATION_BYTES = 24 * 1024 * 1024
MAX_ATTESTATIONS = 1_000
"""In a file, and of one model in all."""
MAX_PARTS = 200_000  # of JSON: objects, lists and commas; the payloads are one text each
MAX_LOOKED_AT = 1024 * 1024  # only to say more of what is refused

_NEEDS_LOOK_UP = (
    "verify it with slsa-verifier, or have it made again by slsa-github-generator v2.1.0 or later"
)


@dataclass(frozen=True)
class Attestation:
    """One envelope of a file, not yet verified.

    Attributes:
        label: The file's name, with the attestation's number where it has several.
        data: The envelope's own JSON bytes.
        bare: Whether it is a DSSE envelope without a bundle around it.
        file_sha256: Of the whole file, hexadecimal.
        wrapped: Whether the file is more than this, be it only a list around it.
    """

    label: str
    data: bytes
    bare: bool
    file_sha256: str
    wrapped: bool = False


def load(path: Path, most: int = MAX_ATTESTATIONS) -> tuple[Attestation, ...]:
    """The attestations of a file, in the forms in which people have them.

    A Sigstore bundle or DSSE envelope; several, a line each, as `gh attestation download` writes,
    or one behind the other, as `gh api --paginate` and jq do; a JSON array; the answers of GitHub's
    and npm's registries (`attestations`, each with a `bundle`), what `gh attestation verify
    --format json` prints; or base64 of any of these.

    Nothing is parsed before its size and the number of its lines and parts are known.

    Args:
        path: The file.
        most: How many it may hold.

    Raises:
        FileError: The file cannot be read.
        BundleError: Too large, empty, or something else.
    """
    read = read_bounded(path, MAX_FILE_BYTES)
    digest = sha256(read).hexdigest()
    is_json = read[:4096].lstrip().startswith((b"{", b"["))
    data = _json_text(path, read)
    del read  # of 64 MiB each copy counts
    if strict_json.parts(data) > MAX_PARTS:
        raise BundleError("the file has too many parts", where=str(path), expected=str(MAX_PARTS))
    found: list[Attestation] = []
    documents = _documents(path, data)
    for number, (line, document) in enumerate(documents, 1):
        label = path.name if len(documents) == 1 else f"{path.name}, line {number}"
        inner = _unwrapped(document, label)
        if len(inner) == 1 and inner[0] is document:
            wrapped = not is_json or len(documents) > 1
            found.append(_attestation(label, line, document, digest, wrapped=wrapped))
            continue
        found += [
            _attestation(
                f"{label}, number {place}", json.dumps(one).encode(), one, digest, wrapped=True
            )
            for place, one in enumerate(inner, 1)
        ]
    if not 0 < len(found) <= most:
        _refuse_number(path, len(found))
    if not any(one.bare or b'"mediaType"' in one.data for one in found):
        raise BundleError(
            "not an attestation",
            where=str(path),
            expected="a Sigstore bundle or a DSSE envelope",
            found=_told(documents[0][1]),
            fix="gh attestation download MODEL --repo ORG/REPO writes those of one model; cosign "
            "makes a bundle with --new-bundle-format",
        )
    return tuple(found)


def several(path: Path) -> tuple[Attestation, ...]:
    """The attestations of a file with more than a bundle; nothing where it is a bundle as ever.

    Nor where it cannot be read: that is said where it is verified.
    """
    try:
        found = load(path) if path.stat().st_size <= MAX_FILE_BYTES else ()
    except (BundleError, OSError):
        return ()
    return found if len(found) > 1 or any(one.wrapped for one in found) else ()


def _told(document: object) -> str:
    """What a document says of itself, in a line: its fields, or an error's text."""
    if not isinstance(document, dict):
        return "a list"
    if isinstance(document.get("message"), str):  # as APIs answer
        return f"an answer that says: {document['message']}"[:200]
    return f"an object with {', '.join(document) or 'nothing in it'}"[:200]


def _refuse_number(path: Path, found: int) -> NoReturn:
    raise BundleError(
        "not a file of attestations" if not found else "too many attestations",
        where=str(path),
        expected=f"1 to {MAX_ATTESTATIONS} Sigstore bundles or DSSE envelopes",
        found=str(found),
        fix="gh attestation download MODEL --repo ORG/REPO writes those of one model",
    )


_OTHER_FORMS = {
    b"PK\x03\x04": ("a ZIP archive", "unzip it, and give the file inside"),
    b"\x1f\x8b": ("compressed with gzip", "gunzip it first"),
    b"\xff\xfe": ("UTF-16 text, as PowerShell writes", "gh attestation download writes UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "gh attestation download writes UTF-8"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "decompress it first: zstd -d"),
    b"<": ("HTML or XML, a page rather than a file", "download the file itself"),
    b"-----BEGIN": ("PEM, a key or a certificate", "give the attestation that it belongs to"),
}
"""How a file begins that is often given instead -> what it is, and what makes a readable one."""


def _json_text(path: Path, read: bytes) -> bytes:
    data = read.removeprefix(b"\xef\xbb\xbf").strip()
    if data.startswith((b"{", b"[")):
        return data
    for beginning, (what, fix) in _OTHER_FORMS.items():
        if read.startswith(beginning):
            raise BundleError(
                "not a file of attestations",
                where=str(path),
                expected="JSON: a Sigstore bundle, a DSSE envelope, or lines of them",
                found=what,
                fix=fix,
            )
    try:
        data = base64.b64decode(data.translate(None, b"\r\n\t "), validate=True).strip()
    except ValueError:
        data = b""
    if not data.startswith((b"{", b"[")):
        _refuse_number(path, 0)
    return data


def _documents(path: Path, data: bytes) -> list[tuple[bytes, Any]]:
    """Each document with its own bytes."""
    lines, found = _lines(path, data), []
    for number, line in enumerate(lines, 1):
        label = path.name if len(lines) == 1 else f"{path.name}, line {number}"
        try:
            found.append((line, strict_json.loads(line, BundleError, f"the attestation {label}")))
            continue
        except BundleError as error:
            refusal = error.with_traceback(None)  # which keeps all that was decoded, as its
            refusal.__cause__ = refusal.__context__ = None  # causes do
        pieces = _one_behind_the_other(line)
        if not pieces:
            raise refusal
        found += pieces
    return found


_JOINT = re.compile(rb"(?<=[}\]])\s*(?=[{\[])")


def _one_behind_the_other(line: bytes) -> list[tuple[bytes, Any]]:
    """Documents without anything between them; none, if one of them cannot be read."""
    pieces = _JOINT.split(line, 2 * MAX_ATTESTATIONS)
    try:
        return [
            (one, strict_json.loads(one, BundleError, "A part")) for one in pieces if pieces[1:]
        ]
    except BundleError:
        return []


def _lines(path: Path, data: bytes) -> list[bytes]:
    """Pretty-printed JSON is one document: its first line is not a whole object."""
    end = data.find(b"\n")
    if end < 0 or data.startswith(b"[") or not data[:end].rstrip().endswith(b"}"):
        return [data]
    count = data.count(b"\n")
    if count > 2 * MAX_ATTESTATIONS:  # some end with an empty line each
        _refuse_number(path, count + 1)
    return [line for line in data.split(b"\n") if line.strip()]


def _unwrapped(document: Any, label: str, depth: int = 0) -> list[dict[str, Any]]:  # noqa: ANN401
    """The bundles and envelopes within what registries and tools put around them."""
    inner = document.get("attestations") if isinstance(document, dict) else document
    if isinstance(inner, list) and depth < 2:
        return [one for item in inner for one in _unwrapped(item, label, depth + 1)]
    if not isinstance(document, dict):
        raise BundleError("an attestation is a JSON object", where=label)
    if isinstance(document.get("attestation"), dict):
        document = document["attestation"]
    if "bundle" not in document:
        return [document]
    if not isinstance(document["bundle"], dict):
        raise BundleError(
            "the answer names an attestation, and does not hold it",
            where=label,
            expected="a bundle",
            found=", ".join(document)[:200],
            fix="gh attestation download MODEL --repo ORG/REPO fetches it",
        )
    return [document["bundle"]]


def _attestation(
    label: str, data: bytes, document: dict[str, Any], file_sha256: str, *, wrapped: bool
) -> Attestation:
    if len(data) > MAX_ATTESTATION_BYTES:
        raise BundleError(
            "the attestation is too large",
            where=label,
            expected=f"at most {MAX_ATTESTATION_BYTES} bytes",
            found=str(len(data)),
        )
    return Attestation(label, data, "payloadType" in document, file_sha256, wrapped)


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
    document = strict_json.loads(attestation.data, BundleError, "the attestation")
    if attestation.bare:
        return _authenticate_envelope(attestation.label, document, tuple(public_keys))
    _refuse_unsupported_log(attestation.label, document)
    del document
    return authenticate_bundle(attestation.label, attestation.data, trust, public_keys)


def claimed(
    attestation: Attestation, trust: SigstoreTrust, public_keys: Iterable[bytes]
) -> Authenticated:
    """Who a keyless bundle says it is from, and what it says: NOT verified, but seldom in vain.

    For choosing among many; what is chosen has to be authenticated. A signature by a key is.

    Raises:
        Error: As `authenticate`.
    """
    if not attestation.bare:
        parsed = bundle.parse(attestation.data)
        if parsed.method == "sigstore" or (parsed.method == "certificate" and parsed.log_entries):
            leaf = parsed.certificates[0]
            said = certificate_claims(leaf)
            return Authenticated(
                parsed.payload, parsed.payload_type, "sigstore", said.identity, said.issuer, leaf
            )
        del parsed  # each copy of a large one counts
    return authenticate(attestation, trust, public_keys)


def authenticate_bundle(
    label: str, data: bytes, trust: SigstoreTrust, public_keys: Iterable[bytes]
) -> Authenticated:
    """The same for the bytes of a Sigstore bundle.

    Raises:
        FileError: The trust root cannot be read or refreshed, so nothing was looked at.
    """
    try:
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


def read_key(path: Path) -> bytes:
    """A file with a public key, in PEM, before anything is compared with it.

    Raises:
        FileError: It cannot be read, or holds no public key of a supported type.
        BundleError: It is too large.
    """
    pem, where = read_pem(path)
    _load(pem, where)
    return pem


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


def _refuse_unsupported_log(label: str, document: dict[str, Any]) -> None:
    entries = statement.value_at(document, "verificationMaterial.tlogEntries")
    for entry in entries if isinstance(entries, list) else ():
        if statement.value_at(entry, "kindVersion.kind") == "intoto":
            raise UnsupportedError(
                "its transparency-log entry is of the kind `intoto`, which cannot be verified here",
                where=label,
                expected="a log entry of the kind dsse or hashedrekord",
                fix=_NEEDS_LOOK_UP,
            )


def _authenticate_envelope(
    label: str, document: dict[str, Any], public_keys: tuple[bytes, ...]
) -> Authenticated:
    """DSSE envelope v1, without a bundle around it."""
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise BundleError(
            "the envelope must carry exactly one signature",
            where=f"{label}: signatures",
        )
    signature = signatures[0] if isinstance(signatures[0], dict) else {}
    if signature.get("cert") and not public_keys:
        raise UnsupportedError(
            "a bare DSSE envelope with a certificate beside its signature: when it was signed can "
            "only be looked up in the transparency log",
            where=label,
            expected="a Sigstore bundle, or an envelope signed with a known public key",
            fix=_NEEDS_LOOK_UP,
        )
    if document["payloadType"] != bundle.PAYLOAD_TYPE:
        raise BundleError(
            "the payload is not an in-toto statement",
            where=f"{label}: payloadType",
            expected=bundle.PAYLOAD_TYPE,
            found=ascii(str(document["payloadType"])[:100]),
        )
    try:
        payload, raw = (
            base64.b64decode(str(value), validate=True)
            for value in (document.get("payload"), signature.get("sig"))
        )
    except ValueError:
        raise BundleError("payload or signature is not base64", where=label) from None
    return _authenticated_by_key(label, payload, raw, public_keys)


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


def _load(
    public_key: bytes, where: str | None = None
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    key = keys.parsed(public_key, where)
    return key if isinstance(key, ed25519.Ed25519PublicKey) else keys.supported(key, where)


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
