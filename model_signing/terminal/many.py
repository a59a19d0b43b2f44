"""Many models in one run: each for itself, a line as soon as it is done, a table at the end."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from model_signing.errors import Error, printable
from model_signing.terminal import command_line


class Done(NamedTuple):
    """What became of one model.

    Attributes:
        document: For `--format json`; without one a refusal has its own words.
        line: For a terminal, where it was not refused.
        refusal: Why it was, if it was.
        files: How many were hashed, and their bytes.
        bytes: See `files`.
    """

    document: Mapping[str, Any] | None = None
    line: str = ""
    refusal: Error | None = None
    files: int = 0
    bytes: int = 0


Work = Callable[[Any, int, Callable[[int, int], None]], Done]
"""Takes a model, the threads to hash it with and what to call meanwhile; a refusal may be raised.
"""

_MOST_AT_ONCE = 32  # however many are asked for
_FOR_A_PROCESS = 16  # models, below which threads are as fast
_HEARD = 0.5  # seconds until Ctrl-C is heard that came just before a wait
_MOST_LOST = 1000  # processes that came to their end
_IN_A_PIPE = 1000  # numbers of four bytes, fewer than the smallest pipe takes: to write never waits
_READ_AT_ONCE = 1 << 16  # bytes


class _Said(NamedTuple):
    """What is said of one model.

    Attributes:
        text: A line, or several; empty if there is nothing to say.
        refusal: The words for the table at the end, if it was refused.
        files: How many were hashed, and their bytes.
        bytes: See `files`.
    """

    text: str
    refusal: str | None
    files: int
    bytes: int


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

    def one(model: Any) -> _Said:  # noqa: ANN401
        try:
            found = work(model, max(1, jobs // at_once), watch)
        except Exception as error:
            found = Done(refusal=command_line.refusal(error))
        return table.said(model, found)

    def lost(model: Any, codes: set[int]) -> _Said:  # noqa: ANN401
        found = ", ".join(f"exit code {code}" for code in sorted(codes or {0}))
        refusal = Error("the process that looked at it came to an end", found=found)
        return table.said(model, Done(refusal=refusal))

    if apart and _worth_processes(models, at_once):
        results = _in_processes(models, one, at_once, stop, lost)
    else:
        results = _in_threads(models, one, at_once, stop)
    with closing(results):
        for model, said in results:
            table.add(model, said)
    table.end()
    return 1 if table.refused else 0


_Results = Generator[tuple[Any, _Said], None, None]


def _in_threads(
    models: Sequence[Any], one: Callable[[Any], _Said], at_once: int, stop: threading.Event
) -> _Results:
    """What is said of each model, as soon as it is known."""
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    from model_signing.sources.ahead import Helpers

    waiting = deque(models)
    begun: dict[Future[_Said], Any] = {}
    with Helpers(at_once, "model") as helpers:
        try:
            while waiting or begun:
                while waiting and len(begun) < at_once:
                    model = waiting.popleft()
                    begun[helpers.begin(partial(one, model))] = model
                for ready in wait(begun, _HEARD, FIRST_COMPLETED).done:
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
    models: Sequence[Any],
    one: Callable[[Any], _Said],
    at_once: int,
    stop: threading.Event,
    lost: Callable[[Any, set[int]], _Said],
) -> _Results:
    """As `_in_threads`; a process that comes to its end takes one model with it."""
    import gc

    gc.freeze()  # what the processes share is not looked through again, which would copy it
    numbers, left = _Numbers(len(models)), set(range(len(models)))
    processes = _Processes(lambda number: one(models[number]), numbers)
    try:
        for _ in range(at_once):
            processes.begin()
        for number, said in processes.answers():
            left.remove(number)
            numbers.add()
            yield models[number], said
        # Where the system allowed no process, nobody took them.
        left -= (rest := {*numbers})
        if rest:
            yield from _in_threads([models[number] for number in sorted(rest)], one, 1, stop)
        for number in sorted(left):
            yield models[number], lost(models[number], {*processes.lost})
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
    """Those that are at work; each says a line of JSON of each model.

    Attributes:
        lost: Exit codes of those that came to their end before all was done.
    """

    def __init__(self, does: Callable[[int], _Said], numbers: _Numbers) -> None:
        from select import poll

        self._does, self._numbers = does, numbers
        self._ready = poll()
        # Our end of a pipe -> the process, and the beginning of a line.
        self._begun: dict[int, tuple[int, list[bytes]]] = {}
        self.lost: list[int] = []

    def begin(self) -> None:
        """Begins one more, if the system allows it."""
        from select import POLLIN

        try:
            ours, theirs = os.pipe()
        except OSError:  # too many open files
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or it would be printed twice
        with _not_stopped():
            try:
                process = os.fork()
            except OSError:
                os.close(ours)
            else:
                if not process:
                    _serve(self._does, self._numbers, theirs, [*self._begun, ours])
                self._begun[ours] = process, []
                self._ready.register(ours, POLLIN)
            finally:
                os.close(theirs)

    def answers(self) -> Iterator[tuple[int, _Said]]:
        """What each says of each number; another one begins in place of one that is lost."""
        while self._begun:
            for pipe, _events in self._ready.poll(_HEARD * 1000):
                process, line = self._begun[pipe]
                if data := os.read(pipe, _READ_AT_ONCE):
                    *lines, rest = data.split(b"\n")
                    if lines:
                        lines[0] = b"".join((*line, lines[0]))
                        line.clear()
                    line.append(rest)
                    for number, *said in map(json.loads, lines):
                        yield number, _Said(*said)
                    continue
                self._forget(pipe)
                if code := _exit_code(process):
                    self.lost.append(code)
                    if len(self.lost) <= _MOST_LOST:
                        self.begin()

    def end(self) -> None:
        """Ends all that are left."""
        from signal import SIGTERM

        for process, _line in self._begun.values():
            os.kill(process, SIGTERM)
        for pipe, (process, _line) in [*self._begun.items()]:
            self._forget(pipe)
            _exit_code(process)

    def _forget(self, pipe: int) -> None:
        self._ready.unregister(pipe)
        os.close(pipe)
        del self._begun[pipe]


def _exit_code(process: int) -> int:
    """That of a process which comes to its end."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@contextmanager
def _not_stopped() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait: no process is begun that nobody would end."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    does: Callable[[int], _Said], numbers: _Numbers, pipe: int, of_others: Sequence[int]
) -> NoReturn:
    """What a process does that was just begun, until it ends: nothing else of it is ever run."""
    code = 1
    try:
        numbers.only_take()
        for other in of_others:
            os.close(other)
        _answer(does, numbers, pipe)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _answer(does: Callable[[int], _Said], numbers: _Numbers, pipe: int) -> None:
    """Answers all it can take, until nobody gives or listens, by whatever end of the run."""
    import signal
    from select import poll

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # told twice, it would end with a traceback
        raise KeyboardInterrupt

    def end_with() -> None:
        listener = poll()
        listener.register(pipe, 0)
        listener.poll()  # until nobody has the other end
        os._exit(0)  # amid a large model, too

    with suppress(RuntimeError):  # where the system allows no thread, it ends after its model
        threading.Thread(target=end_with, daemon=True).start()
    with suppress(OSError, KeyboardInterrupt):
        try:
            # Ctrl-C, which all processes hear, stays blocked: whoever began them ends them.
            signal.signal(signal.SIGTERM, stop)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            with open(pipe, "wb") as out:
                for number in numbers:
                    out.write(json.dumps((number, *does(number))).encode() + b"\n")
                    out.flush()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Table:
    """What is printed: lines as they come, and the totals."""

    def __init__(self, as_json: bool, quiet: bool, word: str, called: str, prog: str) -> None:
        self._as_json, self._quiet, self._word, self._prog = as_json, quiet, word, prog
        self._called = called
        self.refused: list[tuple[str, str]] = []
        self._done = self._files = self._bytes = 0

    def said(self, model: Any, done: Done) -> _Said:  # noqa: ANN401
        """What is printed of a model; whoever did the work finds the words, too."""
        text, refusal = "", done.refusal
        if self._as_json:
            document = done.document
            if refusal is not None and not document:
                document = {self._called: str(model), **command_line.as_document(refusal)}
            text = json.dumps(document)
        elif refusal is not None:
            text = f"{self._prog}: refused: {printable(str(model))}: {refusal}"
            text = command_line.folded(text, sys.stderr, 12)
        elif not self._quiet:
            text = printable(done.line)
        words = None if refusal is None else refusal.message
        return _Said(text, words, done.files, done.bytes)

    def add(self, model: Any, said: _Said) -> None:  # noqa: ANN401
        """Notes what became of a model, and prints it."""
        if said.refusal is None:
            self._done += 1
            self._files += said.files
            self._bytes += said.bytes
        else:
            self.refused.append((str(model), said.refusal))
        if self._as_json or said.refusal is None:
            if said.text:
                print(said.text, flush=True)
        else:
            print(said.text, file=sys.stderr)

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
