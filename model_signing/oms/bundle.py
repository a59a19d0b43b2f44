"""OMS 4, 8.1, 11: Sigstore bundles as plain JSON, with the DSSE envelope inside.

Strict and bounded: what the schema does not know is refused, and nothing here is trusted yet;
`model_signing.methods` decides that.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from model_signing.errors import BundleError
from model_signing.oms import strict_json

_BUNDLES = "application/vnd.dev.sigstore.bundle"
MEDIA_TYPE = f"{_BUNDLES}.v0.3+json"
_OLDER = f"{_BUNDLES}+json;version=0."
MEDIA_TYPES = (MEDIA_TYPE, _OLDER + "1", _OLDER + "2", _OLDER + "3")
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BUNDLE_SIZE = 512 * 1024 * 1024
_MAX_PARTS = 100_000  # objects, lists and commas, each of 25 times its size; payloads are texts
_LONG = 1 << 16  # characters of base64
_LONG_PAYLOAD = rb'"payload"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/=]{%d,})"' % _LONG
_APART = b"(the payload is read apart)"
_PIECE = 1 << 20  # characters of base64, a multiple of four
_MAX_CHAIN = 32
_BASE64_STEP = 3 << 20  # bytes, a multiple of three
_NONE, _BUNDLE = "this file is no signature", f"a bundle ({MEDIA_TYPE})"
_NO_SIGNATURE = "name what `model_signing sign` wrote: model.sig, by default"

Method = Literal["key", "certificate", "sigstore"]
_METHODS: dict[str, Method] = {  # OMS 4.1: the field that decides the method
    "publicKey": "key",
    "x509CertificateChain": "certificate",
    "certificate": "sigstore",
}
# Fields of a log entry (sigstore protobuf-specs, TransparencyLogEntry), by what they hold.
_LOG_NUMBERS = ("logIndex", "integratedTime", "treeSize")
_LOG_BYTES = ("keyId", "signedEntryTimestamp", "rootHash", "hashes", "canonicalizedBody")
_MATERIAL_FIELDS = f"{' '.join(_METHODS)} tlogEntries timestampVerificationData"


class Bundle(NamedTuple):
    """A parsed, not yet verified bundle."""

    method: Method  # how it claims to be signed (OMS 4.1)
    payload: bytes  # the in-toto statement, decoded from base64
    signature: bytes  # the one DSSE signature, decoded
    key_hint: str | None  # for `key`: the signer's fingerprint of it (hexadecimal), if given
    certificates: tuple[bytes, ...]  # DER, leaf first; empty for `key`
    timestamps: tuple[bytes, ...]  # RFC 3161 responses, DER
    log_entries: tuple[dict[str, Any], ...]  # as in the JSON
    payload_type: str = PAYLOAD_TYPE  # no other is accepted


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding: the bytes that are signed (DSSE protocol.md)."""
    return _before(payload_type, payload) + payload


def pae_digest(payload: bytes, algorithm: str) -> bytes:
    """The digest of the pre-authentication encoding of a statement; `algorithm` as in hashlib."""
    state = hashlib.new(algorithm, _before(PAYLOAD_TYPE, payload))
    state.update(payload)
    return state.digest()


def _before(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d " % (len(kind), kind, len(payload))


def is_bundle(data: bytes) -> bool:
    """Whether a file is one Sigstore bundle, of whatever version and content."""
    try:
        document = json.loads(_apart(data)[0])  # nothing is taken from it
    except (ValueError, RecursionError):
        return False
    kind = document.get("mediaType") if isinstance(document, dict) else None
    return isinstance(kind, str) and kind.startswith(_BUNDLES)


def parse(data: bytes, method: Method | None = None) -> Bundle:
    """Reads a bundle, JSON (OMS 8.1), without trusting it.

    A `BundleError` if it is not a Sigstore bundle with one DSSE-signed in-toto statement and
    exactly one kind of verification material: that of `method`, if one is named.
    """
    # 1. OMS 8.1: JSON as in the bundle schema; `mediaType` per Sigstore.
    if len(data) > MAX_BUNDLE_SIZE:
        _refuse("the bundle is too large", "bundle", f"at most {MAX_BUNDLE_SIZE} bytes")
    document, payload = _document(data)
    _fields(document, "bundle", "mediaType verificationMaterial dsseEnvelope")
    if document["mediaType"] not in MEDIA_TYPES:
        _refuse("not a Sigstore bundle", "mediaType", MEDIA_TYPE, document["mediaType"])

    # 2. OMS 4.1: exactly one of key, certificate chain and Sigstore certificate.
    where = "verificationMaterial"
    material = _fields(document[where], where, "", _MATERIAL_FIELDS)
    given = [name for name in _METHODS if material.get(name) is not None]
    if len(given) != 1:
        one_of = f"exactly one of {', '.join(_METHODS)}"
        _refuse("the signing method is not clear", where, one_of, ", ".join(given) or "none")
    claimed = _METHODS[given[0]]
    # OMS 11.1: before v0.3 a keyless bundle had a chain, too; only it has an entry of a log.
    if claimed == "certificate" and document["mediaType"] != MEDIA_TYPE:
        claimed = "sigstore" if material.get("tlogEntries") else claimed
    if method not in (None, claimed):
        raise BundleError(
            "signed by another method",
            where=where,
            expected=method,
            found=claimed,
            fix=f"verify it with `model_signing verify {claimed}`",
        )
    hint, certificates = _key_or_certificates(given[0], material[given[0]])
    log_entries = _objects(material.get("tlogEntries"), f"{where}.tlogEntries")
    for entry in log_entries:
        _numbers_and_bytes(entry, f"{where}.tlogEntries")
    if claimed == "sigstore" and not log_entries:
        _refuse("a Sigstore bundle needs a log entry", f"{where}.tlogEntries")
    where += ".timestampVerificationData"
    times = _fields(material.get("timestampVerificationData") or {}, where, "", "rfc3161Timestamps")
    where += ".rfc3161Timestamps"
    stamps = _objects(times.get("rfc3161Timestamps"), where)
    timestamps = [_base64(stamp.get("signedTimestamp"), where) for stamp in stamps]

    # 3. DSSE envelope: one signature; `keyid` is no part of verification (OMS 4.1).
    where = "dsseEnvelope"
    envelope = _fields(document[where], where, "payload payloadType signatures")
    kind = envelope["payloadType"]
    if kind != PAYLOAD_TYPE:
        _refuse("the payload is no in-toto statement", f"{where}.payloadType", PAYLOAD_TYPE, kind)
    signatures = _objects(envelope["signatures"], f"{where}.signatures")
    if len(signatures) != 1:
        _refuse("there must be one signature", f"{where}.signatures", "1", len(signatures))
    signature = _fields(signatures[0], f"{where}.signatures[0]", "sig", "keyid")
    if not isinstance(signature.get("keyid") or "", str):
        _refuse("the key id is not text", f"{where}.signatures[0].keyid")
    return Bundle(
        method=claimed,
        payload=payload or _base64(envelope["payload"], f"{where}.payload"),
        signature=_base64(signature["sig"], f"{where}.signatures[0].sig"),
        key_hint=hint,
        certificates=certificates,
        timestamps=tuple(timestamps),
        log_entries=log_entries,
    )


def _document(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """JSON; other people's, and Sigstore's other kind of signature, are called by their names.

    A long payload, which lists a million files, is not parsed as JSON: it is decoded where it is,
    and given besides.
    """
    beginning = data[:4096].lstrip()
    if not beginning.startswith((b"{", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        found = "PEM, a key or a certificate" if beginning.startswith(b"-----BEGIN") else None
        found = found if data else "nothing: the file is empty"
        raise BundleError(_NONE, expected=_BUNDLE, found=found, fix=_NO_SIGNATURE)
    text, payload = _apart(data)
    try:
        document = strict_json.loads(text, BundleError, "the signature file", _MAX_PARTS)
    except BundleError as error:
        error.fix = error.fix or _NO_SIGNATURE
        raise
    if not isinstance(document, dict) or "mediaType" not in document:
        raise BundleError(_NONE, expected=_BUNDLE, found="other JSON", fix=_NO_SIGNATURE)
    if "messageSignature" in document:
        raise BundleError(
            "this is a signature of one file's bytes, not of a model",
            where="messageSignature",
            expected="dsseEnvelope, with a signed list of files (OMS 4)",
            fix="verify it with the tool that made it, such as `cosign verify-blob`",
        )
    if payload is None:
        return document, None
    envelope = document.get("dsseEnvelope")
    if not isinstance(envelope, dict) or envelope.get("payload") != _APART.decode():
        # It was another field of that name: then all of it is read.
        return strict_json.loads(data, BundleError, "the signature file"), None
    return document, _decoded(payload)


def _apart(data: bytes) -> tuple[bytes, memoryview | None]:
    """A bundle with something else in the place of a long payload, and that payload."""
    found = None
    if len(data) > _LONG and _APART not in data:
        found = re.search(_LONG_PAYLOAD, data)
    if found is None:
        return data, None
    start, end = found.span(1)
    return b"%b%b%b" % (data[:start], _APART, data[end:]), memoryview(data)[start:end]


def _decoded(text: memoryview) -> bytes:
    """As `_base64`, a piece at a time."""
    out = io.BytesIO()
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        try:
            data = base64.b64decode(piece)
        except ValueError:
            data = b""
        is_last = start + _PIECE >= len(text)
        if base64.b64encode(data) != piece or not (is_last or len(data) == _PIECE // 4 * 3):
            _refuse("a part of the bundle is not canonical base64", "dsseEnvelope.payload")
        out.write(data)
    return out.getvalue()


def encode(
    payload: bytes,
    signature: bytes,
    *,
    key_hint: str | None = None,
    certificates: Sequence[bytes] = (),
    timestamps: Sequence[bytes] = (),
) -> bytes:
    """A bundle of method `key` (with `key_hint`) or `certificate` as JSON (OMS 6.7, 6.8)."""
    material: dict[str, Any] = {"publicKey": {"hint": key_hint}}
    if key_hint is None:
        chain = [{"rawBytes": _encode64(certificate)} for certificate in certificates]
        material = {"x509CertificateChain": {"certificates": chain}}
    material["tlogEntries"] = []
    if timestamps:
        stamps = [{"signedTimestamp": _encode64(stamp)} for stamp in timestamps]
        material["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
    envelope = {
        "payload": "",
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": _encode64(signature), "keyid": ""}],
    }
    document = {"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
    # The payload lists every file. It is put in as it is, without five copies on the way.
    before, field, after = json.dumps(document).encode().partition(b'"payload": "')
    return _joined(before + field, payload, after + b"\n")


class Kept(NamedTuple):
    """A bundle; where its payload is kept anyway, what stands before and behind it."""

    before: bytes
    payload: bytes = b""
    after: bytes = b""

    def whole(self) -> bytes:
        """The bundle, as it was."""
        return _joined(*self) if self.payload else self.before


def kept(data: bytes, payload: bytes) -> Kept:
    """A bundle, for whoever keeps its payload anyway."""
    size = (len(payload) + 2) // 3 * 4
    start = data.find(base64.b64encode(payload[:48]))
    if len(data) < 2 * _PIECE or start < 0:
        return Kept(data)
    before, after = data[:start], data[start + size :]
    for at, piece in _encoded(payload):
        if data[start + at : start + at + len(piece)] != piece:  # it was written in another way
            return Kept(data)
    return Kept(before, payload, after)


def _encoded(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Its base64 in pieces, each with where it begins."""
    for start in range(0, len(payload), _PIECE // 4 * 3):
        yield start // 3 * 4, base64.b64encode(payload[start : start + _PIECE // 4 * 3])


def _joined(before: bytes, payload: bytes, after: bytes) -> bytes:
    """The payload in base64 between both, without a copy of it on the way."""
    out = io.BytesIO()
    out.write(before)
    for _, piece in _encoded(payload):
        out.write(piece)
    out.write(after)
    return out.getvalue()


def _key_or_certificates(field: str, value: object) -> tuple[str | None, tuple[bytes, ...]]:
    """Field by field of OMS 4.1, with the variants of OMS 11.1."""
    where = f"verificationMaterial.{field}"
    if field == "publicKey":
        key = _fields(value, where, "", "hint rawBytes keyDetails")
        hint = key.get("hint")
        if hint is None and isinstance(key.get("rawBytes"), str):
            return None, ()
        if not isinstance(hint, str) or not hint:
            _refuse("the public key is not identified", where, "hint or rawBytes")
        return hint.lower(), ()
    chain: tuple[object, ...] = (value,)
    if field == "x509CertificateChain":
        chain = _objects(_fields(value, where, "certificates")["certificates"], where)
    if not 1 <= len(chain) <= _MAX_CHAIN:
        _refuse("no certificate, or too many", where, f"1 to {_MAX_CHAIN}", len(chain))
    ders = [_base64(_fields(one, where, "rawBytes")["rawBytes"], where) for one in chain]
    return None, tuple(ders)


def _refuse(what: str, where: str, expected: str | None = None, found: object = None) -> NoReturn:
    shown = None if found is None else str(found)[:200]
    raise BundleError(what, where=where, expected=expected, found=shown)


def _fields(value: object, where: str, required: str, optional: str = "") -> dict[str, Any]:
    return strict_json.fields(value, BundleError, where, required, optional)


def _objects(value: object, where: str) -> tuple[dict[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        _refuse("a part of the bundle is malformed", where, "a list of JSON objects")
    return tuple(value)


def _numbers_and_bytes(part: dict[str, Any], where: str) -> None:
    """Refuses what readers of protobuf's JSON read differently: blanks, zeros in front, junk."""
    for name, value in part.items():
        place = f"{where}.{name}"
        if isinstance(value, dict):
            _numbers_and_bytes(value, place)
        elif name in _LOG_NUMBERS and value is not None:
            if not isinstance(value, str) or not re.fullmatch("0|[1-9][0-9]{0,18}", value):
                _refuse("not a whole number", place, 'digits as text, such as "12"', repr(value))
        elif name in _LOG_BYTES and value is not None:
            for one in value if isinstance(value, list) else [value]:
                _base64(one, place)


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _base64(value: object, where: str) -> bytes:
    """RFC 4648 section 4, canonical: no junk, no other alphabet, no missing padding."""
    if not isinstance(value, str) or not value:
        _refuse("a part is missing", where, "base64")
    try:
        data = base64.b64decode(value)  # lenient, but compared below
    except ValueError:
        data = b""
    # Piece by piece: payloads may be large, and there are two copies already.
    pieces = range(0, len(data), _BASE64_STEP)
    if len(value) != (len(data) + 2) // 3 * 4 or not all(
        base64.b64encode(data[at : at + _BASE64_STEP])
        == value[at // 3 * 4 : (at + _BASE64_STEP) // 3 * 4].encode()
        for at in pieces
    ):
        _refuse("a part of the bundle is not canonical base64", where)
    return data
