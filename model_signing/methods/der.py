"""DER as far as no library takes it apart for us: tags, lengths, contents (X.690 8.1, 10.1)."""

from __future__ import annotations


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of the elements in a row (X.690 8.1); a `ValueError` if one is cut off."""
    found, at = [], 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1 : at + 2], at + 2
        size = int.from_bytes(length, "big")
        if size > 0x7F:
            start += size - 0x80
            size = int.from_bytes(data[at + 2 : start], "big")
        if not length or start + size > len(data):
            raise ValueError("the data are cut off")
        found.append((tag, data[start : start + size]))
        at = start + size
    return found


def encoded(tag: int, *contents: bytes) -> bytes:
    """An element of a tag, with these contents in a row."""
    content = b"".join(contents)
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, size] if size < 0x80 else [tag, 0x80 + len(length), *length]) + content
