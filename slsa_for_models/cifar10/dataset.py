"""CIFAR-10 and look-alikes in memory: of the pinned archive, of a folder, or made up.

Only the binary distribution is read (https://www.cs.toronto.edu/~kriz/cifar.html, "Binary
version"): six files of records of one label byte and 3,072 pixel bytes (1,024 red, green, blue;
row by row). Nothing is unpickled, and nothing is unpacked to disk: the bytes whose digest was
checked are the bytes that are decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from slsa_for_models.cifar10 import archive, synthetic
from slsa_for_models.cifar10.archive import BATCHES
from slsa_for_models.errors import DatasetError
from slsa_for_models.evidence.training_plan import dataset_digest

_RECORD_BYTES = 1 + 3 * 32 * 32
_MAX_BATCH_BYTES = 100_000 * _RECORD_BYTES

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Split:
    """Images (n, 3, 32, 32) and labels (n,), both of unsigned bytes."""

    images: Array
    labels: Array


@dataclass(frozen=True)
class Data:
    """A data set in memory."""

    train: Split
    test: Split


def load_archive(path: Path, sha256: str = archive.SHA256) -> Data:
    """The data set in CIFAR-10's binary archive.

    Args:
        path: A `.tar.gz` file.
        sha256: The only digest accepted, hexadecimal.

    Raises:
        DatasetError: Unreadable, another digest, or not an archive of six batches.
    """
    data = _read(path, archive.SIZE)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DatasetError(
            "the archive is not the CIFAR-10 archive",
            where=path.name,
            expected=f"SHA-256 {sha256}",
            found=f"{found} ({len(data):,} bytes)",
            fix="delete the file to download it again",
        )
    return _decode(_unpack(data))


def load_folder(folder: Path) -> Data:
    """The data set in a folder: the pinned archive, its unpacked batches, or others like them.

    Raises:
        DatasetError: Neither is there, or they are malformed.
    """
    if not folder.is_dir():
        raise DatasetError("there is no such folder", where=str(folder), fix=archive.WAYS_OUT)
    if (folder / archive.NAME).is_file():
        return load_archive(folder / archive.NAME)
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / BATCHES[0]).is_file():
            return _decode({name: _read(place / name, _MAX_BATCH_BYTES) for name in BATCHES})
    raise DatasetError(
        "there is no CIFAR-10 in this folder",
        where=str(folder),
        expected=f"{archive.NAME}, or {BATCHES[0]} to {BATCHES[-1]}, "
        "here or in cifar-10-batches-bin/",
    )


def made_up(train_images: int, test_images: int, seed: int, cache: Path) -> Path:
    """A folder with the synthetic set of that size, made now or, unchanged, on an earlier run.

    Raises:
        DatasetError: It cannot be stored.
    """
    sizes = (synthetic.VERSION, train_images, test_images, seed)
    folder = cache / "-".join(["synthetic", *map(str, sizes)])
    with contextlib.suppress(DatasetError, OSError):
        found = {name: _read(folder / name, _MAX_BATCH_BYTES) for name in BATCHES}
        if _read(folder / "sha256", 64).decode() == _listing(found):
            return folder
    batches = synthetic.batches(train_images, test_images, seed)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            for name, data in batches.items():
                (made / name).write_bytes(data)
            (made / "sha256").write_text(_listing(batches))
            with contextlib.suppress(FileExistsError):  # another run was faster
                made.rename(folder)
    except OSError as error:
        raise DatasetError(
            "the made-up images cannot be stored",
            where=str(cache),
            found=error.strerror or str(error),
            fix="name another folder in MODEL_TRANSPARENCY_CACHE",
        ) from error
    return folder


def _listing(batches: Mapping[str, bytes]) -> str:
    return (
        dataset_digest((name, hashlib.sha256(data).hexdigest()) for name, data in batches.items())
        or ""
    )


def _unpack(data: bytes) -> dict[str, bytes]:
    """The six batches in a `.tar.gz`, read in memory; refuses what could name another place."""
    batches = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise DatasetError(
                        "the archive has a path that leaves it", where=ascii(member.name)
                    )
                if not (member.isfile() or member.isdir()):
                    raise DatasetError(
                        "the archive has something that is neither file nor folder",
                        where=ascii(member.name),
                    )
                if path.name in BATCHES and member.isfile():
                    if path.name in batches:
                        raise DatasetError("the archive has a batch twice", where=path.name)
                    if member.size > _MAX_BATCH_BYTES:
                        raise DatasetError(
                            "the archive has a batch that is too large", where=ascii(member.name)
                        )
                    content = tar.extractfile(member)
                    batches[path.name] = content.read() if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DatasetError("the archive is damaged", found=str(error)) from error
    missing = [name for name in BATCHES if name not in batches]
    if missing:
        raise DatasetError("the archive lacks a batch", expected=missing[0])
    return batches


def _decode(batches: Mapping[str, bytes]) -> Data:
    """Turn the six files into arrays."""
    for file, data in batches.items():
        if not data or len(data) % _RECORD_BYTES:
            raise DatasetError(
                "a batch is not made of CIFAR-10 records",
                where=file,
                expected=f"a multiple of {_RECORD_BYTES} bytes",
                found=f"{len(data):,} bytes",
            )
        labels = np.frombuffer(data, np.uint8)[::_RECORD_BYTES]
        if labels.max() > 9:
            raise DatasetError(
                "a batch has a label that CIFAR-10 does not have",
                where=f"{file}, record {int((labels > 9).argmax())}",
                expected="0 to 9",
                found=str(labels.max()),
            )
    train = _split(b"".join(batches[file] for file in BATCHES[:-1]))
    test = _split(batches[BATCHES[-1]])
    return Data(train, test)


def _split(data: bytes) -> Split:
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD_BYTES)
    return Split(records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].copy())


def _read(path: Path, most: int) -> bytes:
    """The file's bytes, at most `most` of them."""
    try:
        with path.open("rb") as file:
            too_large = path.stat().st_size > most
            data = b"" if too_large else file.read(most + 1)
    except OSError as error:
        raise DatasetError(
            "the data set cannot be read", where=str(path), found=error.strerror or str(error)
        ) from error
    if too_large or len(data) > most:
        raise DatasetError(
            "a file of the data set is too large",
            where=str(path),
            expected=f"at most {most:,} bytes",
        )
    return data
