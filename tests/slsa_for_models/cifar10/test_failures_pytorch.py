"""Training with PyTorch that goes wrong, and what it leaves: nothing, or what was there."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model_signing.errors import FileError
from slsa_for_models.cifar10 import dataset, recipe, training
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import formats
from tests.support import training_runs as runs
from tests.support.limits import limited

IMAGES = ("--dataset=synthetic", "--train-images=100", "--test-images=20", "--threads=1")


@pytest.fixture
def data(tmp_path: Path) -> dataset.Data:
    return dataset.load_folder(dataset.made_up(100, 20, 0, tmp_path / "cache"))


def choices(**changes: object) -> training.Choices:
    given = {"epochs": 1, "seed": 0, "threads": 1, "minimum_accuracy": 0.0}
    return training.Choices(**{"format": "pytorch_model.pth", **given, **changes})


def test_saved_model_that_predicts_something_else(tmp_path, data, monkeypatch):
    module = recipe(formats.FORMATS["pytorch_model.pth"])
    save = lambda _, path: torch.save(module.network().state_dict(), path)  # noqa: E731
    monkeypatch.setitem(module.SAVE, "pytorch_model.pth", save)
    with pytest.raises(TrainingError, match="does not predict what the trained one does"):
        training.train(choices(), data, tmp_path, print)


def test_saved_model_that_cannot_be_loaded(tmp_path, data, monkeypatch):
    module = recipe(formats.FORMATS["pytorch_model.pth"])
    monkeypatch.setitem(module.SAVE, "pytorch_model.pth", lambda _, path: path.write_bytes(b"?"))
    with pytest.raises(TrainingError, match="cannot be loaded again") as refusal:
        training.train(choices(), data, tmp_path, print)
    assert "zip archive" in refusal.value.found


def test_training_that_diverges(tmp_path, data, monkeypatch):
    module = recipe(formats.FORMATS["pytorch_model.pth"])
    monkeypatch.setitem(module.PARAMETERS, "learning_rate", 1e30)
    with pytest.raises(TrainingError, match="diverged"):
        training.train(choices(epochs=3), data, tmp_path, print)


def test_a_recipe_that_fails_leaves_the_earlier_result(tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("pytorch_model.pth", "training.json", "other"):
        (output / name).write_bytes(b"old")
    command = ("train", "pytorch_model.pth", *IMAGES, "--epochs=1", "--minimum-accuracy=1")
    done = runs.run_cli(*command, "--output-dir", output)
    assert done.returncode == 1
    assert "not good enough" in done.stderr and "the training command failed" in done.stderr
    assert {path.read_bytes() for path in output.iterdir()} == {b"old"}


def test_interrupt(tmp_path: Path):
    """What each signal does is shown in `training/test_run.py`, without a framework."""
    command = [sys.executable, "-m", "slsa_for_models", "train", "pytorch_model.pth", *IMAGES]
    running = subprocess.Popen(
        [*command, "--epochs=1000", "--output-dir", str(tmp_path / "out")],
        cwd=runs.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with limited(running, 300):
        assert running.stderr.readline().startswith("epoch 1/1000")
        running.send_signal(signal.SIGTERM)
        _, error = running.communicate(timeout=60)
    assert running.returncode == 143
    assert error.splitlines()[-1] == "terminated"
    assert "Traceback" not in error
    assert list((tmp_path / "out").iterdir()) == []


def test_disk_that_is_full(tmp_path: Path, data: dataset.Data):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    try:
        with pytest.raises(FileError, match="the model cannot be saved"):
            training.train(choices(), data, tmp_path, print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
