"""OMS 5.2, 6.3: what is signed about a model, and which resources a file becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Method = Literal["files", "shards"]
Algorithm = Literal["sha256", "blake2b", "blake3"]

DIGEST_SIZES: Mapping[str, int] = {"sha256": 32, "blake2b": 64, "blake3": 32}
"""OMS algorithm registry: identifiers and digest sizes in bytes."""
DEFAULT_SHARD_SIZE = 1_000_000_000  # bytes, OMS 6.3.2


def is_digest(value: object, algorithm: str) -> bool:
    """Whether it is what a digest of this algorithm looks like, in lower-case hexadecimal."""
    length = 2 * DIGEST_SIZES[algorithm]
    return isinstance(value, str) and len(value) == length and not value.strip("0123456789abcdef")


@dataclass(frozen=True)
class Serialization:
    """How a model is enumerated and hashed (OMS 5.2.2)."""

    method: Method
    hash_type: Algorithm
    shard_size: int | None  # bytes; only with "shards"
    allow_symlinks: bool  # whether symbolic links were followed
    ignore_paths: tuple[str, ...]  # canonical relative paths left out, each with its subtree


@dataclass(frozen=True)
class Manifest:
    """What is signed about a model (OMS 5.2).

    Attributes:
        serialization: How it came about.
        digests: Resource name -> hexadecimal digest, in the order that the root digest takes. The
            name is that of a file, with ":start:end" appended for a shard.
        files: File name -> bytes; None where a signature does not record it (method "files") and
            no file has been compared with it yet.
    """

    serialization: Serialization
    digests: Mapping[str, str]
    files: Mapping[str, int | None]

    @property
    def algorithm(self) -> Algorithm:
        """The hash algorithm of all digests."""
        return self.serialization.hash_type


def resources(name: str, size: int, shard_size: int | None) -> Iterable[tuple[str, int, int]]:
    """The resources of one file: name, start and end (OMS 6.3.1, 6.3.2). Empty: no shard."""
    if shard_size is None:
        return ((name, 0, size),)
    bounds = ((start, min(start + shard_size, size)) for start in range(0, size, shard_size))
    return ((f"{name}:{start}:{end}", start, end) for start, end in bounds)
