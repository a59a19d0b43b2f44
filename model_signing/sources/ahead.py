"""Reading ahead: a thread reads what comes next while this one hashes what it read before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor


def read_ahead(
    read_into: Callable[[memoryview], int], length: int, rooms: Sequence[memoryview]
) -> Generator[memoryview, None, int]:
    """The next `length` bytes, or as many as there are; returns how many there are not.

    Args:
        read_into: Puts the next bytes where there is room for them, and says how many; none at the
            end.
        length: Bytes.
        rooms: Two; each is used again when the bytes of the other have been given.
    """
    free, full = rooms
    with ThreadPoolExecutor(1, "read") as reader:

        def read(room: memoryview) -> Future[int]:
            return reader.submit(read_into, room[:length])

        try:
            reading = read(free)
        except RuntimeError:  # the system allows no more threads
            return length
        while count := reading.result():
            length -= count
            free, full = full, free
            reading = read(free)
            yield full[:count]
    return length
