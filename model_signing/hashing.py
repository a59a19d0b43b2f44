"""OMS 6.3-6.4: every file or shard of a model hashed, at the machine's speed, in bounded memory.

The work is cut into batches of `Range`s, small files together, so that no small file costs a
future or a lock. Executors get batches that can be pickled. Our own threads share them so that all
cores end together, however few files there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
import time
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from model_signing.errors import FileError, UsageError
from model_signing.oms.manifest import Algorithm, Manifest, Serialization, resources
from model_signing.oms.names import MAX_FILES
from model_signing.sources import Buffer, Entry, Sizes, Source
from model_signing.sources.local import LocalSource

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from model_signing.sources.copying import Copy

Progress = Callable[[int, int], None]
"""Called with the bytes hashed so far and all bytes, from several threads but one at a time."""

_HEARD = 0.5  # seconds until Ctrl-C is heard that came just before a wait
_ENDING = 1.0  # seconds after it in which threads end, unless they wait for a place far away

_BATCH_COST = 8 << 20  # bytes, and for each file as many as are hashed while it is opened:
_FILE_COST = 16 << 10
_FILE_COST_ELSEWHERE = 1 << 20  # where a place has to be asked for it
_TINY = 16 << 10
_STEP = 1 << 20  # of costs; then a thread looks at what the others do
_LARGE = 64 << 20
_AHEAD = 256  # batches that an executor has at a time


class Range(NamedTuple):
    """One resource: `size` bytes from `start` of a file that must still be of this version."""

    resource: str
    name: str
    start: int
    size: int
    entry: Entry


class Means(NamedTuple):
    """With what a model is hashed: the keywords of `hash_model`, and of `sign` and `verify`."""

    jobs: int | None = None
    executor: Executor | None = None
    progress: Callable[[int, int], None] | None = None


def hash_model(
    source: Source,
    entries: Mapping[str, Entry],
    serialization: Serialization,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    copy: Copy | None = None,
    known: Mapping[str, str] | None = None,
    likely: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    """Hashes a model (OMS 6.3) into its manifest, sorted by name (OMS 6.4).

    Args:
        source: Where it lies.
        entries: Its files, as the source enumerated them.
        serialization: How to hash them.
        jobs: Threads to use; by default as many as this process may keep busy.
        executor: Hash here instead, for instance in processes or on a cluster where the source
            finds the same files; it only needs `submit`.
        progress: Told how far the work is.
        copy: Gets the bytes as they are hashed.
        known: Resources that are not read, and their digests, hexadecimal.
        likely: Digests that will be found if all is well: nobody keeps each of them twice.

    Raises:
        FileError: A file cannot be read, changes meanwhile, or is not what its place lists; the
            copy cannot be written.
        UsageError: The shards are too small for this model; or an executor, which may be on
            another machine, were to make the copy.
    """
    order, shard_size = sorted(entries), serialization.shard_size
    sizes = Sizes(order, entries)
    known = {**_measured(source, entries, serialization, copy), **(known or {})}
    total = sizes.total()
    if shard_size and total // shard_size > MAX_FILES:
        raise UsageError("the shards are too small", expected=f"at most {MAX_FILES} shards")
    waits = getattr(source, "at_once", 0) if jobs is None and executor is None else 0
    jobs = checked_jobs(jobs)
    if copy is not None:
        if executor is not None:
            raise UsageError("a copy is made by threads here, not by an executor")
        source, copy = copy.begin(source, entries, sizes)
    if shard_size is not None:
        order = [part for name in order for part, *_ in resources(name, sizes[name], shard_size)]
    # A million `Range`s at once would take 200 MB: they are made when they are needed.
    digests = dict.fromkeys(sorted(order), "")
    part_of = partial(_range, entries, shard_size is not None)
    if known:
        digests.update(known)
        order = [resource for resource in order if resource not in known]
        total = sum(part_of(resource).size for resource in order)
    tiny = _TINY if executor is None and not waits else -1
    batches, large = _batches(
        order,
        part_of,
        sizes if shard_size is None else None,
        tiny,
        _FILE_COST_ELSEWHERE if waits else _FILE_COST,
    )
    threads = max(1, jobs // max(1, large))
    done = 0

    def note(resource: str, digest: str) -> None:
        known = likely.get(resource)
        digests[resource] = known if known == digest else digest

    def report(count: int) -> None:
        nonlocal done
        if progress is not None:
            done += count
            progress(done, total)

    how = (source, serialization.hash_type, threads)
    if executor is None:
        jobs_to_do = [_Job(*how, map(part_of, names), cost, note, copy) for cost, names in batches]
        _share(jobs_to_do, max(jobs, waits), report, apart=not isinstance(source, LocalSource))
    else:
        if isinstance(source, LocalSource):
            how = (source.for_others(), *how[1:])
        _elsewhere(partial(hash_ranges, *how), batches, part_of, executor, note, report)
    return Manifest(serialization, digests, sizes)


def _measured(
    source: Source, entries: Mapping[str, Entry], how: Serialization, copy: Copy | None
) -> dict[str, str]:
    """The digests of files that were read already to find them, where they need no second look."""
    if isinstance(source, LocalSource):
        return {}
    if copy is not None or (how.method, how.hash_type) != ("files", "sha256"):
        return {}
    return {name: entry.sha256 or "" for name, entry in entries.items() if entry.measured}


def _range(entries: Mapping[str, Entry], sharded: bool, resource: str) -> Range:
    """What a resource's name says (OMS 6.3.1, 6.3.2)."""
    if not sharded:
        entry = entries[resource]
        return Range(resource, resource, 0, entry.size, entry)
    name, start, end = resource.rsplit(":", 2)
    return Range(resource, name, int(start), int(end) - int(start), entries[name])


def _batches(
    resources: Iterable[str],
    part_of: Callable[[str], Range],
    sizes: Mapping[str, int] | None,
    tiny: int,
    file_cost: int,
) -> tuple[list[_Batch], int]:
    """The resources in batches of similar cost, the most expensive first; how many are large.

    If they are whole files, their `sizes` are known without looking at each `part_of` them.

    Our own threads take turns with the interpreter, which is most of the work on a tiny file: one
    thread is faster than two. So all those of up to `tiny` bytes are one batch there.
    """
    batches: dict[int, list[str]] = defaultdict(list)
    costs: dict[int, int] = defaultdict(int)
    # The shards of a file whose digest is listed stay together, in order: so it can be compared.
    together: dict[str, list[str]] = defaultdict(list)
    larger: list[tuple[int, str]] = []
    for resource in resources:
        if sizes is not None:
            size = sizes[resource]
        else:
            _, name, _, size, entry = part_of(resource)
            if entry.sha256 is not None and size != entry.size:
                together[name].append(resource)
                continue
        if size <= tiny:
            batches[-1].append(resource)
            costs[-1] += size + file_cost
        else:
            larger.append((size, resource))
    cost = 0
    larger.sort(key=itemgetter(0), reverse=True)
    for size, resource in larger:
        number = cost // _BATCH_COST
        batches[number].append(resource)
        costs[number] += size + file_cost
        cost += size + file_cost
    found = [(costs[number], batch) for number, batch in batches.items()]
    found += [(part_of(shards[0]).entry.size, shards) for shards in together.values()]
    large = sum(size >= _LARGE for size, _ in larger)
    return sorted(found, key=itemgetter(0), reverse=True), large


_Batch = tuple[int, list[str]]  # what it costs; names of resources


def _elsewhere(
    task: Callable[[list[Range]], list[str]],
    batches: list[_Batch],
    part_of: Callable[[str], Range],
    executor: Executor,
    note: Callable[[str, str], None],
    report: Callable[[int], None],
) -> None:
    """Notes the digests of all batches; nothing new is begun when anything goes wrong."""
    from concurrent.futures import wait

    waiting: deque[tuple[list[Range], Future[list[str]]]] = deque()
    begun = iter(batches)
    try:
        while True:
            for _, names in islice(begun, _AHEAD - len(waiting)):
                ranges = list(map(part_of, names))
                waiting.append((ranges, executor.submit(task, ranges)))
            if not waiting:
                return
            ranges, future = waiting.popleft()
            while not future.done():
                wait([future], _HEARD)
            for part, digest in zip(ranges, future.result(), strict=True):
                note(part.resource, digest)
            report(sum(part.size for part in ranges))
    finally:
        for _, future in waiting:
            future.cancel()


def hash_ranges(
    source: Source, algorithm: Algorithm, threads: int, ranges: list[Range]
) -> list[str]:
    """The digests of ranges, hashed one after the other: the unit of work of an executor.

    `threads` are for each large range, if the algorithm can use them.

    Raises:
        FileError: A file cannot be read, or is not as it was when it was enumerated.
    """
    digests: list[str] = []
    job = _Job(source, algorithm, threads, ranges, 0, lambda _, digest: digests.append(digest))
    job.run(lambda _: None)
    return digests


class _Job:
    """Ranges that are hashed one after the other, by whichever thread takes the next step.

    Attributes:
        left: What it still costs, in bytes.
        done: Whether every range is hashed.
        steps: Each hashes some bytes, and gives their number.
        spare: Counts the cores that have nothing to do: there a large file is read ahead.
        stop: Set when something went wrong: a step ends then, however slowly bytes come.
    """

    spare: threading.Semaphore | None = None
    stop = threading.Event()

    def __init__(
        self,
        source: Source,
        algorithm: Algorithm,
        threads: int,
        ranges: Iterable[Range],
        cost: int,
        note: Callable[[str, str], None],
        copy: Copy | None = None,
    ) -> None:
        self.left, self.done = cost, False
        self._copy, self._note = copy, note
        self.steps = self._hash(source, algorithm, threads, ranges)

    def run(self, report: Callable[[int], None]) -> None:
        """Does all of it."""
        try:
            for count in self.steps:
                report(count)
        finally:
            self.steps.close()

    def _hash(
        self, source: Source, algorithm: Algorithm, threads: int, ranges: Iterable[Range]
    ) -> Generator[int, None, None]:
        new, step, cost = hash_function(algorithm, threads), 0, 0
        read: Callable[[str, Entry, int, int], Iterable[Buffer]] = source.read
        if isinstance(source, LocalSource):
            read = partial(source.read, spare=self.spare)
        whole: Any = None
        for resource, name, start, size, entry in ranges:
            state = new()
            # What the place lists is compared with the digest, if that is of the same kind.
            other = entry.sha256 is not None and (algorithm != "sha256" or size != entry.size)
            whole = (hashlib.sha256() if start == 0 else whole) if other else state
            pieces = read(name, entry, start, start + size)
            if self._copy is not None:
                pieces = self._copy.writing(name, start, size, pieces)
            for piece in pieces:
                state.update(piece)
                if other:
                    whole.update(piece)
                step += len(piece)
                if step + cost >= _STEP or self.stop.is_set():
                    yield step
                    step = cost = 0
            self._note(resource, state.hexdigest())
            if entry.sha256 is not None and start + size == entry.size:
                _check_listed(source, name, entry.sha256, whole.hexdigest())
            cost += _FILE_COST
        yield step


def _check_listed(source: Source, name: str, listed: str, found: str) -> None:
    """What a place sends is what it lists: nobody signs, or copies, anything else."""
    if found != listed:
        raise FileError(
            "the place sends other bytes than the digest that it lists",
            where=f"{source}, {name}",
            expected=f"sha256 {listed}",
            found=f"sha256 {found}",
        )


def _share(jobs: list[_Job], threads: int, report: Callable[[int], None], *, apart: bool) -> None:
    """Does all jobs; raises what went wrong first, when all threads have stopped.

    `apart`: in other threads than this one. The client of a place may not hear Ctrl-C, which
    Python has in its main thread only.
    """
    if len(jobs) == threads == 1 and not apart:  # as of each of many small models
        jobs[0].run(report)
    else:
        _Crew(jobs, threads, report).run(apart=apart)


class _Crew:
    """Threads that share jobs so that all of them end at the same time, if that is possible.

    The most expensive job is taken first. That alone would leave cores idle at the end: of five
    equal files, two threads would hash two each, and one of them the fifth. A file cannot be
    hashed by two threads at once; but one can leave it where it is, and another go on with it.
    So a thread changes jobs when one that waits has become so expensive, beside what is left in
    all, that all cores can only end together if somebody begins with it now. (This is the rule of
    R. McNaughton, Scheduling with deadlines and loss functions, 1959, for machines whose speed is
    not known before.)
    """

    def __init__(self, jobs: list[_Job], threads: int, report: Callable[[int], None]) -> None:
        self._waiting = sorted(jobs, key=attrgetter("left"))  # the last is the next
        self._left = sum(job.left for job in jobs)
        self._threads = threads
        self._report = report
        self._spare = threading.Semaphore(max(0, threads - len(jobs)))
        self._stop = threading.Event()
        self._started: list[threading.Thread] = []
        self._ends, self._ended = threading.Semaphore(0), 0
        for job in jobs:
            job.spare, job.stop = self._spare, self._stop
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self, *, apart: bool) -> None:
        """Does all jobs; see `_share`."""
        others = min(self._threads, len(self._waiting)) - (not apart)
        # The process may end before those that wait for a place that is silent, see `_wait`.
        try:
            with contextlib.suppress(RuntimeError):  # as many as the system allows
                for _ in range(others):
                    thread = threading.Thread(target=self._help, name="hash", daemon=True)
                    thread.start()
                    self._started.append(thread)
            if not (apart and self._started):
                self._work()
            self._wait()
        except BaseException as error:  # Ctrl-C
            self._failure = error
            self._stop.set()
        finally:
            self._wait()
            for job in self._waiting:  # after a failure some were left in the middle of a file
                job.steps.close()
        if self._failure is not None:
            raise self._failure

    def _wait(self) -> None:
        """For the other threads; after Ctrl-C only for as long as what they do can take."""
        end = math.inf
        while self._ended < len(self._started) and time.monotonic() < end:
            # Not by `join`, which takes a thread for ended when it is interrupted (Python 3.11).
            if self._ends.acquire(timeout=_HEARD):
                self._ended += 1
            if end == math.inf and isinstance(self._failure, KeyboardInterrupt):
                end = time.monotonic() + _ENDING
        if self._ended == len(self._started):
            for thread in self._started:
                thread.join()

    def _help(self) -> None:
        try:
            self._work()
        finally:
            self._ends.release()

    def _work(self) -> None:
        job = None
        try:
            while (job := self._next(job)) is not None:
                for count in job.steps:
                    if self._leaves(job, count):
                        break
                else:
                    job.done = True
            self._spare.release()
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()
            if job is not None:
                job.steps.close()

    def _next(self, last: _Job | None) -> _Job | None:
        """The most expensive job that waits; the last one waits, too, unless it is done."""
        with self._lock:
            if last is not None and last.done:
                self._left -= last.left
            elif last is not None:
                insort(self._waiting, last, key=attrgetter("left"))
            return self._waiting.pop() if self._waiting and self._failure is None else None

    def _leaves(self, job: _Job, count: int) -> bool:
        """Notes the bytes of a step; whether the thread leaves this job now."""
        with self._lock:
            job.left -= count
            self._left -= count
            self._report(count)
            most = self._waiting[-1].left if self._waiting else 0
            urgent = most > job.left and most * self._threads >= self._left
            return urgent or self._failure is not None


def hash_function(algorithm: Algorithm, threads: int = 1) -> Callable[[], Any]:
    """Makes hash objects of the OMS algorithm registry; only BLAKE3 uses more than one thread."""
    if algorithm == "blake3":
        from blake3 import blake3  # native, and needed by nobody else

        return partial(blake3, max_threads=threads)
    return hashlib.sha256 if algorithm == "sha256" else hashlib.blake2b


def checked_jobs(jobs: int | None) -> int:
    """As many threads, or by default as many as this process may keep busy.

    Raises:
        UsageError: Fewer than one.
    """
    jobs = default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise UsageError("not a number of jobs", expected="1 or more", found=str(jobs))
    return jobs


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
