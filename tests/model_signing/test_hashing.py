"""Hashing: known answers, work shared between threads and processes, changes noticed (OMS 6.3)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from model_signing import hashing
from model_signing.errors import FileError, UsageError
from model_signing.oms.manifest import Manifest, Serialization, resources
from model_signing.oms.names import MAX_FILES, Selection
from model_signing.sources import Buffer, open_source
from tests.support.limits import limited
from tests.support.material import ROOT
from tests.support.memory_source import MemorySource

posix = pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX tools and files only")
MIB = 1 << 20


def how(algorithm: str = "sha256", shard_size: int | None = None) -> Serialization:
    method = "shards" if shard_size else "files"
    return Serialization(method, algorithm, shard_size, False, ())  # type: ignore[arg-type]


def build(model: Path, serialization: Serialization, **options: object) -> Manifest:
    source = open_source(model)
    entries, _ = source.entries(Selection())
    return hashing.hash_model(source, entries, serialization, **options)  # type: ignore[arg-type]


def content(size: int) -> bytes:
    """Bytes that differ from place to place, the same every time."""
    block = random.Random(size).randbytes(999_983)
    return (block * (size // len(block) + 1))[:size]


# Known answers -----------------------------------------------------------------------------------

SIZES = [0, 1, 63, 16 << 10, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]


@posix
@pytest.mark.parametrize(("algorithm", "tool"), [("sha256", "sha256sum"), ("blake2b", "b2sum")])
def test_digests_are_those_of_coreutils(tmp_path: Path, algorithm: str, tool: str) -> None:
    for size in SIZES:
        (tmp_path / f"{size}.bin").write_bytes(content(size))
    run = subprocess.run(
        [tool, *sorted(p.name for p in tmp_path.iterdir())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    expected = {line.split("  ")[1]: line.split()[0] for line in run.stdout.splitlines()}
    assert build(tmp_path, how(algorithm)).digests == expected
    assert len(expected) == len(SIZES)


@pytest.mark.parametrize(
    ("length", "digest"),
    [  # BLAKE3-team/BLAKE3 test_vectors.json, first 32 bytes; input bytes count 0 to 250, repeating
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ],
)
def test_blake3_digests_are_the_published_ones(tmp_path: Path, length: int, digest: str) -> None:
    (tmp_path / "f").write_bytes((bytes(range(251)) * (length // 251 + 1))[:length])
    assert build(tmp_path, how("blake3")).digests == {"f": digest}


@posix
def test_shards_are_what_split_makes_of_the_file(tmp_path: Path) -> None:
    model, parts = tmp_path / "model", tmp_path / "parts"
    model.mkdir()
    parts.mkdir()
    (model / "w").write_bytes(content(2_500_000))
    subprocess.run(
        ["split", "-b", "1000000", model / "w", parts / "x"],
        check=True,
        timeout=300,
    )
    run = subprocess.run(
        ["sha256sum", *sorted(parts.iterdir())],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    digests = [line.split()[0] for line in run.stdout.splitlines()]
    names = ["w:0:1000000", "w:1000000:2000000", "w:2000000:2500000"]
    found = build(model, how(shard_size=1_000_000))
    assert found.digests == dict(zip(names, digests, strict=True))
    assert found.files == {"w": 2_500_000}


@pytest.mark.parametrize(
    ("size", "shards"), [(0, []), (1, ["0:1"]), (10, ["0:10"]), (11, ["0:10", "10:11"])]
)
def test_the_bounds_of_shards(size: int, shards: list[str]) -> None:
    assert [name for name, *_ in resources("w", size, 10)] == [f"w:{s}" for s in shards]


def test_the_manifest_is_sorted_by_code_points(tmp_path: Path) -> None:
    for name in ("a/b", "a.b", "B", "é", "\U0001f600", "\uffee"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert list(build(tmp_path, how()).digests) == [
        "B", "a.b", "a/b", "é", "\uffee", "\U0001f600"
    ]  # fmt: skip


@posix
@pytest.mark.parametrize("algorithm", ["sha256", "blake2b", "blake3"])
def test_large_files_are_right_at_every_boundary(tmp_path: Path, algorithm: str) -> None:
    size = 64 * MIB + 12345
    data = content(size)
    (tmp_path / "large").write_bytes(data)
    whole = build(tmp_path, how(algorithm)).digests["large"]
    state = hashing.hash_function(algorithm)()  # type: ignore[arg-type]
    state.update(data)
    assert whole == state.hexdigest()


# Who does the work -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny, middling and large files."""
    model = tmp_path_factory.mktemp("mixed")
    for index in range(600):
        (model / f"tiny-{index}").write_bytes(b"%d" % index)
    for index, size in enumerate((40_000, 5 * MIB, 9 * MIB, 70 * MIB)):
        (model / f"large-{index}").write_bytes(content(size))
    return model


@pytest.mark.parametrize("jobs", [2, 3, 16])
@pytest.mark.parametrize("shard_size", [None, 7 * MIB])
def test_the_number_of_jobs_changes_nothing(mixed: Path, jobs: int, shard_size: int | None) -> None:
    serialization = how(shard_size=shard_size)
    assert build(mixed, serialization, jobs=jobs) == build(mixed, serialization, jobs=1)


@pytest.mark.parametrize(
    "make",
    [ThreadPoolExecutor, lambda: ProcessPoolExecutor(2, get_context("spawn"))],
    ids=["threads", "processes"],
)
def test_any_executor_can_do_the_work(mixed: Path, make: Callable[[], Executor]) -> None:
    seen: list[tuple[int, int]] = []
    with make() as executor:
        found = build(
            mixed, how(), executor=executor, progress=lambda done, total: seen.append((done, total))
        )
    assert found == build(mixed, how(), jobs=1)
    assert seen[-1][0] == seen[-1][1]
    assert len(seen) >= 4


@pytest.mark.parametrize(
    ("sizes", "threads"), [([10] * 5, 2), ([10] * 4, 3), ([16, 9, 9, 9], 2), ([3] * 7 + [12], 3)]
)
def test_threads_end_together_however_few_files_there_are(
    sizes: list[int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = InStep("m", {str(n): b"x" * MIB * size for n, size in enumerate(sizes)}, threads)
    entries, _ = source.entries(Selection())
    join = threading.Thread.join

    def has_no_work(thread: threading.Thread, timeout: float | None = None) -> None:
        source.ended.add(threading.current_thread())
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", has_no_work)
    found = hashing.hash_model(source, entries, how(), jobs=threads)
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in source.files.items()}
    assert found.digests == expected
    # Five files of ten pieces: by whole files one of two threads would have thirty of the fifty.
    assert sum(source.pieces.values()) == sum(sizes)
    assert max(source.pieces.values()) <= -(-sum(sizes) // threads) + 2


class InStep(MemorySource):
    """Counts the pieces that each thread takes; none takes one while another has fewer."""

    def __init__(self, name: str, files: dict[str, bytes], threads: int) -> None:
        super().__init__(name, files)
        self.pieces: Counter[threading.Thread] = Counter()
        self.ended: set[threading.Thread] = set()
        self.begun, self.lock = threading.Barrier(threads), threading.Lock()

    def read(self, *args: Any) -> Iterator[Buffer]:
        for piece in super().read(*args):
            thread = threading.current_thread()  # which may change in the middle of a file
            if thread not in self.pieces:
                self.pieces[thread] = 0
                self.begun.wait(300)
            while any(self.is_behind(other, thread) for other in list(self.pieces)):
                time.sleep(0.001)
            with self.lock:
                self.pieces[thread] += 1
            yield piece

    def is_behind(self, other: threading.Thread, thread: threading.Thread) -> bool:
        works = other.is_alive() and other not in self.ended
        return works and self.pieces[other] < self.pieces[thread]


@pytest.mark.parametrize("allowed", [0, 1])
def test_fewer_threads_than_asked_for_do_all_the_work(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    expected, start, begun = build(mixed, how(), jobs=1), threading.Thread.start, []

    def limited_start(thread: threading.Thread) -> None:
        if len(begun) >= allowed:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited_start)
    assert build(mixed, how(), jobs=4) == expected
    assert len(begun) == allowed
    assert not any(thread.is_alive() for thread in begun)


@pytest.fixture
def very_large(tmp_path: Path) -> Path:
    """A file whose bytes differ from place to place, and that takes next to no disk."""
    model = tmp_path / "w"
    with model.open("wb") as file:
        for at in range(0, 270 * MIB, 700_001):
            file.seek(at)
            file.write(at.to_bytes(8, "big"))
    return model


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_a_core_without_work_reads_ahead_for_another(
    very_large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: set[int] = set()
    helped: set[int] = set()
    expected = build(very_large, how(), jobs=1, progress=lambda *_: alone.add(len(readers())))
    found = build(very_large, how(), jobs=2, progress=lambda *_: helped.add(len(readers())))
    assert found == expected
    assert (max(alone), max(helped)) == (0, 1)
    assert not readers()

    def never(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", never)
    assert build(very_large, how(), jobs=2) == expected


@posix
@pytest.mark.parametrize("stop", [FileError, KeyboardInterrupt])
def test_reading_ahead_ends_with_the_file_and_with_the_work(
    very_large: Path, stop: type[BaseException]
) -> None:
    def in_the_middle(*_: int) -> None:
        if readers() and stop is KeyboardInterrupt:
            raise stop
        os.truncate(very_large, 64 * MIB)

    with pytest.raises(stop):
        build(very_large, how(), jobs=2, progress=in_the_middle)
    assert not readers()


def test_progress_grows_to_the_total(mixed: Path) -> None:
    seen: list[tuple[int, int]] = []
    build(mixed, how(), jobs=2, progress=lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in mixed.iterdir())
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


class CountingExecutor(ThreadPoolExecutor):
    """Counts what it is given."""

    submitted = 0

    def submit(self, *args: object, **options: object) -> object:  # type: ignore[override]
        self.submitted += 1
        return super().submit(*args, **options)  # type: ignore[arg-type]


def test_small_files_share_futures(tmp_path: Path) -> None:
    for index in range(500):
        (tmp_path / str(index)).write_bytes(b"")
    with CountingExecutor() as executor:
        build(tmp_path, how(), executor=executor)
    assert executor.submitted < 10


def test_shards_too_small_for_the_model_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "w").open("wb") as file:
        file.truncate(10 * MAX_FILES)
    with pytest.raises(UsageError, match="too small"):
        build(tmp_path, how(shard_size=1))


@pytest.mark.slow
@posix
@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_memory_does_not_grow_with_the_model(tmp_path: Path, algorithm: str) -> None:
    peaks = []
    for size in (MIB, 200 * MIB):
        with (tmp_path / "w").open("wb") as file:
            file.truncate(size)  # a sparse file is read as any other
        script = (
            "import resource, sys; from pathlib import Path; import model_signing as m; "
            f"m.digest(Path(sys.argv[1]), m.HashOptions(algorithm='{algorithm}')); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        run = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        peaks.append(int(run.stdout))
    assert peaks[1] < peaks[0] + 40_000  # kB: buffers, not the model


# What changes meanwhile --------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    """Same size and, by `utime`, same modification time."""
    status = path.stat()
    time.sleep(0.02)  # the kernel's clock for such times is coarse
    path.write_bytes(b"y" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.write_bytes(b"x" * 100)


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwritten, times set back": overwrite,
    "truncated": lambda path: os.truncate(path, 10),
    "grown": lambda path: path.write_bytes(b"x" * 101),
    "replaced by an equal file": replace,
    "replaced by a link to itself": link,
    "replaced by a FIFO": fifo,
    "removed": lambda path: path.unlink(),
    "replaced by a directory": lambda path: (path.unlink(), path.mkdir()),
}


@posix
@pytest.mark.parametrize("shard_size", [None, 60])
@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_changes_after_enumeration_is_refused(
    tmp_path: Path, case: str, shard_size: int | None
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "w").write_bytes(b"x" * 100)
    source = open_source(model)
    entries, _ = source.entries(Selection())
    CHANGES[case](model / "w")
    with pytest.raises(FileError) as refusal:
        hashing.hash_model(source, entries, how(shard_size=shard_size))
    assert refusal.value.where == str(model / "w")


@pytest.mark.slow
@posix
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_that_changes_while_it_is_hashed_is_refused(tmp_path: Path, jobs: int) -> None:
    for name in ("v", "w"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(600 * MIB)
    written: list[int] = []

    def change(done: int, _total: int) -> None:
        if done > 5 * MIB and not written:
            with (tmp_path / "w").open("r+b") as file:
                written.append(file.write(b"another beginning"))

    with pytest.raises(FileError, match="changed while it was being hashed"):
        build(tmp_path, how(), jobs=jobs, progress=change)
    assert written


@contextlib.contextmanager
def started(script: str, model: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to hash a model, and says "go" at every piece."""
    command = [sys.executable, "-c", script, str(model)]
    with limited(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "go\n"
        yield run


@posix
def test_one_failure_stops_the_rest_and_leaves_nothing_open(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # minutes of hashing
    (tmp_path / "w").write_bytes(content(2 * MIB))
    folder = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    before = len(list(folder.iterdir()))

    def fail(_done: int, _total: int) -> None:
        raise FileError("enough")

    with pytest.raises(FileError, match="enough"):  # while somebody holds the error
        build(tmp_path, how(), jobs=2, progress=fail)
    assert len(list(folder.iterdir())) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "hash"]


def test_one_failure_stops_the_rest_however_slowly_its_bytes_come() -> None:
    read: list[bytes] = []

    class Slow(MemorySource):
        def read(self, name: str, *how: Any) -> Iterator[Buffer]:
            if name == "broken":
                raise FileError("enough")
            for piece in super().read(name, *how):
                read.append(bytes(piece))
                yield piece

    files = {"broken": b"x", "slow": bytes(100_000)}  # a minute and a half to read
    source = Slow("model", files, piece=50, wait=0.05)
    with pytest.raises(FileError, match="enough"):
        build(source, how(), jobs=2)
    assert len(read) < 1000


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_does_not_wait_for_a_thread_whose_place_is_silent(
    monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    ended, waited_for = threading.Event(), list[str]()

    class Silent(MemorySource):
        def read(self, name: str, *how: Any) -> Iterator[Buffer]:
            if not ended.wait(60):
                waited_for.append(name)
            yield from super().read(name, *how)

    acquire = threading.Semaphore.acquire

    def interrupted(*_: Any, **how: Any) -> None:
        monkeypatch.setattr(threading.Semaphore, "acquire", acquire)
        raise KeyboardInterrupt

    monkeypatch.setattr(hashing, "_HEARD", 0.01)
    monkeypatch.setattr(hashing, "_ENDING", 0.01)
    monkeypatch.setattr(threading.Semaphore, "acquire", interrupted)
    files = {"a": b"x", "b": bytes(100_000)}
    with pytest.raises(KeyboardInterrupt):
        build(Silent("model", files), how(), jobs=jobs)
    ended.set()
    assert not waited_for


@posix
def test_ctrl_c_ends_the_work_at_once(tmp_path: Path) -> None:
    for name in ("v", "w"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)
    script = (
        "import sys; from pathlib import Path; import model_signing as m\n"
        "try: m.digest(Path(sys.argv[1]), m.HashOptions(jobs=2),"
        "    progress=lambda *_: print('go', flush=True))\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    with started(script, tmp_path) as run:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    assert run.returncode == 130


# How many cores ----------------------------------------------------------------------------------


def cgroup(folder: Path, **quotas: str) -> tuple[Path, Path]:
    """A mounted cgroup hierarchy with a group `a/b`, and the process's own entry in it."""
    (folder / "fs" / "a" / "b").mkdir(parents=True)
    (folder / "proc").mkdir()
    (folder / "proc" / "cgroup").write_text("0::/a/b\n")
    for level, quota in quotas.items():
        (folder / "fs" / {"root": ".", "a": "a", "b": "a/b"}[level] / "cpu.max").write_text(quota)
    return folder / "fs", folder / "proc"


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, 64),
        ({"b": "max 100000\n"}, 64),
        ({"b": "200000 100000\n"}, 2),
        ({"b": "150000 100000\n"}, 2),
        ({"b": "10000 100000\n"}, 1),
        ({"a": "300000 100000\n", "b": "max 100000\n"}, 3),
        ({"root": "400000 100000\n", "b": "5000000 100000\n"}, 4),
        ({"b": "9900000 100000\n"}, 64),
        ({"b": "nonsense"}, 64),
    ],
)
def test_a_containers_quota_limits_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quotas: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert hashing.default_jobs(*cgroup(tmp_path, **quotas)) == expected


def test_the_quota_of_cgroup_version_1_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    fs, proc = cgroup(tmp_path)
    (fs / "cpu").mkdir()
    (fs / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, expected in (("-1\n", 64), ("250000\n", 3)):
        (fs / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        assert hashing.default_jobs(fs, proc) == expected


def test_the_default_is_no_more_than_this_machine_has() -> None:
    assert 1 <= hashing.default_jobs() <= (os.cpu_count() or 1)
