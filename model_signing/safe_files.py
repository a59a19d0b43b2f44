"""Files read with a bound on their size, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO, NoReturn

from model_signing.errors import BundleError, FileError
from model_signing.oms.bundle import MAX_BUNDLE_SIZE, is_bundle

_TEMPORARY = (".model_signing-", ".tmp")  # around 16 hexadecimal digits
_TEMPORARY_NAME = "[0-9a-f]{16}".join(map(re.escape, _TEMPORARY))
_IN_PYTHON = (
    "to verify, export the public key to a file; to sign, do it in Python, with "
    "model_signing.digest_signer around that service's client"
)
_KEY_SERVICES = {  # schemes of addresses -> what to do instead
    "pkcs11": "use the method pkcs11-key or pkcs11-certificate, with --pkcs11-uri",
    **dict.fromkeys(("awskms", "gcpkms", "azurekms", "hashivault", "hv", "k8s"), _IN_PYTHON),
    **dict.fromkeys(("http", "https"), "download it first, and look at what you get"),
    "file": "give the path alone",
}
_MAX_FROM_DEVICE = 1 << 20  # bytes
_STREAMS = ("__stdin__", "__stdout__", "__stderr__")
_MAX_LINKS = 40  # as Linux
_CANNOT_WRITE = "cannot write the file"


def read_bounded(path: Path, limit: int = MAX_BUNDLE_SIZE) -> bytes:
    """The bytes of a file; a `FileError` if it cannot be read, a `BundleError` above `limit`."""
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISCHR(status.st_mode):  # a device such as /dev/zero has no end
                limit = min(limit, _MAX_FROM_DEVICE)
            data = b"" if status.st_size > limit else _at_most(limit + 1, file, status.st_size)
    except (OSError, ValueError) as error:
        failed(os.fspath(path), error, "cannot read the file")
    if max(status.st_size, len(data)) > limit:
        expected = f"at most {limit} bytes"
        raise BundleError("the file is too large", where=str(path), expected=expected)
    return data


def _at_most(limit: int, file: FileIO, likely: int) -> bytes:
    """All of a file, or `limit` bytes; room is made for those it is likely to have."""
    data = file.read(min(likely + 1, limit))
    if 0 < len(data) == likely:  # of a file; a pipe has no size
        return data
    with BufferedReader(file) as more:
        return data + more.read(limit - len(data)) if data else data


Pem = bytes | str | os.PathLike[str]
"""PEM text, or the path of a file with it."""


def read_pem(source: Pem) -> tuple[bytes, str | None]:
    """The text and, for messages, the path; raises as `read_bounded`."""
    if isinstance(source, bytes):
        return source, None
    scheme = os.fspath(source).partition(":")[0].lower()
    if scheme in _KEY_SERVICES and not Path(source).exists():
        raise FileError(
            "a key is given as a file; this is an address",
            where=os.fspath(source),
            fix=_KEY_SERVICES[scheme],
        )
    return read_bounded(Path(source), 1024 * 1024), os.fspath(source)


def check_output(path: Path) -> None:
    """Fails before the work, not after it, where `write_atomic` could not write a bundle.

    Raises:
        FileError: As `write_atomic`; nothing was written.
    """
    try:
        place = _place(path)
        if isinstance(place, int):
            os.fstat(place)
        elif _goes_through(place):
            if not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        elif not (there := place.parent.is_dir()) or not os.access(place.parent, os.W_OK):
            found = "it is not writable" if there else "no such directory"
            where = os.fspath(place.parent)
            raise FileError("cannot write to the directory", where=where, found=found)
        else:
            _check_older(path, place)
    except (OSError, ValueError) as error:
        failed(os.fspath(path), error, _CANNOT_WRITE)


def write_atomic(path: Path, data: bytes, *, over_bundles_only: bool = False) -> None:
    """Writes a file so that it is there whole or not at all, also after a crash.

    An older file is replaced and its mode kept. What is no file stays what it is: a link's target
    is written to; a FIFO, a character device or an open descriptor (`/dev/stdout`) gets the bytes.

    Args:
        path: Where to write.
        data: What to write.
        over_bundles_only: An older file has to be empty or one Sigstore bundle.

    Raises:
        FileError: It cannot be written, or the older file may not be replaced. Nothing is left
            behind and an older file is untouched.
    """
    try:
        place = _place(path)
        if over_bundles_only and isinstance(place, Path):
            _check_older(path, place)
        if isinstance(place, int) or _goes_through(place):
            with open(place, "wb", closefd=isinstance(place, Path)) as file:
                file.write(data)
        else:
            _replace(place, data)
    except (OSError, ValueError) as error:
        failed(os.fspath(path), error, _CANNOT_WRITE)


def is_stdout(path: Path) -> bool:
    """Whether what is written to a path goes to standard output, such as `/dev/stdout`."""
    with suppress(OSError, ValueError):
        return _place(path) == 1
    return False


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `write_atomic` writes before it has its own name."""
    return name.startswith(_TEMPORARY[0]) and bool(re.fullmatch(_TEMPORARY_NAME, name))


def _place(path: Path) -> Path | int:
    """What a path leads to: a place, or a descriptor that is open already (`/dev/stdout`)."""
    descriptors, step = os.path.realpath("/dev/fd"), path
    for _ in range(_MAX_LINKS):
        if step.name.isdigit() and os.path.realpath(step.parent) == descriptors:
            number = int(step.name)
            if number < len(_STREAMS) and getattr(sys, _STREAMS[number]) is None:
                raise OSError(errno.EBADF, "it is closed")  # whatever has its number by now
            return number
        if not step.is_symlink():
            return Path(os.path.realpath(step))
        step = step.parent / step.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _goes_through(place: Path) -> bool:
    """Whether bytes go through what is there, rather than in its place."""
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    if not stat.S_ISREG(mode):
        found = "a directory" if stat.S_ISDIR(mode) else "a socket or a disk"
        raise OSError(errno.EINVAL, f"{found} is in its place")
    return False


def _check_older(path: Path, place: Path) -> None:
    """What would be replaced is a signature: never a key, a certificate, a part of a model."""
    if not place.is_file() or not place.stat().st_size:
        return
    with place.open("rb") as file:
        known = file.read(4096).lstrip().startswith(b"{")
    if not known or not is_bundle(read_bounded(place)):
        raise FileError(
            "the output would replace a file that is no signature",
            where=os.fspath(path),
            expected="a new file, or one older Sigstore bundle",
            fix="choose another name, or remove the file first",
        )


def _replace(place: Path, data: bytes) -> None:
    _remove_leftovers(place.parent)
    temporary, file = _temporary(place.parent)
    try:
        with file:
            file.write(data)
            file.flush()
            with suppress(FileNotFoundError):
                temporary.chmod(stat.S_IMODE(place.stat().st_mode))
            os.fsync(file.fileno())
            temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)  # there only if something went wrong
    sync_to_disk(place.parent)


def sync_to_disk(path: str | Path) -> None:
    """The bytes of a file, or what was renamed in a folder, are there after a crash, too."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def temporary_folder(place: Path, *, inherited: bool = False) -> Iterator[Path]:
    """A new folder in a place, for nobody else, that goes with all that is in it.

    One that a process left that was killed goes before.

    Args:
        place: Where.
        inherited: Whether it is also in use as long as programs run that this process becomes.
    """
    _remove_leftovers(place, folders=True)
    path, descriptor = _new_folder(place)
    try:
        if descriptor is not None:
            os.set_inheritable(descriptor, inherited)
        yield path
    finally:
        remove_folder(path)
        if descriptor is not None:
            os.close(descriptor)


def _new_folder(place: Path) -> tuple[Path, int | None]:
    """A new folder, locked: one that nobody has locked was left by a process that was killed."""
    while True:
        path = place / os.urandom(8).hex().join(_TEMPORARY)
        path.mkdir(0o700)
        if os.name == "nt":
            return path, None
        with suppress(FileNotFoundError):  # taken for a leftover before it was locked
            descriptor = os.open(path, os.O_RDONLY)
            _lock(descriptor)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def make_read_only(folder: Path) -> None:
    """Takes the right to write to a folder, and to all that is in it, from its owner, too."""
    if os.name == "nt":  # where what is read-only cannot be removed
        return
    for _, _, files, descriptor in os.fwalk(folder):
        for name in files:
            os.chmod(name, 0o444, dir_fd=descriptor)
        os.fchmod(descriptor, 0o555)


def remove_folder(folder: Path) -> None:
    """Removes a folder, as far as that goes, also one that is read-only."""
    from shutil import rmtree

    if os.name != "nt":
        with suppress(OSError):
            for _, _, _, descriptor in os.fwalk(folder):  # which follows no links
                os.fchmod(descriptor, 0o700)
    rmtree(folder, ignore_errors=True)


def _temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file, locked: one that nobody has locked was left by a process that was killed."""
    while True:
        path = folder / os.urandom(8).hex().join(_TEMPORARY)
        file = path.open("xb")
        _lock(file)
        if path.exists():  # not taken for a leftover before it was locked
            return path, file
        file.close()


def _remove_leftovers(folder: Path, *, folders: bool = False) -> None:
    """Files; `folders` only in a place for copies: anywhere else they may be a part of a model."""
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208 - a million names
    for name in filter(is_temporary, names):
        with suppress(OSError):  # what cannot be removed is left out of the model all the same
            _remove_leftover(folder / name, folders)


def _remove_leftover(leftover: Path, folders: bool) -> None:
    """Others may write to the same folder, such as /tmp: nothing of theirs is followed."""
    status = leftover.lstat()
    if stat.S_ISDIR(status.st_mode):
        if os.name == "nt" or not folders:  # where a folder has no lock, nobody knows what it is
            return
        descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            if status.st_uid == os.geteuid() and _lock(descriptor, wait=False):
                remove_folder(leftover)
        finally:
            os.close(descriptor)
    elif stat.S_ISREG(status.st_mode):
        nowait = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(leftover, os.O_RDONLY | nowait)
        try:
            if os.name == "nt" or _lock(descriptor, wait=False):  # Windows keeps what is open
                leftover.unlink()
        finally:
            os.close(descriptor)


def _lock(file: BinaryIO | int, *, wait: bool = True) -> bool:
    if os.name == "nt":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # somebody else has it; or there are no locks here, and nothing is removed
        return False
    return True


def failed(path: str, error: Exception, what: str = "cannot read a part of the model") -> NoReturn:
    """Raises the `FileError` for what the system does not let us do."""
    reason = getattr(error, "strerror", None) or str(error)
    raise FileError(what, where=path, found=reason) from error
