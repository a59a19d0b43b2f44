"""A progress bar on a terminal for work of more than a second; nothing in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST_AFTER = 1.0  # seconds
_INTERVAL = 0.1  # seconds
_WIDTH = 24  # characters


@contextmanager
def bar(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Draws bytes done, rate and remaining time on standard error.

    Yields:
        What `sign`, `verify` and `digest` take as `progress`; None if that is no terminal, or if
        nothing shall be `shown`.
    """
    if not shown or not sys.stderr.isatty():
        yield None
        return
    start, drawn = time.monotonic(), 0.0

    def progress(done: int, total: int) -> None:
        nonlocal drawn
        elapsed = time.monotonic() - start
        if elapsed >= max(_FIRST_AFTER, drawn + _INTERVAL):
            drawn = elapsed
            print(end=f"\r{line(done, total, elapsed)}\x1b[K", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        if drawn:
            print(end="\r\x1b[K", file=sys.stderr, flush=True)


def line(done: int, total: int, elapsed: float) -> str:
    """One line of progress: bytes done and in all, seconds so far."""
    share = done / total if total else 1.0
    filled = "#" * int(share * _WIDTH)
    rate = done / elapsed
    left = f"{(total - done) / rate:.0f} s left" if rate else ""
    sizes = f"{_bytes(done)} of {_bytes(total)}"
    return f"[{filled:<{_WIDTH}}] {share:4.0%}  {sizes}  {_bytes(rate)}/s  {left}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
