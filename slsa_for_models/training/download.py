"""A file of known digest, over HTTP, from the first of several servers that has it.

The digest decides, not the server: whatever a server sends instead of the file costs time only. So
what is bounded here is time. A thread receives, because no time limit of a socket covers a server
that sends one byte a minute, and the caller looks at the clock and at what has arrived.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from model_signing.errors import innermost
from slsa_for_models.errors import DatasetError

if TYPE_CHECKING:
    from requests import Response

Say = Callable[[str], None]

_PIECE = 64 * 1024
_MOST_BYTES = 1 << 40
# RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4: the same request may do later. So may any 5xx.
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True)
class Wanted:
    """A file that several servers may have.

    Attributes:
        name: What messages call it.
        sha256: Hexadecimal.
        size: In bytes; None where only the digest is known.
    """

    name: str
    sha256: str
    size: int | None = None

    def __str__(self) -> str:
        size = "" if self.size is None else f"{self.size:,} bytes with "
        return f"{size}SHA-256 {self.sha256}"


@dataclass(frozen=True)
class Patience:
    """How long a server may take; times in seconds.

    Attributes:
        silence: Without an answer, or without a byte.
        least_speed: Bytes a second over `window`; below it the next server is tried. A server that
            is merely slow is asked again when all others have failed, or if it is the only one.
        window: Over which the speed is measured.
        deadline: For everything that one server is asked.
        attempts: Connections to one server.
        wait: Before the second attempt, doubled for each further one. `Retry-After` overrides it.
        longest_wait: What `Retry-After` may ask for while there are other servers.
        lines: Between two lines of progress, if there is progress.
    """

    silence: float = 30
    least_speed: int = 250_000
    window: float = 20
    deadline: float = 3600
    attempts: int = 4
    wait: float = 1
    longest_wait: float = 60
    lines: float = 10


PATIENCE = Patience()


class _GivenUpError(Exception):
    """No use asking this server again."""


class _SlowError(_GivenUpError):
    """... unless no other one has it."""


class _OtherFileError(_GivenUpError):
    """It has another file."""


class _AgainError(Exception):
    """Worth another attempt, after so many seconds, if the server said when."""

    def __init__(self, problem: str, seconds: float | None = None) -> None:
        super().__init__(problem)
        self.seconds = seconds


def fetch(
    wanted: Wanted,
    urls: Sequence[str],
    target: Path,
    say: Say,
    *,
    fix: str,
    patience: Patience = PATIENCE,
) -> None:
    """Fetches a file to `target`, which appears only when whole and with the right digest.

    Args:
        wanted: Name, digest and size.
        urls: `http:` or `https:`, in the order in which they are tried.
        target: Where the file shall be; its folder is made.
        say: Takes progress, a line at a time.
        fix: What to do without a network, for the message.
        patience: When to give up.

    Raises:
        DatasetError: No server has it, or it cannot be stored.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            partial = Path(folder, target.name)
            with partial.open("w+b") as file:
                _from_any(wanted, urls, file, say, fix, patience)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
    except OSError as error:
        raise DatasetError(
            f"{wanted.name} cannot be stored", where=str(target.parent), found=error.strerror
        ) from error


def _from_any(
    wanted: Wanted, urls: Sequence[str], file: BinaryIO, say: Say, fix: str, patience: Patience
) -> None:
    problems: dict[str, _GivenUpError] = {}
    for in_a_hurry in (True, False) if len(urls) > 1 else (False,):
        for url in urls:
            if isinstance(problems.get(url, _SlowError()), _SlowError):
                problem = _Server(wanted, url, file, say, patience, in_a_hurry).problem()
                if problem is None:
                    return
                problems[url] = problem
                say(f"{wanted.name}: {_host(url)}: {problem}")
    others = all(isinstance(problem, _OtherFileError) for problem in problems.values())
    raise DatasetError(
        f"{wanted.name} is not the one that was pinned"
        if others
        else f"{wanted.name} cannot be downloaded",
        where=", ".join(map(shown, urls)),
        expected=str(wanted),
        found="; ".join(f"{_host(url)}: {problem}" for url, problem in problems.items()),
        fix=fix,
    )


@dataclass
class _Server:
    """What one server is asked for."""

    wanted: Wanted
    url: str
    file: BinaryIO
    say: Say
    patience: Patience
    in_a_hurry: bool

    def problem(self) -> _GivenUpError | None:
        """Fills the file, or says why not."""
        self.say(f"downloading {self.wanted.name} from {_host(self.url)}")
        self.file.seek(0)
        self.file.truncate()
        try:
            self._fetch(time.monotonic() + self.patience.deadline)
            self._check()
        except _GivenUpError as problem:
            return problem
        return None

    def _fetch(self, end: float) -> None:
        for attempt in range(self.patience.attempts):
            problem = self._attempt(end)
            if problem is None:
                return
            if attempt + 1 < self.patience.attempts:
                self._wait(problem, 2**attempt * self.patience.wait, end)
        raise _GivenUpError(str(problem))

    def _wait(self, problem: _AgainError, default: float, end: float) -> None:
        seconds = default if problem.seconds is None else problem.seconds
        if self.in_a_hurry and seconds > self.patience.longest_wait:
            raise _SlowError(f"{problem}, to be tried again in {seconds:.0f} s")
        if time.monotonic() + seconds >= end:
            raise _GivenUpError(f"{problem}, to be tried again in {seconds:.0f} s: too late")
        self.say(f"{self.wanted.name}: {problem}; trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def _attempt(self, end: float) -> _AgainError | None:
        """One connection: appends to the file, or begins it again if the server does."""
        pieces: queue.Queue[int | bytes | Exception | None] = queue.Queue(maxsize=16)
        stop = threading.Event()
        request = (self.url, self.file.tell(), self.wanted.size, self.patience.silence)
        thread = threading.Thread(target=_deliver, args=(*request, pieces, stop), daemon=True)
        progress = _Progress(self, self.file.tell())
        thread.start()
        try:
            while self.wanted.size is None or self.file.tell() < self.wanted.size:
                try:
                    piece = pieces.get(timeout=min(0.5, self.patience.window / 4))
                except queue.Empty:
                    piece = b""
                if piece is None:
                    whole = self.wanted.size is None
                    return None if whole else _AgainError("the connection ended early")
                if isinstance(piece, _AgainError):
                    return piece
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, int):
                    self.file.seek(piece)
                    self.file.truncate()
                else:
                    self.file.write(piece)
                progress.look()
                if self.file.tell() > _MOST_BYTES:
                    raise _GivenUpError(f"another file, of more than {_MOST_BYTES:,} bytes")
                if time.monotonic() > end:
                    raise _GivenUpError(f"not done after {self.patience.deadline:.0f} s")
            return None
        finally:
            stop.set()
            while not pieces.empty():  # or the thread would wait for a place for ever
                pieces.get_nowait()

    def _check(self) -> None:
        if self.wanted.size is not None and self.file.tell() > self.wanted.size:
            raise _GivenUpError(f"another file, of more than {self.wanted.size:,} bytes")
        self.file.seek(0)
        digest = hashlib.sha256()
        while piece := self.file.read(1 << 20):
            digest.update(piece)
        if (found := digest.hexdigest()) != self.wanted.sha256:
            raise _OtherFileError(f"another file, with SHA-256 {found}")


class _Progress:
    """Looks at what has arrived: a line now and then, and a least speed."""

    def __init__(self, server: _Server, arrived: int) -> None:
        self._server = server
        self._window = self._line = (time.monotonic(), arrived)

    def look(self) -> None:
        server, patience, now = self._server, self._server.patience, time.monotonic()
        arrived, size = server.file.tell(), server.wanted.size
        if arrived != self._line[1] and (now - self._line[0] > patience.lines or arrived == size):
            speed = max(arrived - self._line[1], 0) / max(now - self._line[0], 1e-3)
            of = "" if size is None else f"of {size >> 20} "
            server.say(
                f"downloading {server.wanted.name}: {arrived >> 20} {of}MiB, {speed / 1e6:.1f} MB/s"
            )
            self._line = now, arrived
        seconds = now - self._window[0]
        if seconds > patience.window and arrived != size:
            speed = max(arrived - self._window[1], 0) / seconds
            if server.in_a_hurry and speed < patience.least_speed:
                raise _SlowError(f"slow, {speed / 1e3:.0f} kB/s for {seconds:.0f} s")
            self._window = now, arrived


def _deliver(
    url: str,
    start: int,
    size: int | None,
    silence: float,
    pieces: queue.Queue[int | bytes | Exception | None],
    stop: threading.Event,
) -> None:
    """Puts where the bytes belong, the bytes, and why it ended, None where the server had no more.

    It runs in a thread of its own.
    """
    # A file is wanted as it is, not a form of it that would have to be unpacked.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        import requests  # here, as most commands fetch nothing
        from urllib3.exceptions import HTTPError

        try:
            with requests.get(url, headers=headers, stream=True, timeout=silence) as response:
                pieces.put(_offset(response, start, size))
                for piece in response.raw.stream(_PIECE, decode_content=False):
                    pieces.put(piece)
                    if stop.is_set():
                        return
            pieces.put(None)
        except ValueError as error:  # of an address, also where a server redirects to one
            raise _GivenUpError(f"not an address: {innermost(error)}") from None
        except (OSError, HTTPException, HTTPError) as error:
            raise _AgainError(innermost(error)) from None
    except Exception as problem:  # the caller is told, whatever it is
        pieces.put(problem)


def _offset(response: Response, start: int, size: int | None) -> int:
    """Where in the file the body of an answer belongs.

    Raises:
        _AgainError: The server may answer otherwise next time.
        _GivenUpError: It will not.
    """
    status = response.status_code
    if status == HTTPStatus.OK:
        _check_size(response.headers.get("Content-Length"), size)
        return 0
    if status == HTTPStatus.PARTIAL_CONTENT and start:
        # RFC 9110, 14.4. What is between `start` and another place would be missing, or twice.
        found = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", found)
        if match is None or int(match[1]) != start:
            raise _GivenUpError(f"another part than asked for: {found!a}")
        if match[2] != "*":
            _check_size(match[2], size)
        return start
    problem = f"HTTP status {status} {ascii(response.reason or '')[1:-1]}".rstrip()
    if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _AgainError(problem, _retry_after(response.headers.get("Retry-After")))
    raise _GivenUpError(problem)


def _check_size(found: str | None, size: int | None) -> None:
    """Refuses a file of another size at once: often a page that says what became of the file."""
    if None not in (found, size) and found != str(size):
        raise _GivenUpError(f"another file, of {ascii(found)[1:-1]} bytes")


def _retry_after(header: str | None) -> float | None:
    """Seconds (RFC 9110, 10.2.3: a number, or a date)."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return None if header is None else Retry().parse_retry_after(header)
    except (InvalidHeader, OverflowError):
        return None


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def shown(url: str) -> str:
    """An address without what may be a secret: a password, a signature."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}:{'//' if host else ''}{host}{parts.path}"
