"""Zip archives without what a run leaves in them: dates, and members nobody needs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can hold


def rewrite(path: Path, edit: Callable[[str, bytes], bytes | None]) -> None:
    """Replace an archive by one with the same members in the same order, undated.

    Args:
        path: The archive.
        edit: Takes a member's name and content; returns the new content, or `None` to drop it.
    """
    undated = path.with_name(f"{path.name}.undated")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(undated, "w") as new:
        for member in old.infolist():
            content = edit(member.filename, old.read(member))
            if content is not None:
                new.writestr(
                    zipfile.ZipInfo(member.filename, _NO_DATE), content, member.compress_type
                )
    undated.replace(path)
