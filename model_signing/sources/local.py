"""OMS 6.1-6.2: which files make up a model, under which names.

A walk never guesses: what it cannot read, represent or classify is an error, not an omission.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from model_signing.errors import FileError, UsageError
from model_signing.oms.names import MAX_FILES, canonical, check_name
from model_signing.safe_files import failed

_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
# A FIFO swapped in for a file must not block us.
_OPEN_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Stamp(NamedTuple):
    """What changes when a file is replaced or written; sizes in bytes, times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int  # unlike `modified`, no program can set it back


class Tree(NamedTuple):
    """A model on disk."""

    root: str  # its path
    single: bool  # whether it is one file rather than a directory
    files: dict[str, Stamp]  # by canonical relative name (OMS 6.1.2)
    unsigned: list[str]  # what was passed over because only listed files were asked for

    def path(self, name: str) -> str:
        """Where the file of that name is opened."""
        return self.root if self.single else f"{self.root}/{name}"


def walk(
    model: Path,
    *,
    ignored: Iterable[str] = (),
    allow_symlinks: bool = False,
    listed: Iterable[str] = (),
    only_listed: bool = False,
) -> Tree:
    """Enumerates the regular files of a model (OMS 6.1).

    Args:
        model: A directory, or a single file.
        ignored: Canonical relative paths that are left out, each with its subtree (OMS 6.2.1).
        allow_symlinks: Follow symbolic links that stay inside the model; otherwise refuse any.
        listed: Names in a signed manifest; these are enumerated although ignored.
        only_listed: Pass over everything else (OMS 8.5).

    Raises:
        FileError: A part of the model cannot be read; a symbolic link that is refused (6.1.1); a
            FIFO, socket or device; a name that is not UTF-8 (6.1.2) or has control characters.
    """
    root = os.fspath(model)
    # 6.1.1 holds for the model's own path too: a link there is as easily exchanged.
    try:
        status = model.stat(follow_symlinks=allow_symlinks)
    except (OSError, ValueError) as error:
        failed(root, error, "cannot read the model")
    if stat.S_ISLNK(status.st_mode):
        _check_link(root, None)
    if stat.S_ISREG(status.st_mode):
        return Tree(root, True, {check_name(basename(model)): stamp(status)}, [])
    if not stat.S_ISDIR(status.st_mode):
        raise FileError("a model is a file or a directory", where=root)

    excluded = frozenset(ignored)
    kept = _with_parents(listed) if excluded or only_listed else frozenset()
    real_root = os.path.realpath(root) if allow_symlinks else None
    tree = Tree(root, False, {}, [])
    # A directory's prefix, whether only listed files count below it, and it and those above it.
    above: tuple[tuple[int, int], ...] = ((status.st_dev, status.st_ino),)
    pending = [("", only_listed, above)]
    while pending:
        prefix, restricted, above = pending.pop()
        for entry in _scan(f"{root}/{prefix}"):
            name = prefix + entry.name
            if (restricted or name in excluded) and name not in kept:
                if only_listed and name not in excluded:
                    tree.unsigned.append(name)
                continue
            if entry.is_symlink():
                _check_link(entry.path, real_root)
            try:
                status = entry.stat(follow_symlinks=allow_symlinks)
            except OSError as error:
                failed(entry.path, error)
            if stat.S_ISREG(status.st_mode):
                tree.files[check_name(name)] = stamp(status)
            elif stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    circle = "a symbolic link leads back to a directory above it (OMS 6.1.1)"
                    raise FileError(circle, where=entry.path)
                pending.append((name + "/", restricted or name in excluded, (*above, identity)))
            else:
                raise FileError(
                    "a model has files and directories only (OMS 6.1)",
                    where=entry.path,
                    found=_KINDS.get(stat.S_IFMT(status.st_mode), "a device"),
                    fix="remove it, or exclude it with --ignore-paths",
                )
            if len(tree.files) > MAX_FILES:
                raise FileError("the model has too many files", expected=f"at most {MAX_FILES}")
    return tree


def _scan(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError as error:
        failed(directory, error)


def _with_parents(names: Iterable[str]) -> frozenset[str]:
    kept: set[str] = set()
    for name in names:
        while name and name not in kept:
            kept.add(name)
            name = name.rpartition("/")[0]
    return frozenset(kept)


def _check_link(link: str, real_root: str | None) -> None:
    """OMS 6.1.1, but stricter: a link out of the model is an error. No root: so is any link."""
    if real_root is None:
        raise FileError(
            "a symbolic link is not part of a model (OMS 6.1.1)",
            where=link,
            fix="replace it by what it points to, or sign with --allow-symlinks",
        )
    target = os.path.realpath(link)
    if not os.path.exists(target):  # noqa: PTH110 - also true for a circle of links
        raise FileError("a symbolic link leads nowhere (OMS 6.1.1)", where=link, found=target)
    if os.path.commonpath([target, real_root]) != real_root:
        raise FileError(
            "a symbolic link leads out of the model (OMS 6.1.1)",
            where=link,
            found=target,
            fix="replace the link by a copy of its target",
        )


def stamp(of: os.stat_result) -> Stamp:
    """The stamp of a file from its status."""
    return Stamp(of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns)


def open_model_file(path: str, *, follow: bool) -> int:
    """A descriptor of a file of a model; never follows a link unasked, never blocks on a FIFO.

    Raises:
        FileError: It cannot be opened.
    """
    try:
        return os.open(path, _OPEN_FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    except (OSError, ValueError) as error:
        failed(path, error)


def basename(model: Path) -> str:
    """The model's own name (OMS 6.5), also for a path such as `.`."""
    return model.name if model.name not in ("", "..") else Path(os.path.realpath(model)).name


def name_inside(model: Path, path: Path) -> str | None:
    """The canonical relative name of `path` in the directory `model`; None if it lies elsewhere.

    Links are resolved, except in the last component, which need not exist.
    """
    real_path = f"{os.path.realpath(path.parent)}/{path.name}"
    name = os.path.relpath(real_path, os.path.realpath(model)).replace(os.sep, "/")
    return None if name.split("/")[0] in (".", "..") else name


def ignored_path(model: Path, path: str) -> str:
    """An ignore path in canonical form (OMS 6.2.1): relative to the model, or absolute and inside.

    Raises:
        UsageError: It lies outside the model, is the whole model, or has glob characters.
    """
    inside = name_inside(model, Path(path)) if Path(path).is_absolute() else path
    name, problem = canonical(inside or "..")
    if problem:
        raise UsageError(f"an ignored path {problem} (OMS 6.2.1)", where=path)
    return check_name(name)
