"""Zip archives, of which every reader has to see the same members."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import SLACK, check_name, check_size

_MOST_MEMBERS = 100_000
_MOST_SMALL = 8 * 1024 * 1024  # bytes of a member that is parsed as a whole: code, configuration


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive that is one to every reader and does not unpack to much more than it weighs.

    Raises:
        UnsafeModelError: It is not; or what is done with it finds it broken.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_one_directory(path, archive.start_dir)
            _check_members(archive, path)
            yield archive
    except RecursionError:  # of who reads a member
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError) as error:
        # `RuntimeError`: zipfile's for what is encrypted, or packed as it cannot read.
        raise UnsafeModelError(
            "the model is not the zip archive that its format is", where=path.name, found=str(error)
        ) from error


def read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member that is not weights."""
    size = archive.getinfo(name).file_size
    if size > _MOST_SMALL:
        raise UnsafeModelError(
            "a member of the archive is too large",
            where=name,
            expected=f"at most {_MOST_SMALL:,} bytes",
            found=f"{size:,} bytes",
        )
    return archive.read(name)


def check_allowed(archive: zipfile.ZipFile, pattern: str) -> str:
    """PyTorch's archives: everything lies in one folder, and is of a name that is known.

    Returns:
        The folder, with its slash.
    """
    names = archive.namelist()
    folder = names[0].partition("/")[0] + "/" if names else ""
    for name in names:
        if not name.startswith(folder) or not re.fullmatch(pattern, name[len(folder) :], re.ASCII):
            raise UnsafeModelError("a member of the archive that is not known", where=name[:200])
    for name, expected in (("byteorder", rb"little"), ("version", rb"\d{1,3}\n?")):
        if folder + name in names:
            found = read_small(archive, folder + name)
            if not re.fullmatch(expected, found):
                raise UnsafeModelError("not a PyTorch archive", where=name, found=repr(found[:20]))
    return folder


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    check_size(sum(member.file_size for member in members), path.stat().st_size, path.name)
    if len(members) > _MOST_MEMBERS:
        raise UnsafeModelError("an archive of too many members", found=str(len(members)))
    # Readers differ in which of two they take, and PyTorch's looks them up in any case.
    names = {check_name(member.filename, path.name).lower() for member in members}
    if len(names) != len(members):
        raise UnsafeModelError("a member of the archive occurs twice", where=path.name)
    for member in members:  # a reader may believe the one or the other
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise UnsafeModelError("a member of the archive has two sizes", where=member.filename)


def _check_one_directory(path: Path, start: int) -> None:
    """Refuses an archive of which another reader than Python's might see other members.

    Python finds the directory of members by its size, PyTorch by its offset. So every record at the
    end (PKWARE APPNOTE 4.3.14 to 4.3.16) has to lead to the directory that was checked.
    """
    with path.open("rb") as file:
        head, end = file.read(4), file.seek(0, io.SEEK_END) - 22
        file.seek(max(0, end - 76))
        tail = file.read().rjust(98, b"\0")
    record64, locator64, record = tail[:56], tail[56:76], tail[76:]
    holds = head == b"PK\3\4"
    if locator64.startswith(b"PK\6\7"):
        end -= 76
        holds &= int.from_bytes(locator64[8:16], "little") == end
        holds &= struct.unpack("<4s36x2Q", record64) == (b"PK\6\6", end - start, start)
    at_most = 0xFFFFFFFF  # what is larger stands in the record before
    expected = (b"PK\5\6", min(end - start, at_most), min(start, at_most), 0)
    if not holds or struct.unpack("<4s8x2LH", record) != expected:
        raise UnsafeModelError(
            "the archive has more than one directory of members, or something around it",
            where=path.name,
        )
    if end - start > SLACK * 16:
        raise UnsafeModelError("the archive's directory of members is too large", where=path.name)
