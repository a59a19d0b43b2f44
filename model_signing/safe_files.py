"""Files read with a bound on their size, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from model_signing.errors import BundleError, FileError
from model_signing.oms.bundle import MAX_BUNDLE_SIZE


def read_bounded(path: Path, limit: int = MAX_BUNDLE_SIZE) -> bytes:
    """The bytes of a file; a `FileError` if it cannot be read, a `BundleError` above `limit`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > limit else file.read(limit + 1)
    except OSError as error:
        raise FileError(f"cannot read the file: {error.strerror}", where=str(path)) from None
    if max(size, len(data)) > limit:
        expected = f"at most {limit} bytes"
        raise BundleError("the file is too large", where=str(path), expected=expected)
    return data


Pem = bytes | str | os.PathLike[str]
"""PEM text, or the path of a file with it."""


def read_pem(source: Pem) -> tuple[bytes, str | None]:
    """The text and, for messages, the path; raises as `read_bounded`."""
    if isinstance(source, bytes):
        return source, None
    return read_bounded(Path(source), 1024 * 1024), os.fspath(source)


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all, also after a crash.

    Raises:
        FileError: It cannot be written. Nothing is left behind and an older file is untouched.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # there only if something went wrong
        if os.name == "posix":  # the rename itself must survive a crash, too
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except (OSError, ValueError) as error:
        failed(os.fspath(path), error, "cannot write the file")


def failed(path: str, error: Exception, what: str = "cannot read a part of the model") -> NoReturn:
    """Raises the `FileError` for what the system does not let us do."""
    reason = getattr(error, "strerror", None) or str(error)
    raise FileError(what, where=path, found=reason) from error
