"""Models that act, swell, crash or speak while they are loaded or used: TensorFlow's formats."""

from __future__ import annotations

import io
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.models.load import load_unverified
from tests.support import small_models
from tests.support.strangers import found_harmful, found_harmless

KERAS, HDF5, WEIGHTS = (
    "tensorflow_model.keras",
    "tensorflow_hdf5_model.h5",
    ("tensorflow_hdf5.weights.h5"),
)
SAVED = "tensorflow_saved_model"
FORGED = "x\n::error::forged by the model\n\x1b[2J"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model in every format."""
    folder = tmp_path_factory.mktemp("small")
    small_models.write("tensorflow", folder)
    return folder


def refuse(model: Path, message: str, seconds: float = 180) -> UnsafeModelError:
    """Loading is refused in time, and nothing is written."""
    before, start = sorted(model.parent.rglob("*")), time.monotonic()
    with pytest.raises(UnsafeModelError, match=message) as refused:
        load_unverified(model, formats.FORMATS[model.name])
    assert sorted(model.parent.rglob("*")) == before
    assert time.monotonic() - start < seconds
    return refused.value


# --- SavedModel


def writing(target: Path) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)], autograph=False)
    def evil(x: tf.Tensor) -> tf.Tensor:
        written = tf.raw_ops.SaveV2(
            prefix=str(target),
            tensor_names=["x"],
            shape_and_slices=[""],
            tensors=[tf.constant("x")],
        )
        with tf.control_dependencies([written]):
            return tf.identity(x)

    return evil.get_concrete_function()


class Writes(tf.Module):
    """Serves a function that calls one that writes a file."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self.weight, self.evil = tf.Variable([1.0]), writing(target)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        more = self.evil(tf.reduce_mean(pixels))
        return {"logits": tf.reduce_mean(pixels, axis=[1, 2]) + more + self.weight}


class Initializes(tf.Module):
    """Has a resource whose initializer TensorFlow runs while it loads."""

    class Resource(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self) -> tf.Tensor:
            return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="r")

        def _initialize(self) -> None:
            handle = self.resource_handle
            tf.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(7.0))

        def _destroy_resource(self) -> None:
            pass

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.resource = tf.Variable([1.0]), self.Resource()
        assert self.resource.resource_handle is not None

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        handle = self.resource.resource_handle
        more = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
        return {"logits": tf.reduce_mean(pixels, axis=[1, 2]) + more + self.weight}


def rewrite(model: Path, edit: Callable[[Any, dict[str, Any]], None]) -> None:
    """Edits the meta graph; `edit` takes it, and its functions by name."""
    file = model / "saved_model.pb"
    message = SavedModel.FromString(file.read_bytes())
    graph = message.meta_graphs[0]
    edit(graph, {each.signature.name: each for each in graph.graph_def.library.function})
    file.write_bytes(message.SerializeToString())
    (model / "fingerprint.pb").unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["Relu6", "SaveV2", "Identity", "__inference__traced_save_9"])
def test_function_that_bears_another_name(tmp_path: Path, name: str):
    """A node whose operator is a function's name calls it, and so does an ordinary call."""
    target, model = tmp_path / "written", tmp_path / "model" / SAVED
    module = Writes(target)
    tf.saved_model.save(module, str(model), signatures=module.__call__)
    for path in tmp_path.glob("written*"):
        path.unlink()

    def rename(graph: Any, functions: dict[str, Any]) -> None:
        evil = next(each for each in functions.values() if "evil" in each.signature.name)
        old, evil.signature.name = evil.signature.name, name
        for function in functions.values():
            for node in function.node_def:
                if node.attr["f"].func.name == old:
                    node.attr["f"].func.name = name
        graph.object_graph_def.concrete_functions.pop(old, None)

    rewrite(model, rename)
    found_harmful(model, "a constant that is no number" if "save" in name else "an operator's name")
    assert not list(tmp_path.glob("written*"))


def test_initializer(tmp_path: Path):
    module = Initializes()
    tf.saved_model.save(module, str(tmp_path / SAVED), signatures=module.__call__)
    found_harmful(tmp_path / SAVED, "more than weights|a classifier does not need")


def _alternative(graph: Any, functions: dict[str, Any]) -> None:
    next(iter(functions.values())).attr["api_implements"].s = b"relu"


def _backward(graph: Any, functions: dict[str, Any]) -> None:
    next(iter(functions.values())).attr["backward_function_name"].s = b"__x"


def _gradient(graph: Any, functions: dict[str, Any]) -> None:
    name = next(iter(functions))
    graph.graph_def.library.gradient.add(function_name=name, gradient_func=name)


def _registered(graph: Any, functions: dict[str, Any]) -> None:
    graph.graph_def.library.registered_gradients.add(gradient_func="g", registered_op_type="Relu")


def _serving(functions: dict[str, Any]) -> Any:
    return next(each for each in functions.values() if any(n.op == "Conv2D" for n in each.node_def))


def _named(graph: Any, functions: dict[str, Any]) -> None:
    node = next(each for each in _serving(functions).node_def if each.op == "Conv2D")
    node.attr["_grad"].func.name = next(iter(functions))


def _swollen(graph: Any, functions: dict[str, Any]) -> None:
    node = next(each for each in _serving(functions).node_def if each.op == "Const")
    tensor = node.attr["value"].tensor
    tensor.tensor_shape.ClearField("dim")
    tensor.tensor_shape.dim.add(size=10**10)


def _in_main(graph: Any, functions: dict[str, Any]) -> None:
    graph.graph_def.node.add(name="w", op="WriteFile", input=["a", "b"])


def _saves(graph: Any, functions: dict[str, Any]) -> None:
    _serving(functions).node_def.add(name="w", op="ShardedFilename")


def _endless(graph: Any, functions: dict[str, Any]) -> None:
    for name, function in functions.items():
        node = function.node_def.add(name="again", op="StatefulPartitionedCall")
        node.attr["f"].func.name = name


def _speaks(graph: Any, functions: dict[str, Any]) -> None:
    _serving(functions).node_def[0].name = FORGED


def _heavier(graph: Any, functions: dict[str, Any]) -> None:
    for node in graph.object_graph_def.nodes:
        if node.WhichOneof("kind") == "variable":
            node.variable.shape.dim[0].size = 10**10


def _assets(graph: Any, functions: dict[str, Any]) -> None:
    graph.asset_file_def.add(filename="/etc/passwd")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_alternative, "a property that a classifier does not need"),
        (_backward, "a property that a classifier does not need"),
        (_gradient, "gradients of its own"),
        (_registered, "gradients of its own"),
        (_named, "names a function"),
        (_swollen, "unpack to far more"),
        (_in_main, "a TensorFlow operator"),
        (_saves, "a TensorFlow operator"),
        (_endless, "call each other without end"),
        (_speaks, "not plain text"),
        (_heavier, "another in its file"),
        (_assets, "with assets"),
    ],
)
def test_saved_model(small: Path, tmp_path: Path, edit: Any, message: str):
    shutil.copytree(small / SAVED, tmp_path / SAVED)
    rewrite(tmp_path / SAVED, edit)
    found_harmful(tmp_path / SAVED, message)


@pytest.mark.parametrize("name", ["assets/x", "assets.extra/x", "more.pb", "variables/x"])
def test_saved_model_with_more_files(small: Path, tmp_path: Path, name: str):
    shutil.copytree(small / SAVED, tmp_path / SAVED)
    (tmp_path / SAVED / name).parent.mkdir(exist_ok=True)
    (tmp_path / SAVED / name).touch()
    found_harmful(tmp_path / SAVED, "does not need")


def test_saved_model_computes_what_it_did(small: Path):
    """What the models above differ from; the weights come with it."""
    pixels = np.random.default_rng(0).random((5, 8, 8, 3), "float32")
    ours = found_harmless(small / SAVED)
    expected = keras.saving.load_model(small / KERAS).predict(pixels, verbose=0)
    np.testing.assert_allclose(ours.predict(pixels, verbose=0), expected, rtol=1e-5)
    assert sum(variable.shape.num_elements() for variable in ours.variables) == 121


# --- Keras


def _dense(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = config["config"]["layers"][-1]
    return found["config"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda config: _dense(config).update(units=300_000_000),
            "more weights than the file holds",
        ),
        (lambda config: _dense(config).update(units=10**12), "absurd"),
        (lambda config: _dense(config).update(name=FORGED), "not plain text"),
        (lambda config: _dense(config).update(fn="x"), "not known to be harmless"),
        (lambda config: config.update(custom_objects={}), "not known to be harmless"),
        (lambda config: _dense(config).update(activation="os.system"), "activation"),
    ],
)
def test_keras_configuration(small: Path, tmp_path: Path, edit: Any, message: str):
    found_harmful(small_models.configured(small / KERAS, tmp_path / KERAS, edit), message)


def test_keras_configuration_that_keras_refuses(small: Path, tmp_path: Path):
    model = small_models.configured(
        small / KERAS, tmp_path / KERAS, lambda config: config["config"].update(layers=[])
    )
    refuse(model, "cannot be loaded|more than")


def test_keras_model_of_models(tmp_path: Path):
    """An architecture with branches and a model in it; what it was made with can be seen again.

    It was compiled: what only training needs is left out, so that it need not be known.
    """
    given = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", kernel_initializer="he_normal")(given)
    both = keras.layers.Add()([first, keras.layers.ReLU()(first)])
    layers = [keras.Input((8, 8, 4)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Model(given, keras.Sequential(layers)(both))
    model.compile(optimizer="adam", loss="mse")
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    for name in (KERAS, HDF5):
        model.save(tmp_path / name)
        loaded = load_unverified(tmp_path / name, formats.FORMATS[name])
        np.testing.assert_array_equal(
            loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
        )
        assert isinstance(loaded.layers[1].kernel_initializer, keras.initializers.HeNormal)
        assert not loaded.compiled


# --- HDF5


def _kind_of_type(data: bytearray) -> None:
    at = data.rfind(b"backend\0\x19\x01") + len(b"backend\0") + 1
    data[at] = 0xDA


def _object_of_the_heap(data: bytearray) -> None:
    struct.pack_into("<Q", data, data.find(b"GCOL") + 24, 0x0E06)


@pytest.mark.parametrize("harm", [_kind_of_type, _object_of_the_heap])
def test_hdf5_that_crashes_or_hangs_its_library(small: Path, tmp_path: Path, harm):
    data = bytearray((small / HDF5).read_bytes())
    harm(data)
    (tmp_path / HDF5).write_bytes(data)
    refuse(tmp_path / HDF5, "no text|did not survive|not well-formed")


def test_hdf5_references_to_one_text(tmp_path: Path):
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    model.save(tmp_path / HDF5)
    with h5py.File(tmp_path / HDF5, "r+") as file:
        del file["model_weights"].attrs["layer_names"]
        names = ["y" * 3_000_000, *(f"z{number:04}" for number in range(3000))]
        file["model_weights"].attrs.create("layer_names", names, dtype=h5py.string_dtype())
    data = bytearray((tmp_path / HDF5).read_bytes())
    at = data.find(struct.pack("<I", 3_000_000))
    data[at : at + 16 * 3001] = data[at : at + 16] * 3001
    (tmp_path / HDF5).write_bytes(data)
    refuse(tmp_path / HDF5, "memory|plain text")


def _attribute(file: h5py.File) -> None:
    file.attrs["code"] = "x"


def _number(file: h5py.File) -> None:
    file.attrs["name"] = 5


def _text(file: h5py.File) -> None:
    file["text"] = "x"


def _reference(file: h5py.File) -> None:
    file["reference"] = np.array([file["layers"].ref], dtype=h5py.ref_dtype)


def _compound(file: h5py.File) -> None:
    file["compound"] = np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])


def _speaking(file: h5py.File) -> None:
    file[FORGED] = np.zeros(1)


def _chunk(file: h5py.File) -> None:
    file.create_dataset("chunk", (4,), "f4", maxshape=(None,), chunks=(10**7,))


def _named_type(file: h5py.File) -> None:
    file["type"] = np.dtype("f8")


def _filter(file: h5py.File) -> None:
    file.create_dataset("filtered", (4,), "f4", chunks=(4,), compression="lzf")


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (_attribute, "unknown attribute"),
        (_number, "no text"),
        (_text, "more than numbers"),
        (_reference, "more than numbers"),
        (_compound, "more than numbers"),
        (_speaking, "not plain text"),
        (_chunk, "a chunk larger"),
        (_named_type, "a named type"),
        (_filter, "an unknown filter"),
    ],
)
def test_hdf5(small: Path, tmp_path: Path, add: Callable[[h5py.File], None], message: str):
    (tmp_path / WEIGHTS).write_bytes((small / WEIGHTS).read_bytes())
    with h5py.File(tmp_path / WEIGHTS, "r+") as file:
        add(file)
    found_harmful(tmp_path / WEIGHTS, message)


def test_hdf5_weights_by_name(small: Path):
    loaded = found_harmless(small / WEIGHTS)
    with h5py.File(io.BytesIO((small / WEIGHTS).read_bytes())) as file:
        assert loaded["layers/dense/vars/1"].tolist() == file["layers/dense/vars/1"][()].tolist()
    assert sum(array.size for array in loaded.values()) == 121
