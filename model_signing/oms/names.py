"""OMS 6.1.2, 6.2.1: canonical names of files and of ignored paths."""

from __future__ import annotations

import unicodedata

from model_signing.errors import FileError

GIT_PATHS = (".git", ".gitignore", ".gitattributes", ".github")  # OMS 6.2: excluded by default
MAX_FILES = 5_000_000  # more than a signature can list; symbolic links can multiply a tree


def check_name(name: str) -> str:
    """Refuses a name that a manifest cannot hold (OMS 6.1.2.7) or that could forge output.

    Raises:
        FileError: The name is not UTF-8, or has control characters such as a line break.
    """
    if problem := name_problem(name):
        raise FileError(f"a file name {problem}", where=name)
    return name


def name_problem(name: str) -> str | None:
    """Why a name is refused, if it is: C0 or C1 control characters, undecodable bytes."""
    kinds = set() if name.isprintable() else set(map(unicodedata.category, name))
    if "Cc" in kinds:
        return "has control characters"
    return "is not UTF-8 (OMS 6.1.2)" if "Cs" in kinds else None


def canonical(path: str) -> tuple[str, str | None]:
    """An ignore path in canonical form, and what OMS 6.2.1 forbids about it, if anything."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    problem = None if parts else "is the whole model"
    if any(character in path for character in "*?["):
        problem = "has glob characters"
    if ".." in parts or path.startswith("/"):
        problem = "lies outside the model"
    return "/".join(parts), problem
