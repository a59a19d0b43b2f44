"""Several processes that train one model: `slsa_for_models train FORMAT --processes N`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from model_signing.errors import UsageError
from sandbox.checkout import ROOT, framework_of, programs_of
from slsa_for_models.cifar10.processes import Place, place
from slsa_for_models.cli import main


def tf_config(index: object, workers: int = 2) -> dict[str, str]:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in range(workers)]}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"index": index}})}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Place(0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "2"}, Place(0, 2)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2)),
        (tf_config(1), Place(1, 2)),
    ],
)
def test_a_process_knows_its_place(environ, expected):
    assert place(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "100000"},
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": "[]"},
        {"TF_CONFIG": "{"},
        tf_config(2),
        tf_config(None),
    ],
)
def test_a_place_that_makes_no_sense(environ):
    with pytest.raises(UsageError, match="make no sense"):
        place(environ)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes", "1", "pytorch_model.pth"], "from 2 to 64"),
        (["--processes", "65", "pytorch_model.pth"], "from 2 to 64"),
        (["--processes", "2", "pytorch_model.onyx"], "unknown model format"),
        (["--processes", "2", "--model", "m", "--", "true"], "an option is a recipe's"),
    ],
)
def test_usage(capsys, arguments, words):
    assert main(["train", *arguments]) == 2
    assert words in capsys.readouterr().err


QUICK = ("--dataset=synthetic", "--train-images=100", "--test-images=20", "--epochs=1")


def python_for(name: str) -> Path:
    return programs_of(framework_of(name)) / "python"


def train(name: str, output: Path, *command: str) -> dict:
    options = [
        *("--dataset=synthetic", "--train-images=3000", "--test-images=1000", "--epochs=3"),
        *("--seed=1", "--threads=1", "--minimum-accuracy=0", f"--output-dir={output}"),
    ]
    done = subprocess.run(
        [python_for(name), "-m", "slsa_for_models", *command, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((output / "training.json").read_text())


@pytest.mark.full
@pytest.mark.parametrize("name", ["pytorch_model.pth", "tensorflow_model.keras"])
def test_two_processes_reach_the_accuracy_of_one(name, tmp_path):
    alone = train(name, tmp_path / "alone", "train", name)
    together = train(name, tmp_path / "together", "train", name, "--processes=2")
    assert together["parameters"]["processes"] == 2
    assert "processes" not in alone["parameters"]
    first, second = (record["metrics"] for record in (alone, together))
    # Random differences, of batch normalization over half a batch above all.
    assert second["test_accuracy"] == pytest.approx(first["test_accuracy"], abs=0.1)
    for epoch in (1, 2, 3):
        loss = f"epoch.{epoch}.loss"
        assert second[loss] == pytest.approx(first[loss], rel=0.1)
    # One model and one record, by the first process.
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == sorted(
        [name, "training.json"]
    )


@pytest.mark.full
@pytest.mark.parametrize("name", ["pytorch_model.pth", "tensorflow_model.keras"])
def test_a_process_that_fails_ends_all(name, tmp_path):
    command = ["train", name, "--processes=2", "--minimum-accuracy=1", *QUICK]
    done = subprocess.run(
        [python_for(name), "-m", "slsa_for_models", *command, f"--output-dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 1
    assert "one of the processes failed" in done.stderr
    assert "not good enough" in done.stderr
    assert list(tmp_path.iterdir()) == []
