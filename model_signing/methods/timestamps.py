"""Trusted time (RFC 3161), asked for when signing and checked when verifying."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from model_signing.errors import LogError, SigningError, innermost
from model_signing.methods import der

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509
    from rfc3161_client import TimeStampResponse

    from model_signing.oms.bundle import Bundle


def timestamp(signature: bytes, url: str) -> bytes:
    """The response, DER, of an RFC 3161 authority; its signature is for the verifier to judge.

    A `SigningError` if there is no answer, a refusal, or a timestamp of something else.
    """
    from rfc3161_client import TimestampRequestBuilder
    from rfc3161_client.base import HashAlgorithm

    from model_signing.methods import services  # takes time, as the other: only when wanted

    query = TimestampRequestBuilder(signature, HashAlgorithm.SHA256).build()
    headers = {"Content-Type": "application/timestamp-query"}
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("not an http or https address")
        service = replace(services.TIMESTAMP_AUTHORITY, may_move=True)
        adapter = services.Adapter(service, services.Patience(services.MAX_SECONDS))
        with adapter.mounted() as session:
            response = session.post(url, query.as_bytes(), headers=headers).content
        response = _with_certificates(response)  # as every verifier can read it
        decoded = decode(response)
        if decoded.status != 0:
            raise ValueError(f"refused with status {decoded.status}")
        # RFC 3161 2.4.2: an answer to this very question.
        if decoded.tst_info.nonce != query.nonce:
            raise ValueError("it timestamped another request")
        if decoded.tst_info.message_imprint.message != hashlib.sha256(signature).digest():
            raise ValueError("it timestamped something else")
    except (OSError, ValueError) as error:
        words = "the timestamp authority gave no timestamp"
        raise SigningError(words, where=url, found=innermost(error)) from None
    return response


def decode(
    response: bytes, known: Iterable[x509.Certificate] = (), *, instead: bool = False
) -> TimeStampResponse:
    """Reads a response, DER; `known` are certificates that may be missing in it.

    With `instead` they take the place of its own.

    A `ValueError` if it cannot be read.
    """
    from rfc3161_client import decode_timestamp_response

    ders = [certificate.public_bytes(Encoding.DER) for certificate in known]
    try:
        return decode_timestamp_response(_with_certificates(response, ders, instead))
    except ValueError as error:  # which has a structure of Rust in its words
        raise ValueError(re.sub(r"ParseError \{ kind: (\w+).*", r"\1", str(error))) from None


def _with_certificates(
    response: bytes, known: Iterable[bytes] = (), instead: bool = False
) -> bytes:
    """A response with these certificates too, all in the order that DER has for a set (X.690 11.6).

    Authorities send theirs in any order, or none (RFC 3161 2.4.1: unless asked). They are not
    signed (RFC 5652 5.1), so that this changes nothing for anybody.
    """
    ((_, answer),) = der.elements(response)
    status, *tokens = der.elements(answer)
    if not tokens:  # refused
        return response
    kind, (explicit, content) = der.elements(tokens[0][1])
    ((sequence, signed),) = der.elements(content)
    before, after = (fields := der.elements(signed))[:3], fields[3:]
    there: list[tuple[int, bytes]] = []
    if after and after[0][0] == _CERTIFICATES:
        there = der.elements(after.pop(0)[1])
    ders = sorted({*known, *(der.encoded(*one) for one in ([] if instead else there))})
    if ders:
        before.append((_CERTIFICATES, b"".join(ders)))
    inner = der.encoded(sequence, *(der.encoded(*one) for one in (*before, *after)))
    token = der.encoded(tokens[0][0], der.encoded(*kind), der.encoded(explicit, inner))
    return der.encoded(0x30, der.encoded(*status), token)


_CERTIFICATES = 0xA0  # RFC 5652 5.1: [0] IMPLICIT, of SignedData


@contextmanager
def no_panic() -> Iterator[None]:
    """Makes a `ValueError` of a panic in a library's Rust: no handler of `Exception` meets one.

    Such as rfc3161-client's, where OpenSSL cannot read what cryptography can.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("a library could not read what it was given") from None


def trusted_time(parsed: Bundle, authority: Sequence[x509.Certificate]) -> dict[str, Any]:
    """`signed_at`, `time_source` by a trusted authority; a `LogError` if no timestamp is its.

    The first one counts that holds. Certificates inside are not trusted.
    """
    if not authority or not parsed.timestamps:
        return {}
    reason: LogError | None = None
    for response in parsed.timestamps:
        try:
            decoded = decode(response, authority)
            when = _time(decoded, parsed.signature, authority)
        except (LogError, ValueError) as error:  # noqa: PERF203
            reason = error if isinstance(error, LogError) else _untrusted(error)
        else:
            return {"signed_at": when, "time_source": "timestamp authority"}
    assert reason is not None  # noqa: S101 - there was one, at least
    raise reason


def require_path(
    response: TimeStampResponse, signature: bytes, chain: Sequence[x509.Certificate]
) -> None:
    """RFC 5280 6.1: a path, all valid then, along `chain` from a timestamp's signer to its end.

    A `LogError` if there is none: only the last is trusted, and no certificate of the response
    used. That the first of `chain` is the signer was verified before.
    """
    from cryptography.x509.oid import ExtendedKeyUsageOID  # signing with a key reads none of it

    from model_signing.methods.x509 import require_issuers

    when, key = response.tst_info.gen_time, tuple(chain)
    # Of a path that held once only the dates are another question the next time.
    valid = all(one.not_valid_before_utc <= when <= one.not_valid_after_utc for one in chain)
    if valid and key in _paths:
        return
    try:
        _time(decode(response.as_bytes(), chain, instead=True), signature, chain[-1:])
        require_issuers(chain, ExtendedKeyUsageOID.TIME_STAMPING)
    except ValueError as error:
        raise _untrusted(error) from None
    if len(_paths) < _MAX_PATHS:
        _paths.add(key)


_MAX_PATHS = 64
_paths: set[tuple[x509.Certificate, ...]] = set()  # those that held


def _time(
    decoded: TimeStampResponse, signature: bytes, anchors: Sequence[x509.Certificate]
) -> datetime:
    """RFC 3161 2.3, 2.4.2: when somebody whom an anchor certified saw the signature.

    A `LogError` if it is about something else, or not from such an authority.
    """
    import rfc3161_client

    verifier = rfc3161_client.VerifierBuilder(roots=list(anchors)).build()
    try:
        with no_panic():
            verifier.verify_message(decoded, signature)
    except (rfc3161_client.VerificationError, ValueError) as error:
        raise _untrusted(error) from None
    return decoded.tst_info.gen_time


def _untrusted(error: Exception) -> LogError:
    said = str(error).rpartition("Verify error: ")[2].split('"')[0]  # OpenSSL's own words
    return LogError("the timestamp is not from a trusted authority", found=said)
