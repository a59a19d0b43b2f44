"""What model files are refused before a framework reads them.

Frameworks parse these formats with far more trust than a file deserves. Each module here states
what an ordinary classifier needs, and refuses everything else by `UnsafeModelError`: it reads the
whole of a file, and asks of nothing in it whether a runtime might reach it. Where the format allows
it, what was found harmless is written anew, and the framework reads that instead of the stranger's
bytes. All of it happens in a process of its own; see `quarantine`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from model_signing.errors import printable
from slsa_for_models.errors import UnsafeModelError

SLACK = 1024 * 1024  # bytes of headers and padding that a small model may have
EXPANSION = 4  # weights hardly compress: contents far larger than the file are a bomb
MOST_NAME = 1024  # characters


def words(text: str) -> frozenset[str]:
    """The words of a text, for the tables of what is allowed."""
    return frozenset(text.split())


def check_size(declared: int, size: int, where: str) -> None:
    """Refuses contents that are far larger than what holds them.

    Args:
        declared: Bytes that would be in memory.
        size: Bytes of the file.
        where: What it is, for the message.
    """
    if declared > size * EXPANSION + SLACK:
        raise UnsafeModelError(
            "the model would unpack to far more than it weighs",
            where=where,
            expected=f"at most {size * EXPANSION + SLACK:,} bytes",
            found=f"{declared:,} bytes",
        )


def check_name(name: str, where: str) -> str:
    """A name from inside a model, which frameworks print as it is: no terminal may obey it."""
    if len(name) > MOST_NAME or printable(name) != name:
        raise UnsafeModelError(
            "a name in the model is not plain text",
            where=where,
            expected=f"at most {MOST_NAME} printable characters",
            found=printable(name[:200]),
        )
    return name


def elements(shape: Iterable[int], where: str) -> int:
    """How many elements a tensor of that shape has; no side is negative."""
    sides = list(shape)
    if any(side < 0 for side in sides):
        raise UnsafeModelError("a tensor with a negative size", where=where, found=str(sides)[:200])
    return math.prod(sides)
