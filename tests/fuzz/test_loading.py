"""A sample of `make fuzz-load`, with another seed every day."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTORCH, TENSORFLOW = pytest.mark.pytorch, pytest.mark.tensorflow


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="not tested: the target forks")
@pytest.mark.parametrize(
    ("name", "cases"),
    [
        pytest.param("pytorch_model.pth", 40, marks=PYTORCH),
        pytest.param("pytorch_model.safetensors", 40, marks=PYTORCH),
        pytest.param("pytorch_model.onnx", 40, marks=PYTORCH),
        pytest.param("pytorch_jitted_model.pt", 20, marks=PYTORCH),
        pytest.param("tensorflow_model.keras", 20, marks=TENSORFLOW),
        pytest.param("tensorflow_hdf5_model.h5", 20, marks=TENSORFLOW),
        pytest.param("tensorflow_hdf5.weights.h5", 40, marks=TENSORFLOW),
        pytest.param("tensorflow_saved_model", 20, marks=TENSORFLOW),
    ],
)
def test_mutated_models_do_no_harm(name: str, cases: int) -> None:
    seed = datetime.date.today().toordinal()
    command = [sys.executable, "-m", "tests.fuzz.fuzz_loading", f"--format={name}"]
    done = subprocess.run(
        [*command, f"--cases={cases}", f"--seed={seed}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" in done.stdout
    assert f"{cases}  cases of {name}, seed {seed}: no crash" in done.stdout
