"""A stranger's model is first read by a process that may die.

That process has a limit of memory and of time. It refuses the model in our words, or it dies, which
is a refusal, too; and it leaves what it found harmless for the framework of this process to load.
Its standard output and error go nowhere, so that nothing a library says of a model reaches a
terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_signing.errors import Error
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats

MEMORY_FACTOR = 4
MEMORY_SLACK = 256 * 1024 * 1024
"""Bytes of memory beyond what the libraries take: `MEMORY_FACTOR` times the model, and this."""

_CHECKING, _LOADING = 2.0, 30.0  # s of a processor, for the smallest model
_BYTES_PER_SECOND = 25_000_000
_WAITING = 6  # times as long by the clock, as other processes run, too
_STARTING = 100.0  # s by the clock, within which the libraries are imported

# Pools of memory take more than they need, and addresses are what can be limited.
_SPARING = {"CUDA_VISIBLE_DEVICES": "", "MALLOC_ARENA_MAX": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}

_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from slsa_for_models.models.safety import quarantine
quarantine.child(*sys.argv[2:])
"""


class Examination:
    """The other process, from the start to its answer; as a context it never outlives.

    Args:
        model: A file or a folder. Nobody else may write to it meanwhile.
        format: What it should be.
        clean: Where what was found harmless is written, if the format's check writes it anew.
    """

    def __init__(self, model: Path, format: formats.Format, clean: Path) -> None:
        self._model, self._format = model, format
        self._seconds = _STARTING + _WAITING * _seconds(model, _CHECKING + _LOADING)
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - as Python takes it
        arguments = [json.dumps(path), format.name, str(model.absolute()), str(clean.absolute())]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=clean.parent,
            env={**os.environ, **_SPARING},
        )

    def __enter__(self) -> Examination:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait(self) -> None:
        """Until the model was found harmless.

        Raises:
            UnsafeModelError: It was not, or the process that read it died.
        """
        try:
            answer, _ = self._process.communicate(timeout=self._seconds)
        except subprocess.TimeoutExpired:
            raise self._died(f"nothing in {self._seconds:.0f} s") from None
        try:
            refusal = json.loads(answer)
        except ValueError:
            raise self._died(_death(self._process.returncode)) from None
        if refusal:
            raise UnsafeModelError(refusal.pop("message"), **refusal)

    def _died(self, found: str) -> UnsafeModelError:
        return UnsafeModelError(
            "the process that examined the model did not survive it",
            where=self._model.name,
            found=found,
            fix="the model is malformed, or made to do harm: do not load it by other means",
        )


def child(name: str, model: str, clean: str) -> None:
    """What the other process does; its answer is a JSON object, empty if the model is harmless."""
    answer = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if hasattr(os, "sched_setaffinity"):  # each thread of a library's would take addresses, too
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    refusal: dict[str, str] = {}
    row = formats.LOADED[name]
    path = Path(model)
    try:
        examine(row, path, Path(clean), limit=True)
    except Error as error:
        refusal = error.as_dict()
        refusal.pop("error")
    except MemoryError:
        refusal = {"message": "the model needs far more memory than it weighs", "where": path.name}
    except Exception as error:  # libraries raise every class there is for a malformed file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        refusal = {"message": "the model cannot be loaded", "where": name, "found": lines[0][:300]}
    json.dump(refusal, answer)
    answer.flush()
    os._exit(0)  # what libraries do at their end is nobody's business any more


def examine(row: formats.Format, path: Path, clean: Path, *, limit: bool) -> None:
    """Checks a model, writes it anew, and tries to load that where the loader is a risk, too.

    Args:
        row: Its format.
        path: The model.
        clean: See `Examination`.
        limit: Whether this process is for this alone, and may be limited.
    """
    check = checker(row)
    if limit:
        _limit(path, _CHECKING)
    check(path, clean)
    if row.rehearsed:
        if limit:
            _limit(path, None)  # for our own imports
        loader: Any = getattr(formats.framework(row), row.load)
        if limit:
            _limit(path, _LOADING)
        loader(clean)


def checker(row: formats.Format) -> Callable[[Path, Path], None]:
    """Imports and returns the format's check, which takes the model and where to write it anew."""
    module, _, function = row.check.rpartition(".")
    with formats.importing():
        imported = importlib.import_module(f"{__package__}.{module}")
    check: Callable[[Path, Path], None] = getattr(imported, function)
    return check


def most_memory(model: Path) -> int:
    """Bytes that loading may take beyond what the libraries do."""
    return MEMORY_FACTOR * _size(model) + MEMORY_SLACK


def _limit(model: Path, seconds: float | None) -> None:
    """Limits this process from now on, as far as the system can; without `seconds`, no more."""
    try:
        import resource
    except ImportError:  # Windows: what the other process waits for remains
        return
    unlimited = resource.RLIM_INFINITY
    memory = processor = unlimited
    clock = 0.0
    if seconds is not None:
        allowed = _seconds(model, seconds)
        processor, clock = int(time.process_time() + allowed + 1), _WAITING * allowed
        with contextlib.suppress(OSError):  # not Linux
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            mapped = pages * resource.getpagesize()
            memory = mapped + most_memory(model)
    signal.setitimer(signal.ITIMER_REAL, clock)  # ends the process, as nothing handles the signal
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, soft in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, processor)):
        hard = resource.getrlimit(kind)[1]
        within = soft if hard == unlimited or unlimited != soft < hard else hard
        with contextlib.suppress(ValueError, OSError):  # macOS does not limit addresses
            resource.setrlimit(kind, (within, hard))


def _size(model: Path) -> int:
    files = [model] if model.is_file() else model.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def _seconds(model: Path, least: float) -> float:
    return least + _size(model) / _BYTES_PER_SECOND


def _death(code: int) -> str:
    try:
        name = signal.Signals(-code).name
        return "it took too long" if name in ("SIGALRM", "SIGXCPU") else name
    except ValueError:
        return f"exit code {code}"
