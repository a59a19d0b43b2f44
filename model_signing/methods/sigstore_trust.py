"""Sigstore's trust root, and sigstore-python's failures in our words.

sigstore-python is imported inside the functions: it takes longer than hashing a small model.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from model_signing import errors
from model_signing.safe_files import read_bounded

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig

T = TypeVar("T")


@dataclass(frozen=True)
class SigstoreTrust:
    """Which Sigstore instance is trusted.

    With `offline` the trust root is not refreshed: it is that of the TUF cache, or else the one
    that ships with sigstore-python.
    """

    trust_config: Path | None = None  # client trust configuration (JSON) of a private instance
    staging: bool = False  # the public staging instance
    offline: bool = False


def load(trust: SigstoreTrust) -> ClientTrustConfig:
    """The trust root and service addresses of an instance.

    A `FileError` or `UsageError` for a configuration that cannot be used, or a public instance's
    trust root that cannot be refreshed.
    """
    return _load(read(trust), str(trust.trust_config), trust.staging, trust.offline)


def read(trust: SigstoreTrust) -> bytes | None:
    """The configuration of a private instance, if one is named, unparsed; raises as `load`."""
    if trust.trust_config is None:
        return None
    if trust.staging:
        raise errors.UsageError("--trust-config and --use-staging exclude each other")
    return read_bounded(trust.trust_config, 16 * 1024 * 1024)


def in_background(work: Callable[[], T]) -> Callable[..., T]:
    """Starts `work` in a daemon thread; the returned function waits for its result or exception.

    It takes the seconds to wait; after those it raises `concurrent.futures.TimeoutError`.
    """
    from concurrent.futures import Future  # slow to import, and needed for Sigstore only

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="sigstore").start()
    return future.result


@lru_cache(maxsize=8)
def _load(config: bytes | None, path: str, staging: bool, offline: bool) -> ClientTrustConfig:
    import logging

    from sigstore.errors import Error as SigstoreError
    from sigstore.models import ClientTrustConfig

    # Its warnings would reach stderr; an application that configures logging still gets them.
    logging.getLogger("sigstore").addHandler(logging.NullHandler())
    try:
        if config is not None:
            return ClientTrustConfig.from_json(config.decode())
        source = ClientTrustConfig.staging if staging else ClientTrustConfig.production
        return source(offline=offline)
    except (SigstoreError, OSError, ValueError, RuntimeError) as error:  # the last: nobody's home
        found = _words(error)
        if offline and config is None and isinstance(error, OSError | RuntimeError):
            return ClientTrustConfig.from_json(_shipped(staging))  # without a cache
    if config is not None:
        raise errors.FileError("not a Sigstore client trust configuration", where=path, found=found)
    fix = "check the network, or pass --offline to use the trust root on this machine"
    if offline:
        fix = "name a trust configuration with --trust-config"
    message = "Sigstore's trust root could not be " + ("read" if offline else "refreshed")
    raise errors.FileError(message, found=found, fix=_clock(found) or fix)


def _shipped(staging: bool) -> str:
    """The configuration that ships with sigstore-python, which keeps it in its cache otherwise."""
    from sigstore._internal import tuf
    from sigstore._utils import read_embedded

    url = tuf.STAGING_TUF_URL if staging else tuf.DEFAULT_TUF_URL
    root, services = (
        read_embedded(name, url).decode()
        for name in ("trusted_root.json", "signing_config.v0.2.json")
    )
    kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
    return f'{{"mediaType": "{kind}", "trustedRoot": {root}, "signingConfig": {services}}}'


# What sigstore-python says when a verification fails -> whose fault it is. First match wins.
_VERIFICATION_FAILURES: dict[type[errors.Error], dict[str, str]] = {
    errors.BundleError: {"^(InvalidBundle|IncompatibleEntry): ": "not a complete Sigstore bundle"},
    errors.SignatureError: {"DSSE: invalid signature": "the signature does not match the payload"},
    errors.CertificateError: {
        "at time of signing|at validation time": "signed outside the certificate's validity",
        "certificate chain": "the certificate was not issued by a trusted CA",
        "usage": "the certificate is not for signing",
    },
    errors.LogError: {
        "SCT": "the certificate is not in a trusted certificate-transparency log",
        "of verified": "no trusted time: the bundle is of another Sigstore instance, or incomplete",
        "imestamp": "the timestamp is not from a trusted authority",
        "log entry|transparency log|ntegrated time": "the transparency-log entry does not hold",
    },
}

_INSTANCE = "if another Sigstore instance signed, name it: --trust-config or --use-staging"


def not_verified(error: Exception) -> errors.Error:
    """Whatever sigstore-python raised while verifying, in our words."""
    words = _words(error)
    for kind, messages in _VERIFICATION_FAILURES.items():
        for pattern, message in messages.items():
            if re.search(pattern, f"{type(error).__name__}: {words}"):
                instance = kind in (errors.CertificateError, errors.LogError)
                return kind(message, found=words, fix=_INSTANCE if instance else None)
    return errors.SignatureError("Sigstore verification failed", found=words)


def not_signed(error: Exception) -> errors.SigningError:
    """Whatever sigstore-python raised while signing, in our words."""
    message, fix = _SIGNING_FAILURES.get(type(error).__name__, ("Sigstore signing failed", None))
    words = _words(error)
    return errors.SigningError(message, found=words, fix=_clock(words) or fix)


def _clock(words: str) -> str | None:
    """The fix if somebody's time and ours disagree: of a token, of a service's certificate."""
    if not re.search("not yet valid|not valid yet|before its issue|Immature", words):
        return None
    now = datetime.now(timezone.utc)
    return f"is this machine's clock right? It says {now:%Y-%m-%d %H:%M:%SZ}"


# Class of the exception -> message, fix.
_NEW_TOKEN = "get a new token; in GitHub Actions use --use-ambient-credentials"  # noqa: S105
_NO_PERSON = "use --use-ambient-credentials or --identity-token"
_ADDRESSES = "check the network and the addresses in the trust configuration"
_NETWORK = "NetworkError ConnectionError Timeout ConnectTimeout ReadTimeout SSLError"
_SIGNING_FAILURES: dict[str, tuple[str, str | None]] = {
    "FulcioClientError": ("Fulcio refused to issue a certificate", _NEW_TOKEN),
    "RekorClientError": ("the transparency log refused the entry", None),
    "ExpiredIdentity": ("the identity has expired", _NEW_TOKEN),
    "ExpiredCertificate": ("the certificate has expired", "check the clock, and try again"),
    "IdentityError": ("the identity token cannot be used", _NEW_TOKEN),
    "IssuerError": ("the OIDC issuer does not answer as one", "check the trust configuration"),
    "InvalidBundle": (
        "the signature is incomplete: the timestamp authority did not answer",
        "try again",
    ),
    "JSONDecodeError": ("a Sigstore service gave an answer that is not JSON", None),
    "EOFError": ("signing with a browser needs a person at a terminal", _NO_PERSON),
    **dict.fromkeys(_NETWORK.split(), ("a Sigstore service cannot be reached", _ADDRESSES)),
}


def _words(error: BaseException) -> str:
    """An exception and its causes in one line; some of sigstore-python's are empty."""
    parts = [""]
    cause: BaseException | None = error
    while cause is not None and len(parts) < 5:
        # pydantic and cryptography append what they looked at, as Python would print it.
        text = " ".join(re.split(r" \[type=| \(encountered", str(cause))[0].split())
        response = getattr(cause, "response", None)
        if response is not None:  # requests: the service's own words say more than the status
            text = f"HTTP {response.status_code} from {response.url}: {response.text[:300]}"
        if not any(text in part for part in parts):
            parts.append(text)
        cause = cause.__cause__
    return ": ".join(parts[1:])[:1000] or type(error).__name__
