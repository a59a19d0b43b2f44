"""Copies of repositories, as they are on disk, for the sandbox's runs. For tests and demos only."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Nobody's configuration, and the same commit for the same files at any time.
_GIT = ("git", "-c", "safe.directory=*", "-c", "core.autocrlf=false", "-c", "commit.gpgsign=false")
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "sandbox",
    "GIT_AUTHOR_EMAIL": "sandbox@example.test",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "sandbox",
    "GIT_COMMITTER_EMAIL": "sandbox@example.test",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


@dataclass(frozen=True)
class Repository:
    """A folder that plays a repository on GitHub.

    Attributes:
        name: `OWNER/NAME`.
        path: The folder; a git checkout or plain files.
        ref: The branch or tag that its files are, in full.
        visibility: `public`, `private` or `internal`.
    """

    name: str
    path: Path
    ref: str = "refs/heads/main"
    visibility: str = "public"


def snapshot(path: Path, target: Path) -> str:
    """Copies a folder's files into a new git repository and returns their commit.

    Committed files come with the changes of the working tree, and without what `.gitignore`
    excludes. An unchanged checkout keeps its commit; anything else gets a commit on top, whose
    digest depends on nothing but the files and the commit below.

    Args:
        path: A git checkout, or a folder of plain files.
        target: Where the repository is made; must not exist.
    """
    if (path / ".git").exists():
        _git(path, "clone", "--quiet", "--no-checkout", "--depth=1", path.as_uri(), str(target))
        listed = _git(path, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = [name for name in listed.split("\0") if name]
    else:
        target.mkdir(parents=True)
        _git(target, "init", "--quiet", "--initial-branch=main")
        names = [item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file()]
    for name in names:
        source, copy = path / name, target / name
        if not source.exists() and not source.is_symlink():
            continue  # deleted, but not committed yet
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
    _git(target, "add", "--all")
    if _git(target, "status", "--porcelain"):
        _git(target, "commit", "--quiet", "--message", "Files of the working tree")
    return _git(target, "rev-parse", "HEAD").strip()


def tag_object(path: Path, ref: str) -> str | None:
    """The tag object that `ref` leads to, if it is an annotated or signed tag of a checkout."""
    if not ref.startswith("refs/tags/") or not (path / ".git").exists():
        return None
    found = _git(path, "for-each-ref", "--format=%(objecttype) %(objectname)", ref).split()
    return found[1] if found[:1] == ["tag"] else None


def checkout(repository: Path, commit: str, target: Path) -> None:
    """Gets one commit of a repository into `target`, an empty or missing folder."""
    target.mkdir(parents=True, exist_ok=True)
    _git(target, "init", "--quiet", "--initial-branch=main")
    _git(target, "fetch", "--quiet", "--depth=1", repository.as_uri(), commit)
    _git(target, "checkout", "--quiet", "--detach", commit)


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        [*_GIT, "-C", str(folder), *arguments],
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if result.returncode != 0:
        raise RuntimeError(f"git {arguments[0]} in {folder}: {result.stderr.strip()}")
    return result.stdout
