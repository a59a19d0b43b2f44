"""TensorFlow's and Keras' formats, loaded as safely as each can be, whoever saved them.

Importing this module imports TensorFlow; only the commands that need it do so.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slsa_for_models.models import safety

Array = Any  # numpy's arrays of any type


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the notes that TensorFlow's libraries write to stderr before any setting."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a descriptor, not a path
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # failures reach us as exceptions
with silent():
    import h5py
    import keras

keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
logging.getLogger("absl").setLevel(logging.ERROR)


def weights(model: keras.Model | dict[str, Array]) -> dict[str, Array]:
    """Weights and statistics by name."""
    if isinstance(model, dict):
        return model
    return {variable.path: variable.numpy() for variable in model.variables}


def load_keras(path: Path) -> keras.Model:
    """Read a Keras archive of layers that only compute, in Keras' safe mode."""
    safety.check_keras(path)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def load_hdf5(path: Path) -> keras.Model:
    """Read an HDF5 model of layers that only compute, in Keras' safe mode."""
    safety.check_hdf5_model(path)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def load_hdf5_weights(path: Path) -> dict[str, Array]:
    """Read weights by their names in the file, such as `layers/dense/vars/0`."""
    with path.open("rb") as file:
        safety.check_hdf5(file)
    named: dict[str, Array] = {}
    with h5py.File(path, "r") as root:
        root.visititems(
            lambda name, item: named.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return named


def load_saved_model(path: Path) -> keras.Model:
    """Read a TensorFlow graph that only computes."""
    safety.check_saved_model(path)
    pixels = keras.Input((32, 32, 3))
    outputs = keras.layers.TFSMLayer(path, call_endpoint="serving_default")(pixels)
    return keras.Model(pixels, next(iter(outputs.values())))
