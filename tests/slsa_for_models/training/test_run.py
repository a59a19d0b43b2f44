"""The train command where no framework is needed: what is refused, and that it is refused early."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from slsa_for_models import cli
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import formats
from slsa_for_models.training import run

ROOT = Path(__file__).resolve().parents[3]

FORMATS = [
    "tensorflow_model.keras",
    "tensorflow_hdf5_model.h5",
    "tensorflow_hdf5.weights.h5",
    "pytorch_model.pth",
    "pytorch_full_model.pth",
    "pytorch_jitted_model.pt",
]
MORE_FORMATS = ["tensorflow_saved_model", "pytorch_model.safetensors", "pytorch_model.onnx"]


def test_formats():
    assert set(formats.FORMATS) == {*FORMATS, *MORE_FORMATS}


def test_help_lists_the_formats(capsys):
    assert cli.main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in [*FORMATS, *MORE_FORMATS])


def test_unknown_format_is_refused_with_a_list_of_those_there_are(capsys, tmp_path: Path):
    command = ["train", "pytorch_model.pht", "--output-dir", str(tmp_path / "out")]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "pytorch_model.pht" in error
    assert all(name in error for name in [*FORMATS, *MORE_FORMATS])
    assert "did you mean `pytorch_model.pth`?" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "0"),
        ("--epochs", "-1"),
        ("--epochs", "1.5"),
        ("--threads", "0"),
        ("--train-images", "9"),
        ("--test-images", "x"),
        ("--test-images", "1000001"),
        ("--seed", "x"),
        ("--seed", "-1"),
        ("--seed", str(2**32)),
        ("--minimum-accuracy", "2"),
        ("--minimum-accuracy", "nan"),
        ("--dataset", "mnist"),
    ],
)
def test_values_that_make_no_sense(capsys, tmp_path: Path, option: str, value: str):
    command = ["train", "pytorch_model.pth", "--output-dir", str(tmp_path / "out"), option, value]
    assert cli.main(command) == 2
    assert option in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data-dir=x", "--dataset=synthetic"], "more than one data set"),
        (["--dataset-url=https://x", "--dataset=synthetic"], "more than one data set"),
        (["--data-dir=x", "--dataset-url=https://x"], "more than one data set"),
        (["--dataset-url=foo"], "https://..."),
        (["--dataset-url=gopher://x"], "https://..."),
        (["--dataset-url="], "is empty"),
    ],
)
def test_data_that_would_be_ignored(capsys, tmp_path: Path, options: list[str], message: str):
    command = ["train", "pytorch_model.pth", "--output-dir", str(tmp_path / "out"), *options]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pytorch
@pytest.mark.parametrize("suffix", ["sig", "provenance.sigstore.json", "intoto.jsonl"])
def test_a_model_that_was_signed_is_not_written_over(capsys, tmp_path: Path, suffix: str):
    (tmp_path / f"pytorch_model.pth.{suffix}").touch()
    command = ["train", "pytorch_model.pth", "--output-dir", str(tmp_path)]
    assert cli.main([*command, "--dataset=synthetic"]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'pytorch_model.pth'} is signed already" in error
    assert f"pytorch_model.pth.{suffix}" in error and "--output-dir" in error
    # Another model's signature does not matter.
    command[1] = "pytorch_model.onnx"
    assert cli.main([*command, "--data-dir", str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["numpy", "torch", "keras"])
def test_framework_that_is_not_installed(tmp_path: Path, missing: str):
    extra = "tensorflow" if missing == "keras" else "pytorch"
    name = {"tensorflow": "tensorflow_model.keras", "pytorch": "pytorch_model.pth"}[extra]
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from slsa_for_models.cli import main\n"
        f"sys.exit(main(['train', {name!r}, '--dataset=synthetic', '--train-images=10',"
        f" '--test-images=10', '--output-dir', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert f"pip install 'model-transparency[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pytorch
def test_output_folder_that_cannot_be_made(capsys, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    output = tmp_path / "file" / "out"
    images = ["--dataset=synthetic", "--train-images=10", "--test-images=10"]
    assert cli.main(["train", "pytorch_model.pth", "--output-dir", str(output), *images]) == 1
    error = capsys.readouterr().err
    assert "the output folder cannot be written" in error
    assert str(output) in error


@pytest.mark.pytorch
def test_requirements_that_cannot_be_read(capsys, tmp_path: Path):
    images = ["--dataset=synthetic", "--train-images=10", "--test-images=10"]
    command = ["train", "pytorch_model.pth", "--output-dir", str(tmp_path / "out"), *images]
    assert cli.main([*command, "--requirements", str(tmp_path / "none.txt")]) == 1
    error = capsys.readouterr().err
    assert "the requirements cannot be read" in error
    assert "epoch" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pytorch
def test_data_folder_that_is_not_there(capsys, tmp_path: Path):
    command = ["train", "pytorch_model.pth", "--data-dir", str(tmp_path / "none")]
    assert cli.main([*command, "--output-dir", str(tmp_path / "out")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_accuracy_that_guessing_does_not_reach():
    images, threshold = 1000, round(1000 * run.above_chance(1000))
    reached = sum(
        math.comb(images, right) * 0.1**right * 0.9 ** (images - right)
        for right in range(threshold, images + 1)
    )
    assert 0.0005 < reached < 0.002  # about once in a thousand times


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_no_number(loss: float):
    watch = run.Watch(epochs=3, images=10, say=lambda line: None)
    watch(1.5, 0.1)
    with pytest.raises(TrainingError, match="diverged") as refusal:
        watch(loss, 0.1)
    assert refusal.value.where == "epoch 2"


def test_progress_line():
    said: list[str] = []
    run.Watch(epochs=3, images=10, say=said.append)(1.5, 0.25)
    assert said[0].startswith("epoch 1/3  loss 1.5000  accuracy 0.2500  ")
    assert said[0].endswith(" s left")
    assert "images/s" in said[0]
