"""Elliptic-curve keys on P-256, P-384 and P-521 (OMS 4.2, algorithm registry)."""

from hashlib import sha256

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
    """Reads a PEM private key; a `FileError` if it is none, or the password missing or wrong."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError:  # cryptography's way to say that there is a password too few or too many
        if password is not None:
            raise FileError("a password was given, but the private key is not encrypted") from None
        fix = "give its password with --password or MODEL_SIGNING_PASSWORD"
        raise FileError("the private key is encrypted", fix=fix) from None
    except (ValueError, UnsupportedAlgorithm):
        if password is not None:
            raise FileError("the private key cannot be decrypted: wrong password?") from None
        raise FileError("not a private key", expected="a PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unsupported(key)
    supported(key.public_key())
    return key


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Reads a PEM public key; a `FileError` if it is none."""
    try:
        return supported(serialization.load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm):
        raise FileError("not a public key", expected="a PEM public key") from None


def supported(key: object) -> ec.EllipticCurvePublicKey:
    """`key`, if OMS knows how to verify with it; a `FileError` for another type or curve."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    raise _unsupported(key)


def signature_hash(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """The hash that goes with the curve of `key`; a `FileError` for another curve."""
    return _HASHES[supported(key).curve.name]


def fingerprints(key: ec.EllipticCurvePublicKey) -> list[str]:
    """SHA-256 in hexadecimal of the key as PEM (what is written as `hint`) and as DER."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    forms = (serialization.Encoding.PEM, serialization.Encoding.DER)
    return [sha256(key.public_bytes(form, info)).hexdigest() for form in forms]


def _unsupported(key: object) -> FileError:
    found = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    expected = "an EC key: P-256, P-384, P-521"
    return FileError("this kind of key is not supported", expected=expected, found=found)
