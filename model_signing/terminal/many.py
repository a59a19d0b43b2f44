"""Many models in one run: each for itself, a line as soon as it is done, a table at the end."""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from model_signing.errors import Error, printable
from model_signing.terminal import command_line


@dataclass(frozen=True)
class Done:
    """What became of one model.

    Attributes:
        document: For `--format json`.
        line: For a terminal, where it was not refused.
        refusal: Why it was, if it was.
        files: How many were hashed, and their bytes.
        bytes: See `files`.
    """

    document: dict[str, Any]
    line: str = ""
    refusal: Error | None = None
    files: int = 0
    bytes: int = 0


Work = Callable[[Any, int, Callable[[int, int], None]], Done]
"""Takes a model, the threads to hash it with and what to call meanwhile; a refusal may be raised.
"""

_MOST_AT_ONCE = 32  # however many are asked for


class _StopError(Exception):
    """Somebody ends the run."""


def run(
    models: Sequence[Any],
    work: Work,
    *,
    jobs: int,
    at_once: int | None = None,
    as_json: bool = False,
    quiet: bool = False,
    done: str = "verified",
    prog: str,
) -> int:
    """Does the work of every model, several at once; what is refused hides none of the others.

    Args:
        models: Paths or addresses.
        work: Of one model.
        jobs: Threads for hashing, of all models together.
        at_once: Models at a time; by default as many as `jobs`.
        as_json: Print each document, and an object with the totals, as lines of JSON.
        quiet: Print what was refused and nothing else.
        done: What is done, if all is well.
        prog: The program's name, for messages.

    Returns:
        0; 1 if any was refused.
    """
    at_once = min(at_once or jobs, len(models), _MOST_AT_ONCE)
    table, stop = _Table(as_json, quiet, done, prog), threading.Event()

    def watch(_done: int, _total: int) -> None:
        if stop.is_set():
            raise _StopError

    def one(model: Any, threads: int) -> Done:  # noqa: ANN401
        try:
            return work(model, threads, watch)
        except Exception as error:
            refusal = command_line.refusal(error)
            return Done({"model": str(model), **command_line.as_document(refusal)}, "", refusal)

    waiting = deque(models)
    begun: dict[Future[Done], Any] = {}
    with ThreadPoolExecutor(at_once, "model") as pool:
        try:
            while waiting or begun:
                while waiting and len(begun) < at_once:
                    model = waiting.popleft()
                    # The last ones have the machine to themselves.
                    threads = max(1, jobs // min(at_once, len(begun) + 1 + len(waiting)))
                    begun[pool.submit(one, model, threads)] = model
                for ready in wait(begun, return_when=FIRST_COMPLETED).done:
                    table.add(str(begun.pop(ready)), ready.result())
        finally:
            stop.set()
    table.end()
    return 1 if table.refused else 0


class _Table:
    """What is printed: lines as they come, and the totals."""

    def __init__(self, as_json: bool, quiet: bool, word: str, prog: str) -> None:
        self._as_json, self._quiet, self._word, self._prog = as_json, quiet, word, prog
        self.refused: list[tuple[str, str]] = []
        self._done = self._files = self._bytes = 0

    def add(self, model: str, done: Done) -> None:
        """Notes what became of a model, and prints it."""
        if done.refusal is None:
            self._done += 1
            self._files += done.files
            self._bytes += done.bytes
        else:
            self.refused.append((model, done.refusal.message))
        if self._as_json:
            print(json.dumps(done.document), flush=True)
        elif done.refusal is not None:
            said = f"{self._prog}: refused: {printable(model)}: {done.refusal}"
            print(command_line.folded(said, sys.stderr, 12), file=sys.stderr)
        elif not self._quiet:
            print(printable(done.line), flush=True)

    def end(self) -> None:
        """Prints the totals, and once more which models were refused."""
        totals = {"models": self._done + len(self.refused), "refused": len(self.refused)}
        if self._as_json:
            print(json.dumps({"result": "summary", **totals}))
        elif not self._quiet:
            done = (self._done, self._files, self._bytes)
            rows = [
                ("", "models", "files", "bytes"),
                (self._word, *(f"{n:,}" if n else "" for n in done)),
            ]
            rows.append(("refused", f"{len(self.refused):,}", "", ""))
            for name, models, files, size in rows:
                print(f"{name:<10}{models:>8}{files:>14}{size:>22}".rstrip())
            width = max((len(printable(model)) for model, _ in self.refused), default=0)
            for model, message in self.refused:
                print(f"  {printable(model):<{width}}  {message}")
