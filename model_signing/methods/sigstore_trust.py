"""Sigstore's trust root, and sigstore-python's failures in our words.

sigstore-python is imported inside the functions: it takes longer than hashing a small model.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic as _monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from model_signing import errors
from model_signing.methods import trust_documents
from model_signing.safe_files import read_bounded

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, SigningConfig, TrustedRoot

T = TypeVar("T")

_MAX_UNKNOWN = 64  # fields of a configuration
_REFRESH_SECONDS = 60.0  # that getting the public trust root may take
_REFRESHED_SECONDS, _USED_SECONDS = 3_600.0, 86_400.0  # after those it is got again, used no more


@dataclass(frozen=True)
class SigstoreTrust:
    """Which Sigstore instance is trusted.

    With `offline` the trust root is not refreshed: it is that of the TUF cache, or else the one
    that ships with sigstore-python.
    """

    # Of a private instance: a client trust configuration (JSON); for verifying a trusted root, too.
    trust_config: Path | None = None
    staging: bool = False  # the public staging instance
    offline: bool = False

    def __post_init__(self) -> None:
        """A path that is given as text is one, too."""
        if self.trust_config is not None:
            object.__setattr__(self, "trust_config", Path(self.trust_config))


def load(trust: SigstoreTrust) -> ClientTrustConfig:
    """The trust root and service addresses of an instance, for signing.

    A `FileError`, `SigningError` or `UsageError` for a configuration that cannot be used, or a
    public instance's trust root that cannot be refreshed.
    """
    found = read(trust)
    if found is None:
        return _public(trust.staging, trust.offline)
    where = str(trust.trust_config)
    services = trust_documents.require_services(found, where)
    document = {"mediaType": trust_documents.CONFIG, "trustedRoot": found.roots[0]}
    config = _private(json.dumps({**document, "signingConfig": services}), where, "")
    _ = _selected(config, where)
    return config


def roots(trust: SigstoreTrust) -> list[TrustedRoot]:
    """The trust roots of an instance, for verifying: each is to be tried alone; raises as `load`.

    The services that sign, and what is wrong with them, do not matter.
    """
    found = read(trust)
    if found is None:
        return [_public(trust.staging, trust.offline).trusted_root]
    where = str(trust.trust_config)
    services = {"mediaType": trust_documents.SERVICES}
    document = {"mediaType": trust_documents.CONFIG, "signingConfig": services}
    return [
        _private(json.dumps({**document, "trustedRoot": one}), where, "trustedRoot").trusted_root
        for one in found.roots
    ]


def read(trust: SigstoreTrust) -> trust_documents.Documents | None:
    """The configuration of a private instance, if one is named; raises as `load`."""
    if trust.trust_config is None:
        return None
    if trust.staging:
        raise errors.UsageError("--trust-config and --use-staging exclude each other")
    data = read_bounded(trust.trust_config, 16 * 1024 * 1024)
    return trust_documents.parse(data, str(trust.trust_config))


def _selected(config: ClientTrustConfig, where: str) -> SigningConfig:
    """The services that sign; a `FileError` if sigstore-python finds none to its liking."""
    from sigstore.errors import Error as SigstoreError

    try:
        return config.signing_config
    except (SigstoreError, ValueError) as error:
        words = "not a Sigstore signing config"
        raise errors.FileError(words, where=where, found=_words(error)) from None


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


@lru_cache(maxsize=16)
def _private(text: str, where: str, part: str) -> ClientTrustConfig:
    """A configuration in sigstore-python's form; fields that are not known are left out, and named.

    `part` is that of the document which came from the file.
    """
    import logging

    from pydantic import ValidationError
    from sigstore.models import ClientTrustConfig

    _quiet()
    document = json.loads(text)
    for _ in range(_MAX_UNKNOWN):
        try:
            config = ClientTrustConfig.from_json(json.dumps(document))
            _require_meaning(config.trusted_root, where)
            return config
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
        except (ValueError, TypeError) as error:
            raise errors.FileError(
                "not a Sigstore client trust configuration", where=where, found=str(error)
            ) from None
        place = ".".join(map(str, first["loc"])).removeprefix(f"{part}." if part else "")
        if first["type"] != "extra_forbidden":
            raise errors.FileError(
                "not a Sigstore client trust configuration",
                where=f"{where}: {place}",
                found=first["msg"].removeprefix("Value error, "),
            )
        logging.getLogger(__name__).warning("%s: unknown field left out: %s", where, place)
        *path, name = first["loc"]
        inner = document
        for step in path:
            inner = inner[step]
        del inner[name]
    raise errors.FileError("too many fields that are not known", where=where)


def _require_meaning(root: TrustedRoot, where: str) -> None:
    """Raises a `FileError` if something is well-formed, and has no meaning for us."""
    inner: Any = root._inner
    keys = []
    for field in ("tlogs", "ctlogs"):
        for log in getattr(inner, field):
            keys.append(log.public_key)
            # Proofs are of trees of that hash; a promise to look at another would not be kept.
            if log.hash_algorithm != "SHA2_256":
                raise errors.FileError(
                    "a log's tree has an unknown hash",
                    where=f"{where}: {field}, {log.base_url}",
                    expected="hashAlgorithm SHA2_256",
                    found=log.hash_algorithm.value,
                )
    # Times without a zone (no RFC 3339, and so no protobuf) cannot be compared.
    for one in (*keys, *inner.certificate_authorities, *inner.timestamp_authorities):
        window = one.valid_for
        if window and any(time and time.tzinfo is None for time in (window.start, window.end)):
            raise errors.FileError("a validity time has no time zone", where=f"{where}: validFor")


def _quiet() -> None:
    import logging

    # Its warnings would reach stderr; an application that configures logging still gets them.
    logging.getLogger("sigstore").addHandler(logging.NullHandler())


class _Public:
    """The trust roots of the public instances, as long as this process uses them.

    One that was refreshed an hour ago is refreshed again, in the background: whoever verifies does
    not wait for that. One that could not be refreshed for a day is used no more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[bool, bool], tuple[float, ClientTrustConfig]] = {}
        self._running: set[tuple[bool, bool]] = set()

    def __call__(self, staging: bool, offline: bool) -> ClientTrustConfig:
        """That of an instance; raises as `load`."""
        key = staging, offline
        with self._lock:
            since, config = self._found.get(key, (0.0, None))
            age = _monotonic() - since
            if config is not None and (offline or age < _USED_SECONDS):
                if not offline and age >= _REFRESHED_SECONDS and key not in self._running:
                    self._running.add(key)
                    in_background(partial(self._refresh, *key))
                return config
        return self._fetch(*key)

    def _refresh(self, staging: bool, offline: bool) -> None:
        try:
            self._fetch(staging, offline)
        finally:
            with self._lock:
                self._running.discard((staging, offline))

    def _fetch(self, staging: bool, offline: bool) -> ClientTrustConfig:
        began, config = _monotonic(), _fetched(staging, offline)
        with self._lock:
            self._found[staging, offline] = began, config
        return config

    def cache_clear(self) -> None:
        """Forgets them."""
        with self._lock:
            self._found.clear()


_public = _Public()


def _fetched(staging: bool, offline: bool) -> ClientTrustConfig:
    from concurrent.futures import TimeoutError as Late

    from sigstore.errors import Error as SigstoreError
    from sigstore.models import ClientTrustConfig

    _quiet()
    try:
        source = ClientTrustConfig.staging if staging else ClientTrustConfig.production
        # A time limit of its own is for a socket's silence only.
        return in_background(partial(source, offline=offline))(_REFRESH_SECONDS)
    except Late:
        found = f"no end of it within {_REFRESH_SECONDS:.0f} s"
    except (SigstoreError, OSError, ValueError, RuntimeError) as error:  # the last: nobody's home
        found = _words(error)
        if offline and isinstance(error, OSError | RuntimeError):
            return ClientTrustConfig.from_json(_shipped(staging))  # without a cache
    fix = "check the network, or pass --offline to use the trust root on this machine"
    if offline:
        fix = "name a trust configuration with --trust-config"
    message = "Sigstore's trust root could not be " + ("read" if offline else "refreshed")
    raise errors.FileError(message, found=found, fix=clock_fix(found) or fix)


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

_INSTANCE = "if another Sigstore instance signed, name its trust configuration with --trust-config"


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
    return errors.SigningError(message, found=words, fix=clock_fix(words) or fix)


def clock_fix(words: str) -> str | None:
    """The fix if somebody's time and ours disagree: of a token, of a service's certificate."""
    if not re.search("not yet valid|not valid yet|before its issue|Immature", words):
        return None
    now = datetime.now(timezone.utc)
    return f"is this machine's clock right? It says {now:%Y-%m-%d %H:%M:%SZ}"


# Class of the exception -> message, fix. Failures of services are `services`' own.
_NEW_TOKEN = "get a new token; in GitHub Actions use --use-ambient-credentials"  # noqa: S105
_NO_PERSON = "use --use-ambient-credentials or --identity-token"
_SIGNING_FAILURES: dict[str, tuple[str, str | None]] = {
    "FulcioClientError": ("Fulcio gave no certificate", None),
    "ExpiredIdentity": ("the identity has expired", _NEW_TOKEN),
    "ExpiredCertificate": ("the certificate has expired", "check the clock, and try again"),
    "IdentityError": ("the identity token cannot be used", _NEW_TOKEN),
    "IssuerError": ("the OIDC issuer does not answer as one", "check the trust configuration"),
    "EOFError": ("signing with a browser needs a person at a terminal", _NO_PERSON),
}


def _words(error: BaseException) -> str:
    """An exception and its causes in one line; some of sigstore-python's are empty."""
    parts = [""]
    cause: BaseException | None = error
    while cause is not None and len(parts) < 5:
        inner = getattr(cause, "reason", None)  # of urllib3's, whose own words wrap all of it
        cause = inner if isinstance(inner, BaseException) else cause
        # pydantic and cryptography append what they looked at, as Python would print it.
        text = " ".join(re.split(r" \[type=| \(encountered", str(cause))[0].split())
        response = getattr(cause, "response", None)
        if response is not None:  # requests: the service's own words say more than the status
            text = f"HTTP {response.status_code} from {response.url}: {response.text[:300]}"
        if not any(text in part for part in parts):
            parts.append(text)
        cause = cause.__cause__
    return ": ".join(parts[1:])[:1000] or type(error).__name__
