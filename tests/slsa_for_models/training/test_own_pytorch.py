"""The PyTorch script of examples/, as a command like any other."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from slsa_for_models import cli

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/pytorch"


def train(output: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The model that the example gives, confined."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    parameters = json.dumps({"seed": 0, "rate": 0.05, "steps": 300})
    code = cli.main(
        [
            *("train", "--source", str(EXAMPLE), "--model", "model.pt"),
            *("--metrics", "metrics.json", "--parameters", parameters),
            *("--output-dir", str(output), "--", "python", "train.py"),
        ]
    )
    assert code == 0
    return (output / "model.pt").read_bytes()


@pytest.mark.pytorch
def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it learned is in its metrics."""
    train(tmp_path, monkeypatch)
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert record["metrics"]["loss"] < 1
    assert "torch" in record["environment"]["packages"]


@pytest.mark.full
@pytest.mark.pytorch
def test_the_example_gives_the_same_bytes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "a", monkeypatch) == train(tmp_path / "b", monkeypatch)
