"""A progress bar on a terminal for work of more than a second; nothing in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress

_FIRST_AFTER = 1.0  # seconds; importing what draws takes a tenth of one
_INTERVAL = 0.1  # seconds


@contextmanager
def bar(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Draws bytes done, rate and remaining time on standard error.

    Yields:
        What `sign`, `verify` and `digest` take as `progress`; None if that is no terminal, or if
        nothing shall be `shown`.
    """
    dumb = os.environ.get("TERM") in ("dumb", "unknown")  # it cannot go back to a line's start
    if not shown or dumb or not sys.stderr.isatty():
        yield None
        return
    drawing: Progress | None = None
    due = time.monotonic() + _FIRST_AFTER

    def progress(done: int, total: int) -> None:
        nonlocal drawing, due
        now = time.monotonic()
        if drawing is not None and done >= total:  # somebody may ask the user something next
            drawing.stop()
            drawing, due = None, now + _FIRST_AFTER
        if now < due:
            return
        due = now + _INTERVAL
        if drawing is None:
            drawing = _start(done, total)
        drawing.update(drawing.task_ids[0], completed=done, refresh=True)

    try:
        yield progress
    finally:
        if drawing is not None:
            drawing.stop()


def _start(done: int, total: int) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    drawing = Progress(
        *(BarColumn(), TaskProgressColumn(), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
        console=Console(stderr=True),
        auto_refresh=False,  # drawn when there is news; a thread of its own would only compete
        transient=True,
        redirect_stdout=False,  # results are for whoever reads them
    )
    drawing.add_task("", total=total, completed=done)
    drawing.start()
    return drawing
