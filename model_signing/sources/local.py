"""A model on this machine (OMS 6.1, 6.2): a file, or a folder that is walked.

The walk never guesses: what it cannot read, represent or classify is an error, not an omission.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import FileError
from model_signing.oms.names import MAX_FILES, Selection, check_name, ignored
from model_signing.safe_files import failed, is_temporary
from model_signing.sources import AnyPath, Buffer, Entry

if TYPE_CHECKING:
    from threading import Semaphore

_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
# A FIFO swapped in for a file must not block us.
_FOLLOW = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_DO_NOT_FOLLOW = _FOLLOW | getattr(os, "O_NOFOLLOW", 0)
_UTF8 = sys.getfilesystemencoding() == "utf-8"
_HUB_KINDS = ("models--", "datasets--", "spaces--")
_CLONE = 0x40049409  # FICLONE of linux/fs.h, on most processors; elsewhere it is an unknown number
_VERSION = struct.Struct("=QQqqq")  # device, inode, size, both times
_SIZE = struct.Struct("=16xq")  # the size in it
_BUFFER_BYTES = 1 << 20  # stays in a core's cache between reading and hashing
_AHEAD_BYTES = 2 << 20  # at a time: another core's cache has them anyway
_WORTH_A_THREAD = 256 << 20  # bytes: in less, no time is won that its import does not take


class Listing(Mapping[str, Entry]):
    """Files as they were enumerated: an `Entry` is made when it is looked at.

    A million of them would take 350 MB, what is kept here takes 80.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        # In one piece: a million small objects between the names would leave holes when they go.
        self._versions = bytearray()

    def add(self, name: str, status: os.stat_result) -> None:
        """Notes a file."""
        self._numbers[name] = len(self._numbers)
        self._versions += _VERSION.pack(*_version(status))

    def use_names(self, names: Iterable[str]) -> None:
        """Takes these, which are the same, so that nobody keeps each of them twice."""
        before = self._numbers
        self._numbers = {name: before.pop(name) for name in names}

    def __getitem__(self, name: str) -> Entry:
        at = self._numbers[name] * _VERSION.size
        version = _VERSION.unpack_from(self._versions, at)
        return Entry(version[2], version)

    def size_of(self, name: str) -> int:
        """The size of a file; see `Sizes`."""
        size: int = _SIZE.unpack_from(self._versions, self._numbers[name] * _VERSION.size)[0]
        return size

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


@dataclass(frozen=True)
class LocalSource:
    """A model on this machine.

    Attributes:
        path: A folder, or a single file.
        allow_symlinks: Follow symbolic links that stay inside the model, or lead from a snapshot
            in Hugging Face's cache to its blobs; otherwise refuse any.
        same_machine: Whether who reads numbers devices as who enumerated the files did.
        piece: Bytes of a large file that are read at a time, into memory that begins with a page,
            so that a disk can take them from there; None: as hashing likes them best.
    """

    path: str
    allow_symlinks: bool = False
    same_machine: bool = True
    piece: int | None = None

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The model's own name (OMS 6.5), also for a path such as `.`."""
        return basename(Path(self.path))

    @cached_property
    def single(self) -> bool:
        """Whether it is one file rather than a folder.

        Raises:
            FileError: As `entries`.
        """
        return stat.S_ISREG(self._status().st_mode)

    def entries(self, selection: Selection) -> tuple[Mapping[str, Entry], list[str]]:
        """The regular files of the model (OMS 6.1), and what nobody signed; see `Source`.

        Raises:
            FileError: A part of the model cannot be read; a symbolic link that is refused (6.1.1);
                a FIFO, socket or device; a name that is not UTF-8 (6.1.2) or has control
                characters.
        """
        status = self._status()
        self.__dict__["single"] = stat.S_ISREG(status.st_mode)  # nobody looks again
        if self.single:
            return {check_name(self.name): _entry(status)}, []
        return self._walk(selection, (status.st_dev, status.st_ino))

    def for_others(self) -> LocalSource:
        """The same, for processes that stand elsewhere, perhaps on another machine."""
        return replace(self, path=os.path.abspath(self.path), same_machine=False)  # noqa: PTH100

    def _differs(self, listed: Hashable, found: tuple[int, ...]) -> bool:
        if self.same_machine or not isinstance(listed, tuple):
            return listed != found
        return listed[1:] != found[1:]

    def _status(self) -> os.stat_result:
        """6.1.1 holds for the model's own path too: a link there is as easily exchanged."""
        try:
            status = os.stat(self.path, follow_symlinks=self.allow_symlinks)  # noqa: PTH116
        except (OSError, ValueError) as error:
            failed(self.path, error, "cannot read the model")
        if stat.S_ISLNK(status.st_mode):
            target = os.path.realpath(self.path)
            raise FileError(
                "the model's own path is a symbolic link (OMS 6.1.1)",
                where=self.path,
                found=f"a link to {target}",
                fix=f"name what it leads to, {target}, or follow links with --allow-symlinks",
            )
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise FileError("a model is a file or a directory", where=self.path)
        return status

    def _walk(
        self, selection: Selection, root: tuple[int, int]
    ) -> tuple[Mapping[str, Entry], list[str]]:
        roots = _roots(os.path.realpath(self.path)) if self.allow_symlinks else ()
        files = Listing()
        unsigned: list[str] = []
        # A directory's prefix, and which it and those above it are.
        pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (root,))]
        while pending:
            prefix, above = pending.pop()
            for entry in _scan(f"{self.path}/{on_disk(prefix)}"):
                name = prefix + _canonical(entry.name)
                hidden = entry.name[0] == "."  # as leftovers are
                if not selection.takes(name) or (hidden and _is_leftover(entry, name, selection)):
                    if selection.unsigned(name):
                        unsigned.append(name)
                    continue
                if entry.is_symlink():
                    _check_link(entry.path, roots)
                status = _status_of(entry, self.allow_symlinks)
                if stat.S_ISREG(status.st_mode):
                    files.add(check_name(name), status)
                    continue
                identity = _folder(entry, status)
                if identity in above:
                    circle = "a symbolic link leads back to a directory above it (OMS 6.1.1)"
                    raise FileError(circle, where=entry.path)
                pending.append((name + "/", (*above, identity)))
            if len(files) > MAX_FILES:
                raise FileError("the model has too many files", expected=f"at most {MAX_FILES}")
        return files, unsigned

    def read(
        self, name: str, entry: Entry, start: int, stop: int, spare: Semaphore | None = None
    ) -> Iterator[Buffer]:
        """These bytes of a file, of a large one ahead while a core is `spare`; see `Source`."""
        try:
            descriptor = self._open(name)
            try:
                if start:
                    os.lseek(descriptor, start, os.SEEK_SET)
                length = stop - start
                if length <= _BUFFER_BYTES:
                    data = os.read(descriptor, length)
                    yield data if len(data) == length else _longer(data, descriptor, length)
                else:
                    yield from _pieces(descriptor, length, spare, self.piece)
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            failed(self._path(name), error)
        self._check(name, entry, status)

    def clone(self, name: str, entry: Entry, target: int) -> bool:
        """Whether an empty open file could be given the bytes of this one without a copy.

        Both share them until one of the two is written to, which then has its own. Not every file
        system can do that.

        Raises:
            FileError: It is not the one that was listed.
        """
        if sys.platform != "linux":
            return False
        import fcntl

        try:
            descriptor = self._open(name)
            try:
                fcntl.ioctl(target, _CLONE, descriptor)
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, ValueError):  # reading it says what is wrong
            return False
        self._check(name, entry, status)
        return True

    def _path(self, name: str) -> str:
        return self.path if self.single else f"{self.path}/{on_disk(name)}"

    def _open(self, name: str) -> int:
        """Never follows a link unasked."""
        return os.open(self._path(name), _FOLLOW if self.allow_symlinks else _DO_NOT_FOLLOW)

    def _check(self, name: str, entry: Entry, status: os.stat_result) -> None:
        if entry.version is not None and self._differs(entry.version, _version(status)):
            raise FileError(
                "the file changed while it was being hashed",
                where=self._path(name),
                fix="wait until nothing writes to the model, then try again",
            )


def _canonical(name: str) -> str:
    """A name as the bytes on disk say it, which are UTF-8 (6.1.2) whatever the locale is."""
    return name if _UTF8 else os.fsencode(name).decode("utf-8", "surrogateescape")


def on_disk(name: str) -> str:
    """A canonical name as this process has to call it, for the same bytes."""
    return name if _UTF8 else os.fsdecode(name.encode("utf-8", "surrogateescape"))


def _longer(data: bytes, descriptor: int, length: int) -> bytes:
    """The data and what follows it, `length` bytes in all, or as many as there are."""
    while data and len(data) < length and (more := os.read(descriptor, length - len(data))):
        data += more
    return data


def _pieces(
    descriptor: int, length: int, spare: Semaphore | None, piece: int | None
) -> Iterator[memoryview]:
    """The next `length` bytes, or as many as there are, in one buffer again and again."""
    if hasattr(os, "posix_fadvise"):  # the kernel reads twice as far ahead on a cold disk
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    buffer = _buffer(piece, _BUFFER_BYTES)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while length and (count := file.readinto(buffer[:length])):
            length -= count
            yield buffer[:count]
            if spare and length >= _WORTH_A_THREAD and spare.acquire(blocking=False):
                from model_signing.sources.ahead import read_ahead  # takes time to import

                rooms = [_buffer(piece, _AHEAD_BYTES) for _ in range(2)]
                try:
                    length = yield from read_ahead(file.readinto, length, rooms)
                finally:
                    spare.release()
                spare = None


def _buffer(piece: int | None, otherwise: int) -> memoryview:
    if piece is None:
        return memoryview(bytearray(otherwise))
    from mmap import mmap  # takes time to import

    return memoryview(mmap(-1, piece))


def _entry(status: os.stat_result) -> Entry:
    return Entry(status.st_size, _version(status))


def _version(of: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced or written to.

    Unlike the time of its modification, no program can set that of its last change back.
    """
    low = (1 << 64) - 1  # on Windows they may be larger
    return (of.st_dev & low, of.st_ino & low, of.st_size, of.st_mtime_ns, of.st_ctime_ns)


def _status_of(entry: os.DirEntry[str], follow: bool) -> os.stat_result:
    try:
        if os.name == "nt":  # where an entry does not know which file it is
            return os.stat(entry.path, follow_symlinks=follow)  # noqa: PTH116
        return entry.stat(follow_symlinks=follow)
    except OSError as error:
        failed(entry.path, error)


def _folder(entry: os.DirEntry[str], status: os.stat_result) -> tuple[int, int]:
    """Which directory this is, whatever its name; what is no file either is refused."""
    if not stat.S_ISDIR(status.st_mode):
        raise FileError(
            "a model has files and directories only (OMS 6.1)",
            where=entry.path,
            found=_KINDS.get(stat.S_IFMT(status.st_mode), "a device"),
            fix="remove it, or exclude it with --ignore-paths",
        )
    return status.st_dev, status.st_ino


def _is_leftover(entry: os.DirEntry[str], name: str, selection: Selection) -> bool:
    """Whether it is what a signing leaves that is killed while it writes the signature."""
    unlisted = is_temporary(entry.name) and name not in selection.listed
    return unlisted and entry.is_file(follow_symlinks=False)


def _scan(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError as error:
        failed(directory, error)


def _roots(model: str) -> tuple[str, ...]:
    """Where links may lead: into the model; from a snapshot in Hugging Face's cache, to its blobs.

    There `models--ORG--NAME/snapshots/COMMIT/FILE` is a link to `../../blobs/DIGEST`.
    """
    parts = Path(model).parts
    for index in range(len(parts) - 2, 0, -1):
        if parts[index] == "snapshots" and parts[index - 1].startswith(_HUB_KINDS):
            return model, os.path.join(*parts[:index], "blobs")  # noqa: PTH118 - a string
    return (model,)


def _check_link(link: str, roots: tuple[str, ...]) -> None:
    """OMS 6.1.1, but stricter: a link out of the model is an error. No root: so is any link."""
    if not roots:
        raise FileError(
            "a symbolic link is not part of a model (OMS 6.1.1)",
            where=link,
            fix="follow links with --allow-symlinks, or take a copy without them: cp -rL, or "
            "hf download --local-dir",
        )
    target = os.path.realpath(link)
    if not os.path.exists(target):  # noqa: PTH110 - also true for a circle of links
        raise FileError("a symbolic link leads nowhere (OMS 6.1.1)", where=link, found=target)
    if not any(os.path.commonpath([target, root]) == root for root in roots):
        raise FileError(
            "a symbolic link leads out of the model (OMS 6.1.1)",
            where=link,
            found=target,
            fix="take a copy of the model without links: cp -rL",
        )


def basename(model: Path) -> str:
    """The model's own name (OMS 6.5), also for a path such as `.`."""
    name = model.name if model.name not in ("", "..") else Path(os.path.realpath(model)).name
    return _canonical(name)


def name_inside(model: AnyPath, path: Path) -> str | None:
    """The canonical relative name of `path` in the directory `model`; None if it lies elsewhere.

    Links are resolved, except in the last component, which need not exist.
    """
    model = os.fspath(model)
    folder, name = os.path.split(path)
    if folder == model and name not in (".", ".."):
        return _canonical(name)
    real = os.path.realpath(model)
    real_path = f"{os.path.realpath(path.parent)}/{path.name}"
    name = _canonical(os.path.relpath(real_path, real).replace(os.sep, "/"))
    return None if name.split("/")[0] in (".", "..") else name


def ignored_path(model: Path, path: str) -> str:
    """An ignore path in canonical form (OMS 6.2.1): relative to the model, or absolute and inside.

    Raises:
        UsageError: It lies outside the model, is the whole model, or has glob characters.
    """
    inside = name_inside(model, Path(path)) if Path(path).is_absolute() else path
    return ignored(inside or "..", path)
