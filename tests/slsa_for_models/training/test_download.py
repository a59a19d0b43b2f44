"""Downloads over real sockets, from servers of every unhappy kind, by a clock that they move."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slsa_for_models import cli
from slsa_for_models.cifar10 import archive
from slsa_for_models.errors import DatasetError
from slsa_for_models.training import download
from slsa_for_models.training.download import PATIENCE, Patience, Wanted
from tests.support.clock import Clock

CONTENT = random.Random(0).randbytes(1_000_000)
HALF = len(CONTENT) // 2
WANTED = Wanted("the file", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Server:
    """An HTTP server with one file. `plan` has one entry for each request; then all goes well.

    An entry is what to do: a status, `(status, Retry-After)`, or the name of a method.
    """

    def __init__(
        self, clock: Clock, *plan: object, always: object = "whole", content: bytes = CONTENT
    ) -> None:
        self.plan, self.always, self.content = list(plan), always, content
        self.clock, self.ended = clock, threading.Event()
        self.ranges: list[str | None] = []
        handler = type("Handler", (Handler,), {"served": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/file"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """What a server may do."""

    served: Server

    def do_GET(self) -> None:
        step = self.served.plan.pop(0) if self.served.plan else self.served.always
        self.served.ranges.append(self.headers["Range"])
        self.start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if isinstance(step, str):
            getattr(self, step)()
        else:
            status, retry_after = step if isinstance(step, tuple) else (step, None)
            self.send_response(status)
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def head(self, start: int, length: int | None = None, **more: str) -> None:
        size = len(self.served.content)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if length != -1:
            self.send_header("Content-Length", str(length or size - start))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def whole(self) -> None:
        self.head(self.start)
        self.wfile.write(self.served.content[self.start :])

    def half(self) -> None:
        self.head(self.start)
        self.wfile.write(
            self.served.content[self.start : (self.start + len(self.served.content)) // 2]
        )

    def no_ranges(self) -> None:
        self.head(0)
        self.wfile.write(self.served.content)

    def no_length(self) -> None:
        self.head(0, -1)
        self.wfile.write(self.served.content)

    def another_range(self) -> None:
        self.head(self.start + 1)
        self.trickle_body()

    def no_range_named(self) -> None:
        self.send_response(206)
        self.end_headers()
        self.trickle_body()

    def said_to_be_packed(self) -> None:
        self.head(self.start, Content_Encoding="gzip")
        self.wfile.write(self.served.content[self.start :])

    def page(self) -> None:
        self.head(0, 20, Content_Type="text/html")
        self.trickle_body()

    def endless(self) -> None:
        self.head(0, -1)
        while True:
            self.wfile.write(bytes(100_000))

    def trickle(self) -> None:
        self.served.clock.slow = 25
        self.head(0)
        self.trickle_body()

    def trickle_body(self) -> None:
        while not self.served.ended.wait(0.05):
            self.wfile.write(b"x")

    def endless_headers(self) -> None:
        self.served.clock.slow = 25
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
        self.trickle_body()

    def silence(self) -> None:
        self.served.clock.slow = 25
        self.served.ended.wait(300)

    def to_a_dead_host(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:9/moved")
        self.end_headers()

    def to_nowhere(self) -> None:
        self.send_response(302)
        self.send_header("Location", "gopher://127.0.0.1/moved")
        self.end_headers()

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that a download looks at."""
    clock = Clock()
    monkeypatch.setattr(download, "time", clock)
    return clock


@pytest.fixture
def serve(clock: Clock) -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends them."""
    running: list[Server] = []

    def start(*plan: object, **options: object) -> Server:
        running.append(Server(clock, *plan, **options))
        return running[-1]

    yield start
    for server in running:
        server.ended.set()
        server.server.shutdown()
        server.server.server_close()


@pytest.fixture
def fetch(tmp_path: Path, clock: Clock) -> Callable[..., list[str]]:
    """Downloads to tmp_path/data/file; returns what was said, or what was refused."""

    def run(*servers: Server, patience: Patience = PATIENCE) -> list[str]:
        said: list[str] = []

        def say(line: str) -> None:
            clock.slow = 0  # a server is done with
            said.append(line)

        urls = [server.url for server in servers]
        target = tmp_path / "data" / "file"
        try:
            download.fetch(WANTED, urls, target, say, fix="stay at home", patience=patience)
        except DatasetError as refusal:
            assert list((tmp_path / "data").iterdir()) == []
            assert refusal.fix == "stay at home"
            return [str(refusal.found), *said]
        assert target.read_bytes() == CONTENT
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["file"]
        return said

    return run


def test_what_is_said(serve, fetch):
    said = fetch(serve())
    assert said[0] == "downloading the file from 127.0.0.1"
    assert said[-1].startswith("downloading the file: 0 of 0 MiB, ")


@pytest.mark.parametrize("failure", ["half", 408, 425, 429, 500, 502, 503, 504, 599])
def test_tries_again(serve, fetch, failure):
    server = serve(failure)
    assert any("trying again in 1 s" in line for line in fetch(server))
    assert len(server.ranges) == 2


def test_goes_on_where_it_stopped(serve, fetch):
    server = serve("half", "half")
    fetch(server)
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]


@pytest.mark.parametrize("plan", [["half", "no_ranges"], ["no_length"], ["said_to_be_packed"]])
def test_servers_that_are_odd_but_have_it(serve, fetch, plan):
    fetch(serve(*plan))


def test_a_server_that_will_not_go_on_is_left(serve, fetch):
    fetch(serve("half", 416), serve())


@pytest.mark.parametrize("status", [429, 503])
def test_waits_as_long_as_the_server_asks_for(serve, fetch, clock, status):
    server = serve((status, "17"))
    assert any("trying again in 17 s" in line for line in fetch(server))
    assert clock.now == 17


def test_waits_until_the_date_that_the_server_names(serve, fetch, clock):
    later = datetime.now(timezone.utc) + timedelta(seconds=1000)
    fetch(serve((503, format_datetime(later, usegmt=True))))
    assert 500 < clock.now <= 1000


@pytest.mark.parametrize("asked", ["soon", "-1", "", "9" * 400])
def test_what_no_date_is_does_no_harm(serve, fetch, asked):
    said = fetch(serve((503, asked), 404))
    assert "HTTP status 404" in said[0] or "too late" in said[0]


def test_does_not_wait_beyond_the_deadline(serve, fetch, clock):
    assert "HTTP status 503" in fetch(serve((503, "3600")))[0]
    assert clock.now == 0


@pytest.mark.parametrize(
    ("always", "found"),
    [
        ("half", "the connection ended early|IncompleteRead|Connection broken"),
        (500, "HTTP status 500 Internal Server Error"),
        (404, "HTTP status 404 Not Found"),
        (403, "HTTP status 403 Forbidden"),
        ("page", "another file, of 20 bytes"),
        ("endless", "another file, of more than 1,000,000 bytes"),
        ("no_range_named", "HTTP status 206"),
        ("to_a_dead_host", "refused"),
        ("to_nowhere", "not an address: .*gopher"),
        ("silence", "not done after 100 s"),
        ("trickle", "not done after 100 s"),
        ("endless_headers", "not done after 100 s"),
    ],
)
def test_the_only_server(serve, fetch, clock, always, found):
    said = fetch(serve(always=always), patience=replace(PATIENCE, window=0.2, deadline=100))
    assert clock.now < 200
    assert re.search(found, said[0]), said


def test_a_silent_server_is_left(serve, fetch):
    """Only the socket knows that it is, by the machine's clock."""
    server = serve(always="silence")
    server.clock = Clock()
    said = fetch(server, patience=replace(PATIENCE, silence=0.1))
    assert "timed out" in said[0]
    assert sum("trying again" in line for line in said) == PATIENCE.attempts - 1


@pytest.mark.parametrize(
    "always",
    [
        *("half", 500, 404, (503, "3600"), "page", "endless", "no_range_named", "to_a_dead_host"),
        *("to_nowhere", "trickle", "endless_headers", "silence"),
    ],
    ids=str,
)
def test_the_next_one_is_tried(serve, fetch, clock, always):
    """Soon: a server that is slow or asks to wait is left after a while, not at its deadline."""
    first, second = serve(always=always), serve()
    fetch(first, second)
    assert clock.now < PATIENCE.deadline / 10
    assert second.ranges == [None]


def test_another_range_is_noticed_at_once(serve, fetch):
    """Its body, of which no end comes, would fill the file with bytes of another place."""
    said = fetch(serve("half", "another_range"))
    assert f"another part than asked for: 'bytes {HALF + 1}-999999/1000000'" in said[0]


def test_bytes_of_one_server_are_not_mixed_with_those_of_another(serve, fetch):
    bad = serve(always="half", content=bytes(len(CONTENT)))
    good = serve()
    fetch(bad, good)
    assert good.ranges == [None]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:100] + b"x" + content[101:],
        lambda content: b"x",
    ],
    ids=["truncated", "grown", "altered", "tiny"],
)
def test_another_file_is_refused(serve, fetch, change):
    changed = change(CONTENT)
    (found, *_) = fetch(serve(content=changed))
    same_size = len(changed) == len(CONTENT)
    told = hashlib.sha256(changed).hexdigest() if same_size else f"of {len(changed)} bytes"
    assert found == f"127.0.0.1: another file, {'with SHA-256 ' if same_size else ''}{told}"
    fetch(serve(content=changed), serve())


def test_the_slow_one_is_asked_again_when_nobody_else_has_it(serve, fetch):
    slow = serve("trickle")
    said = fetch(slow, serve(always=404))
    assert any("slow, 0 kB/s" in line for line in said)
    assert len(slow.ranges) == 2


def test_every_server_is_named_when_all_have_failed(serve, fetch):
    found = fetch(serve(always=404), serve(always=410))[0]
    assert found == "127.0.0.1: HTTP status 404 Not Found; 127.0.0.1: HTTP status 410 Gone"


def test_a_password_in_an_address_is_not_shown(tmp_path: Path, clock: Clock):
    url = "http://user:hunter2@127.0.0.1:9/file?signature=hunter3"
    said: list[str] = []
    with pytest.raises(DatasetError) as refusal:
        download.fetch(WANTED, [url], tmp_path / "file", said.append, fix="x")
    assert "hunter" not in "".join([refusal.value.where, refusal.value.found, *said])


def test_where_nothing_can_be_stored(serve, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be stored"):
        download.fetch(WANTED, [serve().url], tmp_path / "file" / "x", print, fix="x")


# --- The command line, and CIFAR-10


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if CIFAR-10's archive were `CONTENT`."""
    monkeypatch.setattr(archive, "SHA256", WANTED.sha256)
    monkeypatch.setattr(archive, "SIZE", WANTED.size)
    monkeypatch.setenv("MODEL_TRANSPARENCY_CACHE", str(tmp_path / "cache"))


def test_the_data_set_is_fetched_for_several_trainings(small, serve, tmp_path, capsys):
    target = tmp_path / "data" / archive.NAME
    mirrors = f"{serve(always=404).url} {serve().url}"
    assert cli.main(["dataset", f"--output-dir={target.parent}", f"--dataset-url={mirrors}"]) == 0
    assert capsys.readouterr().out == f"{target}  sha256:{archive.SHA256}\n"
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("urls", ["", " ", "foo", "ftp://x/y", "https://x/y file:///z"])
def test_what_is_no_address_is_told_before_anything_else(tmp_path: Path, capsys, urls):
    assert cli.main(["dataset", f"--output-dir={tmp_path}", "--dataset-url", urls]) == 2
    assert "--dataset-url" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_pinned_digest_counts_on_a_mirror_too(serve, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("MODEL_TRANSPARENCY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(archive, "SIZE", WANTED.size)
    command = ["dataset", f"--output-dir={tmp_path}", "--dataset-url", serve().url]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert archive.SHA256 in error and WANTED.sha256 in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_a_network_every_way_out_is_named(capsys, tmp_path: Path, clock: Clock):
    # Nobody listens on the discard port of this machine.
    command = ["dataset", f"--output-dir={tmp_path}", "--dataset-url", "http://127.0.0.1:9/"]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    for way_out in ("--dataset-url", "--data-dir", "--dataset synthetic"):
        assert way_out in error


@pytest.mark.pytorch
def test_training_takes_it_from_the_mirror(small, serve, tmp_path, capfd):
    command = ["train", "pytorch_model.pth", f"--output-dir={tmp_path / 'out'}"]
    assert cli.main([*command, "--dataset-url", serve().url]) == 1
    error = capfd.readouterr().err
    assert "downloading CIFAR-10 from 127.0.0.1" in error
    assert "the archive is" in error  # damaged, or by its digest another one
