"""Where a model lies: which files it has there, and their bytes.

A place for models is a `Source`. What belongs to a model is not for it to decide: it asks the
`Selection`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from model_signing.oms.names import Selection

AnyPath = str | os.PathLike[str]
Buffer = memoryview | bytes


class Entry(NamedTuple):
    """A file as it was when it was enumerated."""

    size: int  # bytes
    version: Hashable  # changes whenever the file does; None: any (for who knows its digest)


class Source(Protocol):
    """A model at some place. Picklable, so that an executor can have it."""

    @property
    def name(self) -> str:
        """The model's own name (OMS 6.5)."""

    @property
    def single(self) -> bool:
        """Whether it is one file rather than a tree."""

    def entries(self, selection: Selection) -> tuple[Mapping[str, Entry], Collection[str]]:
        """The model's files by canonical relative name (OMS 6.1.2), and what nobody signed.

        The latter are the names for which the selection says `unsigned`; folders as a whole.

        Raises:
            FileError: A part of the model cannot be read, represented or classified: that is an
                error, never an omission.
        """

    def read(self, name: str, entry: Entry, start: int, stop: int) -> Iterable[Buffer]:
        """These bytes of a file; each buffer is valid until the next one is asked for.

        Raises:
            FileError: They cannot be read, or are not of `entry.version`; at the latest after the
                last of them.
        """


def open_source(model: AnyPath | Source, *, allow_symlinks: bool = False) -> Source:
    """A path on this machine as a source; a source as it is.

    Args:
        model: A file, a folder, or another source.
        allow_symlinks: Follow symbolic links that stay inside the model, where there are any.
    """
    from model_signing.sources.local import LocalSource

    if isinstance(model, str | os.PathLike):
        return LocalSource(os.fspath(Path(model)), allow_symlinks)
    if isinstance(model, LocalSource):
        return LocalSource(model.path, allow_symlinks)
    return model
