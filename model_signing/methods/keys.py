"""Elliptic-curve keys on P-256, P-384 and P-521 (OMS 4.2, algorithm registry)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from model_signing.errors import FileError
from model_signing.oms import bundle
from model_signing.safe_files import Pem, read_pem

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

Password = bytes | Callable[[], bytes | None] | None
"""Of a key, or a function that asks for it, called if the key is encrypted."""

_HASHES: dict[str, hashes.HashAlgorithm] = {  # Sigstore algorithm registry: one hash per curve
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_BY_NAME = {algorithm.name: algorithm for algorithm in _HASHES.values()}


def load_private_key(source: Pem, password: Password) -> ec.EllipticCurvePrivateKey:
    """Reads a private key; a `FileError` if it is none, or the password missing or wrong."""
    pem, where = read_pem(source)
    if callable(password):
        password = password() if b"ENCRYPTED" in pem else None
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError:  # cryptography's way to say that there is a password too few or too many
        if password is not None:
            words, fix = "a password was given, but the private key is not encrypted", None
        else:
            words = "the private key is encrypted"
            fix = "give its password with --password or MODEL_SIGNING_PASSWORD"
        raise FileError(words, where=where, fix=fix) from None
    except (ValueError, UnsupportedAlgorithm):
        if password is not None:
            words = "the private key cannot be decrypted: wrong password?"
            raise FileError(words, where=where) from None
        raise FileError(
            "not a private key",
            where=where,
            expected="a PEM private key",
            found="a public key" if b"PUBLIC KEY" in pem else None,
        ) from None
    supported(key.public_key(), where)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  (as its public key)
    return key


def software(
    pem: Pem, password: Password
) -> tuple[Callable[[bytes], bytes], ec.EllipticCurvePublicKey]:
    """A private key as a function from a digest to its DER signature; and its public half.

    Raises as `load_private_key`.
    """
    key = load_private_key(pem, password)
    algorithm = ecdsa(signature_hash(key.public_key()).name)
    return lambda digest: key.sign(digest, algorithm), key.public_key()


def load_public_key(source: Pem) -> ec.EllipticCurvePublicKey:
    """Reads a public key; a `FileError` if it is none."""
    pem, where = read_pem(source)
    return supported(parsed(pem, where), where)


def parsed(pem: bytes, where: str | None) -> PublicKeyTypes:
    """A public key of any kind, which was read from `where`; a `FileError` if it is none."""
    try:
        return serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        private = b"PRIVATE KEY" in pem
        raise FileError(
            "not a public key",
            where=where,
            expected="a PEM public key",
            found="a private key" if private else None,
            fix="take its public half: openssl ec -in KEY -pubout" if private else None,
        ) from None


def load_certificates(sources: Iterable[Pem]) -> list[x509.Certificate]:
    """All certificates of some PEM files, in order; a `FileError` if one holds none."""
    from cryptography import x509  # takes time to import: not for keys

    found: list[x509.Certificate] = []
    for source in sources:
        pem, where = read_pem(source)
        try:
            found += x509.load_pem_x509_certificates(pem)
        except ValueError:
            words = "not a certificate"
            raise FileError(words, where=where, expected="PEM certificates") from None
    return found


def supported(key: object, where: str | None = None) -> ec.EllipticCurvePublicKey:
    """`key`, if OMS knows how to verify with it; a `FileError` for another type or curve."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else None
    raise FileError(
        "this kind of key is not supported",
        where=where,
        expected="an EC key: P-256, P-384, P-521",
        found=curve or type(key).__name__.removesuffix("PublicKey"),
    )


def signature_hash(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """The hash that goes with the curve of `key`; a `FileError` for another curve."""
    return _HASHES[supported(key).curve.name]


@lru_cache(8)
def ecdsa(algorithm: str) -> ec.ECDSA:
    """How a digest of this algorithm is signed."""
    return ec.ECDSA(utils.Prehashed(_BY_NAME[algorithm]))


def fingerprint(key: PublicKeyTypes) -> str:
    """What we call a key: SHA-256 of its DER SubjectPublicKeyInfo, hexadecimal."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    return f"sha256:{sha256(key.public_bytes(serialization.Encoding.DER, info)).hexdigest()}"


def hinted(hint: str, signature: bytes, payload: bytes) -> str:
    """The fingerprint of the key that a bundle's `hint` means, if its own signature tells.

    Peers write and want SHA-256 of the PEM, from which nobody learns the key. But an ECDSA
    signature leaves only few keys that can have made it (SEC 1 4.1.6); the hint picks one.
    """
    for (curve, prime), algorithm in zip(_CURVES, _HASHES.values(), strict=True):
        digest = bundle.pae_digest(payload, algorithm.name)
        with suppress(ValueError):
            for key in _candidates(curve, prime, signature, digest):
                if hint in fingerprints(key):
                    return fingerprint(key)
    return f"sha256:{hint}"


def _candidates(
    curve: ec.EllipticCurve, prime: int, signature: bytes, digest: bytes
) -> Iterator[ec.EllipticCurvePublicKey]:
    """SEC 1 4.1.6: Q = (sR - eG) / r, where R is one of the two points whose x is r."""
    r, s = utils.decode_dss_signature(signature)
    order = curve.group_order
    if not (0 < r < order and 0 < s < order):
        raise ValueError("of another curve")
    size, e = (curve.key_size + 7) // 8, int.from_bytes(digest, "big") % order

    def point(x: int, sign: int = 2) -> ec.EllipticCurvePublicKey:
        encoded = bytes([sign]) + x.to_bytes(size, "big")
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, encoded)

    def times(factor: int, x: int) -> int:
        shared = ec.derive_private_key(factor, curve).exchange(ec.ECDH(), point(x))
        return int.from_bytes(shared, "big")

    one = point(times(s, r)).public_numbers()
    two = ec.derive_private_key(e, curve).public_key().public_numbers()
    for y in (one.y, -one.y):
        slope = (y + two.y) * pow(one.x - two.x, -1, prime)
        x = times(pow(r, -1, order), (slope * slope - one.x - two.x) % prime)
        yield from (point(x, sign) for sign in (2, 3))


_CURVES: list[tuple[ec.EllipticCurve, int]] = [  # in the order of _HASHES; SP 800-186: the field
    (ec.SECP256R1(), 2**256 - 2**224 + 2**192 + 2**96 - 1),
    (ec.SECP384R1(), 2**384 - 2**128 - 2**96 + 2**32 - 1),
    (ec.SECP521R1(), 2**521 - 1),
]


def fingerprints(key: ec.EllipticCurvePublicKey) -> list[str]:
    """What a `hint` may be: SHA-256 in hexadecimal of the key as PEM (which we write) or DER."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    forms = (serialization.Encoding.PEM, serialization.Encoding.DER)
    return [sha256(key.public_bytes(form, info)).hexdigest() for form in forms]
