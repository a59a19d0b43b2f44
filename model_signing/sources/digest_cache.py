"""Digests of files on this machine that have not changed since they were hashed, to sign again.

A file is known by its device, inode, size and both times, of which no program can set the last
back. Verification never looks here. Whoever writes to a cache decides what is signed: so it has to
be of this user alone.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from model_signing.errors import FileError
from model_signing.oms.manifest import is_digest
from model_signing.safe_files import failed
from model_signing.sources import Entry

_SETTLED = 2_000_000_000  # ns: within one tick of a clock a file can change twice
_KEPT = 180 * 86_400  # seconds that what nobody asks for is kept
_PATIENCE = 60.0  # seconds that another process may write
_CANNOT = "cannot use the digest cache"
_OTHERS = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'digests'"
_TABLE = "CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, digest TEXT, used INTEGER)"


class Part(NamedTuple):
    """A resource of a manifest: these bytes of a file as it was enumerated."""

    entry: Entry
    start: int
    stop: int


class DigestCache:
    """A file with digests; see the module. A context: it is written to when all went well.

    Raises:
        FileError: It cannot be read or written, is of somebody else, or is something else.
    """

    def __init__(self, path: Path, algorithm: str) -> None:
        self._path, self._algorithm = path, algorithm
        self._began = time.time_ns()

    def __enter__(self) -> DigestCache:
        try:
            # Made by us, it is for nobody else; O_NOFOLLOW: nor is what a link leads to.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self._path, flags, 0o600)
            try:
                self._check(os.fstat(descriptor))
            finally:
                os.close(descriptor)
            # SQLite believes a journal that lies beside its file.
            self._check_owner(self._path.parent, self._path.parent.stat())
            self._database = sqlite3.connect(self._path, timeout=_PATIENCE)
            try:
                if self._database.execute(_OTHERS).fetchone():
                    raise sqlite3.DatabaseError("another program's database")
                self._database.execute(_TABLE)
            except sqlite3.Error:
                self._database.close()
                raise
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                limit = int(time.time()) - _KEPT
                self._database.execute("DELETE FROM digests WHERE used < ?", (limit,))
                self._database.commit()
        except sqlite3.Error as error:
            self._fail(error)
        finally:
            self._database.close()

    def find(self, parts: Mapping[str, Part]) -> dict[str, str]:
        """The digests that are known: resource -> hexadecimal."""
        found = {}
        try:
            for resource, part in parts.items():
                query = "SELECT digest FROM digests WHERE key = ?"
                row = self._database.execute(query, (self._key(part),)).fetchone()
                if row is None:
                    continue
                found[resource] = digest = str(row[0])
                if not is_digest(digest, self._algorithm):
                    raise sqlite3.DatabaseError(f"no {self._algorithm} digest: {digest[:80]}")
        except sqlite3.Error as error:
            self._fail(error)
        return found

    def remember(self, parts: Mapping[str, Part], digests: Mapping[str, str]) -> None:
        """Notes digests, of files that had settled when they were enumerated."""
        now = int(time.time())
        rows = (
            (self._key(part), digests[resource], now)
            for resource, part in parts.items()
            if self._settled(part.entry)
        )
        try:
            self._database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._fail(error)

    def _key(self, part: Part) -> str:
        version = part.entry.version
        numbers: Iterable[object] = version if isinstance(version, tuple) else (version,)
        return " ".join(map(str, (self._algorithm, *numbers, part.start, part.stop)))

    def _settled(self, entry: Entry) -> bool:
        times = entry.version[-2:] if isinstance(entry.version, tuple) else (self._began,)
        return all(moment + _SETTLED < self._began for moment in times)

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise FileError("the digest cache is no file", where=str(self._path))
        self._check_owner(self._path, status)

    def _check_owner(self, path: Path, status: os.stat_result) -> None:
        if os.name != "posix":
            return
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in (os.geteuid(), 0) or mode & 0o022:
            raise FileError(
                "the digest cache may be written to by others, who would decide what is signed",
                where=str(path),
                expected=f"a file in a folder, both written to by user {os.geteuid()} alone",
                found=f"user {status.st_uid}, mode {mode:o}",
                fix="name another with --digest-cache, in a folder of your own",
            )

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            failed(str(self._path), error, _CANNOT)
        raise FileError(
            _CANNOT, where=str(self._path), found=str(error), fix="remove it, or name another"
        ) from error
