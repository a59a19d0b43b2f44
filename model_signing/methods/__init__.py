"""Who signed: for each OMS method the signer and its verifier (OMS 4.1, 6.7, 6.8, 8.1, 8.2).

A signer is a function from the bytes of an in-toto statement to those of a bundle; a verifier one
from the bytes of a bundle to authenticated bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_signing.oms.bundle import Method

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class LogEntry:
    """Where a log has the signature; its key id in hexadecimal, its name in its checkpoint."""

    log_index: int
    log_id: str
    origin: str


@dataclass(frozen=True)
class Authenticated:
    """What a verifier returns: these bytes were signed by this identity."""

    payload: bytes  # the signed in-toto statement
    payload_type: str  # always `application/vnd.in-toto+json`
    method: Method
    identity: str | None = None  # alternative name (Sigstore), subject, or the key's fingerprint
    issuer: str | None = None  # OIDC issuer (Sigstore), or the certificate's
    certificate: bytes | None = None  # the leaf, DER
    signed_at: datetime | None = None  # when the signature existed at the latest ...
    time_source: str | None = None  # ... by the trusted clock of a log or timestamp authority
    log: LogEntry | None = None  # Sigstore


Signer = Callable[[bytes], bytes]
Verifier = Callable[[bytes], Authenticated]
