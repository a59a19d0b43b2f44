"""CIFAR-10 and look-alikes: from the pinned archive, from a folder, or made up.

Only the binary distribution is read (https://www.cs.toronto.edu/~kriz/cifar.html, "Binary
version"): six files of records of one label byte and 3,072 pixel bytes (1,024 red, green, blue;
row by row). Nothing is unpickled, and nothing is unpacked to disk: the bytes whose digest was
checked are the bytes that are decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from slsa_for_models.cifar10 import synthetic
from slsa_for_models.errors import DatasetError
from slsa_for_models.evidence.training_record import Dataset, File, listing_digest

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARCHIVE = "cifar-10-binary.tar.gz"

BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")

_RECORD_BYTES = 1 + 3 * 32 * 32
_MAX_BATCH_BYTES = 100_000 * _RECORD_BYTES
_MAX_ARCHIVE_BYTES = 200 * 1024 * 1024  # the archive has 170,052,171 bytes
_ATTEMPTS = 5
_TIMEOUT = 30  # seconds without a byte
_WAYS_OUT = (
    "give a copy on disk with --data-dir DIR (the archive or its unpacked folder), "
    "or train on made-up data with --dataset synthetic"
)

Array = np.ndarray[Any, np.dtype[Any]]
Say = Callable[[str], None]


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


def load_archive(path: Path, sha256: str = SHA256) -> Data:
    """The data set in CIFAR-10's binary archive.

    Args:
        path: A `.tar.gz` file.
        sha256: The only digest accepted, hexadecimal.

    Raises:
        DatasetError: Unreadable, another digest, or not an archive of six batches.
    """
    data = _read(path, _MAX_ARCHIVE_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DatasetError(
            "the archive is not the CIFAR-10 archive",
            where=path.name,
            expected=f"SHA-256 {sha256}",
            found=f"{found} ({len(data):,} bytes)",
            fix="delete the file to download it again",
        )
    return _decode(_unpack(data), name="cifar10", sha256=sha256, source=URL)


def load_folder(folder: Path) -> Data:
    """The data set in a folder: the pinned archive, its unpacked batches, or others like them.

    Raises:
        DatasetError: Neither is there, or they are malformed.
    """
    if not folder.is_dir():
        raise DatasetError("there is no such folder", where=str(folder), fix=_WAYS_OUT)
    if (folder / ARCHIVE).is_file():
        return load_archive(folder / ARCHIVE)
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / BATCHES[0]).is_file():
            batches = {name: _read(place / name, _MAX_BATCH_BYTES) for name in BATCHES}
            return _decode(batches, name="cifar10-directory")
    raise DatasetError(
        "there is no CIFAR-10 in this folder",
        where=str(folder),
        expected=f"{ARCHIVE}, or {BATCHES[0]} to {BATCHES[-1]}, here or in cifar-10-batches-bin/",
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


def download(target: Path, say: Say, url: str = URL, sha256: str = SHA256) -> None:
    """Fetch the archive to `target`, which appears only when whole and with the right digest.

    Args:
        target: Where the archive shall be; its folder is made.
        say: Takes progress, a line at a time.
        url: Any mirror: the digest decides, not the server.
        sha256: The only digest accepted, hexadecimal.

    Raises:
        DatasetError: It cannot be had from `url`, is another file there, or cannot be stored.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            partial = Path(folder, ARCHIVE)
            with partial.open("wb") as file:
                _fetch(url, file, say)
                file.flush()
                os.fsync(file.fileno())
            load_archive(partial, sha256)
            partial.replace(target)
    except OSError as error:
        raise DatasetError(
            "the data set cannot be stored", where=str(target.parent), found=error.strerror
        ) from error


def _fetch(url: str, file: BinaryIO, say: Say) -> None:
    """Write what is behind `url` to the file, going on where a broken connection stopped."""
    tenths, problem = 0, ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            say(f"downloading CIFAR-10: {problem}; trying again")
            time.sleep(attempt)
        try:
            total = 0
            for chunk, total in _receive(url, file.tell()):
                file.write(chunk)
                if file.tell() > _MAX_ARCHIVE_BYTES:
                    raise DatasetError("what is there is too large to be CIFAR-10", where=url)
                if total and file.tell() * 10 // total > tenths:
                    tenths = file.tell() * 10 // total
                    say(f"downloading CIFAR-10: {file.tell() >> 20} of {total >> 20} MiB")
            if file.tell() >= total:
                return
            problem = f"the connection ended after {file.tell():,} of {total:,} bytes"
        except _ConnectionError as error:
            problem = str(error)
    raise DatasetError("CIFAR-10 cannot be downloaded", where=url, found=problem, fix=_WAYS_OUT)


class _ConnectionError(Exception):
    """Worth another attempt."""


def _receive(url: str, start: int) -> Iterator[tuple[bytes, int]]:
    """What is behind `url` from byte `start` on, in pieces, each with the total size if known.

    Any scheme will do, even `file:`: only the bytes of the pinned digest pass.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            total = start + int(response.headers.get("Content-Length", -start))
            if start and response.status != HTTPStatus.PARTIAL_CONTENT:
                total -= start  # the server began again
                response.read(start)
            while chunk := response.read(1 << 20):
                yield chunk, total
    except urllib.error.HTTPError as error:
        problem = f"HTTP status {error.code} {error.reason}"
        if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise DatasetError(
                "CIFAR-10 cannot be downloaded", where=url, found=problem, fix=_WAYS_OUT
            ) from error
        raise _ConnectionError(problem) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _ConnectionError(str(getattr(error, "reason", error)) or repr(error)) from error


def _unpack(archive: bytes) -> dict[str, bytes]:
    """The six batches in a `.tar.gz`, read in memory; refuses what could name another place."""
    batches = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
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
