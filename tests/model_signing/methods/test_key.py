"""Method `key`: every supported curve and key file, and every way to have the wrong one."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils

from model_signing import inspection
from model_signing.errors import BundleError, FileError, LogError, SignatureError, SigningError
from model_signing.methods.key import digest_signer, key_signer, key_verifier
from model_signing.methods.timestamps import timestamp
from model_signing.oms import bundle
from sandbox.sigstore import LocalSigstore
from tests.support.material import (
    CURVES,
    authority,
    base64_of,
    certificate_bundle,
    edited,
    key_bundle,
    leaf,
    new_key,
    pem,
    private_pem,
    public_pem,
    statement,
)

HINT = ("verificationMaterial", "publicKey")


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_signs_and_verifies(curve: str, tmp_path: Path) -> None:
    key = new_key(curve)
    data = key_signer(private_pem(key))(statement())
    authenticated = key_verifier(public_pem(key))(data)
    encoded = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    fingerprint = hashlib.sha256(encoded).hexdigest()
    assert inspection.signer(bundle.parse(data))["identity"] == f"sha256:{fingerprint}"
    assert authenticated.payload == statement()
    assert authenticated.identity == f"sha256:{fingerprint}"
    assert (authenticated.method, authenticated.signed_at) == ("key", None)

    # And OpenSSL agrees.
    parsed = bundle.parse(data)
    (tmp_path / "key.pub").write_bytes(public_pem(key))
    (tmp_path / "signature").write_bytes(parsed.signature)
    (tmp_path / "signed").write_bytes(bundle.pae(parsed.payload_type, parsed.payload))
    digest = {"P-256": "-sha256", "P-384": "-sha384", "P-521": "-sha512"}[curve]
    command = ["openssl", "dgst", digest, "-verify", "key.pub", "-signature", "signature", "signed"]
    checked = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert checked.stdout.strip() == "Verified OK"


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_encrypted_keys(form: serialization.PrivateFormat) -> None:
    key = new_key()
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        form,
        serialization.BestAvailableEncryption("pässword".encode()),
    )
    data = key_signer(encrypted, "pässword".encode())(statement())
    assert key_verifier(public_pem(key))(data)
    with pytest.raises(FileError, match="encrypted") as refusal:
        key_signer(encrypted)
    assert "MODEL_SIGNING_PASSWORD" in (refusal.value.fix or "")
    with pytest.raises(FileError, match="wrong password"):
        key_signer(encrypted, b"passwort")
    assert key_signer(encrypted, "pässword".encode)(statement())  # a function that asks
    assert key_signer(private_pem(key), pytest.fail)(statement())  # is not called in vain
    with pytest.raises(FileError, match="is not encrypted"):
        key_signer(private_pem(key), b"password")


WRONG_KEYS: dict[str, Any] = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 1024),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "P-224": ec.generate_private_key(ec.SECP224R1()),
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_other_kinds_of_key_are_refused(name: str) -> None:
    for use, key in (
        (key_signer, private_pem(WRONG_KEYS[name])),
        (key_verifier, public_pem(WRONG_KEYS[name])),
    ):
        with pytest.raises(FileError, match="not supported") as refusal:
            use(key)
        assert "P-256" in (refusal.value.expected or "")


def test_files_that_are_no_key_are_refused() -> None:
    key = new_key()
    certificate = pem(authority().certificate)
    for junk in (b"", b"\0\xff", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", public_pem(key)):
        with pytest.raises(FileError, match="not a private key"):
            key_signer(junk)
    for junk in (b"", b"\0\xff", b"-----BEGIN PUBLIC KEY-----\n", private_pem(key), certificate):
        with pytest.raises(FileError, match="not a public key"):
            key_verifier(junk)


def test_another_key_is_refused() -> None:
    data = key_bundle(new_key())
    with pytest.raises(SignatureError, match="another key"):
        key_verifier(public_pem(new_key()))(data)


def test_another_curve_is_refused() -> None:
    with pytest.raises(SignatureError, match="another key"):
        key_verifier(public_pem(new_key("P-384")))(key_bundle(new_key()))


def test_the_hint_cannot_stand_in_for_the_key() -> None:
    ours, theirs = new_key(), new_key()
    forged = edited(
        key_bundle(theirs), *HINT, "hint", to=hashlib.sha256(public_pem(ours)).hexdigest()
    )
    with pytest.raises(SignatureError, match="does not match"):
        key_verifier(public_pem(ours))(forged)


def test_a_signature_that_names_another_key_is_refused() -> None:
    key = new_key()
    with pytest.raises(SignatureError, match="another key"):
        key_verifier(public_pem(key))(edited(key_bundle(key), *HINT, "hint", to="00" * 32))


def test_the_key_in_an_old_bundle_is_not_trusted() -> None:  # OMS 11.1: rawBytes before v1.1.0
    ours, theirs = new_key(), new_key()
    old = {"rawBytes": base64_of(public_pem(ours)), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    assert key_verifier(public_pem(ours))(edited(key_bundle(ours), *HINT, to=old))
    forged = {**old, "rawBytes": base64_of(public_pem(theirs))}
    with pytest.raises(SignatureError, match="does not match"):
        key_verifier(public_pem(ours))(edited(key_bundle(theirs), *HINT, to=forged))


def test_a_fingerprint_of_the_der_encoding_is_understood() -> None:
    key = new_key()
    encoded = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    data = edited(key_bundle(key), *HINT, "hint", to=hashlib.sha256(encoded).hexdigest().upper())
    assert key_verifier(public_pem(key))(data)


@pytest.mark.parametrize("curve", CURVES)
def test_whoever_signs_a_digest_is_a_signer(curve: str, tmp_path: Path) -> None:
    """OpenSSL plays the service that keeps the key."""
    key = new_key(curve)
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "key.pub").write_bytes(public_pem(key))

    def elsewhere(digest: bytes) -> bytes:
        command = ["openssl", "pkeyutl", "-sign", "-inkey", str(tmp_path / "key.pem")]
        return subprocess.run(
            command, input=digest, capture_output=True, check=True, timeout=300
        ).stdout

    data = digest_signer(elsewhere, tmp_path / "key.pub")(statement())
    assert key_verifier(public_pem(key))(data).payload == statement()
    with pytest.raises(SigningError, match="does not match"):
        digest_signer(elsewhere, public_pem(new_key(curve)))(statement())
    with pytest.raises(FileError, match="not a public key"):
        digest_signer(elsewhere, private_pem(key))


@pytest.mark.parametrize("curve", CURVES)
def test_another_key_is_named_as_it_is_everywhere(curve: str) -> None:
    ours, theirs = new_key(curve), new_key(curve)
    names = [key_verifier(public_pem(key))(key_bundle(key)).identity for key in (ours, theirs)]
    with pytest.raises(SignatureError, match="another key") as refusal:
        key_verifier(public_pem(ours))(key_bundle(theirs))
    assert [refusal.value.expected, refusal.value.found] == names


@pytest.mark.parametrize("numbers", [(0, 0), (1, 1), (2**520, 2**520), (2**600, 1)])
def test_a_hint_of_no_key_is_shown_as_it_is(numbers: tuple[int, int]) -> None:
    data = edited(key_bundle(new_key()), "dsseEnvelope", "signatures", 0, "sig",
        to=base64_of(utils.encode_dss_signature(*numbers)))  # fmt: skip
    parsed = bundle.parse(data)
    assert inspection.signer(parsed)["identity"] == f"sha256:{parsed.key_hint}"


def test_bundles_of_other_methods_are_refused() -> None:
    root = authority()
    data = certificate_bundle(leaf(root))
    with pytest.raises(BundleError, match="another method") as refusal:
        key_verifier(public_pem(new_key()))(data)
    assert "verify certificate" in (refusal.value.fix or "")


@pytest.fixture
def url(sigstore: LocalSigstore) -> str:
    return str(sigstore.trust_config()["signingConfig"]["tsaUrls"][0]["url"])


class TestTimestamps:
    """RFC 3161 timestamps on key signatures."""

    def test_a_timestamp_is_the_time_of_the_signature(
        self, sigstore: LocalSigstore, url: str
    ) -> None:
        key = new_key()
        data = key_signer(private_pem(key), timestamp_url=url)(statement())
        root = pem(sigstore.tsa.authority.root)
        authenticated = key_verifier(public_pem(key), [root])(data)
        assert authenticated.time_source == "timestamp authority"
        assert authenticated.signed_at is not None
        assert abs(authenticated.signed_at - datetime.now(timezone.utc)) < timedelta(minutes=10)
        # Without a trusted authority the signature still holds, at no particular time.
        assert key_verifier(public_pem(key))(data).signed_at is None

    def test_an_authority_that_only_the_bundle_vouches_for_is_refused(self, url: str) -> None:
        key = new_key()
        data = key_signer(private_pem(key), timestamp_url=url)(statement())
        with LocalSigstore() as other, pytest.raises(LogError, match="trusted authority"):
            key_verifier(public_pem(key), [pem(other.tsa.authority.root)])(data)

    def test_a_timestamp_of_another_signature_is_refused(
        self, sigstore: LocalSigstore, url: str
    ) -> None:
        key = new_key()
        stamp = {"signedTimestamp": base64_of(timestamp(b"another signature", url))}
        material = {
            "publicKey": {"hint": hashlib.sha256(public_pem(key)).hexdigest()},
            "timestampVerificationData": {"rfc3161Timestamps": [stamp]},
        }
        data = edited(key_bundle(key), "verificationMaterial", to=material)
        with pytest.raises(LogError, match="trusted authority"):
            key_verifier(public_pem(key), [pem(sigstore.tsa.authority.root)])(data)

    def test_what_is_no_timestamp_is_refused(self, sigstore: LocalSigstore) -> None:
        key = new_key()
        for junk in (b"\0", b"0" * 1000):
            payload = statement()
            data = bundle.encode(
                payload,
                bundle.parse(key_bundle(key)).signature,
                key_hint=hashlib.sha256(public_pem(key)).hexdigest(),
                timestamps=[junk],
            )
            with pytest.raises(LogError, match="trusted authority"):
                key_verifier(public_pem(key), [pem(sigstore.tsa.authority.root)])(data)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "address",
        ["http://127.0.0.1:1/", "file:///etc/passwd", "nonsense", "{}/nothing-here"],
    )
    def test_no_timestamp_is_no_signature(self, sigstore: LocalSigstore, address: str) -> None:
        signer = key_signer(private_pem(new_key()), timestamp_url=address.format(sigstore.url))
        with pytest.raises(SigningError, match="the timestamp authority"):
            signer(statement())


def test_certificates_that_are_none_are_refused() -> None:
    with pytest.raises(FileError, match="not a certificate"):
        key_verifier(public_pem(new_key()), [b"junk"])
