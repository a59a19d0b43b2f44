"""TensorFlow, for real: the command that trains, and training that goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from slsa_for_models.cifar10 import dataset
from slsa_for_models.evidence import training_record
from tests.support import training_runs as runs


def test_command_trains_a_model_that_works(tmp_path: Path):
    images = ("--dataset=synthetic", "--train-images=2000", "--test-images=300", "--threads=1")
    done = runs.run_cli(
        "train", "tensorflow_model.keras", *images, "--output-dir", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert [line[:9] for line in done.stderr.splitlines()] == [
        *(f"epoch {number}/3" for number in (1, 2, 3)),
        "test accu",
    ], "TensorFlow's own notes are not shown"
    told = training_record.parse((tmp_path / "out" / "training.json").read_bytes())
    model = tmp_path / "out" / "tensorflow_model.keras"
    assert told.model.sha256 == runs.file_digests(model)[model.name]
    assert told.environment.packages["keras"] == keras.__version__
    assert runs.traces(tmp_path / "out" / "training.json") == []
    assert told.metrics["test_accuracy"] >= 0.3, (
        "a linear model gets less than 0.3 (test_synthetic)"
    )
    # The model as Keras alone sees it is as good as the record says.
    test = dataset.load_folder(dataset.made_up(2000, 300, 0, tmp_path / "images")).test
    pixels = test.images.transpose(0, 2, 3, 1)
    guesses = keras.saving.load_model(model).predict(pixels, verbose=0).argmax(1)
    assert (guesses == test.labels).mean() == pytest.approx(told.metrics["test_accuracy"], abs=0.01)


DIVERGE = """
import sys
from slsa_for_models.cifar10 import tensorflow as tensorflow_cifar10
from slsa_for_models.cifar10.__main__ import main
tensorflow_cifar10.PARAMETERS["learning_rate"] = 1e30
sys.exit(main(sys.argv[1:]))
"""


def test_training_that_diverges(tmp_path: Path):
    # In a process of its own: TensorFlow's number of threads cannot change once it has started.
    images = dataset.made_up(300, 10, 0, tmp_path)
    command = ["tensorflow_model.keras", "--epochs=3", "--threads=1"]
    done = subprocess.run(
        [sys.executable, "-c", DIVERGE, *command],
        cwd=images,
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (images / "tensorflow_model.keras").exists()
