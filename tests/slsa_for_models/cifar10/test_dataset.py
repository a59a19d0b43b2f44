"""CIFAR-10: archives and folders of every unhappy kind."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from slsa_for_models.cifar10 import dataset, plan, synthetic
from slsa_for_models.cifar10.archive import SHA256
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


# --- archives


def load(tmp_path: Path, data: bytes) -> dataset.Data:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return dataset.load_archive(path, sha256(data))


def test_archive(tmp_path: Path, content: bytes):
    data = load(tmp_path, content)
    assert data.train.images.shape == (50, 3, 32, 32)
    assert data.test.labels.tolist() == [*range(10)] * 2
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
    assert len(data.train.labels) == 50


def test_folder_with_the_archive_is_held_to_the_pinned_digest(tmp_path: Path, content: bytes):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises(DatasetError) as refusal:
        dataset.load_folder(tmp_path)
    assert refusal.value.expected == f"SHA-256 {SHA256}"


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


# --- as inputs of a training


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_a_folder_is_pinned_as_it_is(tmp_path: Path, below: str):
    folder = write(tmp_path / below, BATCHES)
    pins, files = plan.of_folder(tmp_path)
    assert {pin.path: pin.sha256 for pin in pins} == {
        name: sha256(data) for name, data in BATCHES.items()
    }
    assert {files[pin.sha256] for pin in pins} == {folder / name for name in BATCHES}
    assert all(pin.uris == () for pin in pins)  # nobody else can have them


def test_the_archive_has_one_digest_wherever_it_is(tmp_path: Path, content: bytes):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    (pin,), files = plan.of_folder(tmp_path)
    assert (pin.sha256, pin.uris[0][:8]) == (SHA256, "https://")
    assert files == {SHA256: tmp_path / "cifar-10-binary.tar.gz"}
    assert plan.the_archive(["https://m.test/a"])[0].uris == ("https://m.test/a",)


def test_a_folder_without_images(tmp_path: Path):
    for folder, message in ((tmp_path, "no CIFAR-10"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DatasetError, match=message):
            plan.of_folder(folder)
