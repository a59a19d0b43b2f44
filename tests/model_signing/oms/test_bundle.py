"""Envelope: what is a bundle, and everything that is not (OMS 4, 8.1, 11)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from model_signing.errors import BundleError, FileError, SignatureError
from model_signing.methods.key import key_verifier
from model_signing.oms import bundle
from model_signing.safe_files import read_bounded
from tests.support.material import (
    base64_of,
    edited,
    key_bundle,
    new_key,
    public_pem,
    shared,
    statement,
)

KEY = new_key()
GOOD = key_bundle(KEY)
SIGNATURE = ("dsseEnvelope", "signatures", 0)


def test_pae_is_the_specifications_example() -> None:
    # DSSE protocol.md, "Test Vectors".
    assert bundle.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_what_is_read_is_what_was_written() -> None:
    parsed = bundle.parse(GOOD)
    assert (parsed.method, parsed.payload, parsed.payload_type) == (
        "key",
        statement(),
        "application/vnd.in-toto+json",
    )
    assert (parsed.certificates, parsed.timestamps, parsed.log_entries) == ((), (), ())


REFUSED: dict[str, bytes] = {
    "empty": b"",
    "binary": os.urandom(64),
    "not JSON": b"signature",
    "an empty object": b"{}",
    "a list": b"[]",
    "a number": b"1",
    "nothing": b"null",
    "another encoding": GOOD.decode().encode("utf-16"),
    "truncated": GOOD[:-20],
    "followed by another": GOOD + GOOD,
    "a duplicate key": GOOD.replace(b'"dsseEnvelope"', b'"mediaType": "x", "dsseEnvelope"', 1),
    "deeply nested": b"[" * 100_000 + b"]" * 100_000,
    "deeply nested in a bundle": GOOD.replace(b'"hint"', b'"x": ' + b'{"a":' * 50_000, 1),
    "NaN": GOOD.replace(b'"tlogEntries": []', b'"tlogEntries": NaN'),
    "a huge number": GOOD.replace(b'"tlogEntries": []', b'"tlogEntries": ' + b"9" * 10_000),
    "no media type": edited(GOOD, "mediaType", to=...),
    "another media type": edited(GOOD, "mediaType", to="application/json"),
    "a media type that is a list": edited(GOOD, "mediaType", to=[bundle.MEDIA_TYPE]),
    "a media type of the future": edited(
        GOOD, "mediaType", to="application/vnd.dev.sigstore.bundle.v0.4+json"
    ),
    "an unknown field": edited(GOOD, "messageSignature", to={}),
    "no material": edited(GOOD, "verificationMaterial", to=...),
    "material that is a list": edited(GOOD, "verificationMaterial", to=[]),
    "no method": edited(GOOD, "verificationMaterial", "publicKey", to=...),
    "two methods": edited(GOOD, "verificationMaterial", "certificate", to={"rawBytes": "AAAA"}),
    "an unidentified key": edited(GOOD, "verificationMaterial", "publicKey", to={}),
    "an empty hint": edited(GOOD, "verificationMaterial", "publicKey", "hint", to=""),
    "a hint that is a number": edited(GOOD, "verificationMaterial", "publicKey", "hint", to=7),
    "log entries that are no list": edited(GOOD, "verificationMaterial", "tlogEntries", to={}),
    "log entries that are no objects": edited(GOOD, "verificationMaterial", "tlogEntries", to=[1]),
    "a timestamp that is no base64": edited(
        GOOD,
        "verificationMaterial",
        "timestampVerificationData",
        to={"rfc3161Timestamps": [{"signedTimestamp": "*"}]},
    ),
    "an empty chain": edited(
        GOOD,
        "verificationMaterial",
        to={"x509CertificateChain": {"certificates": []}},
    ),
    "a chain of 33": edited(
        GOOD,
        "verificationMaterial",
        to={"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}] * 33}},
    ),
    "no envelope": edited(GOOD, "dsseEnvelope", to=...),
    "an envelope that is text": edited(GOOD, "dsseEnvelope", to="{}"),
    "an unknown envelope field": edited(GOOD, "dsseEnvelope", "payload2", to=""),
    "another payload type": edited(GOOD, "dsseEnvelope", "payloadType", to="application/json"),
    "no payload": edited(GOOD, "dsseEnvelope", "payload", to=...),
    "an empty payload": edited(GOOD, "dsseEnvelope", "payload", to=""),
    "a payload that is an object": edited(GOOD, "dsseEnvelope", "payload", to={}),
    "no signatures": edited(GOOD, "dsseEnvelope", "signatures", to=[]),
    "signatures that are null": edited(GOOD, "dsseEnvelope", "signatures", to=None),
    "two signatures": edited(
        GOOD, "dsseEnvelope", "signatures", to=json.loads(GOOD)["dsseEnvelope"]["signatures"] * 2
    ),
    "an empty signature": edited(GOOD, *SIGNATURE, "sig", to=""),
    "a signature that is null": edited(GOOD, *SIGNATURE, "sig", to=None),
    "an unknown signature field": edited(GOOD, *SIGNATURE, "cert", to="x"),
    "a key id that is a number": edited(GOOD, *SIGNATURE, "keyid", to=7),
    "a key id that is a list": edited(GOOD, *SIGNATURE, "keyid", to=["x"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_bundles_are_refused(name: str) -> None:
    with pytest.raises(BundleError) as refusal:
        bundle.parse(REFUSED[name])
    assert refusal.value.message


@pytest.mark.parametrize(
    "junk",
    ["{}\n", " {}", "{}=", "{}AAAA====", "-{}", "{}\u0000", "{}%"],
)
@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_with_junk_is_refused(junk: str, field: str) -> None:
    path: tuple[Any, ...] = (*SIGNATURE, "sig") if field == "sig" else ("dsseEnvelope", "payload")
    parsed = bundle.parse(GOOD)
    value = base64_of(parsed.signature if field == "sig" else parsed.payload)
    with pytest.raises(BundleError, match=r"base64|missing"):
        bundle.parse(edited(GOOD, *path, to=junk.format(value)))


def test_base64_of_another_alphabet_or_with_stray_bits_is_refused() -> None:
    payload = b"\xfb\xff\xfe{}"
    good = key_bundle(KEY, payload)
    assert bundle.parse(good).payload == payload
    urlsafe = base64.urlsafe_b64encode(payload).decode()
    unpadded = base64_of(b"ab").rstrip("=")
    stray = base64_of(b"ab")[:2] + "J="  # the same bytes with another last character
    assert base64.b64decode(stray) == b"ab"
    for text in (urlsafe, unpadded, stray):
        with pytest.raises(BundleError, match="canonical base64"):
            bundle.parse(edited(good, "dsseEnvelope", "payload", to=text))


@pytest.mark.parametrize("keyid", [..., "", None, "sha256:whatever"])
def test_the_key_id_plays_no_part(keyid: Any) -> None:  # OMS 4.1, 11.1
    data = edited(GOOD, *SIGNATURE, "keyid", to=keyid)
    assert key_verifier(public_pem(KEY))(data).payload == statement()


def test_a_swapped_payload_or_signature_is_refused() -> None:
    other = key_bundle(KEY, statement("another model"))
    for path in (("dsseEnvelope", "payload"), (*SIGNATURE, "sig")):
        value = json.loads(other)
        for step in path:
            value = value[step]
        with pytest.raises(SignatureError, match="does not match"):
            key_verifier(public_pem(KEY))(edited(GOOD, *path, to=value))


@pytest.mark.parametrize("signature", [b"\0", b"0" * 70, bytes.fromhex("3006020100020100")])
def test_a_signature_that_is_none_is_refused(signature: bytes) -> None:
    with pytest.raises(SignatureError, match="does not match"):
        key_verifier(public_pem(KEY))(edited(GOOD, *SIGNATURE, "sig", to=base64_of(signature)))


def test_a_signature_over_something_else_than_the_encoding_is_refused() -> None:
    # Over the payload itself, over DSSE's encoding of another type, over v0.2.0's encoding.
    payload, kind = statement(), "application/vnd.in-toto+json"
    for signed in (
        payload,
        bundle.pae("application/json", payload),
        f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode(),
    ):
        signature = KEY.sign(signed, ec.ECDSA(hashes.SHA256()))
        with pytest.raises(SignatureError, match="does not match"):
            key_verifier(public_pem(KEY))(edited(GOOD, *SIGNATURE, "sig", to=base64_of(signature)))


def test_legacy_statements_need_the_legacy_encoding() -> None:  # OMS 11, v0.2.0
    payload = b'{"predicateType": "https://model_signing/Digests/v0.1"}'
    proper = key_bundle(KEY, payload)
    with pytest.raises(SignatureError, match="does not match"):
        key_verifier(public_pem(KEY))(proper)


def test_bundles_above_the_limit_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.sig"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match="too large"):
        read_bounded(path)


def test_a_bundle_that_would_take_25_times_its_size_in_memory_is_refused() -> None:
    with pytest.raises(BundleError, match="too many parts"):
        bundle.parse(b'{"mediaType": [' + b"{}," * 1_000_000 + b"{}]}")


def test_unreadable_bundles_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / ("x" * 300)):
        with pytest.raises(FileError, match="cannot read"):
            read_bounded(path)


def test_the_public_test_vectors() -> None:
    vectors = shared("oms", "test-vectors")
    found = sorted(vectors.rglob("*.bundle.json"))
    assert found
    for path in found:
        if path.parent.name == "invalid":
            with pytest.raises(BundleError):
                bundle.parse(path.read_bytes())
        else:
            assert bundle.parse(path.read_bytes()).payload
