"""Files for the people who work here say what is true of the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_pre_commit_runs_the_locked_versions() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lock = (ROOT / "requirements/lint.txt").read_text()
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "actionlint", "zizmor"}
    for hook in hooks:
        (wanted,) = hook["additional_dependencies"]
        assert wanted in re.findall(r"^\S+==\S+", lock, re.MULTILINE)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md", "docs/decisions"])
def test_what_is_named_by_its_path_is_there(document: str) -> None:
    place = ROOT / document
    texts = [path.read_text() for path in (place.glob("*.md") if place.is_dir() else [place])]
    folders = "model_signing|slsa_for_models|sandbox|tests|docs|actions|requirements|\\.github"
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", "".join(texts))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_code_owners_own_what_is_there() -> None:
    lines = (ROOT / ".github/CODEOWNERS").read_text().splitlines()
    owned = [line.split()[0] for line in lines if not line.startswith("#")]
    assert owned
    for path in owned:
        assert (ROOT / path.strip("/")).is_dir(), path


def test_commits_that_blame_passes_over_are_named_in_full() -> None:
    lines = (ROOT / ".git-blame-ignore-revs").read_text().splitlines()
    commits = [line for line in lines if line and not line.startswith("#")]
    assert commits
    assert all(re.fullmatch(r"[0-9a-f]{40}", commit) for commit in commits)
