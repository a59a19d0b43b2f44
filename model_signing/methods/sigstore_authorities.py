"""Who vouched for a signature, and whether the trust root let them at that time.

A trust root says of every authority from when to when it is trusted (`validFor`; sigstore
protobuf-specs, trustroot). sigstore-python 4.5 looks at that of timestamp authorities only, so that
a key which was retired, or stolen and revoked in the trust root, would go on vouching. Here it
judges again, with only those authorities that were valid at the proven time: see
docs/beyond-sigstore-python.md.
"""

from __future__ import annotations

import contextlib
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from model_signing import errors
from model_signing.methods import timestamps, x509

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse
    from sigstore._internal.timestamp import TimestampVerificationResult
    from sigstore.models import Bundle, SigningConfig, TrustedRoot

E = TypeVar("E", bound=errors.Error)

_FIX = "an authority that was retired or revoked vouches for nothing outside its time: sign again"


@dataclass(frozen=True)
class _Kind:
    """One kind of authority in a trust root: its field there, its name in messages."""

    field: str
    name: str
    refusal: type[errors.SignatureError]
    told_by: str  # what says when it vouched


_CA = _Kind(
    "certificate_authorities", "certificate authority", errors.CertificateError, "the signature"
)
_CT_LOG = _Kind("ctlogs", "certificate log", errors.LogError, "its certificate timestamp (SCT)")
_LOG = _Kind("tlogs", "transparency log", errors.LogError, "the log entry")
_TSA = _Kind("timestamp_authorities", "timestamp authority", errors.LogError, "its timestamp")
_KINDS = (_CA, _CT_LOG, _LOG, _TSA)


def candidates(roots: list[TrustedRoot], leaf: bytes) -> list[TrustedRoot]:
    """Of several trust roots those with an authority of the name that issued `leaf`; else all."""
    if len(roots) == 1:
        return roots
    issuer = x509.parse(leaf).issuer
    named = []
    for root in roots:
        chains = [one.cert_chain.certificates for one in root._inner.certificate_authorities]
        if any(issuer == x509.parse(one.raw_bytes).subject for chain in chains for one in chain):
            named.append(root)
    return named or roots


def verify(root: TrustedRoot, signed: Bundle) -> tuple[bytes, list[datetime]]:
    """The payload of a bundle that holds, and the proven times of its signature.

    A `CertificateError` of a certificate authority, a `LogError` of another that was not trusted
    when it vouched: both name the authority and its time. Else raises what sigstore-python does.
    """
    # 1. Sigstore client specification, by sigstore-python: trusted time, certificate chain at that
    #    time, SCT, inclusion proof and checkpoint, DSSE signature, consistency of the log entry
    #    with the envelope. The windows of the trust root are left to the steps below.
    every = {kind: list(getattr(root._inner, kind.field)) for kind in _KINDS}
    for kind in (_CA, _TSA):
        _require_readable(kind, every[kind])
    payload, times = _verified(_of(root, every), signed)
    # 2. What the entry names must be a trusted log: the key id is a hint to sigstore-python.
    entry: Any = signed.log_entry._inner
    log_id: bytes = entry.log_id.key_id
    logs = [log for log in every[_LOG] if log.log_id.key_id == log_id]
    if not logs:
        raise errors.LogError("the entry is of a log that is not trusted", found=log_id.hex())
    # 3. The proven times: of timestamps, those whose authority was trusted then.
    if not all(_covers(one, time) for one in every[_TSA] for time in times):
        dated = {kind: every[kind] for kind in _KINDS if kind is not _TSA}
        times = _proven_times(_of(root, dated), signed)
    if not times:
        _refuse_timestamp(root, every, signed)
    # 4. At each of them those that vouch were trusted: all of it again, with those only.
    promised = entry.inclusion_promise and entry.integrated_time
    for time in times:
        # The log's own clock counts where its promise covers it (Rekor v1).
        logged = datetime.fromtimestamp(promised, timezone.utc) if promised else time
        when = {_CA: time, _CT_LOG: _sct_time(signed), _LOG: logged}
        known = {**every, _LOG: logs}
        valid = {kind: [one for one in known[kind] if _contains(one, when[kind])] for kind in when}
        if {**every, **valid} == every:
            continue  # the verification that was is this very one
        try:
            _verified(_of(root, {**every, **valid}), signed)
        except Exception:  # of whatever kind: it does not hold without one that was left out
            _refuse_authority(root, {**every, _LOG: logs}, signed, when)
            raise
    return payload, times


def _require_readable(kind: _Kind, authorities: list[Any]) -> None:
    """Raises before OpenSSL meets a certificate on which its caller in Rust panics, and says so.

    Also of a certificate that no proof would need: such a trust root was not meant like that.
    """
    for one in authorities:
        for certificate in one.cert_chain.certificates:
            try:
                _parsed(certificate.raw_bytes)
            except errors.CertificateError as error:  # noqa: PERF203 - the first ends it
                message = "a certificate of the trust root is malformed"
                where = f"trust root, {_camel(kind.field)}"
                raise errors.CertificateError(message, where=where, found=error.found) from None


def _verified(root: TrustedRoot, signed: Bundle) -> tuple[bytes, list[datetime]]:
    """The payload, verified by sigstore-python, and the times it went by; raises what it does."""
    with timestamps.no_panic():
        verifier = _verifier()(trusted_root=root)
        return verifier.verify_dsse(signed, _AnyIdentity())[1], verifier.times


@cache
def _verifier() -> Any:  # noqa: ANN401 - a class
    """sigstore-python's, which tells the proven times: they cost half of a verification.

    It trusts every certificate of an authority's chain, and looks at none above the first that
    fits. Here the chain has to hold, up to its last certificate, which alone is trusted.
    """
    from sigstore.verify.verifier import Verifier

    class Strict(Verifier):
        times: list[datetime]
        broken: errors.LogError | None = None  # of a timestamp that would do but for that

        def _establish_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
            established = super()._establish_time(bundle)
            if self.broken is not None and not established:
                raise self.broken
            self.times = [result.time for result in established]
            return established

        def _verify_chain_at_time(
            self, certificate: Certificate, timestamp_result: TimestampVerificationResult
        ) -> list[Certificate]:
            chain = super()._verify_chain_at_time(certificate, timestamp_result)
            _issuers(self._trusted_root, certificate, timestamp_result.time)
            return chain

        def _verify_signed_timestamp(
            self, timestamp_response: TimeStampResponse, message: bytes
        ) -> TimestampVerificationResult | None:
            for one in self._trusted_root.get_timestamp_authorities():
                alone, of_one = copy(self), {"get_timestamp_authorities": lambda one=one: [one]}
                alone._trusted_root = cast("TrustedRoot", SimpleNamespace(**of_one))
                found = super(Strict, alone)._verify_signed_timestamp(timestamp_response, message)
                if found is None:
                    continue
                try:
                    chain = one.certificates(allow_expired=True)
                    timestamps.require_path(timestamp_response, message, chain)
                except errors.LogError as error:
                    self.broken = _chain_refusal(_TSA, one._inner, error)
                else:
                    return found
            return None

    return Strict


def _refuse_authority(
    root: TrustedRoot,
    known: dict[_Kind, list[Any]],
    signed: Bundle,
    when: dict[_Kind, datetime],
) -> None:
    """Raises if one kind of authority vouches, but none of those did that were valid."""
    for kind, time in when.items():
        vouching = []
        for one in known[kind]:
            with contextlib.suppress(Exception):  # not by this one, then
                _verified(_of(root, {**known, kind: [one]}), signed)
                vouching.append(one)
        if vouching and not any(_contains(one, time) for one in vouching):
            raise _refusal(kind, vouching[-1], time)


def _refuse_timestamp(root: TrustedRoot, known: dict[_Kind, list[Any]], signed: Bundle) -> NoReturn:
    """Raises: sigstore-python passed over a timestamp outside its authority's window."""
    for one in known[_TSA]:
        for time in _proven_times(_of(root, {**known, _TSA: [one]}), signed):
            raise _refusal(_TSA, one, time)
    raise errors.LogError("no trusted time")


def _proven_times(root: TrustedRoot, signed: Bundle) -> list[datetime]:
    """When the signature existed, by trusted timestamps and by the log's promise.

    The promise itself is verified with the log entry.
    """
    with timestamps.no_panic():
        established = _verifier()(trusted_root=root)._establish_time(signed)
    return [result.time for result in established]


def require_ready(root: TrustedRoot, services: SigningConfig) -> None:
    """Raises a `SigningError` unless the trust root trusts what would sign, now: see `serves`.

    Asked before anything is sent: what an authority out of its time vouches for, no verifier
    would accept.
    """
    now = datetime.now(timezone.utc)
    stamped = services._tsas
    used = {
        _CA: [one.url for one in services._fulcios[:1]],
        _CT_LOG: [],
        _LOG: [one.url for one in services._tlogs[:1]],
        _TSA: [one.url for one in stamped],
    }
    for kind, addresses in used.items():
        if kind is _TSA and not stamped:
            continue
        known = list(getattr(root._inner, kind.field))
        if not known:
            raise errors.SigningError(
                f"the trust configuration has no {kind.name}",
                where=f"trust root, {_camel(kind.field)}",
                fix="what is signed could not be verified: complete the trust configuration",
            )
        # Where addresses tell which of them is asked, that one has to be valid; else any.
        named = [one for one in known if _address(one) in map(_slashless, addresses)]
        if not any(_contains(one, now) for one in named or known):
            outside = (named or known)[-1]
            raise errors.SigningError(
                f"the {kind.name} {_outside(outside, now)}; nothing was sent",
                where=_where(kind, outside),
                expected=f"a time {_window(outside)}",
                found=f"{now:%Y-%m-%d %H:%M:%SZ} (now)",
                fix="get the trust configuration that is in force now, or check the clock",
            )


def require_issuer(root: TrustedRoot, leaf: Certificate) -> None:
    """Raises a `CertificateError` unless an authority that is valid now issued `leaf`."""
    now = datetime.now(timezone.utc)
    # Clocks that disagree show in the timestamp: the chain alone is looked at here.
    when = min(max(now, leaf.not_valid_before_utc), leaf.not_valid_after_utc)
    issuers = _issuers(root, leaf, when)
    if not any(_contains(one, now) for one in issuers):
        raise _refusal(_CA, issuers[-1], now)


# The same few in every verification.
_parsed = lru_cache(maxsize=256)(x509.parse)


def _issuers(root: TrustedRoot, leaf: Certificate, when: datetime) -> list[Any]:
    """The certificate authorities whose chains hold from `leaf` to their last certificate.

    A `CertificateError` if there is none.
    """
    found = []
    last: errors.CertificateError | None = None
    for one in root._inner.certificate_authorities:
        chain = [_parsed(each.raw_bytes) for each in one.cert_chain.certificates]
        if not chain:
            continue
        try:
            x509.verify_chain(leaf, chain[:-1], chain[-1:], when)
            found.append(one)
        except errors.CertificateError as error:
            if last is None or leaf.issuer == chain[0].subject:  # what that one says counts
                last = _chain_refusal(_CA, one, error)
    if not found:
        raise last or errors.CertificateError("the trust root has no certificate authority")
    return found


def require_timestamp(root: TrustedRoot, response: TimeStampResponse, signature: bytes) -> None:
    """Raises a `SigningError` unless a timestamp authority that is valid then made `response`.

    A `LogError` if all that is wrong is that authority's chain in the trust root.
    """
    verifier = _verifier()(trusted_root=root)
    with timestamps.no_panic():
        when = verifier._verify_signed_timestamp(response, signature)
    if when is None and verifier.broken is not None:
        raise verifier.broken
    if when is None:
        raise errors.SigningError(
            "the timestamp is not from an authority that the trust root trusts now",
            found=f"a timestamp of {response.tst_info.gen_time:%Y-%m-%d %H:%M:%SZ}",
            fix="compare timestampAuthorities and tsaUrls of the trust configuration",
        )


_FIRST = datetime.min.replace(tzinfo=timezone.utc)


def _of(root: TrustedRoot, kept: dict[_Kind, list[Any]]) -> TrustedRoot:
    """A trust root of those authorities, always valid."""
    from sigstore.models import TrustedRoot

    fields = {kind.field: list(map(_always, kept[kind])) for kind in kept}
    return TrustedRoot(root._inner.model_copy(update=fields))


def _always(authority: Any) -> Any:  # noqa: ANN401 - pydantic models
    key = getattr(authority, "public_key", None)
    window = (key or authority).valid_for
    if window is None:
        return authority
    always = {"valid_for": window.model_copy(update={"start": _FIRST, "end": None})}
    update = {"public_key": key.model_copy(update=always)} if key else always
    return authority.model_copy(update=update)


class _AnyIdentity:
    """A sigstore-python policy: identities are compared by our own code, after everything else."""

    def verify(self, cert: Certificate) -> None:
        """Accepts."""


def _sct_time(signed: Bundle) -> datetime:
    from cryptography import x509 as certificates

    kind = certificates.PrecertificateSignedCertificateTimestamps
    # sigstore-python verified it: there is exactly one.
    (sct,) = signed.signing_certificate.extensions.get_extension_for_class(kind).value
    time: datetime = sct.timestamp.replace(tzinfo=timezone.utc)
    return time


def _period(authority: Any) -> tuple[datetime, datetime | None]:  # noqa: ANN401 - a pydantic model
    """From when to when: both count as inside (trustroot, TimeRange); no end is none yet."""
    key = getattr(authority, "public_key", None)
    window = (key or authority).valid_for
    return (window.start, window.end) if window else (_FIRST, None)


def _contains(authority: object, time: datetime) -> bool:
    start, end = _period(authority)
    return start <= time and (end is None or time <= end)


def _covers(authority: object, time: datetime) -> bool:
    """As sigstore-python has it of timestamp authorities: the end is outside."""
    return _contains(authority, time) and time != _period(authority)[1]


def _outside(authority: object, time: datetime) -> str:
    start, _ = _period(authority)
    return "was not valid yet" if time < start else "had ended"


def _window(authority: object) -> str:
    start, end = _period(authority)
    words = "" if start == _FIRST else f"from {start:%Y-%m-%d %H:%M:%SZ}"
    return f"{words} to {end:%Y-%m-%d %H:%M:%SZ}".strip() if end else words or "at will"


def _where(kind: _Kind, authority: Any) -> str:  # noqa: ANN401 - a pydantic model
    subject = getattr(authority, "subject", None)
    if subject is not None:
        name = f"{subject.common_name} of {subject.organization}"
    else:
        name = f"{authority.base_url}, key {authority.log_id.key_id.hex()}"
    return f"trust root, {_camel(kind.field)}: {name}"


def _refusal(kind: _Kind, authority: object, time: datetime) -> errors.SignatureError:
    return kind.refusal(
        f"the {kind.name} {_outside(authority, time)} when it vouched",
        where=_where(kind, authority),
        expected=f"a time {_window(authority)}",
        found=f"{time:%Y-%m-%d %H:%M:%SZ}, the time of {kind.told_by}",
        fix=_FIX,
    )


def _chain_refusal(kind: _Kind, authority: object, error: E) -> E:
    what = "timestamp" if kind is _TSA else "certificate"
    return type(error)(
        f"the {what} does not chain to the root of the {kind.name} in the trust root",
        where=_where(kind, authority),
        expected=error.expected,
        found=error.found,
        fix="get the trust configuration that is in force now: every chain in it has to hold",
    )


def _camel(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(map(str.capitalize, others))


def _address(authority: object) -> str:
    address = getattr(authority, "base_url", None) or getattr(authority, "uri", None)
    return _slashless(str(address or ""))


def _slashless(url: str) -> str:
    return url.rstrip("/")
