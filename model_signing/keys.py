"""Elliptic-curve keys (OMS 4.2, algorithm registry)."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from model_signing.errors import FileError

_HASHES: dict[str, hashes.HashAlgorithm] = {  # Sigstore algorithm registry: one hash per curve
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def load_private_key(pem: bytes, password: bytes | None) -> ec.EllipticCurvePrivateKey:
    """Reads a PEM private key on P-256, P-384 or P-521.

    Raises:
        FileError: Not such a key, or the password is missing or wrong.
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError:  # cryptography's way to say that there is a password too few or too many
        if password is None:
            raise FileError(
                "the private key is encrypted",
                fix="give its password with --password or MODEL_SIGNING_PASSWORD",
            ) from None
        raise FileError("a password was given, but the private key is not encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        if password is not None:
            raise FileError("the private key cannot be decrypted: wrong password?") from None
        raise FileError("not a private key", expected="a PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unsupported(type(key).__name__)
    signature_hash(key.public_key())
    return key


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Reads a PEM public key on P-256, P-384 or P-521.

    Raises:
        FileError: Not such a key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise FileError("not a public key", expected="a PEM public key") from None
    return supported(key)


def supported(key: object) -> ec.EllipticCurvePublicKey:
    """`key`, if OMS knows how to verify with it.

    Raises:
        FileError: It is of another type or on another curve.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _unsupported(type(key).__name__)
    signature_hash(key)
    return key


def signature_hash(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """The hash that goes with the curve of `key`.

    Raises:
        FileError: Another curve.
    """
    try:
        return _HASHES[key.curve.name]
    except KeyError:
        raise _unsupported(key.curve.name) from None


def digest(key: ec.EllipticCurvePublicKey, data: bytes) -> bytes:
    """`data` hashed as signatures of `key` want it, for tokens that sign digests."""
    hasher = hashes.Hash(signature_hash(key))
    hasher.update(data)
    return hasher.finalize()


def fingerprints(key: ec.EllipticCurvePublicKey) -> tuple[str, str]:
    """SHA-256 in hexadecimal of the key as PEM (what is written as `hint`) and as DER."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    encodings = (serialization.Encoding.PEM, serialization.Encoding.DER)
    pem, der = (hashlib.sha256(key.public_bytes(form, info)).hexdigest() for form in encodings)
    return pem, der


def _unsupported(found: str) -> FileError:
    return FileError(
        "this kind of key is not supported", expected="an EC key: P-256, P-384, P-521", found=found
    )
