"""GGUF: what the header of such a file says, read within bounds.

Source: ggml's docs/gguf.md, versions 2 and 3, little-endian. Tokenizers make long lists of texts in
it, which are passed over.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import check_name

_MOST_HEADER = 64 * 1024 * 1024  # bytes; large vocabularies take a sixth
_MOST_ITEMS = 100_000  # keys, or tensors
_MOST_TEXT = 65_535  # bytes of a key, as specified
_MOST_KEPT = 1024  # bytes of a value that is shown
_MOST_DIMENSIONS = 8
_MOST_NESTING = 4
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _LIST = 8, 9

# Type of a tensor -> its name, elements of a block, bytes of a block (gguf-py, constants.py).
_TYPES = {
    number: (name, elements, size)
    for number, name, elements, size in (
        *((0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20)),
        *((6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40)),
        *((10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144)),
        *((13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292)),
        *((16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98)),
        *((19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110)),
        *((22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136), (24, "I8", 1, 1), (25, "I16", 1, 2)),
        *((26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8), (29, "IQ1_M", 256, 56)),
        *(
            (30, "BF16", 1, 2),
            (34, "TQ1_0", 256, 54),
            (35, "TQ2_0", 256, 66),
            (39, "MXFP4", 32, 17),
        ),
        *((40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18)),
    )
}


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        version: Of the format.
        values: Its short values by key, such as `general.architecture`.
        tensors: How many there are.
        types: Name of a tensor's type -> how many are of it.
    """

    version: int
    values: Mapping[str, str | int | float | bool]
    tensors: int
    types: Mapping[str, int]

    def __str__(self) -> str:
        architecture = self.values.get("general.architecture", "?")
        said = [f"GGUF version {self.version}", str(architecture)]
        if name := self.values.get("general.name"):
            said.append(str(name))
        if length := self.values.get(f"{architecture}.context_length"):
            said.append(f"context of {length}")
        most = sorted(self.types.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{count} {name}" for name, count in most[:4])
        return f"{', '.join(said)}; {self.tensors} tensors: {kinds}"


def read(path: Path) -> Header:
    """The header of a file, all of it checked; the tensors' bytes are where it says.

    Raises:
        UnsafeModelError: It is malformed: cut off, out of bounds, of an unknown version.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _Reader(file, path.name, path.stat().st_size).header()


class _Reader:
    def __init__(self, file: BinaryIO, where: str, size: int) -> None:
        self._file, self._where, self._size = file, where, size
        self._read = 0

    def header(self) -> Header:
        if self._bytes(4) != b"GGUF":
            self._refuse("it does not begin as GGUF does")
        version = self._number("I")
        if version not in (2, 3):
            self._refuse("an unknown version, or byte order, of GGUF", str(version))
        tensors, keys = self._count("tensors"), self._count("keys")
        values: dict[str, str | int | float | bool] = {}
        seen: set[str] = set()
        for _ in range(keys):
            key = self._name()
            if key in seen:
                self._refuse("a key occurs twice", key)
            seen.add(key)
            value = self._value(self._number("I"), 0)
            if value is not None:
                values[key] = value
        return Header(version, values, tensors, self._tensors(tensors, values))

    def _tensors(
        self, count: int, values: Mapping[str, str | int | float | bool]
    ) -> Mapping[str, int]:
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment % 8:
            self._refuse("an alignment that cannot be", str(alignment))
        types: Counter[str] = Counter()
        names: set[str] = set()
        spans: list[tuple[int, int, str]] = []
        for _ in range(count):
            name = self._name()
            if name in names:
                self._refuse("a tensor occurs twice", name)
            names.add(name)
            dimensions = self._number("I")
            if dimensions > _MOST_DIMENSIONS:
                self._refuse("a tensor of too many dimensions", name)
            shape = [self._number("Q") for _ in range(dimensions)]
            kind, start = self._number("I"), self._number("Q")
            type_name, block, size = _TYPES.get(kind, (f"type {kind}", 1, 0))  # a later one
            if start % alignment or (shape and shape[0] % block):
                self._refuse("a tensor whose place or shape is not aligned", name)
            types[type_name] += 1
            spans.append((start, start + math.prod(shape) // block * size, name))
        first = -(-self._read // alignment) * alignment
        end = 0
        for start, stop, name in sorted(spans):
            if start < end or first + stop > self._size:
                self._refuse("a tensor's bytes are another's, or not in the file", name)
            end = stop
        return types

    def _value(self, kind: int, depth: int) -> str | int | float | bool | None:
        """A value that is short, else None."""
        if kind in _NUMBERS:
            found: int | float | bool = struct.unpack(
                f"<{_NUMBERS[kind]}", self._bytes(struct.calcsize(f"<{_NUMBERS[kind]}"))
            )[0]
            return found
        if kind == _TEXT:
            length = self._number("Q")
            if length > _MOST_KEPT:
                self._skip(length)
                return None
            return self._bytes(length).decode("utf-8", "backslashreplace")
        if kind == _LIST and depth < _MOST_NESTING:
            kind, count = self._number("I"), self._number("Q")
            if kind in _NUMBERS:
                self._skip(count * struct.calcsize(f"<{_NUMBERS[kind]}"))
                return None
            if count > self._size:
                self._refuse("a list that is longer than the file", str(count))
            for _ in range(count):
                if kind == _TEXT:
                    self._skip(self._number("Q"))
                else:
                    self._value(kind, depth + 1)
            return None
        return self._refuse("a value of unknown type, or nested too deeply", str(kind))

    def _count(self, what: str) -> int:
        count = self._number("Q")
        if count > _MOST_ITEMS:
            self._refuse(f"too many {what}", str(count))
        return count

    def _name(self) -> str:
        length = self._number("Q")
        if length > _MOST_TEXT:
            self._refuse("a name is too long", str(length))
        return check_name(self._bytes(length).decode("utf-8", "backslashreplace"), self._where)

    def _number(self, kind: str) -> int:
        found: int = struct.unpack(f"<{kind}", self._bytes(struct.calcsize(f"<{kind}")))[0]
        return found

    def _bytes(self, length: int) -> bytes:
        data = self._file.read(length)
        self._advance(length, len(data))
        return data

    def _skip(self, length: int) -> None:
        left = max(0, self._size - self._read)
        self._advance(length, min(length, left))
        self._file.seek(length, 1)

    def _advance(self, length: int, there: int) -> None:
        if there < length:
            self._refuse("the file ends within its header")
        self._read += length
        if self._read > _MOST_HEADER:
            self._refuse("the header is too large", f"more than {_MOST_HEADER:,} bytes")

    def _refuse(self, message: str, found: str | None = None) -> NoReturn:
        raise UnsafeModelError(message, where=self._where, found=found)
