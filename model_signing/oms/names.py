"""OMS 6.1, 6.2: canonical names, and which of the files at a place belong to the model."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from functools import cached_property

from model_signing.errors import FileError, UsageError

GIT_PATHS = (".git", ".gitignore", ".gitattributes", ".github")  # OMS 6.2: excluded by default
HUB_PATH = ".cache/huggingface"  # what `hf download --local-dir` notes about the files
_GLOB = frozenset("*?[")
MAX_FILES = 3_000_000  # as a signature can list; symbolic links can multiply a tree


def check_name(name: str) -> str:
    """Refuses a name that a manifest cannot hold (OMS 6.1.2.7) or that could forge output.

    Raises:
        FileError: The name is not UTF-8, or has control characters such as a line break.
    """
    if not name.isprintable() and (problem := name_problem(name)):
        raise FileError(f"a file name {problem}", where=name)
    return name


def name_problem(name: str) -> str | None:
    """Why a name is refused, if it is: C0 or C1 control characters, undecodable bytes."""
    kinds = set() if name.isprintable() else set(map(unicodedata.category, name))
    if "Cc" in kinds:
        return "has control characters"
    return "is not UTF-8 (OMS 6.1.2)" if "Cs" in kinds else None


def ignored(name: str, path: str | None = None) -> str:
    """A name to be ignored in canonical form (OMS 6.2.1); `path` is what the user wrote.

    Raises:
        UsageError: It lies outside the model, is the whole model, or has glob characters.
        FileError: As `check_name`.
    """
    found, problem = canonical(name)
    if problem:
        where = name if path is None else path
        raise UsageError(f"an ignored path {problem} (OMS 6.2.1)", where=where)
    return check_name(found)


def canonical(path: str) -> tuple[str, str | None]:
    """An ignore path in canonical form, and what OMS 6.2.1 forbids about it, if anything."""
    if "/" not in path and path not in ("", ".", "..") and _GLOB.isdisjoint(path):
        return path, None  # nearly every one
    parts = [part for part in path.split("/") if part not in ("", ".")]
    problem = None if parts else "is the whole model"
    if not _GLOB.isdisjoint(path):
        problem = "has glob characters"
    if ".." in parts or path.startswith("/"):
        problem = "lies outside the model"
    return "/".join(parts), problem


def above(name: str) -> Iterator[str]:
    """The folders that a name lies in, the outermost first."""
    end = name.find("/")
    while end > 0:
        yield name[:end]
        end = name.find("/", end + 1)


def covered(name: str, paths: Collection[str]) -> bool:
    """Whether a name is one of these paths, or lies below one."""
    return any(f"{name}/".startswith(f"{path}/") for path in paths)


class Selection:
    """Which files of a place belong to the model, wherever that is (OMS 6.1, 6.2, 8.5).

    Args:
        ignored: Canonical relative paths that are left out, each with its subtree (OMS 6.2.1).
        listed: Names in a signed manifest, also the attribute; these are taken although ignored.
        only_listed: Take nothing else (OMS 8.5).
        noted: Those of `ignored` that are wanted among the `unsigned`, if they are there.
    """

    def __init__(
        self,
        ignored: Collection[str] = (),
        listed: Collection[str] = (),
        only_listed: bool = False,
        noted: Collection[str] = (),
    ) -> None:
        self.listed, self._noted = listed, tuple(noted)
        self._ignored, self._only_listed = tuple(ignored), only_listed
        self._first_parts = {path.partition("/")[0] for path in ignored}

    def takes(self, name: str) -> bool:
        """Whether a file of this name belongs to the model; of a folder, whether one in it may."""
        if not self._only_listed and name.partition("/")[0] not in self._first_parts:
            return True  # nearly every name
        return not (self._only_listed or self._ignores(name)) or name in self._kept

    def unsigned(self, name: str) -> bool:
        """Whether what is not taken is noted, or passed over only because nobody signed it."""
        return covered(name, self._noted) or (self._only_listed and not self._ignores(name))

    def _ignores(self, name: str) -> bool:
        return covered(name, self._ignored)

    @cached_property
    def _kept(self) -> set[str]:
        """What is listed, and the folders above it."""
        kept: set[str] = set()
        for name in self.listed:
            while name and name not in kept:
                kept.add(name)
                name = name.rpartition("/")[0]
        return kept
