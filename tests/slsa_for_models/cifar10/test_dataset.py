"""CIFAR-10: downloads over a real socket, archives and folders of every unhappy kind."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="training needs a framework extra: NumPy is not installed")

from slsa_for_models import cli
from slsa_for_models.cifar10 import dataset, synthetic
from slsa_for_models.errors import DatasetError

BATCHES = synthetic.batches(50, 20, seed=0)


def archive(members: dict[str, bytes] | None = None, *extra: tarfile.TarInfo) -> bytes:
    """A .tar.gz laid out as CIFAR-10's."""
    if members is None:
        members = {f"cifar-10-batches-bin/{name}": data for name, data in BATCHES.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def content() -> bytes:
    return archive()


class Mirror:
    """An HTTP server with one file. `plan` has one entry for each request; then all goes well."""

    def __init__(self, content: bytes) -> None:
        self.content, self.plan, self.ranges = content, [], []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                step = mirror.plan.pop(0) if mirror.plan else "whole"
                mirror.ranges.append(self.headers["Range"])
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if isinstance(step, int):
                    self.send_error(step)
                    return
                ranges = step != "no ranges"
                body = mirror.content[start if ranges else 0 :]
                self.send_response(206 if ranges else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if step == "half" else body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/cifar-10-binary.tar.gz"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def mirror(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(dataset.time, "sleep", lambda seconds: None)
    running = Mirror(content)
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def fetch(mirror: Mirror, tmp_path: Path) -> Callable[[], list[str]]:
    """Downloads to tmp_path/data/archive; returns what was said."""

    def run() -> list[str]:
        said: list[str] = []
        target = tmp_path / "data" / "archive"
        dataset.download(target, said.append, mirror.url, sha256(archive_pinned))
        return said

    archive_pinned = mirror.content
    return run


def test_download(mirror: Mirror, fetch, tmp_path: Path):
    said = fetch()
    assert (tmp_path / "data/archive").read_bytes() == mirror.content
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["archive"]
    assert said[-1].startswith("downloading CIFAR-10: 0 of 0 MiB")


@pytest.mark.parametrize("failure", ["half", 500, 503])
def test_download_tries_again(mirror: Mirror, fetch, tmp_path: Path, failure):
    mirror.plan = [failure]
    said = fetch()
    assert (tmp_path / "data/archive").read_bytes() == mirror.content
    assert any("trying again" in line for line in said)


def test_download_goes_on_where_it_stopped(mirror: Mirror, fetch):
    mirror.plan = ["half"]
    fetch()
    assert mirror.ranges == ["bytes=0-", f"bytes={len(mirror.content) // 2}-"]


def test_download_from_a_server_that_begins_again(mirror: Mirror, fetch, tmp_path: Path):
    mirror.plan = ["half", "no ranges"]
    fetch()
    assert (tmp_path / "data/archive").read_bytes() == mirror.content


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (["half"] * 5, "the connection ended after"),
        ([500] * 5, "HTTP status 500"),
        ([404], "HTTP status 404"),
    ],
)
def test_download_that_fails_names_both_ways_out(mirror, fetch, tmp_path: Path, plan, found):
    mirror.plan = plan
    with pytest.raises(DatasetError) as refusal:
        fetch()
    assert found in refusal.value.found
    assert "--data-dir" in refusal.value.fix
    assert "--dataset synthetic" in refusal.value.fix
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:100] + b"x" + content[101:],
        lambda content: b"",
    ],
    ids=["truncated", "grown", "altered", "empty"],
)
def test_download_of_another_archive_is_refused_and_not_left(mirror, fetch, tmp_path, change):
    mirror.content = change(mirror.content)
    with pytest.raises(DatasetError, match="not the CIFAR-10 archive"):
        fetch()
    assert list((tmp_path / "data").iterdir()) == []


def test_endless_download_is_stopped(mirror, fetch, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dataset, "_MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(DatasetError, match="too large"):
        fetch()
    assert list((tmp_path / "data").iterdir()) == []


def test_command_line_checks_the_pinned_digest_of_a_mirror(mirror, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MODEL_TRANSPARENCY_CACHE", str(tmp_path / "cache"))
    command = ["train", "pytorch_model.pth", "--dataset-url", mirror.url]
    assert cli.main([*command, "--output-dir", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert dataset.SHA256 in error
    assert sha256(mirror.content) in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_command_line_without_network_or_data_names_both_ways_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MODEL_TRANSPARENCY_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset.time, "sleep", lambda seconds: None)
    # Nobody listens on the discard port of this machine.
    command = ["train", "pytorch_model.pth", "--dataset-url", "http://127.0.0.1:9/"]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert "--data-dir" in error
    assert "--dataset synthetic" in error


def test_download_where_nothing_can_be_stored(mirror: Mirror, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be stored"):
        dataset.download(tmp_path / "file" / "archive", print, mirror.url)


# --- archives


def load(tmp_path: Path, data: bytes) -> dataset.Data:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return dataset.load_archive(path, sha256(data))


def test_archive(tmp_path: Path, content: bytes):
    data = load(tmp_path, content)
    assert data.train.images.shape == (50, 3, 32, 32)
    assert data.test.labels.tolist() == [*range(10)] * 2
    assert data.description.name == "cifar10"
    assert data.description.sha256 == sha256(content)
    assert (data.description.train_images, data.description.test_images) == (50, 20)
    # The layout as the home page words it: label, then 1,024 bytes each of red, green and blue.
    record = BATCHES["data_batch_1.bin"][3073 : 2 * 3073]
    assert data.train.labels[1] == record[0]
    assert data.train.images[1, 2, 31, 30] == record[1 + 2 * 1024 + 31 * 32 + 30]
    assert list(tmp_path.iterdir()) == [tmp_path / "archive"], "nothing is unpacked"


@pytest.mark.parametrize("name", ["/etc/data_batch_1.bin", "../data_batch_1.bin", "a/../../b"])
def test_archive_with_a_path_that_escapes(tmp_path: Path, name: str):
    with pytest.raises(DatasetError, match="a path that leaves it"):
        load(tmp_path, archive({name: b""}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archive_with_something_else_than_files(tmp_path: Path, kind: bytes):
    link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    link.type, link.linkname = kind, "/etc/passwd"
    with pytest.raises(DatasetError, match="neither file nor folder"):
        load(tmp_path, archive(None, link))


def test_archive_without_a_batch(tmp_path: Path):
    with pytest.raises(DatasetError, match="lacks a batch") as refusal:
        load(
            tmp_path, archive({name: data for name, data in BATCHES.items() if name[:4] == "data"})
        )
    assert refusal.value.expected == "test_batch.bin"


def test_archive_with_a_batch_twice(tmp_path: Path):
    members = {f"{folder}/{name}": BATCHES[name] for folder in "ab" for name in BATCHES}
    with pytest.raises(DatasetError, match="twice"):
        load(tmp_path, archive(members))


def test_archive_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "_MAX_BATCH_BYTES", 1_000_000)
    members = {"data_batch_1.bin": bytes(1_000_001)}
    with pytest.raises(DatasetError, match="too large"):
        load(tmp_path, archive(members))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"not gzip",
        lambda data: gzip.compress(b"not tar"),
    ],
    ids=["cut", "not gzip", "not tar"],
)
def test_damaged_archive(tmp_path: Path, content: bytes, damage):
    with pytest.raises(DatasetError, match=r"damaged|lacks"):
        load(tmp_path, damage(content))


# --- folders


def write(folder: Path, batches: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in batches.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_folder(tmp_path: Path, below: str):
    write(tmp_path / below, BATCHES)
    data = dataset.load_folder(tmp_path)
    assert data.description.name == "cifar10-directory"
    assert data.description.files[5].sha256 == sha256(BATCHES["test_batch.bin"])
    assert len(data.train.labels) == 50


def test_folder_with_the_archive_is_held_to_the_pinned_digest(tmp_path: Path, content: bytes):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises(DatasetError) as refusal:
        dataset.load_folder(tmp_path)
    assert refusal.value.expected == f"SHA-256 {dataset.SHA256}"


def test_empty_folder(tmp_path: Path):
    with pytest.raises(DatasetError, match="no CIFAR-10 in this folder"):
        dataset.load_folder(tmp_path)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (b"", "not made of CIFAR-10 records"),
        (bytes(3073 * 2 + 1), "not made of CIFAR-10 records"),
        (bytes(3073) + b"\x0a" + bytes(3072), "a label that CIFAR-10 does not have"),
        (None, "cannot be read"),
    ],
    ids=["empty", "odd size", "label 10", "missing"],
)
def test_folder_with_a_bad_batch(tmp_path: Path, batch: bytes | None, message: str):
    write(tmp_path, BATCHES)
    if batch is None:
        (tmp_path / "data_batch_5.bin").unlink()
    else:
        (tmp_path / "data_batch_5.bin").write_bytes(batch)
    with pytest.raises(DatasetError, match=message) as refusal:
        dataset.load_folder(tmp_path)
    assert "data_batch_5.bin" in refusal.value.where


def test_folder_with_an_endless_batch(tmp_path: Path):
    write(tmp_path, BATCHES)
    with (tmp_path / "data_batch_1.bin").open("r+b") as file:
        file.truncate(10**12)  # a hole: no disk is used, nor memory
    with pytest.raises(DatasetError, match="too large"):
        dataset.load_folder(tmp_path)
