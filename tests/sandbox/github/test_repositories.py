"""Copies of repositories: what is on disk, under the commit that it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.github.repositories import checkout, snapshot, tag_object
from tests.support.repositories import git


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    (folder / ".gitignore").write_text("ignored\n")
    (folder / "sub/file").write_text("1")
    (folder / "gone").write_text("2")
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to("sub/file")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def test_an_unchanged_checkout_keeps_its_commit(repository, tmp_path):
    assert snapshot(repository, tmp_path / "copy") == git(repository, "rev-parse", "HEAD")
    assert files(tmp_path / "copy") == [".gitignore", "gone", "link", "program", "sub/file"]
    assert (tmp_path / "copy/link").is_symlink()
    assert (tmp_path / "copy/program").stat().st_mode & 0o111


def test_changes_of_the_working_tree_come_along_under_a_commit_of_their_own(repository, tmp_path):
    head = git(repository, "rev-parse", "HEAD")
    (repository / "sub/file").write_text("changed")
    (repository / "new").write_text("3")
    (repository / "ignored").write_text("4")
    (repository / "gone").unlink()
    commit = snapshot(repository, tmp_path / "copy")
    assert commit != head
    assert git(tmp_path / "copy", "rev-parse", "HEAD^") == head
    assert files(tmp_path / "copy") == [".gitignore", "link", "new", "program", "sub/file"]
    assert (tmp_path / "copy/sub/file").read_text() == "changed"
    assert snapshot(repository, tmp_path / "again") == commit
    assert git(repository, "rev-parse", "HEAD") == head  # nothing happened to the original


def test_plain_files_become_a_repository(repository, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "file").write_text("1")
    commit = snapshot(plain, tmp_path / "copy")
    assert snapshot(plain, tmp_path / "again") == commit
    assert not (plain / ".git").exists()


def test_a_checkout_is_of_one_commit(repository, tmp_path):
    commit = snapshot(repository, tmp_path / "copy")
    checkout(tmp_path / "copy", commit, tmp_path / "out")
    assert files(tmp_path / "out") == [".gitignore", "gone", "link", "program", "sub/file"]
    assert git(tmp_path / "out", "rev-parse", "HEAD") == commit
    with pytest.raises(RuntimeError, match="git fetch"):
        checkout(tmp_path / "copy", "0" * 40, tmp_path / "other")


def test_an_annotated_tag_is_an_object_of_its_own(repository):
    git(repository, "tag", "v1")
    git(repository, "tag", "--annotate", "--message", "two", "v2")
    assert tag_object(repository, "refs/tags/v1") is None
    assert tag_object(repository, "refs/tags/v2") == git(repository, "rev-parse", "v2")
    assert git(repository, "cat-file", "-t", "v2") == "tag"
    for absent in ("refs/tags/v", "refs/tags/v3", "refs/heads/v2"):
        assert tag_object(repository, absent) is None
