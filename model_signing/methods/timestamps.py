"""Trusted time (RFC 3161), asked for when signing and checked when verifying."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model_signing.errors import LogError, SigningError, innermost

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from model_signing.oms.bundle import Bundle


def timestamp(signature: bytes, url: str) -> bytes:
    """The response, DER, of an RFC 3161 authority; its signature is for the verifier to judge.

    A `SigningError` if there is no answer, a refusal, or a timestamp of something else.
    """
    from rfc3161_client import TimestampRequestBuilder, decode_timestamp_response
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
        decoded = decode_timestamp_response(response)
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
            decoded = rfc3161_client.decode_timestamp_response(response)
            verifier.verify_message(decoded, signature)
            return decoded.tst_info.gen_time
        except (rfc3161_client.VerificationError, ValueError) as error:  # noqa: PERF203
            reason = str(error).rpartition("Verify error: ")[2].split('"')[0]  # OpenSSL's own words
    raise LogError("the timestamp is not from a trusted authority", found=reason)
