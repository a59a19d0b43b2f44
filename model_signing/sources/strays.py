"""What lies in models by accident: keys, placeholders of Git LFS, leftovers of tools."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from model_signing.errors import FileError
from model_signing.sources import Entry, Sizes, Source

_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_MAX_POINTER_BYTES = 200  # without extensions
_MAX_KEY_BYTES = 16 << 10
_MAX_FILES = 1000  # small ones that are all looked into; of more, those that are likely
_KEY_NAMES = (".pem", ".key", ".p8", ".pk8", ".pkcs8", ".priv", ".private", "_rsa", "_ecdsa")
# Both are compiled where a model has something like them.
_PRIVATE_KEY = (
    rb"(?m)^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+(?:[A-Za-z-]+:.*\s+)*[A-Za-z0-9+/=]{40}"
)
_FOLDERS = (".ipynb_checkpoints", "__pycache__")
_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
_PARTS = (*_FOLDERS, *_FILES, "~", ".swp", ".#", "#", "._", ".bak")  # each is in every such name
_LEFTOVER = (
    rf"((?:.*/)?(?:{'|'.join(map(re.escape, _FOLDERS))}))/"
    rf"|(?:.*/)?(?:{'|'.join(map(re.escape, _FILES))}|\._.*|\.#.*|#.*#|.*~|.*\.swp|.*\.bak)$"
)


def leftovers(names: Collection[str]) -> list[str]:
    """What tools and editors leave, in names of a model: files, or the folders they made."""
    together = "\n".join(names)
    if not any(part in together for part in _PARTS):
        return []
    matches = filter(None, map(re.compile(_LEFTOVER).match, names))
    return sorted({match[1] or match.string for match in matches})


def inspected(source: Source, entries: Mapping[str, Entry]) -> list[str]:
    """Refuses private keys among the small files of a model; returns pointers of Git LFS.

    Raises:
        FileError: A private key, which would be published; or a file that cannot be read.
    """
    small = {name: size for name, size in Sizes(entries, entries).items() if size <= _MAX_KEY_BYTES}
    likely = len(small) > _MAX_FILES
    pointers = []
    for name, size in small.items():
        if likely and size > _MAX_POINTER_BYTES and not name.endswith(_KEY_NAMES):
            continue
        entry = entries[name]
        data = b"".join(source.read(name, entry, 0, entry.size))
        if b"PRIVATE KEY-----" in data and re.search(_PRIVATE_KEY, data):
            raise FileError(
                "a private key is in the model, and would be published with it",
                where=name,
                fix=f"move it elsewhere, or leave it out with --ignore-paths {name}",
            )
        if data.startswith(_LFS_POINTER):
            pointers.append(name)
    return pointers


def is_pointer(source: Source, name: str, entry: Entry) -> bool:
    """Whether Git LFS has left its pointer in place of a file."""
    if entry.size > _MAX_POINTER_BYTES:
        return False
    return b"".join(source.read(name, entry, 0, entry.size)).startswith(_LFS_POINTER)
