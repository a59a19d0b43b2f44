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


def decode(response: bytes, known: Iterable[x509.Certificate] = ()) -> TimeStampResponse:
    """Reads a response, DER; `known` are certificates that may be missing in it.

    A `ValueError` if it cannot be read.
    """
    from rfc3161_client import decode_timestamp_response

    ders = [certificate.public_bytes(Encoding.DER) for certificate in known]
    try:
        return decode_timestamp_response(_with_certificates(response, ders))
    except ValueError as error:  # which has a structure of Rust in its words
        raise ValueError(re.sub(r"ParseError \{ kind: (\w+).*", r"\1", str(error))) from None


def _with_certificates(response: bytes, known: Iterable[bytes] = ()) -> bytes:
    """A response with these certificates too, all in the order that DER has for a set (X.690 11.6).

    Authorities send theirs in any order, or none (RFC 3161 2.4.1: unless asked). They are not
    signed (RFC 5652 5.1), so that this changes nothing for anybody.
    """
    ((_, answer),) = _elements(response)
    status, *tokens = _elements(answer)
    if not tokens:  # refused
        return response
    kind, (explicit, content) = _elements(tokens[0][1])
    ((sequence, signed),) = _elements(content)
    before, after = (fields := _elements(signed))[:3], fields[3:]
    there: list[tuple[int, bytes]] = []
    if after and after[0][0] == _CERTIFICATES:
        there = _elements(after.pop(0)[1])
    ders = sorted({*known, *(_encoded(*one) for one in there)})
    if ders:
        before.append((_CERTIFICATES, b"".join(ders)))
    inner = _encoded(sequence, *(_encoded(*one) for one in (*before, *after)))
    token = _encoded(tokens[0][0], _encoded(*kind), _encoded(explicit, inner))
    return _encoded(0x30, _encoded(*status), token)


_CERTIFICATES = 0xA0  # RFC 5652 5.1: [0] IMPLICIT, of SignedData


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of the DER elements in a row (X.690 8.1)."""
    found, at = [], 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1 : at + 2], at + 2
        size = int.from_bytes(length, "big")
        if size > 0x7F:
            start += size - 0x80
            size = int.from_bytes(data[at + 2 : start], "big")
        if not length or start + size > len(data):
            raise ValueError("the timestamp is cut off")
        found.append((tag, data[start : start + size]))
        at = start + size
    return found


def _encoded(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, size] if size < 0x80 else [tag, 0x80 + len(length), *length]) + content


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
    """`signed_at`, `time_source` by a trusted authority; a `LogError` if no timestamp is its."""
    if not authority or not parsed.timestamps:
        return {}
    when = _time(parsed.timestamps, parsed.signature, authority)
    return {"signed_at": when, "time_source": "timestamp authority"}


def _time(
    responses: Iterable[bytes], signature: bytes, authority: Sequence[x509.Certificate]
) -> datetime:
    """RFC 3161 2.3, 2.4.2: when a trusted authority saw the signature.

    The first response (DER) that holds counts; certificates inside are not trusted. A `LogError`
    if all are malformed, about something else, or not from that authority.
    """
    import rfc3161_client

    verifier = rfc3161_client.VerifierBuilder(roots=list(authority)).build()
    reason = None
    for response in responses:
        try:
            decoded = decode(response, authority)
            with no_panic():
                verifier.verify_message(decoded, signature)
            return decoded.tst_info.gen_time
        except (rfc3161_client.VerificationError, ValueError) as error:  # noqa: PERF203
            reason = str(error).rpartition("Verify error: ")[2].split('"')[0]  # OpenSSL's own words
    raise LogError("the timestamp is not from a trusted authority", found=reason)
