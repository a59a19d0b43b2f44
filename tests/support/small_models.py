"""A model of few bytes in every format, written by the frameworks alone, for tests of loading.

`python small_models.py FRAMEWORK FOLDER` writes those of one framework.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def write(framework: str, folder: Path) -> None:
    """All formats of the framework but the pickle, by a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, framework, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def configured(source: Path, target: Path, edit: Callable[[Any], object]) -> Path:
    """A copy of a .keras archive, with another configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                edit(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return target


def _pytorch(folder: Path) -> None:
    import safetensors.torch
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Dropout(), nn.Linear(98, 3)).eval()
    example = torch.zeros(1, 3, 32, 32)
    torch.save(model.state_dict(), folder / "pytorch_model.pth")
    safetensors.torch.save_file(
        model.state_dict(), folder / "pytorch_model.safetensors", {"format": "pt"}
    )
    torch.jit.save(torch.jit.trace(model, example), folder / "pytorch_jitted_model.pt")
    torch.onnx.export(model, (example,), folder / "pytorch_model.onnx", dynamo=False)


def _tensorflow(folder: Path) -> None:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(2, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model.save(folder / "tensorflow_model.keras")
    model.save(folder / "tensorflow_hdf5_model.h5")
    model.save_weights(folder / "tensorflow_hdf5.weights.h5")
    tf.saved_model.save(model, folder / "tensorflow_saved_model")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"pytorch": _pytorch, "tensorflow": _tensorflow}[sys.argv[1]](Path(sys.argv[2]))
