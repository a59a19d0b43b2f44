"""TensorFlow's and Keras' formats, loaded as safely as each can be, whoever saved them.

Importing this module imports TensorFlow; only the commands that need it do so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slsa_for_models.errors import UnsafeModelError

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
    import tensorflow as tf

keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
logging.getLogger("absl").setLevel(logging.ERROR)


def weights(model: keras.Model | dict[str, Array]) -> dict[str, Array]:
    """Weights and statistics by name."""
    if isinstance(model, dict):
        return model
    return {variable.path: variable.numpy() for variable in model.variables}


def load_keras(path: Path) -> keras.Model:
    """Read a folder with the parts of a `.keras` or `.h5` model of layers that only compute."""
    config = json.loads((path / "config.json").read_bytes())
    (weights_file,) = path.glob("*.h5")
    _check_declared(config, weights_file)
    initializers: dict[str, dict[str, Any]] = {}
    model = _built(_without_initializers(config, initializers))
    model.load_weights(weights_file)
    for layer in model._flatten_layers(include_self=False):
        for name, initializer in initializers.get(layer.name, {}).items():
            if hasattr(layer, name):
                setattr(layer, name, keras.initializers.get(initializer))
    return model


def load_hdf5_weights(path: Path) -> dict[str, Array]:
    """Read weights by their names in the file, such as `layers/dense/vars/0`."""
    named: dict[str, Array] = {}
    with h5py.File(path, "r") as root:
        root.visititems(
            lambda name, item: named.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return named


def load_saved_model(path: Path) -> keras.Model:
    """Read the function and the weights that were taken out of a SavedModel."""
    told = json.loads((path / "signature.json").read_bytes())
    with np.load(path / "weights.npz", allow_pickle=False) as stored:
        arrays = [stored[name] for name in stored.files]
    pixels = keras.Input(told["input"][1:], dtype=told["inputs"][0])
    served = _Served((path / "graph.pb").read_bytes(), arrays, told)
    return keras.Model(pixels, served(pixels))


class _Served(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """A function of TensorFlow's as a layer."""

    def __init__(self, graph: bytes, arrays: list[Array], told: dict[str, Any]) -> None:
        super().__init__(name="served", trainable=False)
        self._told = told
        self._weights = [
            self.add_weight(
                shape=array.shape,
                dtype=array.dtype.name,
                initializer=lambda shape, dtype, array=array: tf.constant(array),
                trainable=trainable,
            )
            for array, trainable in zip(arrays, told["trainable"], strict=True)
        ]
        self._call = tf.compat.v1.wrap_function(
            lambda pixels: self._imported(graph, pixels),
            [tf.TensorSpec(told["input"], told["inputs"][0])],
        )
        self.built = True

    def _imported(self, graph: bytes, pixels: tf.Tensor) -> tf.Tensor:
        given = {"a0": pixels}
        inside = tf.compat.v1.get_default_graph()
        for number, weight in enumerate(self._weights, start=1):
            given[f"a{number}"] = inside.capture(weight.value.handle)
        whole = tf.compat.v1.GraphDef.FromString(graph)
        for number, kind in enumerate(self._told["inputs"]):
            node = whole.node.add(name=f"a{number}", op="Placeholder")
            node.attr["dtype"].type = tf.dtypes.as_dtype(kind).as_datatype_enum
        call = whole.node.add(name="call", op="StatefulPartitionedCall", input=[*given])
        call.attr["f"].func.name = self._told["function"]
        for key, kinds in (("Tin", self._told["inputs"]), ("Tout", self._told["outputs"])):
            call.attr[key].list.type.extend(tf.dtypes.as_dtype(x).as_datatype_enum for x in kinds)
        return tf.graph_util.import_graph_def(
            whole, input_map=given, return_elements=["call:0"], name=""
        )[0]

    def call(self, pixels: tf.Tensor) -> tf.Tensor:
        """What the function gives for the pixels."""
        return self._call(pixels)


def _built(config: dict[str, Any]) -> keras.Model:
    return keras.models.model_from_json(json.dumps(config))


def _without_initializers(node: Any, found: dict[str, dict[str, Any]], owner: str = "") -> Any:  # noqa: ANN401
    """The configuration with zeros for first values; random ones take four times their memory.

    Args:
        node: The configuration, or a part of it.
        found: Takes what stood there, by the layers' names.
        owner: The layer's name that the part belongs to.
    """
    if isinstance(node, list):
        return [_without_initializers(item, found, owner) for item in node]
    if not isinstance(node, dict):
        return node
    owner = node["name"] if isinstance(node.get("name"), str) else owner
    changed = {}
    for key, value in node.items():
        if key.endswith("_initializer") and value is not None:
            found.setdefault(owner, {})[key] = value
            changed[key] = "zeros"
        else:
            changed[key] = _without_initializers(value, found, owner)
    return changed


def _check_declared(config: dict[str, Any], weights_file: Path) -> None:
    """Refuses an architecture with more weights than the file holds, before any is made.

    Keras itself says how large they are: in a stateless scope it makes no variable. It notes them
    as still to be made, in memory of the thread, so that a thread of its own takes that away.
    """
    declared: list[int] = []
    failed: list[Exception] = []

    def measure() -> None:
        try:
            with keras.StatelessScope(initialize_variables=False):
                for variable in _built(config).variables:
                    size = tf.dtypes.as_dtype(variable.dtype).size
                    declared.append(math.prod(variable.shape) * size)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    held = weights_file.stat().st_size
    if sum(declared) > held:
        raise UnsafeModelError(
            "the architecture has more weights than the file holds",
            where="layers",
            expected=f"at most {held:,} bytes",
            found=f"{sum(declared):,} bytes",
        )
