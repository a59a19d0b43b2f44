"""A model that lies in memory: a source other than this machine's files, for tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from model_signing.errors import FileError
from model_signing.oms.names import Selection
from model_signing.sources import Buffer, Entry


@lru_cache
def digest(data: bytes) -> str:
    """Its SHA-256, hexadecimal; of the same bytes only once."""
    return sha256(data).hexdigest()


@dataclass
class MemorySource:
    """Files by name; the version of one is its digest.

    Attributes:
        name: The model's own.
        files: What it has.
        single: Whether it is one file.
        piece: Bytes of a buffer.
        wait: Seconds that each buffer takes to come.
        lists: Names whose SHA-256 is listed.
        reads: Names that were read.
    """

    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    single: bool = False
    piece: int = 1 << 20
    wait: float = 0
    lists: tuple[str, ...] = ()
    reads: set[str] = field(default_factory=set)

    def entries(self, selection: Selection) -> tuple[dict[str, Entry], list[str]]:
        """See `Source`: a flat listing, filtered."""
        listed = {name: digest(data) for name, data in self.files.items()}
        found = {
            name: Entry(len(data), listed[name], listed[name] if name in self.lists else None)
            for name, data in self.files.items()
            if selection.takes(name)
        }
        return found, [
            name for name in self.files if name not in found and selection.unsigned(name)
        ]

    def read(self, name: str, entry: Entry, start: int, stop: int) -> Iterator[Buffer]:
        """See `Source`."""
        self.reads.add(name)
        data = self.files[name]
        for offset in range(start, stop, self.piece):
            if self.wait:
                time.sleep(self.wait)
            yield data[offset : min(stop, offset + self.piece)]
        if entry.version not in (None, digest(data)):
            raise FileError("the object changed", where=f"memory:{name}")


class MemoryPlace(MemorySource):
    """A model with its signatures, as places elsewhere keep them: among the files."""

    def signatures(self) -> Iterator[tuple[str, bytes]]:
        """See `RemoteSource`."""
        for name in ("model.sig", f"{self.name}.sig"):
            if name in self.files:
                yield f"memory:{name}", self.files[name]

    def inside(self, address: str) -> str | None:
        """See `RemoteSource`."""
        return address.removeprefix("memory:")

    def __str__(self) -> str:
        return "memory:@1"
