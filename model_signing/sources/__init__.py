"""Where a model lies: which files it has there, and their bytes.

A place for models is a `Source`. What belongs to a model is not for it to decide: it asks the
`Selection`. A place with addresses of its own is a module of this package, named in `PLACES`, which
is imported when such an address is used. It has three functions:

    open_address(address: str) -> RemoteSource            a model
    read_file(address: str, most: int) -> bytes | None    at most so many bytes of a signature;
                                                          None if there is nothing
    write_file(address: str, data: bytes) -> None         a signature, whole or not at all
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard

from model_signing.errors import DependencyError, UsageError
from model_signing.oms.names import Selection

AnyPath = str | os.PathLike[str]
Buffer = memoryview | bytes

PLACES: dict[str, tuple[str, str]] = {
    "hf": ("huggingface", "huggingface"),
    **dict.fromkeys(("s3", "gs", "az"), ("object_storage", "object-storage")),
    "oci": ("oci", "oci"),
}
"""Scheme of an address -> its module in this package, and the extra that installs its client."""


class Entry(NamedTuple):
    """A file as it was when it was enumerated."""

    size: int  # bytes
    version: Hashable  # changes whenever the file does; None: any (for who knows its digest)
    sha256: str | None = None  # hexadecimal, as the place lists it: a claim, not a measurement ...
    measured: bool = False  # ... unless it is that of the bytes, which were read to find the file


class Sizes(Mapping[str, int]):
    """Name -> bytes, in this order, of files that are listed anyway.

    Where they are so that a size is found sooner than an `Entry` is made, they have `size_of`.
    """

    def __init__(self, order: Collection[str], entries: Mapping[str, Entry]) -> None:
        self._order = order
        self._size_of: Callable[[str], int] = getattr(entries, "size_of", partial(_size, entries))

    def __getitem__(self, name: str) -> int:
        return self._size_of(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def total(self) -> int:
        """Bytes of all files."""
        return sum(map(self._size_of, self._order))


def _size(entries: Mapping[str, Entry], name: str) -> int:
    return entries[name].size


class Source(Protocol):
    """A model at some place. Picklable, so that an executor can have it.

    As text it is its address, with whatever a revision, tag or prefix was resolved to when it was
    opened: that is what is read, verified and shown.
    """

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


class RemoteSource(Source, Protocol):
    """A model at a place that keeps signatures beside models.

    It may say, as `at_once`, how many of its files are worth being read at the same time because
    the place takes its time to answer.
    """

    def signatures(self) -> Iterable[tuple[str, bytes]]:
        """The signature files that lie with the model there: address and content of each.

        Raises:
            FileError: The place does not answer; never because there is none.
        """

    def inside(self, address: str) -> str | None:
        """The name in this model of the file at an address; None if it is no file of it."""


class AttachingSource(RemoteSource, Protocol):
    """A model at a place that knows it by one digest, and what others say about that digest."""

    @property
    def known_as(self) -> tuple[str, str]:
        """The name of the model there, and the SHA-256, hexadecimal, by which it is known."""

    def around(self, files: Collection[str]) -> Collection[str]:
        """What that digest covers beside these files of the model: nobody has verified that."""

    def attached(self, predicate_types: Collection[str]) -> Iterable[tuple[str, bytes]]:
        """The bundles about it that hold statements of these types: address and content of each.

        Raises:
            FileError: As `signatures`.
        """

    def check_attach(self) -> None:
        """Fails where `attach` would not be allowed; see there."""

    def attach(self, bundle: bytes) -> str:
        """Stores a signature or an attestation there, and returns its address.

        Raises:
            BundleError: It is none. FileError: The place does not take it.
        """


def can_attach(source: Source) -> TypeGuard[AttachingSource]:
    """Whether a source is at a place where signatures are attached to models."""
    return hasattr(type(source), "attach")


def has_signatures(source: Source) -> TypeGuard[RemoteSource]:
    """Whether a source is at a place that keeps signatures beside models."""
    return hasattr(type(source), "signatures")


def is_address(text: str) -> bool:
    """Whether this is an address of one of the `PLACES`, and not a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme in PLACES


def place_of(address: str) -> Any:  # noqa: ANN401 - a module
    """The module for an address.

    Raises:
        DependencyError: The client that it uses is not installed.
    """
    module, extra = PLACES[address.partition("://")[0]]
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__name__):
            raise
        raise DependencyError(
            f"this kind of address needs an optional package: {error.name}",
            where=address,
            fix=f"pip install 'model-transparency[{extra}]'",
        ) from error


def open_source(model: AnyPath | Source, *, allow_symlinks: bool = False) -> Source:
    """A path on this machine, or an address elsewhere, as a source; a source as it is.

    A revision or tag of an address is resolved here, once.

    Args:
        model: A file, a folder, an address with a scheme of `PLACES`, or another source.
        allow_symlinks: Follow symbolic links that stay inside the model, where there are any.

    Raises:
        UsageError: It is none of these, or an empty path, which is nobody's word for the current
            directory.
        FileError: The address is malformed, there is nothing, or the place does not answer.
        DependencyError: As `place_of`.
    """
    from model_signing.sources.local import LocalSource

    if model == "":
        raise UsageError("the model's path is empty", expected="a path, or an address")
    if isinstance(model, str) and is_address(model):
        source: Source = place_of(model).open_address(model)
        return source
    if isinstance(model, str | os.PathLike):
        path = model if isinstance(model, Path) else Path(model)
        return LocalSource(os.fspath(path), allow_symlinks)
    if isinstance(model, LocalSource):
        return LocalSource(model.path, allow_symlinks)
    if not hasattr(model, "entries"):  # such as None, for a path that a caller does not have
        expected = "a path, an address or a source"
        raise UsageError("not a model", expected=expected, found=type(model).__name__)
    return model
