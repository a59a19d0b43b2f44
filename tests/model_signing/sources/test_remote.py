"""What a place elsewhere may list, and how its bytes are fetched."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

import model_signing
from model_signing import sources
from model_signing.cli import main
from model_signing.errors import DependencyError, FileError
from model_signing.oms.names import Selection
from model_signing.sources import Buffer, Entry, ahead, open_source, remote
from tests.support.material import ROOT
from tests.support.memory_source import MemorySource

ONE = Entry(1, "v1")


def listed(*names: str, selection: Selection | None = None) -> tuple[list[str], list[str]]:
    selection = selection or Selection((".git", ".gitattributes"))
    files, unsigned = remote.listed(((name, ONE) for name in names), selection, "mem://model")
    return list(files), unsigned


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../evil", "leads out of the model"),
        ("a/../../evil", "leads out of the model"),
        (".git/../evil", "leads out of the model"),
        ("/etc/passwd", "is absolute"),
        ("//host/share", "is absolute"),
        ("", "is not canonical"),
        ("a//b", "is not canonical"),
        ("./a", "is not canonical"),
        ("a/.", "is not canonical"),
        ("a/", "is not canonical"),
        ("a\nb", "has control characters"),
        ("a\x1b[2Jb", "has control characters"),
        ("a\x85b", "has control characters"),
        ("a\udc80b", "is not UTF-8"),
        ("a" * 4097, "is too long"),
    ],
)
def test_a_name_that_no_file_of_a_model_has_is_refused(name: str, problem: str) -> None:
    with pytest.raises(FileError, match=problem) as refusal:
        listed("config.json", name)
    assert refusal.value.where == "mem://model"
    assert str(refusal.value).isprintable() or "\n  found" in str(refusal.value)


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(FileError, match="listed twice"):
        listed("a", "b", "a")
    with pytest.raises(FileError, match="a file and a folder") as refusal:
        listed("a/b/c", "a/b", "x")
    assert refusal.value.found == "a/b"


@pytest.mark.slow
def test_a_listing_without_end_is_refused_in_bounded_memory() -> None:
    given = 0

    def endless() -> Iterator[tuple[str, Entry]]:
        nonlocal given
        while True:
            given += 1
            yield f"{given}/{'x' * 4000}", ONE

    with pytest.raises(FileError, match="too many files"):
        remote.listed(endless(), Selection(), "mem://model")
    assert given < 70_000  # 256 MiB of names


def test_what_the_specification_leaves_out_is_left_out_as_in_a_folder() -> None:
    names = (
        ".gitattributes",
        ".git/config",
        "a/.git/x",
        "w.bin",
        ".model_signing-" + "0" * 16 + ".tmp",
    )
    assert listed(*names) == (["a/.git/x", "w.bin"], [])
    chosen = Selection((".git",), listed=["a/b/c", ".git/kept"], only_listed=True)
    files, unsigned = listed(
        "a/b/c", "a/d/e", "a/d/f", "x/y/z", ".git/kept", ".git/o", selection=chosen
    )
    assert files == ["a/b/c", ".git/kept"]
    assert unsigned == ["a/d", "x"]  # folders as a whole


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PIECE", 10)
    monkeypatch.setattr(remote, "ROOM", 10)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)


@pytest.fixture
def slow(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request is found too slow as soon as it gives anything."""
    monkeypatch.setattr(remote, "JUDGED", 0.0)


def read(ask: remote.Ask, start: int, stop: int) -> bytes:
    return b"".join(map(bytes, remote.pieces(ask, start, stop, "mem://model/x")))


def test_one_request_is_enough_where_it_is_not_waited_for(small: None) -> None:
    asked: list[tuple[int, int]] = []

    def ask(start: int, stop: int) -> Iterator[bytes]:
        asked.append((start, stop))
        for count in range(start, stop):
            yield bytes([count])
            yield b""

    assert read(ask, 3, 253) == bytes(range(3, 253))
    assert asked == [(3, 253)]
    assert read(ask, 5, 5) == b""
    assert asked == [(3, 253)]


def test_pieces_come_in_order_a_few_at_a_time(slow: None) -> None:
    data = bytes(range(256))
    now, most, lock = 0, 0, threading.Lock()
    ended = threading.Event()

    def ask(start: int, stop: int) -> Iterator[bytes]:
        nonlocal now, most
        if start == 3:
            try:
                yield data[3:13]
                yield from iter(lambda: b"never", None)
            finally:
                ended.set()
        with lock:
            now += 1
            most = max(most, now)
        time_of_day = 0.02 if start % 20 else 0.001  # the later ones come first
        threading.Event().wait(time_of_day)
        with lock:
            now -= 1
        yield data[start:stop]

    assert read(ask, 3, 253) == data[3:253]
    assert ended.is_set()  # nobody sends what nobody wants
    assert 1 < most <= remote.AHEAD
    assert read(ask, 5, 9) == data[5:9]


def test_a_place_without_ranges_is_not_asked_for_them(slow: None) -> None:
    def ask(start: int, stop: int) -> Iterator[bytes]:
        assert (start, stop) == (0, 100)
        yield from [bytes(10)] * 10

    read = remote.pieces(ask, 0, 100, "mem://model/x", divisible=lambda: False)
    assert b"".join(map(bytes, read)) == bytes(100)


@pytest.mark.parametrize("in_background", [True, False])
def test_where_no_more_threads_are_allowed_all_bytes_come(
    slow: None, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def ask(start: int, stop: int) -> Iterator[bytes]:
        yield from (bytes([count]) for count in range(start, stop))

    monkeypatch.setattr(threading.Thread, "start", refused)
    reading = remote.pieces(ask, 0, 50, "mem://model/x", in_background=in_background)
    assert b"".join(map(bytes, reading)) == bytes(range(50))


@pytest.mark.parametrize("judged", [0.0, 1e9], ids=["ranges", "one request"])
def test_ctrl_c_does_not_wait_for_a_place_that_is_silent(
    small: None, monkeypatch: pytest.MonkeyPatch, judged: float
) -> None:
    ended, waited_for = threading.Event(), list[int]()

    def ask(start: int, stop: int) -> Iterator[bytes]:
        yield from [bytes(10)] * (10 if judged == start == 0 else 1)
        if (judged or start > 10) and not ended.wait(60):
            waited_for.append(start)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "JUDGED", judged)
    monkeypatch.setattr(ahead, "_HEARD", 0.01)
    reading = remote.pieces(ask, 0, 1000, "mem://model/x")
    next(reading)
    if judged == 0.0:
        next(reading)
    monkeypatch.setattr(ahead, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(reading)
    assert not ended.is_set()
    ended.set()
    assert not waited_for


def test_a_reader_that_stops_asks_for_no_more(slow: None) -> None:
    asked: list[int] = []

    def ask(start: int, stop: int) -> Iterator[bytes]:
        asked.append(start)
        yield from [bytes(10)] * ((stop - start) // 10)

    reading = remote.pieces(ask, 0, 10_000, "mem://model/x")
    next(reading)
    next(reading)
    reading.close()
    assert 1 < len(asked) <= remote.AHEAD + 2


def test_a_reader_that_nobody_closes_does_not_keep_the_process() -> None:
    script = (
        "from model_signing.sources import remote\n"
        "read = remote.pieces(lambda *_: iter([bytes(1 << 20)] * 100), 0, 100 << 20, 'mem://x')\n"
        "next(read)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=ROOT)


SENT = {
    "nothing": [],
    "less": [b"1234", b"56789"],
    "more": [b"1234567", b"8901"],
    "then more": [b"1234567", b"890", b"1"],
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
@pytest.mark.parametrize("first", [True, False], ids=["the first", "a later one"])
def test_other_bytes_than_asked_for_are_refused(slow: None, sent: list[bytes], first: bool) -> None:
    def ask(start: int, stop: int) -> Iterator[bytes]:
        yield from sent if first == (start == 0) else [bytes(10)]

    with pytest.raises(FileError, match=r"(other|more) bytes than were asked for"):
        read(ask, 0, 10 if first else 30)


@pytest.mark.parametrize("judged", [0.0, 1e9], ids=["ranges", "one request"])
def test_what_breaks_is_asked_for_again_from_where_it_was(
    small: None, monkeypatch: pytest.MonkeyPatch, judged: float
) -> None:
    monkeypatch.setattr(remote, "JUDGED", judged)
    failures = {0: 2, 20: 4}

    def ask(start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop + 10, 10):
            if failures.get(first):
                failures[first] -= 1
                error = remote.failure(503, "mem://model/x")
                raise error
            if first < stop:
                yield bytes([first] * 10)

    whole = bytes([0] * 10 + [10] * 10 + [20] * 10)
    assert read(ask, 0, 30) == whole
    assert not any(failures.values())
    failures[10] = 1000
    with pytest.raises(FileError, match="a failure of its own"):
        read(ask, 0, 30)
    failures = {30: 1}  # when all is there already
    assert read(ask, 0, 30) == whole
    assert not failures[30]


@pytest.mark.parametrize("judged", [0.0, 1e9], ids=["ranges", "one request"])
def test_who_hangs_up_after_next_to_nothing_is_not_asked_for_ever(
    small: None, monkeypatch: pytest.MonkeyPatch, judged: float
) -> None:
    monkeypatch.setattr(remote, "JUDGED", judged)
    asked: list[int] = []
    most = 1

    def ask(start: int, stop: int) -> Iterator[bytes]:
        asked.append(start)
        yield bytes([start] * min(most, stop - start))
        raise remote.failure(503, "mem://model/x")

    with pytest.raises(FileError, match="a failure of its own"):
        read(ask, 0, 200)
    assert len(asked) <= (1 + remote.AHEAD) * remote.TRIES
    most = 10  # which is something
    assert read(ask, 0, 200) == b"".join(bytes([start] * 10) for start in range(0, 200, 10))


def test_a_place_that_asks_to_wait_is_given_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30))
    answers: list[str | None] = ["7", later, "soon", None]

    def request() -> str:
        if answers:
            raise remote.failure(429, "mem://model", retry_after=answers.pop(0))
        return "done"

    assert remote.patiently(request) == "done"
    assert waited[0] == 7
    assert 10 < waited[1] <= 30
    assert waited[2:] == [2.0, 4.0]
    answers[:] = ["3600"]  # longer than anybody waits
    with pytest.raises(FileError, match="too many requests"):
        remote.patiently(request)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "credential"), (403, "refused"), (404, "no such"), (416, "shorter"), (418, "HTTP 418")],
)
def test_a_failure_that_does_not_pass_is_told_at_once(status: int, message: str) -> None:
    error = remote.failure(
        status, "mem://model", said="\x1b[2Jgo? away\nfrom http://me:pw@x/y?sig=s"
    )
    assert isinstance(error, FileError)
    assert message in str(error)
    assert "\x1b" not in str(error)
    assert "go? away\\nfrom http://x/y\n" in f"{error}\n"


def test_an_address_without_its_client_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sources.PLACES, "mem", ("missing", "object-storage"))

    def missing(name: str) -> object:
        raise ModuleNotFoundError(name="obstore")

    monkeypatch.setattr(sources, "import_module", missing)
    with pytest.raises(DependencyError, match="obstore") as refusal:
        open_source("mem://bucket/model")
    assert refusal.value.fix == "pip install 'model-transparency[object-storage]'"


def test_many_reads_together_hold_few_pieces(slow: None) -> None:
    """Also those in the middle of which nobody reads on."""
    lock, fetched = threading.Lock(), 0

    def ask(start: int, stop: int) -> Iterator[bytes]:
        nonlocal fetched
        with lock:
            fetched += start > 0
        yield from [bytes(10)] * ((stop - start) // 10)

    def begun() -> Generator[Buffer, None, None]:
        reading = remote.pieces(ask, 0, 1010, "mem://model/x")
        next(reading)  # of one request
        next(reading)
        return reading

    reads = [begun() for _ in range(30)]
    assert fetched <= 2 * remote.AT_ONCE
    assert all(sum(map(len, one)) == 990 for one in reads)
    for _ in range(remote.AT_ONCE):  # every one was given back
        assert remote._requests.acquire(blocking=False)
    for _ in range(remote.AT_ONCE):
        remote._requests.release()
    for _ in range(20):
        begun().close()
    assert read(ask, 0, 100) == bytes(100)


def test_files_that_come_late_are_waited_for_together(tmp_path: Path) -> None:
    now, most, lock = 0, 0, threading.Lock()

    class Far(MemorySource):
        at_once = 8

        def read(self, name: str, *how: object) -> Iterator[bytes]:  # type: ignore[override]
            nonlocal now, most
            with lock:
                now += 1
                most = max(now, most)
            threading.Event().wait(0.01)
            with lock:
                now -= 1
            yield self.files[name]

    files = {f"{index}.json": str(index).encode() for index in range(200)}
    far, near = Far("model", files), MemorySource("model", files)
    assert model_signing.digest(far) == model_signing.digest(near)
    assert 4 <= most <= 8
    most = 0
    model_signing.digest(far, model_signing.HashOptions(jobs=1))  # as it is asked for
    assert most == 1


@pytest.mark.parametrize("address", ["https://example.com/model", "HF://org/model", "ftp://a"])
def test_another_kind_of_address_is_no_path(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["digest", address]) == 2
    said = capsys.readouterr().err
    assert "no such kind of address" in said
    assert "hf://, s3://, gs://, az://, oci://" in said
    (tmp_path / "odd:" / "name").mkdir(parents=True)
    (tmp_path / "odd:" / "name" / "file").touch()
    assert main(["digest", "odd://name"]) == 0  # a path all the same
