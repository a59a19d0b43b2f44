"""A DSSE envelope signed and checked with an EC key: what all keys have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from model_signing.errors import SignatureError, SigningError
from model_signing.methods import Signer, keys, timestamps
from model_signing.oms import bundle
from model_signing.oms.bundle import Bundle
from model_signing.oms.statement import LEGACY_PREDICATE_TYPE


def signer(
    sign: Callable[[bytes], bytes],
    public_key: ec.EllipticCurvePublicKey,
    timestamp_url: str | None,
    ders: Sequence[bytes] = (),
) -> Signer:
    """Signs with `sign`, from a digest to its DER signature; `ders` is the leaf and its chain."""
    algorithm = keys.signature_hash(public_key).name
    hint = None if ders else keys.fingerprints(public_key)[0]

    def sign_statement(statement: bytes) -> bytes:
        digest = bundle.pae_digest(statement, algorithm)
        signature = sign(digest)
        try:  # a token's key may be another than the certificate's
            public_key.verify(signature, digest, keys.ecdsa(algorithm))
        except InvalidSignature:
            raise SigningError("the private key does not match the public key") from None
        stamps = []
        if timestamp_url is not None:
            stamps = [timestamps.timestamp(signature, timestamp_url)]
        return bundle.encode(
            statement, signature, key_hint=hint, certificates=ders, timestamps=stamps
        )

    return sign_statement


def verify(key: ec.EllipticCurvePublicKey, parsed: Bundle) -> None:
    """DSSE protocol.md: the signature over the pre-authentication encoding."""
    kind, payload, algorithm = parsed.payload_type, parsed.payload, keys.signature_hash(key).name
    if b'"%s"' % LEGACY_PREDICATE_TYPE.encode() in payload:
        # OMS 11, v0.2.0: the payload as Python prints it, and always SHA-256. "DSSEV1" keeps the
        # two apart, and the statement's reader refuses this predicate type unless asked for.
        data = f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode()
        digest, algorithm = hashlib.sha256(data).digest(), "sha256"
    else:
        digest = bundle.pae_digest(payload, algorithm)
    try:
        key.verify(parsed.signature, digest, keys.ecdsa(algorithm))
    except InvalidSignature:
        words = "the signature does not match: another key, or an altered payload"
        raise SignatureError(words, where="dsseEnvelope") from None
