"""Asking a service: in bounded time and memory, again where that may help, and named if it fails.

One adapter for `requests`, mounted on the sessions of sigstore-python and on our own, so that every
request of a signature goes this way. It raises a `SigningError` that says which service, where,
what it said and what helps; what a library or a proxy would say stays inside.
"""

from __future__ import annotations

import email.utils
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from model_signing.errors import SigningError, innermost
from model_signing.methods.sigstore_trust import clock_fix, in_background

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

T = TypeVar("T")

MAX_SECONDS = 60.0  # for one service, with all that is tried again
_MAX_BYTES = 1024 * 1024  # of an answer
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds, before each of the further attempts
_SHOWN_AFTER = 1.0  # seconds of waiting before anybody is told
# RFC 9110 15.5.9; RFC 8470 5.2; RFC 6585 4: the same request may do later. So may any 5xx.
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)

_OUTAGE = "try again later; nothing was written"
_TOO_LARGE = (
    "sign with a key or certificate, which need no log, or with an instance whose log (Rekor v2) "
    "gets a hash only; --largest-signature says what is too large before the model is hashed"
)
_ADDRESS = "check the network, and the address"


class ConflictError(SigningError):
    """The service has it already: an attempt was cut off when it had been heard."""


@dataclass(frozen=True)
class Service:
    """What messages say of one service.

    Attributes:
        name: Such as "the timestamp authority".
        refused: What it means if it refuses a request, as a message.
        fix: What helps then; None if nothing general does.
        details: More about a request that was refused, for `found`; "" if there is nothing.
        is_json: Whether its answers are JSON.
        may_move: Whether it may redirect to another host: nothing secret is sent.
    """

    name: str
    refused: str
    fix: str | None = None
    details: Callable[[], str] = str
    is_json: bool = True
    may_move: bool = False


TIMESTAMP_AUTHORITY = Service(
    "the timestamp authority", "the timestamp authority gave no timestamp", is_json=False
)


class _Spent(threading.local):
    seconds = 0.0


@dataclass
class Patience:
    """How long services are waited for, in each thread by itself; times in seconds.

    Attributes:
        seconds: For all services together; None: `MAX_SECONDS` for each.
        say: Is told what is waited for, if that takes long.
    """

    seconds: float | None = None
    say: Callable[[str], None] | None = None
    _spent: _Spent = field(default_factory=_Spent)

    @property
    def so_far(self) -> float:
        """What this thread has waited."""
        return self._spent.seconds

    def begin(self, so_far: float = 0.0) -> None:
        """This thread begins with another signature, for which so much was waited already."""
        self._spent.seconds = so_far

    @contextmanager
    def spent(self, at_most: float = MAX_SECONDS) -> Iterator[float]:
        """How long the next service may take; what it takes counts for those after it."""
        start = time.monotonic()
        try:
            left = MAX_SECONDS if self.seconds is None else self.seconds - self._spent.seconds
            yield max(0.0, min(MAX_SECONDS, at_most, left))
        finally:
            self._spent.seconds += time.monotonic() - start

    def tell(self, text: str) -> None:
        """Says it to whoever watches."""
        if self.say is not None:
            self.say(text)


class Adapter(HTTPAdapter):
    """Sends the requests to one service as the module says.

    `life` bounds the time from now, in seconds: as long as a token that is sent can be used.
    """

    def __init__(
        self, service: Service, patience: Patience, life: Callable[[], float] | None = None
    ) -> None:
        super().__init__()
        self._service, self._patience, self._life = service, patience, life

    def mounted(self, session: requests.Session | None = None) -> requests.Session:
        """`session`, or a new one, whose requests all go this way from now on."""
        session = session or requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, self)
        return session

    def send(  # type: ignore[override]  # requests gives all but the first by name
        self,
        request: PreparedRequest,
        **how: Any,  # noqa: ANN401 - as above
    ) -> Response:
        """The answer, read whole; a `SigningError` if there is none that is of use."""
        life = self._life() if self._life else MAX_SECONDS
        with self._patience.spent(life) as seconds:
            return self._send(request, how, time.monotonic() + seconds)

    def _send(self, request: PreparedRequest, how: dict[str, Any], deadline: float) -> Response:
        where = _without_query(request.url or "")
        how["stream"] = True
        for pause in (*_PAUSES, None):
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise self._silent(where)
            how["timeout"] = seconds + 5  # a socket's, for each piece; `_waiting` has the clock
            try:
                answer = self._waiting(lambda: self._attempt(request, where, how), seconds, where)
            except requests.RequestException as error:
                if pause is None or not _may_pass(error):
                    raise self._unreachable(error, where) from None
                said, after = _reason(error), None
            else:
                if not (answer.status_code in _LATER or answer.status_code >= 500):
                    return self._checked(answer, request, where)
                said, after = _said(answer), _retry_after(answer.headers)
            wait = max(pause or 0, after or 0)
            if pause is None or wait > deadline - time.monotonic():
                raise self._outage(said, after, where)
            self._patience.tell(f"{self._service.name} at {where}: {said}; again in {wait:.0f} s")
            time.sleep(wait)
        raise AssertionError  # the last attempt returned or raised

    def _attempt(self, request: PreparedRequest, where: str, how: dict[str, Any]) -> Response:
        answer = super().send(request, **how)
        try:
            data = bytearray()
            for piece in answer.iter_content(64 * 1024):
                data += piece
                if len(data) > _MAX_BYTES:
                    raise SigningError(
                        f"{self._service.name} answered without end",
                        where=where,
                        expected=f"at most {_MAX_BYTES} bytes",
                        fix=_ADDRESS,
                    )
        finally:
            answer.close()
        whole = requests.Response()
        for name in ("status_code", "reason", "headers", "url", "request", "encoding"):
            setattr(whole, name, getattr(answer, name))
        whole.raw = io.BytesIO(bytes(data))
        return whole

    def _waiting(self, work: Callable[[], Response], seconds: float, where: str) -> Response:
        told = min(_SHOWN_AFTER, seconds)
        # In a thread that nobody has to wait for: no time limit of a socket covers it all.
        wait = in_background(work)
        try:
            return wait(told)
        except Late:
            self._patience.tell(f"waiting for {self._service.name} at {where}")
        try:
            return wait(seconds - told)
        except Late:
            raise self._silent(where) from None

    def _checked(self, answer: Response, request: PreparedRequest, where: str) -> Response:
        service = self._service
        if answer.is_redirect:
            target = urlsplit(urljoin(request.url or "", answer.headers["location"]))
            if not (service.may_move or target.hostname == urlsplit(request.url or "").hostname):
                raise SigningError(
                    f"{service.name} redirects to another host",
                    where=where,
                    found=str(target.hostname),
                    fix="if that is right, name the new address: what is sent may hold a token",
                )
            return answer
        if answer.status_code >= 400:
            found = "; ".join(filter(None, (_said(answer), service.details())))
            fix = service.fix
            if answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                size = int(request.headers.get("content-length", 0))
                found, fix = f"{found}; {size} bytes were sent", _TOO_LARGE
            if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                fix = _ADDRESS
            conflict = answer.status_code == HTTPStatus.CONFLICT
            kind = ConflictError if conflict else SigningError
            raise kind(service.refused, where=where, found=found, fix=fix)
        if service.is_json and not _is_json(answer.content):
            raise SigningError(
                f"{service.name} gave an answer that is not JSON", where=where, fix=_ADDRESS
            )
        return answer

    # Failures

    def _silent(self, where: str) -> SigningError:
        return SigningError(
            f"{self._service.name} did not answer in time", where=where, fix=_OUTAGE
        )

    def _outage(self, said: str, after: float | None, where: str) -> SigningError:
        message = f"{self._service.name} is out of service"
        if after is not None:
            said += f", to be asked again in {after:.0f} s"
        return SigningError(message, where=where, found=said, fix=_OUTAGE)

    def _unreachable(self, error: Exception, where: str) -> SigningError:
        message, reason = f"{self._service.name} cannot be reached", _reason(error)
        fix = clock_fix(reason) or _ADDRESS
        return SigningError(message, where=where, found=reason, fix=fix)


def within(service: str, where: str, work: Callable[[], T], patience: Patience) -> T:
    """What `work` returns or raises; a `SigningError` if it takes longer: for other libraries."""
    try:
        with patience.spent() as seconds:
            return in_background(work)(seconds)
    except Late:
        raise SigningError(f"{service} did not answer in time", where=where, fix=_OUTAGE) from None


def _may_pass(error: Exception) -> bool:
    """A refused or cut connection; no certificate, address or proxy that is wrong."""
    lasting = (requests.exceptions.SSLError, requests.exceptions.ProxyError)
    passing = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, passing) and not isinstance(error, lasting)


def _said(answer: Response) -> str:
    """The status, and the service's own words if it has some; no page of a proxy."""
    said, kind = f"HTTP {answer.status_code}", answer.headers.get("content-type", "")
    words: object = ""
    if "json" in kind:
        try:
            body = json.loads(answer.content)
            words = body.get("message") or body.get("error") if isinstance(body, dict) else ""
        except (ValueError, RecursionError):
            pass
    elif kind.startswith("text/plain"):
        words = answer.content.decode("utf-8", "replace")
    text = " ".join(str(words or "").split())[:300]
    return f"{said}: {text}" if text else said


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """RFC 9110 10.2.3: seconds, or a date."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy did not connect: see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no TLS connection: {innermost(error)}"
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return "not an http or https address"
    return innermost(error)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _without_query(url: str) -> str:
    return url.partition("?")[0]
