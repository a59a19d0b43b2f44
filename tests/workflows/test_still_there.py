"""still-there.yml: what it asks for, and what it says of what is gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.github.runner import GENERATOR
from sandbox.github.workflows import load
from slsa_for_models.cifar10.archive import MIRRORS
from tests.workflows.runs import ROOT, Sandbox

WORKFLOW = load(ROOT / ".github/workflows/still-there.yml")


def still_there(tmp_path: Path, what: str, answers: dict[str, str], **more: str):
    """Runs the script with a `gh` that knows these tags and commits."""
    program = tmp_path / "gh"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nname = sys.argv[2]\n"
        f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
        "found = answers.get(name, answers.get('*'))\n"
        "print(found) if found else sys.exit('gh: No commit found (HTTP 422)')\n"
    )
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, str(ROOT / ".github/still_there.py"), what],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def pinned() -> dict[str, str]:
    """What GitHub says while nothing has changed."""
    answers = {f"repos/{GENERATOR.name}/commits/v2.1.0": GENERATOR.commit}
    for folder in (".github", "actions", "examples"):
        for path in (ROOT / folder).rglob("*.yml"):
            for name, commit, tag in re.findall(
                r"uses: ([\w-]+/[\w.-]+)\S*@([0-9a-f]{40}) # (\S+)", path.read_text()
            ):
                answers[f"repos/{name}/commits/{commit if tag == 'no' else tag}"] = commit
    return answers


def test_everything_pinned_is_asked_for(tmp_path: Path) -> None:
    answers = pinned()
    done = still_there(tmp_path, "pins", answers)
    assert done.returncode == 0, done.stderr
    told = {
        f"repos/{name}/commits/{ref}" for name, ref in re.findall(r"(\S+)@(\S+) is ", done.stdout)
    }
    assert told == set(answers)
    assert len(answers) > 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [("0" * 40, "is commit " + "0" * 40), ("", "is not there: gh: No commit found")],
)
@pytest.mark.parametrize("name", ["actions/checkout", GENERATOR.name])
def test_a_tag_that_moved_or_is_gone_is_told(
    tmp_path: Path, name: str, changed: str, message: str
) -> None:
    answers = pinned()
    (asked,) = (ask for ask in answers if ask.startswith(f"repos/{name}/"))
    done = still_there(tmp_path, "pins", {**answers, asked: changed})
    assert done.returncode == 1
    assert f"{name}@" in done.stderr and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_trust_root_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    done = still_there(tmp_path, "trust-root", {}, **nowhere)
    assert done.returncode == 1
    assert "Sigstore's trust root could not be refreshed" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_mirror_is_asked_for() -> None:
    assert tuple(WORKFLOW["jobs"]["data"]["strategy"]["matrix"]["mirror"]) == MIRRORS


def test_it_can_open_nothing() -> None:
    """Its own red mark is all that it leaves."""
    granted = {scope for job in WORKFLOW["jobs"].values() for scope in job["permissions"].items()}
    assert granted <= {("contents", "read")}


@pytest.mark.full
def test_where_nothing_is_there_it_is_red(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """This machine reaches none of them: each part says so, and none hides another."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    gh = tmp_path / "gh"
    gh.write_text("#!/bin/sh\necho 'error connecting' >&2\nexit 1\n")
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = sandbox.run("still-there.yml", sandbox.product(), event_name="schedule")
    assert {path: job.conclusion for path, job in run.jobs.items()} == dict.fromkeys(
        ("data", "pins", "trust-root"), "failure"
    )
    log = run.log.read_text(encoding="utf-8")
    for message in ("CIFAR-10 cannot be downloaded", "is not there", "could not be refreshed"):
        assert message in log
