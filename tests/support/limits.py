"""Waits that end: for a child, for what it writes into a pipe, for a pipe by name, for a lock."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Child = TypeVar("Child", bound="subprocess.Popen[str] | subprocess.Popen[bytes]")


@contextlib.contextmanager
def limited(process: Child, seconds: float = 300) -> Iterator[Child]:
    """A child that is killed after so many seconds, or at the end: its pipes end with it."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait(60)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def ended_with_us(command: Sequence[str | Path]) -> list[str]:
    """A server's command, such that a test run that is killed leaves it not running (on Linux)."""
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    return [*prefix, *map(str, command)]


def until(attempt: Callable[[], T | None], what: str, seconds: float = 300) -> T:
    """The first answer that is not None.

    Raises:
        TimeoutError: There was none in so many seconds.
    """
    deadline = time.monotonic() + seconds
    while (found := attempt()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} seconds for {what}")
        time.sleep(0.02)
    return found


def open_fifo_to_write(path: Path, seconds: float = 300) -> int:
    """Opens a named pipe when somebody has opened it to read."""

    def attempt() -> int | None:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            return None

    return until(attempt, f"a reader of {path}", seconds)


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Holds a lock among processes."""
    import fcntl  # not on Windows

    with path.open("w") as file:

        def attempt() -> bool | None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            return True

        until(attempt, f"the lock {path}", seconds)
        yield
