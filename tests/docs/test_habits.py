"""Files for the people who work here say what is true of the rest."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_pre_commit_runs_the_locked_versions() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    locks = "".join(path.read_text() for path in ROOT.glob("requirements/*.txt"))
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "actionlint", "zizmor"}
    for hook in hooks:
        (wanted,) = hook["additional_dependencies"]
        name = wanted.partition("==")[0]
        assert set(re.findall(rf"^{name}==\S+", locks, re.MULTILINE)) == {wanted}


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
