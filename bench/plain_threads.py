"""Plain threads that hash files and do nothing else: the least that signing them can cost.

usage: python plain_threads.py ALGORITHM THREADS whole|parts FOLDER

Measured as a whole process, as the programs beside it are; so it imports next to nothing,
not even pathlib.
"""

from __future__ import annotations

import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    File = tuple[str, int]  # its path, and bytes
    Part = tuple[str, int, int]  # of a file: its path, where it starts, and bytes

_BUFFER_BYTES = 1 << 20


def share(files: Sequence[File], threads: int, *, whole: bool = True) -> list[list[Part]]:
    """The files in equal shares, one for each thread.

    SHA-256 of a `whole` file cannot be computed in two threads at once: one larger than an equal
    share has a thread to itself.
    """
    largest = max(files, key=lambda file: file[1])
    total = sum(size for _, size in files)
    if whole and threads > 1 and largest[1] * threads > total:
        rest = [file for file in files if file is not largest]
        return [[(largest[0], 0, largest[1])], *(share(rest, threads - 1) if rest else ())]
    shares: list[list[Part]] = [[]]
    room = equal = -(-total // threads)
    for path, size in files:
        start = 0
        while start < size:
            if room == 0:
                shares.append([])
                room = equal
            count = min(room, size - start)
            shares[-1].append((path, start, count))
            start, room = start + count, room - count
    return shares


def hash_all(shares: Sequence[Sequence[Part]], new: Callable[[], Any]) -> None:
    """Hashes the shares, each in a thread of its own; `new` makes a hash object."""

    def work(parts: Sequence[Part]) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        for path, start, count in parts:
            state = new()
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(start)
                while count and (got := file.readinto(buffer[:count])):
                    state.update(buffer[:got])
                    count -= got
            state.digest()

    workers = [threading.Thread(target=work, args=(parts,)) for parts in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def main(algorithm: str, threads: str, kind: str, folder: str) -> None:
    """The command line."""
    if algorithm == "blake3":
        from blake3 import blake3 as new
    else:
        import hashlib

        new = {"sha256": hashlib.sha256}[algorithm]
    paths = [f"{at}/{name}" for at, _, names in os.walk(folder) for name in names]
    files = [(path, os.stat(path).st_size) for path in paths]  # noqa: PTH116
    hash_all(share(files, int(threads), whole=kind == "whole"), new)


if __name__ == "__main__":
    main(*sys.argv[1:])
