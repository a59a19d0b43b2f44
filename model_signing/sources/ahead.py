"""Working ahead: other threads read what comes next while this one hashes what was read before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

_HEARD = 0.5  # seconds until Ctrl-C is heard that came just before a wait; and that it waits itself

_Result = TypeVar("_Result")


class Helpers:
    """Threads that do what this one gives them, in that order.

    Where their context ends, what they have begun is waited for, and no more is begun. But after
    Ctrl-C nobody waits for a place that is silent, nor does the process when it ends: for the
    threads of a pool it would.

    Args:
        most: Threads.
        name: What they are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._threads: list[Thread] = []
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], object]] | None] = SimpleQueue()

    def begin(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Has something done.

        Raises:
            RuntimeError: The system does not allow one thread.
        """
        if len(self._threads) < self._most:
            thread = Thread(target=self._help, name=self._name, daemon=True)
            try:
                thread.start()
                self._threads.append(thread)
            except RuntimeError:
                if not self._threads:
                    raise
        future: Future[_Result] = Future()
        self._tasks.put((future, work))
        return future

    def _help(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, work = task
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del task, future, work  # a failure knows this frame, and neither would ever be freed

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
        if sys.is_finalizing():  # of a generator that nobody closed; no thread runs any more
            return
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        until = time.monotonic() + _HEARD
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()) if interrupted else None)


def result_of(future: Future[_Result]) -> _Result:
    """What comes of it, or what went wrong; Ctrl-C is heard at any moment."""
    while not future.done():
        wait([future], _HEARD)
    return future.result()


def hears() -> bool:
    """Whether this is the thread that hears of Ctrl-C."""
    return current_thread() is main_thread()


def heard(work: Callable[[], _Result]) -> _Result:
    """Does something during which Ctrl-C is not heard where Python has it: in another thread."""
    if not hears():
        return work()
    with Helpers(1, "heard") as helper:
        try:
            future = helper.begin(work)
        except RuntimeError:  # the system allows no more threads
            return work()
        return result_of(future)


def read_ahead(
    read_into: Callable[[memoryview], int], length: int, rooms: Sequence[memoryview]
) -> Generator[memoryview, None, int]:
    """The next `length` bytes, or as many as there are; returns how many there are not.

    Args:
        read_into: Puts the next bytes where there is room for them, and says how many; none at the
            end.
        length: Bytes.
        rooms: Two; each is used again when the bytes of the other have been given.
    """
    free, full = rooms
    with Helpers(1, "read") as reader:
        try:
            reading = reader.begin(partial(read_into, free[:length]))
        except RuntimeError:  # the system allows no more threads
            return length
        while count := result_of(reading):
            length -= count
            free, full = full, free
            reading = reader.begin(partial(read_into, free[:length]))
            yield full[:count]
    return length
