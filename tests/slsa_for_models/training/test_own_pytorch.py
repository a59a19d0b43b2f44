"""The PyTorch script of examples/, as a command like any other."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from slsa_for_models import cli

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/pytorch"


@pytest.mark.pytorch
def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same bytes, confined, and what it learned is in its metrics."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    parameters = json.dumps({"seed": 0, "rate": 0.05, "steps": 300})
    models = []
    for name in "ab":
        code = cli.main(
            [
                *("train", "--source", str(EXAMPLE), "--model", "model.pt"),
                *("--metrics", "metrics.json", "--parameters", parameters),
                *("--output-dir", str(tmp_path / name), "--", "python", "train.py"),
            ]
        )
        assert code == 0
        models.append((tmp_path / name / "model.pt").read_bytes())
    record = json.loads((tmp_path / "a" / "training.json").read_bytes())
    assert record["metrics"]["loss"] < 1
    assert "torch" in record["environment"]["packages"]
    assert models[0] == models[1]
