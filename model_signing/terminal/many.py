"""Many models in one run: each for itself, a line as soon as it is done, a table at the end."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_signing.errors import Error, printable
from model_signing.terminal import command_line

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@dataclass(frozen=True)
class Done:
    """What became of one model.

    Attributes:
        document: For `--format json`; without one a refusal has its own words.
        line: For a terminal, where it was not refused.
        refusal: Why it was, if it was.
        files: How many were hashed, and their bytes.
        bytes: See `files`.
    """

    document: dict[str, Any] = field(default_factory=dict)
    line: str = ""
    refusal: Error | None = None
    files: int = 0
    bytes: int = 0


Work = Callable[[Any, int, Callable[[int, int], None]], Done]
"""Takes a model, the threads to hash it with and what to call meanwhile; a refusal may be raised.
"""

_MOST_AT_ONCE = 32  # however many are asked for
_FOR_A_PROCESS = 16  # models, below which threads are as fast
_MOST_LOST = 1000  # processes that came to their end
_IN_A_PIPE = 1000  # numbers of four bytes, fewer than the smallest pipe takes: to write never waits


class _StopError(Exception):
    """Somebody ends the run."""


def run(
    models: Sequence[Any],
    work: Work,
    *,
    jobs: int,
    at_once: int | None = None,
    apart: bool = False,
    as_json: bool = False,
    quiet: bool = False,
    done: str = "verified",
    called: str = "model",
    prog: str,
) -> int:
    """Does the work of every model, several at once; what is refused hides none of the others.

    Args:
        models: Paths or addresses.
        work: Of one model.
        jobs: Threads for hashing, of all models together.
        at_once: Models at a time; by default as many as `jobs`.
        apart: Whether processes may do the work: it leaves nothing behind in this one.
        as_json: Print each document, and an object with the totals, as lines of JSON.
        quiet: Print what was refused and nothing else.
        done: What is done, if all is well.
        called: What JSON calls a model as it was named.
        prog: The program's name, for messages.

    Returns:
        0; 1 if any was refused.
    """
    at_once = min(at_once or jobs, len(models), _MOST_AT_ONCE)
    table, stop = _Table(as_json, quiet, done, called, prog), threading.Event()

    def watch(_done: int, _total: int) -> None:
        if stop.is_set():
            raise _StopError

    def one(model: Any) -> Done:  # noqa: ANN401
        try:
            return work(model, max(1, jobs // at_once), watch)
        except Exception as error:
            return Done(refusal=command_line.refusal(error))

    does = _in_processes if apart and _worth_processes(models, at_once) else _in_threads
    with closing(does(models, one, at_once, stop)) as results:
        for model, result in results:
            table.add(str(model), result)
    table.end()
    return 1 if table.refused else 0


_Results = Generator[tuple[Any, Done], None, None]


def _in_threads(
    models: Sequence[Any], one: Callable[[Any], Done], at_once: int, stop: threading.Event
) -> _Results:
    """What becomes of each model, as soon as it is known."""
    from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

    waiting = deque(models)
    begun: dict[Future[Done], Any] = {}
    with ThreadPoolExecutor(at_once, "model") as pool:
        try:
            while waiting or begun:
                while waiting and len(begun) < at_once:
                    model = waiting.popleft()
                    begun[pool.submit(one, model)] = model
                for ready in wait(begun, return_when=FIRST_COMPLETED).done:
                    yield begun.pop(ready), ready.result()
        finally:
            stop.set()


def _worth_processes(models: Sequence[Any], at_once: int) -> bool:
    """Small models keep the interpreter busy, in which threads take turns.

    Processes are made with what this one has read. That is safe while it has no other threads,
    which its Python knows of, and those of clients of remote places it may not.
    """
    return (
        sys.platform == "linux"
        and at_once > 1
        and len(models) >= at_once * _FOR_A_PROCESS
        and all(isinstance(model, Path) for model in models)
        and threading.active_count() == 1
    )


def _in_processes(
    models: Sequence[Any], one: Callable[[Any], Done], at_once: int, stop: threading.Event
) -> _Results:
    """As `_in_threads`; a process that comes to its end takes one model with it."""
    import gc

    gc.freeze()  # what the processes share is not looked through again, which would copy it
    numbers, left = _Numbers(len(models)), set(range(len(models)))
    processes = _Processes(lambda number: one(models[number]), numbers)
    try:
        for _ in range(at_once):
            processes.begin()
        for number, result in processes.answers():
            left.remove(number)
            numbers.add()
            yield models[number], result
        # Where the system allowed no process, nobody took them.
        left -= (rest := {*numbers})
        yield from _in_threads([models[number] for number in sorted(rest)], one, 1, stop)
        for number in sorted(left):
            found = ", ".join(f"exit code {code}" for code in sorted({*processes.lost}) or [0])
            refusal = Error("the process that looked at it came to an end", found=found)
            yield models[number], Done(refusal=refusal)
    finally:
        processes.end()
        numbers.close()


class _Numbers:
    """Those of the models, in a pipe: each process takes the next one when it is ready for it."""

    def __init__(self, count: int) -> None:
        self._waiting = iter(range(count))
        self._out, self._in = os.pipe()
        for _ in range(_IN_A_PIPE):
            self.add()

    def add(self) -> None:
        """Gives one more, in place of one that was taken; after the last one the pipe ends."""
        if self._in < 0:
            return
        number = next(self._waiting, None)
        if number is None:
            self.only_take()
        else:
            os.write(self._in, number.to_bytes(4, "little"))

    def only_take(self) -> None:
        """Nothing is given here any more."""
        if self._in >= 0:
            os.close(self._in)
            self._in = -1

    def __iter__(self) -> Iterator[int]:
        while taken := os.read(self._out, 4):
            yield int.from_bytes(taken, "little")
            self.add()

    def close(self) -> None:
        """Ends it."""
        self.only_take()
        os.close(self._out)


class _Processes:
    """Those that are at work.

    Attributes:
        lost: Exit codes of those that came to their end before all was done.
    """

    def __init__(self, does: Callable[[int], Done], numbers: _Numbers) -> None:
        from selectors import DefaultSelector

        self._does, self._numbers = does, numbers
        self._ready = DefaultSelector()
        self._begun: dict[Any, Any] = {}  # our end of a pipe -> the process
        self.lost: list[int] = []

    def begin(self) -> None:
        """Begins one more, if the system allows it."""
        from multiprocessing import get_context
        from selectors import EVENT_READ

        fork = get_context("fork")
        try:
            ours, theirs = fork.Pipe()
        except OSError:  # too many open files
            return
        of_others = [*self._begun, ours]
        process = fork.Process(
            target=_serve, args=(self._does, self._numbers, theirs, of_others), daemon=True
        )
        with _not_stopped():
            try:
                process.start()
            except OSError:
                ours.close()
            else:
                self._begun[ours] = process
                self._ready.register(ours, EVENT_READ)
            finally:
                theirs.close()

    def answers(self) -> Iterator[tuple[int, Done]]:
        """What each says of each number; another one begins in place of one that is lost."""
        while self._begun:
            pipes: list[Any] = [key.fileobj for key, _events in self._ready.select()]
            for pipe in pipes:
                if (answer := _answer(pipe)) is not None:
                    yield answer
                    continue
                self._ready.unregister(pipe)
                pipe.close()
                self._begun[pipe].join()
                if code := self._begun.pop(pipe).exitcode:
                    self.lost.append(code)
                    if len(self.lost) <= _MOST_LOST:
                        self.begin()

    def end(self) -> None:
        """Ends all that are left."""
        for process in self._begun.values():
            process.terminate()
        for pipe, process in self._begun.items():
            pipe.close()
            process.join()
        self._ready.close()


@contextmanager
def _not_stopped() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait: no process is begun that nobody would end."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(pipe: Connection) -> tuple[int, Done] | None:
    """A number, and what a process says of it; None if the process came to its end."""
    with suppress(EOFError, OSError):
        answer: tuple[int, Done] = pipe.recv()
        return answer
    return None


def _serve(
    answer: Callable[[int], Done],
    numbers: _Numbers,
    pipe: Connection,
    of_others: Sequence[Connection],
) -> None:
    """Answers all it can take, until nobody gives or listens, by whatever end of the run."""
    import signal

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # told twice, it would end with a traceback
        raise KeyboardInterrupt

    def end_with() -> None:
        with suppress(EOFError, OSError):
            pipe.recv()  # nothing ever comes
        os._exit(0)  # amid a large model, too

    numbers.only_take()
    for other in of_others:
        other.close()
    with suppress(RuntimeError):  # where the system allows no thread, it ends after its model
        threading.Thread(target=end_with, daemon=True).start()
    with suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            # Ctrl-C, which all processes hear, stays blocked: whoever began them ends them.
            signal.signal(signal.SIGTERM, stop)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for number in numbers:
                pipe.send((number, answer(number)))
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Table:
    """What is printed: lines as they come, and the totals."""

    def __init__(self, as_json: bool, quiet: bool, word: str, called: str, prog: str) -> None:
        self._as_json, self._quiet, self._word, self._prog = as_json, quiet, word, prog
        self._called = called
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
            document = done.document
            if done.refusal is not None and not document:
                document = {self._called: model, **command_line.as_document(done.refusal)}
            print(json.dumps(document), flush=True)
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
