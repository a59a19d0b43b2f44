"""OMS method `key`: a long-lived EC key, and whoever has its public half."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model_signing.errors import SignatureError
from model_signing.methods import Authenticated, Signer, Verifier, dsse, keys, timestamps
from model_signing.methods.keys import Password
from model_signing.oms import bundle
from model_signing.safe_files import Pem


def key_signer(
    private_key: Pem, password: Password = None, timestamp_url: str | None = None
) -> Signer:
    """Signs with a long-lived EC key (OMS 4.1, method `key`).

    `private_key` is PEM or its path: P-256, P-384 or P-521, perhaps encrypted, or else a
    `FileError`. `password` may be a function that asks for it. The RFC 3161 authority at
    `timestamp_url` timestamps every signature, or else a `SigningError`.
    """
    return dsse.signer(*keys.software(private_key, password), timestamp_url)


def digest_signer(
    sign: Callable[[bytes], bytes], public_key: Pem, timestamp_url: str | None = None
) -> Signer:
    """Signs as `key_signer`, with a key that is elsewhere: in an HSM, at a key service.

    `sign` makes the DER signature (ECDSA) of a digest, which has the size of the curve's hash:
    SHA-256 for P-256, SHA-384 for P-384, SHA-512 for P-521. What it raises is passed on. Its
    signature is checked with `public_key`, PEM or its path, before anything is written: a
    `SigningError` if it is of another key. A `FileError` if the public key cannot be used.
    """
    return dsse.signer(sign, keys.load_public_key(public_key), timestamp_url)


def key_verifier(public_key: Pem, tsa_certificate_chain: Sequence[Pem] = ()) -> Verifier:
    """Accepts signatures of one key (OMS 8.2, method `key`).

    `public_key` is PEM or its path: P-256, P-384 or P-521, or else a `FileError`;
    `tsa_certificate_chain` is that of the timestamp authority which is trusted for the time. The
    verifier raises `BundleError`, `SignatureError` and `LogError`.
    """
    key = keys.load_public_key(public_key)
    known, who = keys.fingerprints(key), keys.fingerprint(key)
    authority = keys.load_certificates(tsa_certificate_chain) if tsa_certificate_chain else []

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.1: a well-formed bundle, 4.1: of this method.
        parsed = bundle.parse(data, "key")
        # 2. OMS 4.1: `hint` identifies the verification key; `rawBytes` of old bundles is unused.
        hint = parsed.key_hint
        if hint is not None and hint not in known:
            found = keys.hinted(hint, parsed.signature, parsed.payload)
            fix = "a key is named by SHA-256 of its DER SubjectPublicKeyInfo"
            raise SignatureError("signed with another key", expected=who, found=found, fix=fix)
        # 3. OMS 8.2: the DSSE signature.
        dsse.verify(key, parsed)
        # 4. RFC 3161: when, if a trusted clock says so.
        time = timestamps.trusted_time(parsed, authority)
        return Authenticated(parsed.payload, parsed.payload_type, "key", who, **time)

    return verify
