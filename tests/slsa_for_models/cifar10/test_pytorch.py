"""PyTorch, for real: train, save, sign, load, reproduce, and everything that must not happen."""

from __future__ import annotations

import json
import pickle
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slsa_for_models import cli
from slsa_for_models.cifar10 import dataset, recipe
from slsa_for_models.cifar10 import plan as recipes
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence import training_record as record
from slsa_for_models.models import formats
from slsa_for_models.models.load import load_model, load_unverified
from tests.support import training_runs as runs

IMAGES = ("--dataset=synthetic", "--train-images=1500", "--test-images=300", "--threads=1")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return runs.save_twice("pytorch", tmp_path_factory.mktemp("pytorch"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """One run of the command: its output folder, and what it printed."""
    output = tmp_path_factory.mktemp("trained") / "out"
    options = ("--minimum-accuracy=0.01", "--output-dir", output)
    done = runs.run_cli("train", "pytorch_model.pth", *IMAGES, *options)
    assert done.returncode == 0, done.stderr
    return output, done


# --- the same bytes


@pytest.mark.parametrize("name", runs.names("pytorch"))
def test_two_processes_write_the_same_bytes(saved: tuple[Path, Path], name: str):
    first, second = (runs.file_digests(folder / name) for folder in saved)
    assert first == second


@pytest.mark.parametrize("name", runs.names("pytorch"))
def test_model_does_not_name_the_machine(saved: tuple[Path, Path], name: str):
    assert runs.traces(saved[1] / name) == []


@pytest.mark.full
@pytest.mark.parametrize("name", runs.names("pytorch"))
def test_command_writes_the_same_bytes_twice(tmp_path: Path, name: str):
    for folder in "ab":
        done = runs.run_cli(
            *("train", name, "--dataset=synthetic", "--train-images=300", "--test-images=50"),
            *("--epochs=1", "--minimum-accuracy=0", "--output-dir", tmp_path / folder),
        )
        assert done.returncode == 0, done.stderr
    assert runs.file_digests(tmp_path / "a" / name) == runs.file_digests(tmp_path / "b" / name)


# --- the command


def test_command_trains_a_model_that_works(trained, tmp_path: Path):
    output, done = trained
    assert sorted(path.name for path in output.iterdir()) == ["pytorch_model.pth", "training.json"]
    assert [line[:9] for line in done.stderr.splitlines()[:3]] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]
    told = record.parse((output / "training.json").read_bytes())
    assert told.metrics["test_accuracy"] >= 0.4, (
        "a linear model gets less than 0.3 (test_synthetic)"
    )
    # The model as PyTorch alone sees it is as good as the record says.
    model = nn.Sequential(*_layers())
    model.load_state_dict(torch.load(output / "pytorch_model.pth", weights_only=True))
    images = dataset.load_folder(dataset.made_up(1500, 300, 0, tmp_path)).test
    with torch.inference_mode():
        guesses = model.eval()(torch.from_numpy(images.images).float()).argmax(1).numpy()
    assert (guesses == images.labels).mean() == pytest.approx(
        told.metrics["test_accuracy"], abs=0.01
    )


def _layers() -> list[nn.Module]:
    """The network as docs/training.md describes it, written down a second time."""
    layers: list[nn.Module] = [nn.BatchNorm2d(3, affine=False)]
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return [*layers, nn.Flatten(), nn.Linear(1024, 10)]


def test_record_says_what_was_done(trained):
    output, done = trained
    document = json.loads((output / "training.json").read_bytes())
    jsonschema.validate(document, json_schema.load("training-record.v1.json"))
    told = record.parse((output / "training.json").read_bytes())
    (digest,) = runs.file_digests(output / "pytorch_model.pth").values()
    assert told.model.sha256 == digest
    assert digest in done.stdout
    assert told.model.size == (output / "pytorch_model.pth").stat().st_size
    assert {file.uri for file in told.dataset.files} == {"synthetic:1500/300"}
    given = {"epochs": 3, "minimum-accuracy": 0.01, "seed": 0, "threads": 1}
    assert told.parameters == given
    assert {"epoch.1.loss", "epoch.3.accuracy"} <= told.metrics.keys()
    assert (told.environment.network, told.environment.confinement) == ("none", "user namespace")
    assert told.environment.packages["torch"] == version("torch")
    assert told.started <= told.finished
    assert runs.traces(output / "training.json") == []


# --- reproduce


def test_reproduce(trained):
    output, _ = trained
    model, told = output / "pytorch_model.pth", output / "training.json"
    done = runs.run_cli("reproduce", model, "--training-record", told)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("identical: ")
    assert runs.file_digests(model)["pytorch_model.pth"] in done.stdout


def rewritten(folder: Path, output: Path, **changes: object) -> Path:
    """The record with other values, named by their path in it."""
    document = json.loads((output / "training.json").read_bytes())
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = document
        for name in parents:
            target = target[int(name) if isinstance(target, list) else name]
        target[last] = value
    (folder / "training.json").write_text(json.dumps(document))
    return folder / "training.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__sha256": "0" * 64}, "the training record is of another model"),
        ({"model__name": "model.bin"}, "unknown model format"),
        ({"parameters__epochs": 10**6}, "asks for a run that cannot be"),
        ({"parameters__threads": 0}, "asks for a run that cannot be"),
        ({"parameters__seed": "x"}, "asks for a run that cannot be"),
        ({"parameters__learning_rate": 0.2}, "a command that this version does not train with"),
        ({"command": ["sh", "train.sh"]}, "a command that is no recipe of ours"),
        ({"dataset__files__0__uri": "synthetic:9/9"}, "asks for a set that cannot be"),
        ({"dataset__sha256": "0" * 64}, "the data set is another one"),
        ({"dataset__files__0__uri": None}, "give it by --data-dir"),
    ],
)
def test_reproduce_from_a_record_that_cannot_be_true(trained, tmp_path, capsys, changes, message):
    output, _ = trained
    told = rewritten(tmp_path, output, **changes)
    model = output / "pytorch_model.pth"
    assert cli.main(["reproduce", str(model), "--training-record", str(told)]) in (1, 2)
    assert message in capsys.readouterr().err


def test_reproduce_ignores_no_data(trained):
    output, _ = trained
    record = ("--training-record", output / "training.json")
    model = output / "pytorch_model.pth"
    done = runs.run_cli("reproduce", model, *record, "--data-dir", output)
    assert done.returncode == 2
    assert "leave out --data-dir" in done.stderr


def test_reproduce_says_what_differs(trained, tmp_path: Path):
    output, _ = trained
    told = rewritten(
        tmp_path,
        output,
        parameters={"epochs": 1, "seed": 1, "threads": 1},
        command=[*recipes.COMMAND, "pytorch_model.pth", "--epochs=1", "--seed=1", "--threads=1"],
        environment__packages={"torch": "1.0"},
        environment__cpu_features=["abacus"],
    )
    model = output / "pytorch_model.pth"
    done = runs.run_cli("reproduce", model, "--training-record", told)
    assert done.returncode == 1
    assert "not identical" in done.stderr
    assert "torch was 1.0, is 2" in done.stderr
    assert "the processor then had abacus" in done.stderr
    assert "weights differ by up to" in done.stderr


# --- load


@pytest.mark.parametrize("name", runs.names("pytorch"))
def test_load_after_verification(saved: tuple[Path, Path], name: str, tmp_path: Path):
    model = saved[0] / name
    loaded = load_model(model, runs.sign(model), runs.VERIFIER, allow_pickle=True)
    images = dataset.load_folder(dataset.made_up(10, 10, 0, tmp_path)).test.images
    module = recipe(formats.FORMATS[name])
    reference = torch.load(saved[0] / "pytorch_model.pth", weights_only=True)
    predicted, expected = module.predict(loaded, images), module.predict(reference, images)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-3)


def test_load_takes_the_verified_bytes(saved: tuple[Path, Path], tmp_path: Path):
    """The model on disk is exchanged the moment its verification has ended."""
    model = tmp_path / "pytorch_model.pth"
    model.write_bytes((saved[0] / "pytorch_model.pth").read_bytes())
    signature = runs.sign(model)
    module = formats.framework(formats.FORMATS["pytorch_model.pth"])
    read: list[Path] = []

    def spy(path: Path) -> dict[str, torch.Tensor]:
        model.write_bytes(b"exchanged")
        read.append(path)
        return original(path)

    original, module.load_state_dict = module.load_state_dict, spy
    try:
        assert "0.running_mean" in load_model(model, signature, runs.VERIFIER)
    finally:
        module.load_state_dict = original
    assert read[0] != model
    assert not read[0].exists(), "the private copy is gone"


def test_load_refuses_a_model_that_was_changed(saved, tmp_path, capsys):
    model = tmp_path / "pytorch_model.pth"
    model.write_bytes((saved[0] / "pytorch_model.pth").read_bytes())
    runs.sign(model)
    (tmp_path / "key.pub").write_bytes(runs.PUBLIC_KEY)
    command = ["load", str(model), "--public-key", str(tmp_path / "key.pub")]
    assert cli.main(command) == 0
    assert "verified and loaded" in capsys.readouterr().out
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert cli.main(command) == 1
    assert "not what was signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--identity", "a"],
        ["--public-key", "a", "--identity", "b"],
    ],
)
def test_load_must_know_who_signed(saved, capsys, options):
    model = saved[0] / "pytorch_model.pth"
    assert cli.main(["load", str(model), *options]) == 2
    assert "who" in capsys.readouterr().err


def test_load_refuses_pickles_unless_told(saved, capsys, tmp_path: Path):
    model = saved[0] / "pytorch_full_model.pth"
    runs.sign(model)
    (tmp_path / "key.pub").write_bytes(runs.PUBLIC_KEY)
    command = ["load", str(model), "--public-key", str(tmp_path / "key.pub")]
    assert cli.main(command) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert cli.main([*command, "--allow-pickle"]) == 0


class Malice:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("name", ["pytorch_model.pth", "pytorch_full_model.pth"])
@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_does_not_run(tmp_path: Path, name: str, legacy: bool):
    model, proof = tmp_path / name, tmp_path / "proof"
    torch.save({"weight": Malice(proof)}, model, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeModelError):
        load_unverified(model, formats.FORMATS[name])
    assert not proof.exists()


@pytest.mark.parametrize("name", runs.names("pytorch"))
@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\x03\x04", pickle.dumps({})])
def test_file_that_is_no_model(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsafeModelError):
        load_unverified(tmp_path / name, formats.FORMATS[name])


@pytest.mark.parametrize("name", ["pytorch_model.pth", "pytorch_jitted_model.pt"])
def test_zip_bomb(tmp_path: Path, name: str):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    with pytest.raises(UnsafeModelError, match="unpack to far more"):
        load_unverified(tmp_path / name, formats.FORMATS[name])


def test_archive_with_a_member_twice(saved, tmp_path: Path):
    model = tmp_path / "pytorch_model.pth"
    model.write_bytes((saved[0] / "pytorch_model.pth").read_bytes())
    with zipfile.ZipFile(model, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(UnsafeModelError, match="twice"):
        load_unverified(model, formats.FORMATS[model.name])


class WritesFiles(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.save(pixels, "/tmp/never")
        return pixels


class HasAnotherDoor(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.sum() > 0:
            return torch.bernoulli(pixels)
        return pixels


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (WritesFiles, "an operator that a classifier does not need|TorchScript operator"),
        (HasAnotherDoor, "TorchScript operator"),
    ],
)
def test_torchscript_that_does_more_than_compute(tmp_path: Path, module, message: str):
    model = tmp_path / "pytorch_jitted_model.pt"
    torch.jit.script(module()).save(model)
    with pytest.raises(UnsafeModelError, match=message):
        load_unverified(model, formats.FORMATS[model.name])


def test_onnx_that_its_runtime_reads_as_another_format(tmp_path: Path):
    """ONNX Runtime looks at bytes 4 to 8 first; a protobuf parser may see a field there."""
    model = tmp_path / "pytorch_model.onnx"
    graph = onnx.ModelProto(producer_name="xxORTM")  # tag, length, "xx", then "ORTM" at offset 4
    model.write_bytes(graph.SerializeToString())
    assert model.read_bytes()[4:8] == b"ORTM"
    with pytest.raises(UnsafeModelError, match="own format"):
        load_unverified(model, formats.FORMATS[model.name])


def test_onnx_with_weights_elsewhere(saved, tmp_path: Path):
    model = tmp_path / "pytorch_model.onnx"
    graph = onnx.load(saved[0] / "pytorch_model.onnx")
    onnx.save_model(
        graph, model, save_as_external_data=True, location="elsewhere.bin", size_threshold=0
    )
    with pytest.raises(UnsafeModelError, match="in another file"):
        load_unverified(model, formats.FORMATS[model.name])
