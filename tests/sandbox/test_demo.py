"""`make demo` and what it leaves: the model verifies at home, and nothing else does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.checkout import PRODUCT, programs_of
from sandbox.demo import WORKFLOW, verify_command

ROOT = Path(__file__).resolve().parents[2]
MODEL = "tensorflow_model.keras"


def run_demo(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox", "demo", f"--output={output}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.fixture
def out(demonstration, tmp_path) -> Path:
    """A copy of that folder, to do harm to."""
    return Path(shutil.copytree(demonstration[1], tmp_path / "out"))


@pytest.fixture(scope="module")
def programs() -> Path:
    return programs_of("base")


def verify(programs: Path, command: list[str]) -> tuple[int, str]:
    result = subprocess.run(
        [programs / command[0], *command[1:]],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout + result.stderr


def test_every_stage_shows(demonstration):
    printed, _ = demonstration
    stages = ["> sigstore", "> train", "> provenance", "> sign", "> verify", "> at home"]
    positions = [printed.index(stage) for stage in stages]
    assert positions == sorted(positions)
    assert f"VERIFIED {MODEL}" in printed


def test_everything_is_left(demonstration):
    _, output = demonstration
    assert sorted(path.name for path in output.iterdir()) == sorted(
        [
            MODEL,
            f"{MODEL}.sig",
            f"{MODEL}.intoto.jsonl",
            f"{MODEL}.provenance.sigstore.json",
            f"{MODEL}.verdict.html",
            "training.json",
            "trust-config.json",
            "run",
        ]
    )
    assert sorted(path.name for path in (output / "run").iterdir()) == ["log.txt", "summary.md"]
    page = (output / f"{MODEL}.verdict.html").read_text(encoding="utf-8")
    assert f"<title>VERIFIED {MODEL}" in page and "NOT the public Sigstore" in page
    accuracy = json.loads((output / "training.json").read_text())["metrics"]["test_accuracy"]
    assert accuracy > 0.1  # guessing


def test_the_printed_commands_work(demonstration, out):
    """As a newcomer would paste them: verify, flip a byte, verify again."""
    printed = demonstration[0].replace(str(demonstration[1]), str(out))
    export, verification = re.search(
        r"Verify it yourself:\n\n  (export .*)\n  ((?:.*\\\n)*.*)\n", printed
    ).groups()
    tamper = re.search(r"see it refused:\n\n  (.*)\n", printed).group(1)

    def paste(command: str) -> tuple[int, str]:
        result = subprocess.run(
            ["bash", "-c", f"{export}\n{command}"],
            capture_output=True,
            text=True,
            timeout=1800,
        )
        return result.returncode, result.stdout + result.stderr

    assert paste(verification)[0] == 0
    assert paste(tamper)[0] == 0
    code, output = paste(verification)
    assert code == 1
    assert re.search(rf"{MODEL}.*expected.*found", output, re.DOTALL), output
    assert len(set(re.findall(r"[0-9a-f]{64}", output))) >= 2, output


def test_another_models_provenance_is_refused(programs, out):
    """The generator's, for another model: signed as it should be, but about something else."""
    command = verify_command(MODEL, out)
    assert verify(programs, command)[0] == 0
    other = out / "another.pth"
    other.write_bytes(b"another model")
    shutil.copy(out / f"{MODEL}.sig", out / "another.pth.sig")
    command[2] = str(other)
    code, output = verify(programs, command)
    assert code == 1 and "another.pth" in output, output


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        (
            "--identity",
            f"https://github.com/{PRODUCT}/{WORKFLOW}@refs/heads/evil",
            "refs/heads/evil",
        ),
        ("--identity", "somebody@example.test", "somebody@example.test"),
        ("--identity-provider", "https://accounts.google.com", "accounts.google.com"),
        ("--source-uri", "github.com/model-transparency/model-transparenc", "model-transparenc"),
        ("--source-uri", "github.com/evil/model-transparency", "evil/model-transparency"),
    ],
)
def test_another_identity_or_repository_is_refused(programs, out, option, value, named):
    command = verify_command(MODEL, out)
    command[command.index(option) + 1] = value
    code, output = verify(programs, command)
    assert code == 1 and named in output, output


def test_another_sigstore_is_refused(programs, out, foreign_sigstore):
    foreign_sigstore.write_trust_config(out / "trust-config.json")
    code, output = verify(programs, verify_command(MODEL, out))
    assert code == 1, output


def test_an_unknown_format_is_refused_before_anything_runs(tmp_path):
    result = run_demo(tmp_path / "out", "--model=nonsense")
    assert result.returncode == 1
    assert "'nonsense' for input 'model' is not one of: tensorflow_model.keras" in result.stderr
    assert not (tmp_path / "out/run/log.txt").exists()


@pytest.mark.full
def test_a_failed_training_is_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run_demo(tmp_path / "out", f"--model={MODEL}", f"--data-dir={tmp_path / 'empty'}")
    assert result.returncode == 1
    assert "The run failed, in: train" in result.stderr
    assert str(tmp_path / "empty") in result.stderr
    assert f"All of it: {tmp_path / 'out/run/log.txt'}" in result.stderr
    assert "[train] " in (tmp_path / "out/run/log.txt").read_text()
    assert not (tmp_path / "out" / MODEL).exists()
