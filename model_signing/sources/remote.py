"""What all places elsewhere have in common: they are not trusted, they are far away, and they fail.

Their names are looked at before anything else, their listings are bounded, the pieces of a large
file are fetched side by side, and a request that fails for a while is made again, for just its
piece.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from mmap import mmap
from threading import BoundedSemaphore
from typing import TypeVar

from model_signing.errors import FileError, without_secrets
from model_signing.oms.bundle import MAX_BUNDLE_SIZE
from model_signing.oms.names import Selection, above, check_name
from model_signing.safe_files import is_temporary
from model_signing.sources import Buffer, Entry, beside
from model_signing.sources.ahead import Helpers, read_ahead, result_of

MAX_LISTED = 1_000_000  # entries of one listing, whether they belong to the model or not
MAX_NAME_BYTES = 4096  # of a whole name, as Linux
MAX_LISTED_BYTES = 256 << 20  # of all names
MAX_SIGNATURE = MAX_BUNDLE_SIZE  # bytes
PIECE = 8 << 20  # bytes of one request
JUDGED = 0.1  # seconds of one request, until it is seen whether it is too slow
AHEAD = 3  # requests of one file at a time, beside the one whose turn it is
ROOM = 1 << 20  # bytes of what a thread receives: stays in a core's cache until it is hashed
AT_ONCE = 8  # files: most of the time they wait for the place; and requests for large ones
TRIES = 5
LONGEST_WAIT = 60.0  # seconds that a server may ask for

Ask = Callable[[int, int], Iterator[Buffer]]
"""Asks a place for the bytes between two offsets of a file, and gives them as they come.

From any thread. It raises `FileError`, or `TemporaryError`, also in the middle.
"""
_Result = TypeVar("_Result")
_requests = BoundedSemaphore(AT_ONCE)

_MEANS = {  # HTTP status -> what is wrong, what to do
    400: ("the request is refused as malformed", "check the address"),
    401: ("the place asks for a credential", "log in with its own client, or check the name"),
    403: ("access is refused", "ask for access, or use a credential that has it"),
    404: ("there is no such model or file", "check the name, and the revision or tag"),
    410: ("the model or file was removed", None),
    412: ("the file changed after it was listed", "wait until nothing writes to it, and repeat"),
    416: ("the file is shorter than it was listed", "wait until nothing writes to it, and repeat"),
    429: ("the place asks to wait: too many requests", "try again later, or with a credential"),
}
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class TemporaryError(Exception):
    """A request failed in a way that may pass.

    Attributes:
        refusal: What to raise when it does not.
        wait: Seconds that the server asks for, if it does.
    """

    def __init__(self, refusal: FileError, wait: float | None = None) -> None:
        super().__init__(refusal)
        self.refusal, self.wait = refusal, wait


def failure(
    status: int, where: str, *, said: str | None = None, retry_after: str | None = None
) -> FileError | TemporaryError:
    """What an HTTP status means, to be raised; for `patiently`, if it may pass.

    Args:
        status: Other than success.
        where: The address, without anything secret.
        said: What the server says of it.
        retry_after: The header of that name: seconds, or a date (RFC 9110, 10.2.3).
    """
    what, fix = _MEANS.get(status, ("the place does not serve the request", None))
    if status >= 500:
        what, fix = "the place has a failure of its own", "try again later"
    said = without_secrets(said or "").strip()[:300]
    found = f"HTTP {status}" + (f": {said}" if said else "")
    refusal = FileError(what, where=where, found=found, fix=fix)
    return TemporaryError(refusal, _seconds(retry_after)) if status in _PASSING else refusal


def _seconds(retry_after: str | None) -> float | None:
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text[:9])
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
    return None


def patiently(request: Callable[[], _Result], attempt: int = 1) -> _Result:
    """What a request returns; it is made again where it raises `TemporaryError`.

    Raises:
        FileError: It failed every time, or the server asks for more than a minute.
    """
    try:
        return request()
    except TemporaryError as error:
        wait = 0.25 * 2**attempt if error.wait is None else error.wait
        if attempt == TRIES or wait > LONGEST_WAIT:
            raise error.refusal from error
    time.sleep(wait)
    return patiently(request, attempt + 1)


def pieces(
    ask: Ask,
    start: int,
    stop: int,
    where: str,
    *,
    in_background: bool = False,
    divisible: Callable[[], bool] = lambda: True,
) -> Generator[Buffer, None, None]:
    """Bytes `start` to `stop` of a file, in order; each is valid until the next are asked for.

    One request for all of them costs the least, and its bytes are handed on as they come. Where
    whoever takes them waits for longer than it works, the rest is fetched in ranges, several at a
    time; not if so many files are read that enough is asked for anyway.

    Args:
        ask: Makes one request.
        start: The first byte.
        stop: Behind the last.
        where: The address, for what is said.
        in_background: Whether the client itself receives while nobody asks for more.
        divisible: Whether the place knows ranges, once it has answered.

    Raises:
        FileError: From `ask`; or the place sends less than it was asked for, or more.
    """
    received = _as_they_come(ask, start, stop, where)
    if stop - start <= PIECE:
        yield from received
        return
    with ExitStack() as taken:
        taken.callback(_close, received)
        coming: Generator[Buffer, None, object] = received
        _take(taken, 1)
        if not in_background and _take(taken, 1):
            rooms = [memoryview(bytearray(ROOM)) for _ in range(2)]
            coming = taken.enter_context(closing(read_ahead(_into(received), stop - start, rooms)))
        began = asked = time.monotonic()
        waited, more = 0.0, 0
        for data in coming:
            now = time.monotonic()
            waited += now - asked
            yield data
            start += len(data)
            if now - began >= JUDGED:
                slow = waited > (now - began) / 2
                if slow and stop - start > PIECE and divisible() and (more := _take(taken, AHEAD)):
                    break
                began, waited = now, 0.0
            asked = time.monotonic()
        if more:
            coming.close()
            received.close()
            yield from _side_by_side(ask, start, stop, where, more)
        yield from received  # what no thread could be had for; and it fails if there is more


def _close(received: Generator[Buffer, None, None]) -> None:
    with suppress(ValueError):  # after Ctrl-C, a thread still waits for the place
        received.close()


def _take(taken: ExitStack, most: int) -> int:
    """So many of the requests that are made at a time, or as many as there are."""
    count = 0
    while count < most and _requests.acquire(blocking=False):
        taken.callback(_requests.release)
        count += 1
    return count


def _into(coming: Iterator[Buffer]) -> Callable[[memoryview], int]:
    """Puts what comes where there is room, until the room is full."""
    rest = memoryview(b"")

    def read_into(room: memoryview) -> int:
        nonlocal rest
        there = 0
        while there < len(room) and (rest or (rest := memoryview(next(coming, b"")))):
            count = min(len(rest), len(room) - there)
            room[there : there + count] = rest[:count]
            rest, there = rest[count:], there + count
        return there

    return read_into


def _as_they_come(ask: Ask, start: int, stop: int, where: str) -> Generator[Buffer, None, None]:
    """Of one request; after a connection that breaks, of another one for what is missing.

    Whoever sends next to nothing each time is asked no more than `TRIES` times.
    """
    coming: Iterator[Buffer] | None = None
    asked = counted_from = start
    broken = 0

    def piece() -> Buffer | None:
        nonlocal coming, broken
        if coming is None and start == stop:
            return None
        try:
            coming = coming or bounded(ask(start, stop), stop - start, where)
            return next(coming, None)
        except TemporaryError:
            coming = None
            broken += 1
            raise

    while (data := patiently(piece, broken + 1)) is not None:
        yield data
        start += len(data)
        if start - counted_from >= ROOM:
            counted_from, broken = start, 0
    if start < stop:
        raise FileError(
            "the place sends other bytes than were asked for",
            where=where,
            expected=f"{stop - asked} bytes",
            found=f"{start - asked} bytes",
            fix="the file may have changed meanwhile: try again",
        )


def _side_by_side(ask: Ask, start: int, stop: int, where: str, ahead: int) -> Iterator[Buffer]:
    """Of several requests at a time, one after the other; see `pieces`."""

    def one(first: int, room: memoryview) -> memoryview:
        # A client's memory is free as soon as it comes: the next bytes come into the same.
        last = min(first + PIECE, stop)
        coming = _as_they_come(ask, first, last, where)
        count = _into(coming)(room[: last - first])
        next(coming, None)  # which fails if there is more
        return room[:count]

    waiting: deque[tuple[Future[memoryview], memoryview]] = deque()
    # Of whole pages, which the system has back at once.
    free: list[memoryview] = []

    def oldest() -> Iterator[memoryview]:
        future, room = waiting.popleft()
        yield result_of(future)
        free.append(room)

    with Helpers(ahead, "fetch") as helpers:
        for first in range(start, stop, PIECE):
            if len(waiting) > ahead:
                yield from oldest()
            room = free.pop() if free else memoryview(mmap(-1, PIECE))
            try:
                waiting.append((helpers.begin(partial(one, first, room)), room))
            except RuntimeError:  # the system allows no more threads
                yield from _as_they_come(ask, start, stop, where)
                return
        while waiting:
            yield from oldest()


def bounded(data: Iterable[Buffer], most: int, where: str) -> Iterator[Buffer]:
    """What a server sends, as long as it is no more than was asked for."""
    for piece in data:
        most -= len(piece)
        if most < 0:
            raise FileError("the place sends more bytes than were asked for", where=where)
        if piece:
            yield piece


def changed(where: str, expected: str, found: str) -> FileError:
    """A file is not the one that was listed."""
    return FileError(
        "the place sends another version of the file than it listed",
        where=where,
        expected=expected,
        found=found,
        fix="wait until nothing writes to it, and repeat",
    )


def counted(items: Iterable[_Result], where: str) -> Iterator[_Result]:
    """What a server lists, files or not, as long as it comes to an end.

    Raises:
        FileError: There are too many.
    """
    for count, item in enumerate(items, 1):
        if count > MAX_LISTED:
            raise too_many(where)
        yield item


def too_many(where: str) -> FileError:
    """A listing has no end, or none that we wait for."""
    return FileError(
        "the place lists too many files",
        where=where,
        expected=f"at most {MAX_LISTED}, with names of {MAX_LISTED_BYTES} bytes in all",
    )


def listed(
    found: Iterable[tuple[str, Entry]], selection: Selection, where: str
) -> tuple[dict[str, Entry], list[str]]:
    """What `Source.entries` returns, of a flat listing by a server that nobody trusts.

    Raises:
        FileError: A name that no file of a model can have, or that two have; too many entries.
    """
    files: dict[str, Entry] = {}
    unsigned: dict[str, None] = {}
    seen: set[str] = set()
    total = 0
    for name, entry in found:
        total += len(_checked(name, where).encode())
        if name in seen:
            raise FileError("a name is listed twice", where=where, found=name)
        seen.add(name)
        if len(seen) > MAX_LISTED or total > MAX_LISTED_BYTES:
            raise too_many(where)
        left_out = _left_out(name, selection)
        if left_out is None:
            files[name] = entry
        elif selection.unsigned(left_out):
            unsigned[left_out] = None
    for name in seen:
        for folder in above(name):
            if folder in seen:
                raise FileError("a name is a file and a folder", where=where, found=folder)
    return files, list(unsigned)


def signature_names(model: str) -> tuple[str, str]:
    """What a signature is called that lies with a model of this name."""
    return beside.IN_FOLDER, beside.BESIDE.replace("{}", model)


def _checked(name: str, where: str) -> str:
    parts = name.split("/")
    problem = None
    if len(name) > MAX_NAME_BYTES:
        problem, name = "is too long", name[:100]
    elif ".." in parts:
        problem = "leads out of the model"
    elif name.startswith("/"):
        problem = "is absolute"
    elif "" in parts or "." in parts:
        problem = "is not canonical (OMS 6.1.2)"
    if problem:
        raise FileError(f"a name that the place lists {problem}", where=where, found=name)
    try:
        return check_name(name)
    except FileError as error:
        raise FileError(error.message, where=where, found=name) from None


def _left_out(name: str, selection: Selection) -> str | None:
    """The outermost folder, or the file, that the selection does not take: as a walk meets it."""
    for folder in above(name):
        if not selection.takes(folder):
            return folder
    temporary = is_temporary(name.rpartition("/")[2]) and name not in selection.listed
    return name if temporary or not selection.takes(name) else None
