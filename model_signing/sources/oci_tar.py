"""Tar layers, read once and forwards: which files they have, where, and with which digests.

What is read may be hostile: nothing is unpacked, and memory does not grow with what it claims.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain
from typing import NamedTuple

from model_signing.sources import Buffer

WHITEOUT = ".wh."  # image-spec, "Whiteouts": a file of a layer below is removed
_MAX_HEADER = 128 << 10  # bytes of all headers of a member; of long names
_PIECE = 1 << 20
_GZIP = 31  # zlib: with the header of gzip, the largest window
_MALFORMED = (tarfile.TarError, EOFError, zlib.error, RecursionError, OverflowError, IndexError)


class Member(NamedTuple):
    """What an archive has under a name; if that is no file, there is no digest."""

    name: str
    start: int  # offset of its bytes in the archive, without compression
    size: int  # bytes
    sha256: str | None  # hexadecimal, as they were read


class Layer:
    """An archive that comes in pieces.

    Args:
        pieces: All of its bytes, in order.
        gzipped: Whether they are compressed.
    """

    def __init__(self, pieces: Iterable[Buffer], *, gzipped: bool) -> None:
        self._digest = sha256()
        noted = self._noting(pieces)
        self._pieces: Iterator[Buffer] = _inflated(noted) if gzipped else noted
        self._rest, self._at = memoryview(b""), 0
        self._header, self._header_bytes = b"", 0  # the last block of one; of one member

    def members(self) -> Iterator[Member]:
        """What it has; folders are left out.

        Raises:
            ValueError: It is no such archive.
        """
        try:
            with tarfile.TarFile(fileobj=self, mode="r") as archive:  # type: ignore[arg-type]
                while (member := self._next(archive)) is not None:
                    # It would keep all that it has read.
                    archive.members.clear()  # type: ignore[attr-defined]
                    archive.pax_headers.clear()  # type: ignore[attr-defined]
                    if not member.isdir():
                        yield self._read(member)
            self._check_end()
        except _MALFORMED as error:
            raise ValueError(str(error)) from error

    def digest(self) -> str:
        """The SHA-256, hexadecimal, of what has come."""
        return self._digest.hexdigest()

    def _next(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        self._header_bytes = 0
        member = archive.next()
        if archive.pax_headers.keys() - {"comment"}:  # which readers do not take alike
            raise tarfile.ReadError("a header is for all files that follow")
        return member

    def _check_end(self) -> None:
        """What follows is empty: other programs go on behind what `tarfile` takes for the end."""
        for piece in chain([self._header], self._take(None)):
            if bytes(piece).strip(b"\0"):
                raise tarfile.ReadError("something follows the end of the archive")

    def _read(self, member: tarfile.TarInfo) -> Member:
        name, start = member.name, member.offset_data
        while name.startswith("./"):
            name = name[2:]
        if member.size < 0:
            raise tarfile.ReadError("a file has a negative size")
        removal = name.rpartition("/")[2].startswith(WHITEOUT)
        if not member.isreg() or member.issparse() or removal:
            return Member(name, start, 0, None)
        digest, size = sha256(), 0
        for piece in self._take(member.size):
            digest.update(piece)
            size += len(piece)
        if size != member.size:
            raise tarfile.ReadError("it ends in the middle of a file")
        return Member(name, start, size, digest.hexdigest())

    def _noting(self, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
        for piece in pieces:
            self._digest.update(piece)
            yield piece

    def _take(self, size: int | None) -> Iterator[memoryview]:
        """The next bytes; all that are left, if there is no `size`."""
        while size is None or size:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    return
                self._rest = memoryview(piece)
            taken, self._rest = self._rest[:size], self._rest[size:] if size else memoryview(b"")
            self._at += len(taken)
            size = None if size is None else size - len(taken)
            yield taken

    # A file that is only ever read forwards, for `tarfile`.

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._at

    def seek(self, offset: int) -> None:
        """See `io.IOBase`."""
        if offset < self._at:
            raise tarfile.ReadError("it cannot be read in order")
        for _ in self._take(offset - self._at):
            pass

    def read(self, size: int) -> bytes:
        """See `io.IOBase`."""
        self._header_bytes += size
        if size < 0 or self._header_bytes > _MAX_HEADER:
            raise tarfile.ReadError("a header is too large")
        self._header = b"".join(map(bytes, self._take(size)))
        return self._header


def unpacked(pieces: Iterable[Buffer], start: int, stop: int) -> Iterator[Buffer]:
    """The bytes between two offsets of what was compressed by gzip, or as many as there are.

    Raises:
        ValueError: It is not what it was.
    """
    try:
        yield from _part(_inflated(pieces), start, stop)
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _inflated(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """The pieces of what was compressed by gzip, one or several members (RFC 1952).

    Raises:
        zlib.error: It was not, or its end is missing.
    """
    state = zlib.decompressobj(_GZIP)
    for piece in pieces:
        rest: Buffer = piece
        while rest:
            if state.eof:
                state = zlib.decompressobj(_GZIP)
            data = state.decompress(rest, _PIECE)
            rest = state.unused_data if state.eof else state.unconsumed_tail
            if data:
                yield data
    if not state.eof:
        raise zlib.error("it ends too early")


def _part(pieces: Iterable[Buffer], start: int, stop: int) -> Iterator[Buffer]:
    at = 0
    for piece in pieces:
        if at + len(piece) > start:
            yield memoryview(piece)[max(0, start - at) : stop - at]
        at += len(piece)
        if at >= stop:
            return
