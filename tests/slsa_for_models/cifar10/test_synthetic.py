"""The synthetic set: the same bytes everywhere, and worth learning."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slsa_for_models.cifar10 import dataset, plan, synthetic
from slsa_for_models.errors import DatasetError
from slsa_for_models.evidence import training_plan

ROOT = Path(__file__).resolve().parents[3]


def test_files_are_those_of_cifar10s_binary_distribution():
    batches = synthetic.batches(103, 21, seed=0)
    assert list(batches) == [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    assert sum(len(data) for data in batches.values()) == (103 + 21) * 3073
    assert len(batches["test_batch.bin"]) == 21 * 3073


def test_bytes_do_not_depend_on_the_machine():
    # Noted down when the generator's version was set to 1. Another digest here means that the same
    # arguments give other images than they gave everyone else: raise synthetic.VERSION.
    assert synthetic.VERSION == 1
    data = b"".join(synthetic.batches(1500, 100, seed=7).values())
    assert hashlib.sha256(data).hexdigest() == (
        "7d095315481c74f926a4f95f73cce2e896d51a19b0c5dc4be11fb6be6aa2e320"
    )


def test_other_seed_gives_other_images_of_the_same_labels():
    first, second = (synthetic.batches(50, 10, seed)["test_batch.bin"] for seed in (0, 1))
    assert first[::3073] == second[::3073] == bytes(range(10))
    assert first != second


def test_training_and_test_images_differ():
    batches = synthetic.batches(50, 10, seed=0)
    assert batches["data_batch_1.bin"] != batches["test_batch.bin"]


def test_smaller_set_is_the_beginning_of_a_larger_one():
    small, large = (synthetic.batches(50, images, seed=0)["test_batch.bin"] for images in (10, 30))
    assert large.startswith(small)


@pytest.mark.slow
def test_least_squares_learns_next_to_nothing(tmp_path: Path):
    """What a linear model gets is not worth a network; those get above 80 % (test_pytorch)."""
    data = dataset.load_folder(dataset.made_up(1000, 500, 0, tmp_path))
    train = data.train.images.reshape(1000, -1).astype(np.float32) / 255 - 0.5
    test = data.test.images.reshape(500, -1).astype(np.float32) / 255 - 0.5
    targets = np.eye(10, dtype=np.float32)[data.train.labels]
    products = train @ train.T
    for ridge in (1, 100, 10_000):
        weights = np.linalg.solve(products + ridge * np.eye(1000, dtype=np.float32), targets)
        answers = test @ (train.T @ weights)
        assert (answers.argmax(1) == data.test.labels).mean() < 0.3


def test_set_is_made_once(tmp_path: Path):
    made = dataset.made_up(100, 20, 0, tmp_path)
    assert list(tmp_path.iterdir()) == [made]
    assert made.name == "synthetic-1-100-20-0"
    stamp = (made / "test_batch.bin").stat().st_mtime_ns
    assert dataset.made_up(100, 20, 0, tmp_path) == made
    assert (made / "test_batch.bin").stat().st_mtime_ns == stamp


def test_damaged_cache_is_not_used(tmp_path: Path):
    batch = dataset.made_up(100, 20, 0, tmp_path) / "data_batch_3.bin"
    content = batch.read_bytes()
    batch.write_bytes(content[:-1] + b"\0")
    dataset.made_up(100, 20, 0, tmp_path)
    assert batch.read_bytes() == content


def test_cache_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be stored") as refusal:
        dataset.made_up(100, 20, 0, tmp_path / "file")
    assert "MODEL_TRANSPARENCY_CACHE" in refusal.value.fix


def test_digest_is_what_sha256sum_says(tmp_path: Path):
    folder = dataset.made_up(100, 20, 0, tmp_path)
    pins, files = plan.made_up(folder, 100, 20)
    command = "sha256sum data_batch_?.bin test_batch.bin | sha256sum | cut -c1-64"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )
    digest = training_plan.dataset_digest((pin.path, pin.sha256) for pin in pins)
    assert digest == done.stdout.strip()
    assert {plan.sizes_made_up(pin.uris[0]) for pin in pins} == {(100, 20)}
    assert len(files) == 6


def test_command_line_needs_no_numpy():
    program = (
        "import sys\n"
        "from slsa_for_models.cli import main\n"
        "main(['--help']); main(['train', '--help'])\n"
        "main(['train', 'no_such.format'])\n"
        "sys.exit(bool({'numpy', 'torch', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-300:]
