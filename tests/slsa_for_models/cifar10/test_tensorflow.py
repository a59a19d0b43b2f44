"""TensorFlow, for real: save, sign, load, and the files that Keras must never see."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from slsa_for_models import cli
from slsa_for_models.cifar10 import dataset, recipe
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.models.load import load_model, load_unverified
from tests.support import small_models
from tests.support import training_runs as runs
from tests.support.strangers import found_harmful

module = recipe(formats.FORMATS["tensorflow_model.keras"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return runs.save_twice("tensorflow", tmp_path_factory.mktemp("tensorflow"))


# --- the same bytes


@pytest.mark.parametrize("name", runs.names("tensorflow"))
def test_two_processes_write_the_same_bytes(saved: tuple[Path, Path], name: str):
    first, second = (runs.file_digests(folder / name) for folder in saved)
    assert first == second


@pytest.mark.parametrize("name", runs.names("tensorflow"))
def test_model_does_not_name_the_machine(saved: tuple[Path, Path], name: str):
    assert runs.traces(saved[1] / name) == []


@pytest.mark.full
@pytest.mark.parametrize("name", runs.names("tensorflow"))
def test_command_writes_the_same_bytes_twice(tmp_path: Path, name: str):
    for folder in "ab":
        done = runs.run_cli(
            *("train", name, "--dataset=synthetic", "--train-images=300", "--test-images=50"),
            *("--epochs=1", "--minimum-accuracy=0", "--output-dir", tmp_path / folder),
        )
        assert done.returncode == 0, done.stderr
    assert runs.file_digests(tmp_path / "a" / name) == runs.file_digests(tmp_path / "b" / name)


# --- load


@pytest.mark.parametrize("name", runs.names("tensorflow"))
def test_load_after_verification(saved: tuple[Path, Path], name: str, tmp_path: Path):
    model = saved[0] / name
    loaded = load_model(model, runs.sign(model), runs.VERIFIER)
    images = dataset.load_folder(dataset.made_up(10, 10, 0, tmp_path)).test.images
    reference = load_unverified(
        saved[0] / "tensorflow_hdf5.weights.h5", formats.FORMATS["tensorflow_hdf5.weights.h5"]
    )
    np.testing.assert_allclose(
        module.predict(loaded, images), module.predict(reference, images), rtol=1e-4, atol=1e-3
    )


def test_load_of_a_directory_with_a_changed_file(saved: tuple[Path, Path], tmp_path, capsys):
    import shutil

    model = tmp_path / "tensorflow_saved_model"
    shutil.copytree(saved[0] / "tensorflow_saved_model", model)
    runs.sign(model)
    (tmp_path / "key.pub").write_bytes(runs.PUBLIC_KEY)
    (model / "variables" / "variables.index").write_bytes(b"other")
    assert cli.main(["load", str(model), "--public-key", str(tmp_path / "key.pub")]) == 1
    assert "variables/variables.index" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tensorflow_model.keras", "tensorflow_hdf5_model.h5"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lambda_layer(tmp_path: Path, name: str):
    """CVE-2024-3660, CVE-2025-9905: Python code in a layer."""
    proof = str(tmp_path / "proof")
    malice = keras.layers.Lambda(lambda x: (open(proof, "w"), x)[1], output_shape=(4,))  # noqa: PTH123, SIM115
    keras.Sequential([keras.Input((4,)), malice]).save(tmp_path / name)
    Path(proof).unlink(missing_ok=True)
    found_harmful(tmp_path / name, "not known to be harmless")
    assert not Path(proof).exists()


def _activation_from_any_module(config: Any) -> None:
    config["config"]["layers"][2]["config"]["activation"] = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }


def _layer(class_name: str, module: str | None, registered: str | None = None):
    def edit(config: Any) -> None:
        config["config"]["layers"][3].update(
            class_name=class_name, module=module, registered_name=registered
        )

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _activation_from_any_module,
        _layer("TFSMLayer", "keras.layers"),
        _layer("TorchModuleWrapper", "keras.layers"),
        _layer("StringLookup", "keras.layers"),
        _layer("Popen", "subprocess"),
        _layer("Dense", "subprocess"),
        _layer("Dense", "keras.layers", "mine>Dense"),
        _layer("function", "builtins"),
        lambda config: config["config"].update(note={"class_name": ["Dense"]}),
    ],
    ids=[
        "CVE-2025-1550",
        "CVE-2026-1462",
        "CVE-2025-49655",
        "CVE-2025-12058",
        "foreign class",
        "foreign module",
        "registered name",
        "function",
        "name that is a list",
    ],
)
def test_keras_configuration_that_names_more_than_layers(saved, tmp_path: Path, edit):
    model = small_models.configured(
        saved[0] / "tensorflow_model.keras", tmp_path / "tensorflow_model.keras", edit
    )
    found_harmful(model, "not known to be harmless")


def test_keras_configuration_that_is_not_json(tmp_path: Path):
    model = tmp_path / "tensorflow_model.keras"
    for config in (b"", b"[" * 100_000, b'{"a": 1, "a": 2}', b"\xff"):
        with zipfile.ZipFile(model, "w") as archive:
            for name in ("metadata.json", "config.json", "model.weights.h5"):
                archive.writestr(name, config)
        found_harmful(model, "the Keras configuration")


def test_keras_archive_with_other_members(saved, tmp_path: Path):
    source, model = saved[0] / "tensorflow_model.keras", tmp_path / "tensorflow_model.keras"
    small_models.configured(source, model, lambda config: None)
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr("assets/../../escape", b"")
    found_harmful(model, "other members than expected")


def test_keras_archive_bomb(tmp_path: Path):
    model = tmp_path / "tensorflow_model.keras"
    with zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(50_000_000))
    found_harmful(model, "unpack to far more")


def _external_link(file: h5py.File, other: Path) -> None:
    file["stolen"] = h5py.ExternalLink(str(other), "/")


def _soft_link(file: h5py.File, other: Path) -> None:
    file["alias"] = h5py.SoftLink("/layers")


def _loop(file: h5py.File, other: Path) -> None:
    file["loop"] = file.create_group("group")
    file["group/back"] = file["group"]


def _external_data(file: h5py.File, other: Path) -> None:
    file.create_dataset("stolen", (4,), "u1", external=[(str(other), 0, 4)])


def _virtual_data(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,))
    file.create_virtual_dataset("stolen", layout)


def _bomb(file: h5py.File, other: Path) -> None:
    file.create_dataset("large", (10**10,), "f4", chunks=(1024,), compression="gzip")


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (_external_link, "a link to elsewhere"),
        (_soft_link, "a link to elsewhere"),
        (_loop, "two names for one thing"),
        (_external_data, "data in another file"),
        (_virtual_data, "data in another file"),
        (_bomb, "unpack to far more"),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["tensorflow_hdf5.weights.h5", "tensorflow_hdf5_model.h5", "tensorflow_model.keras"],
)
def test_hdf5_that_reaches_out_or_swells(saved, tmp_path: Path, name: str, add, message: str):
    secret, model = tmp_path / "secret", tmp_path / name
    secret.write_bytes(b"1234")
    source = (saved[0] / name).read_bytes()
    if name.endswith(".keras"):
        with zipfile.ZipFile(io.BytesIO(source)) as old, zipfile.ZipFile(model, "w") as new:
            for member in ("metadata.json", "config.json"):
                new.writestr(member, old.read(member))
            weights = io.BytesIO(old.read("model.weights.h5"))
            with h5py.File(weights, "r+") as file:
                add(file, secret)
            new.writestr("model.weights.h5", weights.getvalue())
    else:
        model.write_bytes(source)
        with h5py.File(model, "r+") as file:
            add(file, secret)
    found_harmful(model, message)


@pytest.mark.parametrize("name", runs.names("tensorflow"))
@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_file_that_is_no_model(tmp_path: Path, name: str, content: bytes):
    model = tmp_path / name
    if formats.FORMATS[name].directory:
        model.mkdir()
        (model / "saved_model.pb").write_bytes(content)
    else:
        model.write_bytes(content)
    if content:
        found_harmful(model)
    else:
        with pytest.raises(UnsafeModelError):
            load_unverified(model, formats.FORMATS[name])


def test_saved_model_that_reads_files(tmp_path: Path):
    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3])])
        def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
            tf.io.write_file(str(tmp_path / "proof"), tf.io.read_file("/etc/hostname"))
            return pixels

    model, reader = tmp_path / "tensorflow_saved_model", Reader()
    tf.saved_model.save(reader, str(model), signatures=reader.__call__)
    found_harmful(model, "a TensorFlow operator that a classifier does not need")
    assert not (tmp_path / "proof").exists()
