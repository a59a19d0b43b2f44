"""release.yml up to the point where it leaves this machine."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.github.workflows import load
from tests.workflows.runs import ROOT, Sandbox

# What speaks to the package index.
PYPI = (
    "        uses: pypa/gh-action-pypi-publish@dc37677b2e1c63e2034f94d8a5b11f265b73ba33 # v1.14.2\n"
    "        with:\n          attestations: true\n"
)
VERSION = "1.0.0"
COMMIT = "c" * 40


class GitHub:
    """A `gh` that notes what it is asked, and answers."""

    def __init__(self, folder: Path, *refs: str, status: str = "behind") -> None:
        self._asked = folder / "asked"
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        program = folder / "gh"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {self._asked}\n'
            f'case "$2" in */compare/*) echo {status};; '
            f'*/matching-refs/*) echo "{" ".join(refs)}";; esac\n'
        )
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []


def release(github: GitHub, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / ".github/release.py"), *arguments],
        env={**os.environ, "PATH": github.path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("tag", "status", "changed", "message"),
    [
        (f"v{VERSION}", "identical", "", ""),
        (f"v{VERSION}", "behind", "", ""),
        ("v9.9.9", "behind", "", "the tag is v9.9.9, but pyproject.toml has version"),
        (f"v{VERSION}-rc1", "behind", "", "the tag is not vX.Y.Z"),
        (f"v{VERSION}", "ahead", "", "is not on main: GitHub says 'ahead'"),
        (f"v{VERSION}", "diverged", "", "is not on main"),
        (f"v{VERSION}", "behind", f"## [{VERSION}]", "CHANGELOG.md has no section"),
    ],
)
def test_what_a_release_has_to_be(
    tmp_path: Path, tag: str, status: str, changed: str, message: str
) -> None:
    root = tmp_path / "checkout"
    (root / ".github").mkdir(parents=True)
    for name in (".github/release.py", "pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root / name)
    if changed:
        changes = root / "CHANGELOG.md"
        changes.write_text(changes.read_text().replace(changed, "## [Unreleased]"))
    done = release(GitHub(tmp_path, status=status), "check", tag, COMMIT, root=root)
    assert (done.returncode, message in done.stderr) == (1 if message else 0, True), done.stderr


@pytest.mark.parametrize(
    ("refs", "asked"),
    [
        (["v1", "v1.2.2", "v1.2.3"], "/git/refs/tags/v1 --method PATCH"),
        (["v1", "v1.2.3", "v10.0.0", "v1.3.0-rc1"], "/git/refs/tags/v1 --method PATCH"),
        (["v1.2.3"], "/git/refs --method POST"),
        (["v1", "v1.2.3", "v1.10.0"], ""),
    ],
    ids=["newest", "newest but for others", "first", "patch of an older one"],
)
def test_the_major_tag_moves_to_the_newest_only(
    tmp_path: Path, refs: list[str], asked: str
) -> None:
    github = GitHub(tmp_path, *(f"refs/tags/{name}" for name in refs))
    done = release(github, "move", "v1.2.3", COMMIT)
    assert done.returncode == 0, done.stderr
    changes = [line for line in github.asked if "--method" in line]
    assert len(changes) == bool(asked)
    assert all(asked in line and f"sha={COMMIT}" in line for line in changes)
    assert bool(asked) != ("stays" in done.stdout)


@pytest.mark.full
def test_a_release(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_pypi(root: Path) -> None:
        path = root / ".github/workflows/release.yml"
        text = path.read_text(encoding="utf-8")
        assert PYPI in text, "release.yml has changed: the test is out of date"
        path.write_text(text.replace(PYPI, "        run: ls dist\n"), encoding="utf-8")

    (tmp_path / "bin").mkdir()
    github = GitHub(tmp_path / "bin", "refs/tags/v1", f"refs/tags/v{VERSION}")
    monkeypatch.setenv("PATH", github.path)
    product = dataclasses.replace(sandbox.product(without_pypi), ref=f"refs/tags/v{VERSION}")
    run = sandbox.run("release.yml", product, event_name="push")
    assert run.conclusion == "success", run.log.read_text(encoding="utf-8")
    assert run.jobs["sign"].outputs["verdict"] == "verified"
    assert run.jobs["publish"].conclusion == run.jobs["github-release"].conclusion == "success"
    created = next(line for line in github.asked if line.startswith("release create"))
    assert {"evidence/dist.sig", "evidence/dist.intoto.jsonl"} <= set(created.split())
    assert f"sha={run.commit}" in github.asked[-1]
    target = tmp_path / "dist"
    run.extract("dist", target)
    files = sorted(path.name for path in target.iterdir())
    assert [name.rpartition(".")[2] for name in files] == ["whl", "gz"]
    lines = base64.b64decode(run.jobs["build"].outputs["subjects"]).decode()
    for name in files:
        digest = hashlib.sha256((target / name).read_bytes()).hexdigest()
        assert f"{digest}  dist/{name}\n" in lines


def test_of_its_own_jobs_only_publish_holds_an_identity() -> None:
    jobs = load(Path(__file__).resolve().parents[2] / ".github/workflows/release.yml")["jobs"]
    own = {name: job for name, job in jobs.items() if "uses" not in job}
    holders = [name for name, job in own.items() if "id-token" in job["permissions"]]
    assert holders == ["publish"]
    assert jobs["publish"]["environment"] == {"name": "pypi"}
