"""OMS 6.3-6.4: every file or shard of a model hashed, at the machine's speed, in bounded memory.

The work is cut into picklable `Work` items for any executor. Large ranges come first and small
files travel in batches, so that all cores end together and no small file costs a future.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, NoReturn

from model_signing.errors import Error, FileError, UsageError
from model_signing.files import MAX_FILES, Stamp, Tree, has_stamp, open_model_file
from model_signing.pages import pieces

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Method = Literal["files", "shards"]
Algorithm = Literal["sha256", "blake2b", "blake3"]
Progress = Callable[[int, int], None]
"""Called with the bytes hashed so far and all bytes, from several threads but one at a time."""

DIGEST_SIZES: Mapping[str, int] = {"sha256": 32, "blake2b": 64, "blake3": 32}
"""OMS algorithm registry: identifiers and digest sizes in bytes."""
DEFAULT_SHARD_SIZE = 1_000_000_000  # bytes, OMS 6.3.2

_BATCH_COST = 8 << 20  # bytes, and for each file as many as are hashed while it is opened:
_FILE_COST = 16 << 10
_TINY = 16 << 10
_LARGE = 64 << 20
_TWO_PROCESSES_FROM = 4_000  # files; a second process costs as much as hashing a few hundred


@dataclass(frozen=True)
class Serialization:
    """How a model is enumerated and hashed (OMS 5.2.2).

    Attributes:
        method: "files", or "shards" of `shard_size` bytes.
        hash_type: "sha256", "blake2b" or "blake3".
        shard_size: Bytes; only with "shards".
        allow_symlinks: Whether symbolic links were followed.
        ignore_paths: Canonical relative paths left out, each with its subtree.
    """

    method: Method
    hash_type: Algorithm
    shard_size: int | None
    allow_symlinks: bool
    ignore_paths: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What is signed about a model (OMS 5.2).

    Attributes:
        serialization: How it came about.
        digests: Resource name -> hexadecimal digest, in the order that the root digest takes. The
            name is that of a file, with ":start:end" appended for a shard.
        files: File name -> bytes; None where a signature does not record it (method "files") and
            no file has been compared with it yet.
    """

    serialization: Serialization
    digests: Mapping[str, str]
    files: Mapping[str, int | None]

    @property
    def algorithm(self) -> Algorithm:
        """The hash algorithm of all digests."""
        return self.serialization.hash_type


class Range(NamedTuple):
    """One resource: `size` bytes from `start` of a file that must still have this stamp."""

    resource: str
    path: str
    start: int
    size: int
    stamp: Stamp


class Work(NamedTuple):
    """Ranges to hash one after the other: the picklable unit of work of an executor."""

    algorithm: Algorithm
    follow_symlinks: bool
    threads: int
    ranges: list[Range]


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
    work = [Work(*how, batch) for batch in _batches(ranges, own_threads=executor is None)]
    digests: dict[str, str] = {}
    for item, results in zip(work, _run(work, jobs, executor, progress, total), strict=True):
        digests.update(zip((part.resource for part in item.ranges), results, strict=True))
    return Manifest(serialization, {name: digests[name] for name in sorted(digests)}, sizes)


def resources(name: str, size: int, shard_size: int | None) -> Iterable[tuple[str, int, int]]:
    """The resources of one file: name, start and end (OMS 6.3.1, 6.3.2). Empty: no shard."""
    if shard_size is None:
        return ((name, 0, size),)
    bounds = ((start, min(start + shard_size, size)) for start in range(0, size, shard_size))
    return ((f"{name}:{start}:{end}", start, end) for start, end in bounds)


def _batches(ranges: list[Range], *, own_threads: bool) -> list[list[Range]]:
    """The ranges in batches of similar size, the most expensive first.

    Our own threads take turns with the interpreter, which is most of the work on a tiny file: one
    thread is faster than two. So all tiny files are one batch there.
    """
    limit = _TINY if own_threads else -1
    batches = [tiny] if (tiny := [part for part in ranges if part.size <= limit]) else []
    larger = [part for part in ranges if part.size > limit]
    cost = _BATCH_COST
    for part in sorted(larger, key=attrgetter("size"), reverse=True):
        if cost >= _BATCH_COST:
            batches.append([])
            cost = 0
        batches[-1].append(part)
        cost += part.size + _FILE_COST
    return sorted(batches, key=lambda batch: -sum(part.size + _FILE_COST for part in batch))


def _run(
    work: list[Work], jobs: int, executor: Executor | None, progress: Progress | None, total: int
) -> Iterator[list[str]]:
    """The digests of each item, in order; ends early and quickly when anything goes wrong."""
    lock = threading.Lock()
    done = 0
    stopped = False

    def report(count: int) -> None:
        nonlocal done
        if stopped:
            raise Error("stopped")  # never seen: whoever set `stopped` raises what matters
        if progress is not None:
            with lock:
                done += count
                progress(done, total)

    if executor is None and (jobs == 1 or len(work) <= 1):
        for item in work:  # a small model does not pay for threads, nor for importing them
            two = jobs > 1 and len(item.ranges) >= _TWO_PROCESSES_FROM and _may_fork()
            yield (_in_two_processes if two else hash_ranges)(item, report)
        return
    from concurrent.futures import ThreadPoolExecutor

    own = None if executor else ThreadPoolExecutor(jobs, "hash")
    futures: list[Future[list[str]]] = []
    try:
        for item in work:
            if own is not None:
                futures.append(own.submit(hash_ranges, item, report))
            elif executor is not None:
                futures.append(executor.submit(hash_ranges, item))
        for item, future in zip(work, futures, strict=True):
            yield future.result()
            if own is None:
                report(sum(part.size for part in item.ranges))
    finally:
        stopped = True
        for future in futures:
            future.cancel()
        if own is not None:
            own.shutdown()


def hash_ranges(work: Work, report: Callable[[int], None] = lambda _: None) -> list[str]:
    """Hashes ranges one after the other.

    Args:
        work: What to hash.
        report: Told the number of bytes after each piece; may raise to stop.

    Returns:
        Their hexadecimal digests.

    Raises:
        FileError: A file cannot be read, or is not as it was when it was enumerated.
    """
    return [_hash_range(part, work, report) for part in work.ranges]


def _may_fork() -> bool:
    """Whether a child would neither find locks held for ever nor be waited for by somebody else."""
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
    except OSError:  # not Linux
        return False
    return threads == 1 and signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def _in_two_processes(work: Work, report: Callable[[int], None]) -> list[str]:
    """As `hash_ranges`, for thousands of tiny files: a child hashes the first half of them.

    Most of that work is the interpreter's, at which two threads would take turns.
    """
    middle = len(work.ranges) // 2
    theirs = work._replace(ranges=work.ranges[:middle])
    text, ours, child = "", work, None
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb") as writer:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # No signal handler runs in the child, nor here before somebody waits for the child.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            with contextlib.suppress(OSError, RuntimeError):  # no more processes allowed
                child = os.fork()
            if child == 0:
                _send_digests(theirs, reader, writer)
            if child is not None:
                ours = work._replace(ranges=work.ranges[middle:])
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            writer.close()
            own = hash_ranges(ours, report)
            text = reader.read().decode()
        except BaseException:
            if child == 0:
                os._exit(0)
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            raise
        finally:
            reader.close()
            if child:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if child is None:
        return own
    size = 2 * DIGEST_SIZES[work.algorithm]
    if len(text) != middle * size:  # whatever stopped the child stops us too, with its message
        return hash_ranges(theirs, report) + own
    report(sum(part.size for part in theirs.ranges))
    return [text[i : i + size] for i in range(0, len(text), size)] + own


def _send_digests(work: Work, reader: BinaryIO, writer: BinaryIO) -> NoReturn:
    """The child's part. It sends nothing before the end: more would not fit into the pipe."""
    try:
        reader.close()  # so that sending fails, and does not wait, when the parent has gone
        writer.write("".join(hash_ranges(work)).encode())
        writer.flush()
    finally:
        os._exit(0)  # no exit handler, no buffer of the parent's; what is missing tells


def new_hash(algorithm: Algorithm, threads: int = 1) -> Any:  # noqa: ANN401 - as in hashlib
    """A hash object of the OMS algorithm registry; only BLAKE3 uses more than one thread."""
    if algorithm == "blake3":
        from blake3 import blake3  # native, and needed by nobody else

        return blake3(max_threads=threads)
    return hashlib.sha256() if algorithm == "sha256" else hashlib.blake2b()


def _hash_range(part: Range, work: Work, report: Callable[[int], None]) -> str:
    state = new_hash(work.algorithm, work.threads if part.size >= _LARGE else 1)
    descriptor = open_model_file(part.path, follow=work.follow_symlinks)
    try:
        if part.start:
            os.lseek(descriptor, part.start, os.SEEK_SET)
        for piece in pieces(descriptor, part.size):
            state.update(piece)
            report(len(piece))
        unchanged = has_stamp(descriptor, part.stamp)  # not exchanged, not written to
    except OSError as error:
        raise FileError(
            "cannot read a part of the model", where=part.path, found=error.strerror
        ) from error
    finally:
        os.close(descriptor)
    if not unchanged:
        raise FileError(
            "the file changed while it was being hashed",
            where=part.path,
            fix="wait until nothing writes to the model, then try again",
        )
    digest: str = state.hexdigest()
    return digest


def default_jobs(cgroup: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self")) -> int:
    """How many cores this process may keep busy: its CPU affinity and its container's quota.

    Args:
        cgroup: Where control groups are mounted.
        process: Names the process's own group.

    Source: Linux Documentation/admin-guide/cgroup-v2.rst, `cpu.max`: "quota period" in
    microseconds, at every level; version 1 has two files at its mount point.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    limits = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    try:
        group = (process / "cgroup").read_text().strip().rpartition(":")[2].strip("/")
    except OSError:
        group = ""
    own = cgroup / group
    levels = [own, *own.parents]
    quotas = [level / "cpu.max" for level in levels if level.is_relative_to(cgroup)]
    for path in quotas:
        quota, _, period = _text(path).partition(" ")
        if quota.isdecimal() and period.strip().isdecimal():
            limits.append(int(quota) / int(period))
    quota = _text(cgroup / "cpu" / "cpu.cfs_quota_us").strip()
    if quota.isdecimal():
        limits.append(int(quota) / int(_text(cgroup / "cpu" / "cpu.cfs_period_us") or 100_000))
    return max(1, math.ceil(min(limits)))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
