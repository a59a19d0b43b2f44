"""A file's bytes in pieces: large files where they lie in the page cache, others read."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator

with contextlib.suppress(ImportError):  # not POSIX
    import fcntl

_BUFFER_BYTES = 1 << 20  # stays in a core's cache between reading and hashing
_WINDOW_BYTES = 4 << 20
_MADV_POPULATE_READ = 22  # linux/mman.h, since Linux 5.14; not yet in Python's mmap


def pieces(descriptor: int, length: int) -> Iterable[memoryview | bytes]:
    """The next `length` bytes of a file, or as many as it has.

    Each piece is valid until the next one is asked for.
    """
    if length > _BUFFER_BYTES:
        return _pieces(descriptor, length)
    data = os.read(descriptor, length)
    while data and len(data) < length and (more := os.read(descriptor, length - len(data))):
        data += more
    return (data,)


def _pieces(descriptor: int, length: int) -> Iterator[memoryview]:
    if hasattr(os, "posix_fadvise"):  # the kernel reads twice as far ahead on a cold disk
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    leased = _take_lease(descriptor)
    try:
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            while length:
                if leased and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
                    _end_lease(descriptor)  # somebody waits for the file
                    leased = False
                window = _window(descriptor) if leased and length >= _WINDOW_BYTES else None
                if window is not None:
                    length -= len(window)
                    yield window
                    continue
                for _ in range(_WINDOW_BYTES // _BUFFER_BYTES):
                    count = file.readinto(buffer[: min(length, _BUFFER_BYTES)])
                    if not count:
                        return
                    length -= count
                    yield buffer[:count]
    finally:
        if leased:
            _end_lease(descriptor)


def _take_lease(descriptor: int) -> bool:
    """A read lease on a file (fcntl(2), "Leases"): whoever opens it for writing waits for us.

    The kernel gives none to others than the owner, while somebody writes, or elsewhere than on
    Linux. Nor do we ask for a file with holes: to map a hole of a file in memory allocates it.
    """
    try:
        status = os.fstat(descriptor)
        if status.st_blocks * 512 < status.st_size:
            return False
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # says nothing; SIGIO would kill
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (NameError, AttributeError, OSError):
        return False
    return True


def _end_lease(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # the kernel has ended it
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _window(descriptor: int) -> memoryview | None:
    """The next 4 MiB, mapped: copying them costs an eighth of the time that hashing takes.

    A mapped file that shrinks, or whose disk fails, kills its reader. So nothing is mapped without
    a lease, nor what is not in memory yet, which may take long to come: where both ends are there
    (RWF_NOWAIT, which file systems over a network do not know), the kernel is asked for the rest
    and says what it cannot give (madvise(2), MADV_POPULATE_READ). None: it has to be read.
    """
    import mmap

    try:
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        for offset in (start, start + _WINDOW_BYTES - 1):
            os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
        skip = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            descriptor, skip + _WINDOW_BYTES, prot=mmap.PROT_READ, offset=start - skip
        )
        mapped.madvise(_MADV_POPULATE_READ)
        os.lseek(descriptor, _WINDOW_BYTES, os.SEEK_CUR)
    except (OSError, ValueError, AttributeError):  # not every C library has RWF_NOWAIT
        return None
    return memoryview(mapped)[skip:]
