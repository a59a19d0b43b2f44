"""A training done again from its signed provenance: commit, lock, data, command, the same bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slsa_for_models import cli
from slsa_for_models.evidence import training_record
from tests.slsa_for_models.training.test_run import make_wheel
from tests.support.crafted import SOURCE, TRAIN, Workshop
from tests.support.repositories import git

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")
SCRIPT = """
import json, small_example
rows = open("data.csv").read()
open("model.json", "w").write(json.dumps([rows, small_example.__name__]))
json.dump({"score": 0.5}, open("metrics.json", "w"))
"""
UNLOCKED = {
    "requirements": "",
    "command": "sh -c 'cp data.csv model.json; echo {} > metrics.json'",
}
DATA = b"1,2\n"
DIGEST = hashlib.sha256(DATA).hexdigest()


@dataclass
class Project:
    """A repository, and what was trained and attested from its commit."""

    workshop: Workshop
    repository: Path

    def commit(self) -> str:
        git(self.repository, "add", "--all")
        git(self.repository, "commit", "--quiet", "--message=all")
        return git(self.repository, "rev-parse", "HEAD")

    def train(self, **changes: str) -> None:
        """Trains and attests, as the jobs of train.yml do."""
        inputs = {
            "command": "python train.py",
            "model": "model.json",
            "data": f"{DIGEST}  data.csv  artifact:table/data.csv",
            "requirements": "requirements.lock",
            "metrics": "metrics.json",
            **changes,
        }
        commit, folder = self.commit(), self.workshop.folder
        source = ("--source", str(self.repository))
        where = ("--artifacts", str(folder / "artifacts"), f"--output-dir={folder}")
        assert cli.main(["train", *source, *where, "--workflow-inputs", json.dumps(inputs)]) == 0
        of_the_run = json.dumps({**inputs, "runner": "ubuntu-latest"})
        code, _ = self.workshop.run(
            *("provenance", folder / "model.json", "--training-record", folder / "training.json"),
            *("--output", folder / "own.json", *source, "--workflow-inputs", of_the_run),
            *("--identity-token", self.workshop.token(sha=commit)),
        )
        assert code == 0

    def reproduce(self, *options: object) -> int:
        folder = self.workshop.folder
        code, _ = self.workshop.run(
            *("reproduce", folder / "model.json", "--provenance", folder / "own.json"),
            *("--source-uri", SOURCE, "--builder-id", TRAIN, "--source", self.repository),
            *options,
        )
        return code


@pytest.fixture
def project(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Project:
    repository, artifacts = workshop.folder / "repository", workshop.folder / "artifacts" / "table"
    repository.mkdir()
    artifacts.mkdir(parents=True)
    (artifacts / "data.csv").write_bytes(DATA)
    digest = make_wheel(workshop.folder / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(workshop.folder / "wheels"))
    (repository / "train.py").write_text(SCRIPT)
    lock = f"small-example==1.0 \\\n    --hash=sha256:{digest}\n"
    (repository / "requirements.lock").write_text(lock)
    made = Project(workshop, repository)
    git(repository, "init", "--quiet")
    return made


@pytest.mark.parametrize(
    "option",
    [("--source-uri", SOURCE), ("--dataset-digest", DIGEST), ("--run-conclusion",)],
    ids=lambda option: option[0],
)
def test_a_record_alone_can_meet_no_expectation(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    model = workshop.model()
    record = ("--training-record", workshop.record_file(model))
    assert workshop.run("reproduce", model, *record, *option)[0] == 2
    assert f"{option[0]} is of verified provenance" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_bytes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the clone looks like by now: it is the commit that counts.

    The command imports a wheel made here, found by its hash, in an environment of its own.
    """
    project.train()
    told = training_record.parse((project.workshop.folder / "training.json").read_bytes())
    assert told.environment.packages["small-example"] == "1.0"
    lock = (project.repository / "requirements.lock").read_bytes()
    assert told.environment.requirements_sha256 == hashlib.sha256(lock).hexdigest()
    (project.repository / "train.py").write_text("raise SystemExit(1)")
    project.commit()
    capsys.readouterr()
    assert project.reproduce() == 1
    error = capsys.readouterr().err
    assert "cannot be repeated" in error and "not to be had without --data: data.csv" in error
    assert project.reproduce("--data", project.workshop.folder / "artifacts") == 0
    # What a command prints goes to its standard output, and what it was is said there, too.
    capsys.readouterr()


@pytest.mark.full
def test_other_bytes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.repository / "train.py").write_text(
        SCRIPT + "import os; print(os.urandom(9), file=open('model.json', 'a'))\n"
    )
    project.train()
    assert project.reproduce("--data", project.workshop.folder / "artifacts") == 1
    error = capsys.readouterr().err
    assert "not identical" in error and "score 0.5, now 0.5" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**UNLOCKED, "network": "allowed"}, "it had a network"),
        (UNLOCKED, "not locked"),
    ],
)
def test_what_cannot_be_repeated_is_said_before_the_work(
    project: Project, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    project.train(**changes)
    capsys.readouterr()
    assert project.reproduce() == 1
    error = capsys.readouterr().err
    assert "cannot be repeated" in error and words in error


@pytest.mark.full
def test_nothing_is_repeated_of_a_model_that_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.train()
    with (project.workshop.folder / "model.json").open("ab") as file:
        file.write(b" ")
    assert project.reproduce("--data", project.workshop.folder / "artifacts") == 1
    assert "identical" not in capsys.readouterr().out


@pytest.mark.full
def test_a_clone_without_the_commit(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.train()
    other = project.workshop.folder / "other"
    subprocess.run(["git", "init", "--quiet", str(other)], check=True, timeout=60)
    assert project.reproduce("--source", other) == 1
    assert "the source does not have the commit" in capsys.readouterr().err
