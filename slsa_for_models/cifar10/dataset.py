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
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from slsa_for_models.cifar10 import archive, synthetic
from slsa_for_models.errors import DatasetError
from slsa_for_models.evidence.training_record import Dataset, File, listing_digest

BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")

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
    """A data set in memory, and what the training record says of it."""

    train: Split
    test: Split
    description: Dataset


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
    return _decode(_unpack(data), name="cifar10", sha256=sha256, source=archive.URL)


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
            batches = {name: _read(place / name, _MAX_BATCH_BYTES) for name in BATCHES}
            return _decode(batches, name="cifar10-directory")
    raise DatasetError(
        "there is no CIFAR-10 in this folder",
        where=str(folder),
        expected=f"{archive.NAME}, or {BATCHES[0]} to {BATCHES[-1]}, "
        "here or in cifar-10-batches-bin/",
    )


def load_synthetic(train_images: int, test_images: int, seed: int, cache: Path) -> Data:
    """The synthetic set of that size, made now or, unchanged, on an earlier run."""
    parameters = {
        "generator": synthetic.VERSION,
        "train_images": train_images,
        "test_images": test_images,
        "seed": seed,
    }
    folder = cache / "-".join(["synthetic", *(str(value) for value in parameters.values())])
    with contextlib.suppress(DatasetError, OSError):
        batches = {name: _read(folder / name, _MAX_BATCH_BYTES) for name in BATCHES}
        if _read(folder / "sha256", 64).decode() == listing_digest(_files(batches)):
            return _decode(batches, name="synthetic", parameters=parameters)
    batches = synthetic.batches(train_images, test_images, seed)
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            for name, data in batches.items():
                (made / name).write_bytes(data)
            (made / "sha256").write_text(listing_digest(_files(batches)))
            made.rename(folder)
    return _decode(batches, name="synthetic", parameters=parameters)


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


def _decode(
    batches: Mapping[str, bytes],
    *,
    name: str,
    sha256: str | None = None,
    source: str | None = None,
    parameters: Mapping[str, int] | None = None,
) -> Data:
    """Turn the six files into arrays and describe them."""
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
    files = _files(batches)
    description = Dataset(
        name=name,
        sha256=sha256 or listing_digest(files),
        source=source,
        train_images=len(train.labels),
        test_images=len(test.labels),
        parameters=parameters or {},
        files=files,
    )
    return Data(train, test, description)


def _split(data: bytes) -> Split:
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD_BYTES)
    return Split(records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].copy())


def _files(batches: Mapping[str, bytes]) -> tuple[File, ...]:
    return tuple(
        File(name, hashlib.sha256(batches[name]).hexdigest(), len(batches[name]))
        for name in BATCHES
    )


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
