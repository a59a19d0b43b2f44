"""A copy of a model, made of the bytes that are hashed: it is there when all of them hold.

So a model is read once, and what was verified is what is used, whoever writes to its place later.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import FileError, UsageError
from model_signing.oms.names import above
from model_signing.safe_files import failed, is_temporary, sync_to_disk, temporary_folder
from model_signing.sources import AnyPath, Buffer, Entry, Source, local
from model_signing.sources.local import LocalSource

if TYPE_CHECKING:
    from threading import Semaphore

_NEW = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NOT_ON_WINDOWS = re.compile(r'[<>:"\\|?*]|[ .](?=/|$)')
_CANNOT = "cannot write the copy of the model"
_LARGE = 2 << 20  # bytes: so many are written while they are hashed, not in between
_WINDOW = 32 << 20  # bytes that are left to the system before it is told to begin with them
_PIECE = 4 << 20  # bytes of one write past the page cache: disks are slower with less
_AT_ONCE = 8  # files that are brought to the disk: it does several with one write of its journal


class _Clone(LocalSource):
    """Files that are there for nobody else: they stay as they are, whatever they were listed as."""

    def read(
        self, name: str, entry: Entry, start: int, stop: int, spare: Semaphore | None = None
    ) -> Iterator[Buffer]:
        """As of any model here."""
        return super().read(name, entry._replace(version=None), start, stop, spare)


class Copy:
    """A folder that appears with a model in it when `keep` is called, or not at all.

    A model of one file is a file in that folder. Until then the bytes are in a temporary folder in
    the same place; within the `with` block, for whoever has to read them before it is settled
    whether they are kept, `source` has them.

    Args:
        folder: A folder that is not there yet, or one that is empty, such as a mounted volume.
        lasting: Whether it has to be there, with all of its bytes, also after a crash of the
            system; that takes as long as the disk takes to write them.

    Raises:
        FileError: It is there and not empty, or cannot be written to.
    """

    def __init__(self, folder: AnyPath, *, lasting: bool = True) -> None:
        try:
            self.folder = Path(os.path.realpath(folder))
        except ValueError as error:  # a null character, which is in no path
            failed(str(folder), error, _CANNOT)
        self._lasting = lasting

    def __enter__(self) -> Copy:
        # What is mounted cannot be renamed, nor another folder take its name.
        self._inside = os.path.ismount(self.folder)
        place = self.folder if self._inside else self.folder.parent
        self._stack = ExitStack()
        try:
            self._check_empty()
            temporary = self._stack.enter_context(temporary_folder(place))
        except OSError as error:
            failed(str(self.folder), error, _CANNOT)
        self._root = temporary / "model"
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def begin(
        self, source: Source, entries: Mapping[str, Entry], files: Mapping[str, int]
    ) -> tuple[Source, Copy | None]:
        """Empties the copy for the files of a model.

        Args:
            source: The model.
            entries: Its files.
            files: The same: name -> bytes.

        Returns:
            Where to read them, and what is to get the bytes. Where the file system lets files
            share theirs, the copy has them at once, apart from whatever happens to the originals:
            they are read there, and nothing is written.

        Raises:
            FileError: Two of the names may be the same file; or there is no room for them.
        """
        _check_distinct(files)
        self._files, self._single = files, source.single
        try:
            self._empty()
            if isinstance(source, LocalSource) and self._clone(source, entries):
                return _Clone(self.source.path), None
            self._empty()
            free = shutil.disk_usage(self._root).free
        except OSError as error:
            failed(str(self.folder), error, _CANNOT)
        if (total := sum(files.values())) > free:
            raise FileError(
                "there is no room for a copy of the model",
                where=str(self.folder),
                expected=f"{total} bytes",
                found=f"{free} bytes",
            )
        # Beside the model, so much of a copy would not stay in memory until somebody loads it.
        self._past_cache = False
        if isinstance(source, LocalSource) and 2 * total > _memory():
            self._past_cache, source = True, replace(source, piece=_PIECE)
        return source, self

    def _empty(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir()
        self._made: set[str] = set()

    def _clone(self, source: LocalSource, entries: Mapping[str, Entry]) -> bool:
        """Whether every file could be cloned."""
        for name in self._files:
            with open(self._open(name), "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
                if not source.clone(name, entries[name], file.fileno()):
                    return False
        return True

    def writing(
        self, name: str, start: int, size: int, pieces: Iterable[Buffer]
    ) -> Iterator[Buffer]:
        """Gives these pieces of a file, `size` bytes from `start` on, and writes each of them.

        Raises:
            FileError: As `pieces`; or they cannot be written.
        """
        try:
            descriptor = self._open(name)
        except OSError as error:
            failed(str(self.folder), error, _CANNOT)
        with FileIO(descriptor, "wb") as file:
            file.seek(start)
            if size >= _LARGE:
                if self._past_cache and size == self._files[name]:  # nobody else writes to it
                    _write_past_cache(file)
                yield from self._beside(file, pieces)
                return
            for piece in pieces:
                self._write(file, piece)
                yield piece

    def _beside(self, file: FileIO, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
        """Writes each piece while it is hashed; the disk begins before all of them are there."""
        begun = file.tell()
        with ThreadPoolExecutor(1, "write") as writer:
            for piece in pieces:
                try:
                    writing = writer.submit(self._write, file, piece)
                except RuntimeError as error:  # the system allows no more threads
                    failed(str(self.folder), error, _CANNOT)
                yield piece
                writing.result()
                if self._lasting and (length := file.tell() - begun) >= _WINDOW:
                    writer.submit(_begin_with(), file.fileno(), begun, length)
                    begun += length

    def _write(self, file: FileIO, piece: Buffer) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[_written(file, rest) :]
        except OSError as error:
            failed(str(self.folder), error, _CANNOT)

    def _open(self, name: str) -> int:
        folder = name.rpartition("/")[0]
        if folder and folder not in self._made:
            Path(self._root, local.on_disk(folder)).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        return os.open(self._path(name), _NEW, 0o666)

    def _path(self, name: str) -> str:
        return f"{self._root}/{local.on_disk(name)}"

    @property
    def source(self) -> LocalSource:
        """The copy, before it is settled whether it is kept."""
        return self._in(self._root)

    @property
    def kept(self) -> LocalSource:
        """The copy where it appears."""
        return self._in(self.folder)

    def _in(self, folder: Path) -> LocalSource:
        path = folder / local.on_disk(next(iter(self._files))) if self._single else folder
        return LocalSource(os.fspath(path))

    def keep(self) -> None:
        """The copy appears.

        Raises:
            FileError: It is not whole, or something else has taken its place.
        """
        try:
            for name, size in self._files.items():
                if (found := os.stat(self._path(name)).st_size) != size:  # noqa: PTH116
                    raise OSError(errno.EIO, f"{name} has {found} bytes, not {size}")
            if self._lasting:
                self._sync()
            self._check_empty()
            if self._inside:
                for name in os.listdir(self._root):  # noqa: PTH208
                    (self._root / name).rename(self.folder / name)
            else:
                if os.name == "nt":  # where a folder takes no other's place
                    with suppress(FileNotFoundError):
                        self.folder.rmdir()
                self._root.rename(self.folder)
            if self._lasting:
                sync_to_disk(self.folder if self._inside else self.folder.parent)
        except (OSError, RuntimeError) as error:
            failed(str(self.folder), error, _CANNOT)

    def _sync(self) -> None:
        """No file will be there without its bytes. What others write is not waited for."""

        def share(first: int) -> None:
            for name in islice(self._files, first, None, _AT_ONCE):
                sync_to_disk(self._path(name))

        with ThreadPoolExecutor(_AT_ONCE, "sync") as pool:
            list(pool.map(share, range(min(_AT_ONCE, len(self._files)))))
        for folder, *_ in os.walk(self._root):
            sync_to_disk(folder)

    def _check_empty(self) -> None:
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            there = [one.name for one in entries if not is_temporary(one.name)]
            if there and there != ["lost+found"]:  # which every new ext4 has
                raise FileError(
                    "the copy would be mixed with what is there already",
                    where=str(self.folder),
                    expected="a new folder, or an empty one",
                    found=", ".join(sorted(there)[:3]),
                    fix="choose another name, or remove the folder first",
                )


@lru_cache
def _begin_with() -> Callable[[int, int, int], object]:
    """Lets the disk begin with bytes of an open file: descriptor, start, length.

    Nobody waits for it, and nothing is promised: `Copy.keep` sees to that. Otherwise the system
    would begin when many gigabytes wait, and `keep` wait for them.
    """
    with suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        call = ctypes.CDLL(None).sync_file_range  # of Linux only
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        return lambda descriptor, start, length: call(descriptor, start, length, 2)
    return lambda *_: None


def _written(file: FileIO, data: memoryview) -> int:
    """How many bytes of the data are written now."""
    try:
        return file.write(data) or 0
    except OSError as error:
        # The end of a file is no whole block, and not every file system keeps its word.
        if error.errno != errno.EINVAL or not _write_past_cache(file, False):
            raise
    return file.write(data) or 0


def _memory() -> int:
    """Bytes that this machine has."""
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def _write_past_cache(file: FileIO, wanted: bool = True) -> bool:
    """Whether this changes that the disk takes what is written to a file from where it lies.

    Through the page cache it costs several times as much of the processor, and memory that holds
    what others read. Source: open(2), O_DIRECT.
    """
    if sys.platform != "linux":
        return False
    import fcntl

    before = fcntl.fcntl(file, fcntl.F_GETFL)
    after = before | os.O_DIRECT if wanted else before & ~os.O_DIRECT
    with suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETFL, after)
        return after != before
    return False


@contextmanager
def opened(place: AnyPath | Copy, source: Source) -> Iterator[Copy]:
    """A copy at a place, kept when all goes well; if it is one already, that is for its owner.

    Raises:
        UsageError: It would lie in the model that is copied.
        FileError: As `Copy`.
    """
    if isinstance(place, Copy):
        yield place
        return
    copy = Copy(place)
    check_outside(copy.folder, source)
    with copy:
        yield copy
        copy.keep()


def check_outside(folder: Path, source: Source) -> None:
    """Refuses a place for a copy that lies in the model itself: it would be part of it.

    Raises:
        UsageError: It does.
    """
    if not isinstance(source, LocalSource) or source.single:
        return
    if local.name_inside(Path(source.path), folder):
        raise UsageError("the copy of the model would lie in the model", where=str(folder))


def _check_distinct(names: Iterable[str]) -> None:
    """Names that some file system takes for one would be one file, which is neither."""
    spelt: dict[str, str] = {}
    for name in names:
        if os.name == "nt" and (found := _NOT_ON_WINDOWS.search(name)):
            raise FileError("no file can have this name here", where=name, found=found[0])
        for part in (*above(name), name):
            other = spelt.setdefault(unicodedata.normalize("NFC", part).casefold(), part)
            if other != part:
                raise FileError(
                    "two names differ in upper and lower case or Unicode form only",
                    where=ascii(part)[1:-1],
                    found=ascii(other)[1:-1],
                    fix="such a model cannot be copied to every file system: leave out --copy-to",
                )
