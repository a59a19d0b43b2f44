"""OMS 6.3-6.4: every file or shard of a model hashed, at the machine's speed, in bounded memory.

The work is cut into picklable batches of `Range`s for any executor. Large ranges come first and
small files travel together, so that all cores end together and no small file costs a future.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model_signing.errors import Error, FileError, UsageError
from model_signing.oms.manifest import Algorithm, Manifest, Serialization, resources
from model_signing.oms.names import MAX_FILES
from model_signing.safe_files import failed
from model_signing.sources.local import Stamp, Tree, open_model_file, stamp
from model_signing.sources.pages import pieces

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Progress = Callable[[int, int], None]
"""Called with the bytes hashed so far and all bytes, from several threads but one at a time."""

_BATCH_COST = 8 << 20  # bytes, and for each file as many as are hashed while it is opened:
_FILE_COST = 16 << 10
_TINY = 16 << 10
_LARGE = 64 << 20
_TWO_PROCESSES_FROM = 4_000  # files; a second process costs as much as hashing a few hundred


class Range(NamedTuple):
    """One resource: `size` bytes from `start` of a file that must still have this stamp."""

    resource: str
    path: str
    start: int
    size: int
    stamp: Stamp


def build(
    tree: Tree,
    serialization: Serialization,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Hashes a model (OMS 6.3) into its manifest, sorted by name (OMS 6.4).

    Args:
        tree: The model's files.
        serialization: How to hash them.
        jobs: Threads to use; by default as many as this process may keep busy.
        executor: Hash here instead, for instance in processes or on a cluster that sees the same
            paths; it only needs `submit`.
        progress: Told how far the work is.

    Raises:
        FileError: A file cannot be read, or changes meanwhile.
        UsageError: The shards are too small for this model.
    """
    sizes = {name: tree.files[name].size for name in sorted(tree.files)}
    total = sum(sizes.values())
    if serialization.shard_size and total // serialization.shard_size > MAX_FILES:
        raise UsageError("the shards are too small", expected=f"at most {MAX_FILES} shards")
    ranges = [
        Range(resource, tree.path(name), start, end - start, tree.files[name])
        for name, size in sizes.items()
        for resource, start, end in resources(name, size, serialization.shard_size)
    ]
    jobs = default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise UsageError("not a number of jobs", expected="1 or more", found=str(jobs))
    large = sum(part.size >= _LARGE for part in ranges)
    threads = max(1, jobs // max(1, large))
    how = (serialization.hash_type, serialization.allow_symlinks, threads)
    batches = _batches(ranges, own_threads=executor is None)
    results = _run(partial(hash_ranges, *how), batches, jobs, executor, progress, total)
    names = (part.resource for batch in batches for part in batch)
    digests = dict(zip(names, results, strict=True))
    return Manifest(serialization, {name: digests[name] for name in sorted(digests)}, sizes)


def _batches(ranges: list[Range], *, own_threads: bool) -> list[list[Range]]:
    """The ranges in batches of similar size, the most expensive first.

    Our own threads take turns with the interpreter, which is most of the work on a tiny file: one
    thread is faster than two. So all tiny files are one batch there.
    """
    limit = _TINY if own_threads else -1
    batches = defaultdict(list, {-1: [part for part in ranges if part.size <= limit]})
    larger = [part for part in ranges if part.size > limit]
    cost = 0
    for part in sorted(larger, key=attrgetter("size"), reverse=True):
        batches[cost // _BATCH_COST].append(part)
        cost += part.size + _FILE_COST
    full = [batch for batch in batches.values() if batch]
    return sorted(full, key=lambda batch: -sum(part.size + _FILE_COST for part in batch))


def _run(
    task: partial[list[str]],
    batches: list[list[Range]],
    jobs: int,
    executor: Executor | None,
    progress: Progress | None,
    total: int,
) -> list[str]:
    """The digests of all batches, in order; ends early and quickly when anything goes wrong."""
    lock = threading.Lock()
    done = 0
    stopped = False
    digests: list[str] = []

    def report(count: int) -> None:
        nonlocal done
        if stopped:
            raise Error("stopped")  # never seen: whoever set `stopped` raises what matters
        if progress is not None:
            with lock:
                done += count
                progress(done, total)

    if executor is None and (jobs == 1 or len(batches) <= 1):
        for batch in batches:  # a small model does not pay for threads, nor for importing them
            two = jobs > 1 and len(batch) >= _TWO_PROCESSES_FROM and _may_fork()
            digests += _in_two_processes(task, batch, report) if two else task(batch, report)
        return digests
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(jobs, "hash") if executor is None else executor
    also = [report] if executor is None else []
    futures: list[Future[list[str]]] = []
    try:
        futures.extend(pool.submit(task, batch, *also) for batch in batches)
        for batch, future in zip(batches, futures, strict=True):
            digests += future.result()
            if executor is not None:
                report(sum(part.size for part in batch))
    finally:
        stopped = True
        for future in futures:
            future.cancel()
        if executor is None:
            pool.shutdown()
    return digests


def hash_ranges(
    algorithm: Algorithm,
    follow_symlinks: bool,
    threads: int,
    ranges: list[Range],
    report: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """The digests of ranges, hashed one after the other: the unit of work of an executor.

    `threads` are for each large range, if the algorithm can use them; `report` is told the bytes of
    each piece and may raise to stop.

    Raises:
        FileError: A file cannot be read, or is not as it was when it was enumerated.
    """
    digests: list[str] = []
    for part in ranges:
        state = new_hash(algorithm, threads if part.size >= _LARGE else 1)
        descriptor = open_model_file(part.path, follow=follow_symlinks)
        try:
            if part.start:
                os.lseek(descriptor, part.start, os.SEEK_SET)
            for piece in pieces(descriptor, part.size):
                state.update(piece)
                report(len(piece))
            unchanged = stamp(os.fstat(descriptor)) == part.stamp  # not exchanged, not written to
        except OSError as error:
            failed(part.path, error)
        finally:
            os.close(descriptor)
        if not unchanged:
            raise FileError(
                "the file changed while it was being hashed",
                where=part.path,
                fix="wait until nothing writes to the model, then try again",
            )
        digests.append(state.hexdigest())
    return digests


def _may_fork() -> bool:
    """Whether a child would neither find locks held for ever nor be waited for by somebody else."""
    with contextlib.suppress(OSError):  # not Linux
        alone = len(list(Path("/proc/self/task").iterdir())) == 1
        return alone and signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    return False


def _in_two_processes(
    task: partial[list[str]], ranges: list[Range], report: Callable[[int], None]
) -> list[str]:
    """The digests of thousands of tiny files: a child hashes the first half of them.

    Most of that work is the interpreter's, at which two threads would take turns.
    """
    middle = len(ranges) // 2
    theirs, child = ranges[:middle], None
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as reader, os.fdopen(write_end, "w") as writer:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # No signal handler runs in the child, nor here before somebody waits for the child.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            with contextlib.suppress(OSError, RuntimeError):  # no more processes allowed
                child = os.fork()
            if child == 0:
                try:
                    reader.close()  # sending fails, and does not wait, when the parent has gone
                    writer.write("".join(task(theirs)))  # at the end: more than the pipe can hold
                    writer.flush()
                finally:
                    os._exit(0)  # no exit handler, no buffer of the parent's; what is missing tells
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            writer.close()
            ours = task(ranges[middle:], report)
            text = reader.read()
        finally:
            if child:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(child, signal.SIGKILL)  # it has sent everything, or nobody will read it
                    os.waitpid(child, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    size = len(ours[0])
    if len(text) != middle * size:  # whatever stopped the child stops us too, with its message
        return task(theirs, report) + ours
    report(sum(part.size for part in theirs))
    return [text[i : i + size] for i in range(0, len(text), size)] + ours


def new_hash(algorithm: Algorithm, threads: int = 1) -> Any:  # noqa: ANN401 - as in hashlib
    """A hash object of the OMS algorithm registry; only BLAKE3 uses more than one thread."""
    if algorithm == "blake3":
        from blake3 import blake3  # native, and needed by nobody else

        return blake3(max_threads=threads)
    return hashlib.sha256() if algorithm == "sha256" else hashlib.blake2b()


def default_jobs(cgroup: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self")) -> int:
    """How many cores this process may keep busy: its CPU affinity and its container's quota.

    Control groups are mounted at `cgroup`; `process` names the process's own group. Source: Linux
    Documentation/admin-guide/cgroup-v2.rst, `cpu.max`: "quota period" in microseconds, at every
    level; version 1 has two files at its mount point.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    limits = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    own = cgroup / _text(process / "cgroup").strip().rpartition(":")[2].strip("/")
    files = [[level / "cpu.max"] for level in (own, *own.parents) if level.is_relative_to(cgroup)]
    files.append([cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")])
    for paths in files:
        numbers = [int(word) for path in paths for word in _text(path).split() if word.isdecimal()]
        if len(numbers) == 2:
            limits.append(numbers[0] / numbers[1])
    return max(1, math.ceil(min(limits)))


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
