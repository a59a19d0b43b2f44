"""What model files are refused before a framework reads them.

Frameworks parse these formats with far more trust than a file deserves. Each check states what an
ordinary classifier needs and refuses everything else, by `UnsafeModelError`.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from model_signing.oms import strict_json
from slsa_for_models.errors import UnsafeModelError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SLACK = 1024 * 1024  # bytes of headers and padding that a small model may have
_EXPANSION = 4  # weights hardly compress: contents far larger than the file are a bomb

_KERAS_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}

# Layers, and parts of layers, that only compute. Not among them: Lambda (CVE-2024-3660,
# CVE-2025-1550, CVE-2025-9905), TFSMLayer (CVE-2026-1462) and TorchModuleWrapper, which bring
# code; StringLookup and the like (CVE-2025-12058), which read files; "function", which names any.
_KERAS_CLASSES = _words(
    """
    Sequential Functional InputLayer __keras_tensor__ DTypePolicy
    Dense Conv1D Conv2D Conv3D Conv2DTranspose DepthwiseConv2D SeparableConv2D
    BatchNormalization GroupNormalization LayerNormalization Normalization Rescaling
    Activation ReLU LeakyReLU PReLU ELU Softmax Dropout SpatialDropout2D GaussianNoise
    MaxPooling2D AveragePooling2D GlobalMaxPooling2D GlobalAveragePooling2D
    Flatten Reshape Permute ZeroPadding2D Cropping2D UpSampling2D
    Add Subtract Multiply Average Maximum Minimum Concatenate
    RandomFlip RandomCrop RandomRotation RandomTranslation RandomZoom
    Zeros Ones Constant RandomNormal RandomUniform TruncatedNormal VarianceScaling
    GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Orthogonal
    L1 L2 L1L2 MaxNorm NonNeg UnitNorm
    """
)
_KERAS_MODULES = {
    "keras",
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.src.models.functional",
    "builtins",
    None,
}

# What a convolutional network traced by PyTorch consists of.
_TORCHSCRIPT_OPERATORS = _words(
    """
    prim::Constant prim::GetAttr prim::ListConstruct prim::TupleConstruct prim::TupleUnpack
    prim::NumToTensor aten::Int aten::size aten::view aten::reshape aten::flatten
    aten::_convolution aten::conv2d aten::batch_norm aten::layer_norm aten::relu aten::relu_
    aten::leaky_relu aten::gelu aten::silu aten::sigmoid aten::tanh aten::hardtanh
    aten::softmax aten::log_softmax aten::max_pool2d aten::avg_pool2d aten::adaptive_avg_pool2d
    aten::linear aten::addmm aten::matmul aten::mean aten::add aten::add_ aten::sub aten::mul
    aten::div aten::cat aten::dropout aten::contiguous aten::permute aten::transpose
    """
)

# What Keras exports for such a network, and what every SavedModel has for saving and restoring.
_TENSORFLOW_OPERATORS = _words(
    """
    Placeholder Const NoOp Identity IdentityN VarHandleOp ReadVariableOp AssignVariableOp
    DisableCopyOnRead VarIsInitializedOp PartitionedCall StatefulPartitionedCall
    StringJoin StaticRegexFullMatch Select Pack
    Cast Conv2D DepthwiseConv2dNative BiasAdd MaxPool AvgPool Mean Max Relu Relu6 LeakyRelu Elu
    Softmax Reshape Shape StridedSlice Transpose ConcatV2 MatMul Add AddV2 Sub Neg Mul
    Maximum Minimum Rsqrt Squeeze ExpandDims Pad FusedBatchNormV3
    """
)

# These touch any file they like. Every SavedModel has them in two functions that nothing but the
# main graph calls; and the main graph is not run where there is an object graph.
_TENSORFLOW_FILE_OPERATORS = _words("SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename")


def check_zip(path: Path) -> None:
    """Refuses what is no zip archive, or one that unpacks to much more than it weighs."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_one_directory(path, archive.start_dir)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UnsafeModelError(
            "the model is not the zip archive that its format is", where=path.name, found=str(error)
        ) from error
    _check_size(sum(member.file_size for member in members), size, path.name)
    names = [member.filename for member in members]
    if len(set(names)) != len(names):  # readers differ in which of the two they take
        raise UnsafeModelError("a member of the archive occurs twice", where=path.name)


def _check_one_directory(path: Path, start: int) -> None:
    """Refuses an archive of which another reader than Python's might see other members.

    Python finds the directory of members by its size, PyTorch by its offset. So every record at the
    end (PKWARE APPNOTE 4.3.14 to 4.3.16) has to lead to the directory that was checked.
    """
    with path.open("rb") as file:
        head, end = file.read(4), file.seek(0, io.SEEK_END) - 22
        file.seek(max(0, end - 76))
        tail = file.read().rjust(98, b"\0")
    record64, locator64, record = tail[:56], tail[56:76], tail[76:]
    holds = head == b"PK\3\4"
    if locator64.startswith(b"PK\6\7"):
        end -= 76
        holds &= int.from_bytes(locator64[8:16], "little") == end
        holds &= struct.unpack("<4s36x2Q", record64) == (b"PK\6\6", end - start, start)
    at_most = 0xFFFFFFFF  # what is larger stands in the record before
    expected = (b"PK\5\6", min(end - start, at_most), min(start, at_most), 0)
    if not holds or struct.unpack("<4s8x2LH", record) != expected:
        raise UnsafeModelError(
            "the archive has more than one directory of members, or something around it",
            where=path.name,
        )


def check_keras(path: Path) -> None:
    """Refuses a `.keras` archive with more in it than ordinary layers and their weights."""
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if names != _KERAS_MEMBERS:
            raise UnsafeModelError(
                "a Keras archive with other members than expected",
                where=path.name,
                expected=", ".join(sorted(_KERAS_MEMBERS)),
                found=", ".join(sorted(names))[:200],
            )
        check_keras_config(archive.read("config.json"))
        check_hdf5(io.BytesIO(archive.read("model.weights.h5")))


def check_hdf5_model(path: Path) -> None:
    """Refuses an HDF5 file with more in it than ordinary layers and their weights."""
    import h5py

    with path.open("rb") as file:
        check_hdf5(file)
        with h5py.File(file, "r") as model:
            config = model.attrs.get("model_config", "")
    check_keras_config(config if isinstance(config, bytes) else str(config).encode())


def check_keras_config(config: bytes) -> None:
    """Refuses an architecture with anything but classes that are known only to compute."""
    pending = [strict_json.loads(config, UnsafeModelError, "The Keras configuration")]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            pending += node.values()
            if "class_name" in node:
                _check_keras_class(node)


def check_hdf5(file: BinaryIO) -> None:
    """Refuses HDF5 that refers to other files or declares far more data than it has."""
    import h5py

    try:
        size = file.seek(0, io.SEEK_END)
        with h5py.File(file, "r") as root:
            declared, seen, pending = 0, set(), [root]
            while pending:
                group = pending.pop()
                for name in group:
                    where = f"{group.name}/{name}"
                    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                        raise UnsafeModelError("HDF5 with a link to elsewhere", where=where)
                    item = group[name]
                    address = h5py.h5o.get_info(item.id).addr
                    if address in seen:
                        raise UnsafeModelError("HDF5 with two names for one thing", where=where)
                    seen.add(address)
                    if isinstance(item, h5py.Group):
                        pending.append(item)
                    elif not isinstance(item, h5py.Dataset):
                        raise UnsafeModelError("HDF5 with a named type", where=where)
                    elif item.external or item.is_virtual:
                        raise UnsafeModelError("HDF5 with data in another file", where=where)
                    else:
                        declared += item.nbytes
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UnsafeModelError(
            "the model is not well-formed HDF5", found=str(error)[:200]
        ) from error
    _check_size(declared, size, "HDF5 data sets")


def check_torchscript(path: Path) -> None:
    """Refuses a TorchScript archive that would run something of its own while it is loaded."""
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            # PyTorch looks members up in any case.
            if name.lower().endswith(".py") and b"__setstate__" in archive.read(name):
                raise UnsafeModelError("a TorchScript class that runs when loaded", where=name)


def check_torchscript_graph(model: Any) -> None:  # noqa: ANN401 - torch.jit.ScriptModule
    """Refuses a loaded TorchScript program, before it runs, with operators that do not compute."""
    pending = [model.inlined_graph]
    while pending:
        for node in pending.pop().nodes():
            if node.kind() not in _TORCHSCRIPT_OPERATORS:
                raise UnsafeModelError(
                    "a TorchScript operator that a classifier does not need", found=node.kind()
                )
            pending += node.blocks()


def check_onnx(path: Path) -> None:
    """Refuses an ONNX graph with weights in other files."""
    import onnx
    from google.protobuf.message import DecodeError, Message

    data = path.read_bytes()
    if data[4:8] == b"ORTM":  # the same bytes would be another model to ONNX Runtime
        raise UnsafeModelError("the model is in ONNX Runtime's own format", where=path.name)
    try:
        pending: list[Message] = [onnx.ModelProto.FromString(data)]
    except DecodeError as error:
        raise UnsafeModelError("the model is not well-formed ONNX", where=path.name) from error
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto) and message.external_data:
            raise UnsafeModelError("an ONNX tensor in another file", where=message.name[:200])
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += [value] if isinstance(value, Message) else value


def check_saved_model(path: Path) -> None:
    """Refuses a TensorFlow graph with operators that do more than compute and restore weights."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as error:
        raise UnsafeModelError("the model is not a SavedModel", where=path.name) from error
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        raise UnsafeModelError("a SavedModel that is not of TensorFlow 2", where=path.name)
    graph, objects = model.meta_graphs[0].graph_def, model.meta_graphs[0].object_graph_def
    used = set(objects.concrete_functions)
    for item in objects.nodes:
        used.update(item.function.concrete_functions)
        used.add(item.bare_concrete_function.concrete_function_name)
    for function in graph.library.function:
        for node in function.node_def:
            for value in node.attr.values():
                used.update(called.name for called in (value.func, *value.list.func))
    for function_name, nodes in (
        ("", graph.node),
        *((function.signature.name, function.node_def) for function in graph.library.function),
    ):
        saves = function_name and function_name not in used
        allowed = _TENSORFLOW_OPERATORS | (_TENSORFLOW_FILE_OPERATORS if saves else set())
        for node in nodes:
            if node.op not in allowed:
                raise UnsafeModelError(
                    "a TensorFlow operator that a classifier does not need",
                    where=node.name[:200],
                    found=node.op[:200],
                )


def _check_keras_class(node: dict[str, Any]) -> None:
    """Compares what Keras would look a class up by; each may be any JSON value."""
    name, module = node["class_name"], node.get("module")
    registered = node.get("registered_name")
    known = name in list(_KERAS_CLASSES) and module in list(_KERAS_MODULES)
    if not known or registered not in (None, name):
        raise UnsafeModelError(
            "a Keras layer that is not known to be harmless",
            expected="layers that only compute",
            found=f"{module}.{name}"[:200],
            fix="load it yourself if you trust it with all your rights",
        )


def _check_size(declared: int, size: int, where: str) -> None:
    if declared > size * _EXPANSION + _SLACK:
        raise UnsafeModelError(
            "the model would unpack to far more than it weighs",
            where=where,
            expected=f"at most {size * _EXPANSION + _SLACK:,} bytes",
            found=f"{declared:,} bytes",
        )
