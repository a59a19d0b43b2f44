"""TensorFlow's SavedModel: one function of known operators, taken out and written anew.

A SavedModel is a program with objects around it: initializers, functions that save and restore,
gradients, other implementations of a function that the runtime may prefer. Every node of all of it
has to be known; and TensorFlow gets none of it but the function that serves, without what names
other functions, and its weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import SLACK, check_name, elements, words
from slsa_for_models.models.tensorflow import silent  # first: it sets what TensorFlow reads

with silent():
    import tensorflow as tf

_FILES = (
    r"saved_model\.pb|fingerprint\.pb|keras_metadata\.pb"
    r"|variables/variables\.(index|data-\d{5}-of-\d{5})"
)
_MOST_BYTES = 256 * 1024 * 1024  # of the graph
_MOST_DEPTH = 20  # of functions that call each other
_SPLAT = 4096  # elements of a constant that one value may stand for

# What Keras exports for an ordinary network.
_OPERATORS = words(
    """
    Placeholder Const NoOp Identity IdentityN ReadVariableOp
    Cast Conv2D DepthwiseConv2dNative BiasAdd MaxPool AvgPool Mean Max Sum
    Relu Relu6 LeakyRelu Elu Selu Sigmoid Tanh Softplus Softmax Erf Square Sqrt
    Reshape Shape StridedSlice Transpose ConcatV2 MatMul Add AddV2 Sub Neg Mul RealDiv
    Maximum Minimum Rsqrt Squeeze ExpandDims Pad PadV2 Pack SquaredDifference FusedBatchNormV3
    """
)
_CALLS = words("PartitionedCall StatefulPartitionedCall")

# What stands around it: the functions that save and restore, and their calls in the main graph.
# They touch any file they like, and are given to no runtime.
_AROUND = words(
    """
    VarHandleOp AssignVariableOp VarIsInitializedOp DisableCopyOnRead StringJoin
    StaticRegexFullMatch Select SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename
    """
)
_FILE_OPERATORS = words("SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename")
_SAVING = r"__inference__traced_(save|restore)_\d+"

_SIGNATURE = "serving_default"


def clean_model(path: Path, clean: Path) -> None:
    """Writes the serving function and its weights into a folder `clean`.

    Raises:
        UnsafeModelError: A part of the model is not known to be harmless, or malformed.
    """
    meta = _parse(path)
    library = {function.signature.name: function for function in meta.graph_def.library.function}
    _check_all(meta, library)
    served = meta.signature_def[_SIGNATURE]
    name, captured = _serving_function(meta)
    graph = _graph(name, library)
    keys = _variables(meta, captured)
    weights = _weights(path, keys)
    clean.mkdir()
    (clean / "graph.pb").write_bytes(graph.SerializeToString(deterministic=True))
    np.savez(clean / "weights.npz", *weights)
    shapes = [
        [None if side.size < 0 else side.size for side in given.tensor_shape.dim]
        for given in served.inputs.values()
    ]
    told = {
        "function": name,
        "input": shapes[0],
        "outputs": [tf.dtypes.as_dtype(arg.type).name for arg in _outputs(library[name])],
        "inputs": [tf.dtypes.as_dtype(arg.type).name for arg in library[name].signature.input_arg],
        "trainable": [trainable for _, _, _, trainable in keys],
    }
    (clean / "signature.json").write_text(json.dumps(told))


def _outputs(function: Any) -> Any:  # noqa: ANN401 - protobuf's
    return function.signature.output_arg


def _parse(path: Path) -> Any:  # noqa: ANN401 - protobuf's
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    for item in path.rglob("*"):
        name = item.relative_to(path).as_posix()
        if not (item.is_dir() and name in ("assets", "variables")) and (
            not item.is_file() or not re.fullmatch(_FILES, name, re.ASCII)
        ):
            raise UnsafeModelError("a file that a SavedModel does not need", where=name)
    try:
        if (path / "saved_model.pb").stat().st_size > _MOST_BYTES:
            raise UnsafeModelError("the graph is too large", where="saved_model.pb")
        model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as error:
        raise UnsafeModelError("the model is not a SavedModel", where=path.name) from error
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        raise UnsafeModelError("a SavedModel that is not of TensorFlow 2", where=path.name)
    meta = model.meta_graphs[0]
    if meta.asset_file_def or _SIGNATURE not in meta.signature_def:
        raise UnsafeModelError("a SavedModel with assets, or that serves nothing", where=path.name)
    return meta


# all that is in it --------------------------------------------------------------------------------


def _check_all(meta: Any, library: dict[str, Any]) -> None:  # noqa: ANN401 - protobuf's
    functions = meta.graph_def.library
    if len(library) != len(functions.function):
        raise UnsafeModelError("a SavedModel with a function twice")
    if functions.gradient or functions.registered_gradients:
        raise UnsafeModelError("a SavedModel with gradients of its own")
    for name, function in library.items():
        _check_function_name(name)
        if function.attr.keys() - {"_input_shapes", "_construction_context"}:
            # Such as api_implements: functions that a runtime may take instead of others.
            extra = function.attr.keys() - {"_input_shapes", "_construction_context"}
            raise UnsafeModelError(
                "a function with a property that a classifier does not need",
                where=name,
                found=", ".join(sorted(extra))[:200],
            )
    for function_name, nodes in (
        ("", meta.graph_def.node),
        *((name, function.node_def) for name, function in library.items()),
    ):
        saving = bool(re.fullmatch(_SAVING, function_name, re.ASCII))
        allowed = _OPERATORS | _CALLS | (_AROUND if saving else _AROUND - _FILE_OPERATORS)
        for node in nodes:
            _check_node(node, allowed, library)


def _check_function_name(name: str) -> None:
    """TensorFlow calls a function by its name as if it were an operator."""
    check_name(name, "saved_model.pb")
    if not re.fullmatch(r"__[A-Za-z0-9_.-]+", name, re.ASCII):
        raise UnsafeModelError("a function that bears an operator's name", found=name[:200])


def _check_node(node: Any, allowed: frozenset[str], library: dict[str, Any]) -> None:  # noqa: ANN401
    check_name(node.name, "saved_model.pb")
    if node.op not in allowed:
        raise UnsafeModelError(
            "a TensorFlow operator that a classifier does not need",
            where=node.name[:200],
            found=node.op[:200],
        )
    for key, value in node.attr.items():
        kind = value.WhichOneof("value")
        named = [value.func] if kind == "func" else list(value.list.func)
        if named and (key != "f" or node.op not in _CALLS or kind != "func"):
            raise UnsafeModelError("a node that names a function", where=node.name, found=key)
        for each in named:
            if each.name not in library or each.attr:
                raise UnsafeModelError("a call of an unknown function", where=node.name)
        if kind == "tensor":
            _check_constant(value.tensor, node.name)
        if value.list.tensor or kind == "placeholder":
            raise UnsafeModelError("a node with an unknown property", where=node.name, found=key)


def _check_constant(tensor: Any, where: str) -> None:  # noqa: ANN401 - protobuf's
    """Refuses a constant that is larger than its bytes in the file; small ones may be one value."""
    if tensor.tensor_shape.unknown_rank:
        raise UnsafeModelError("a constant of unknown size", where=where)
    count = elements((side.size for side in tensor.tensor_shape.dim), where)
    try:
        kind = tf.dtypes.as_dtype(tensor.dtype)
        size = kind.size or 1
    except TypeError as error:
        raise UnsafeModelError("a constant of an unknown type", where=where) from error
    if tensor.variant_val or tensor.resource_handle_val:
        raise UnsafeModelError("a constant that is no number or text", where=where)
    held = len(tensor.tensor_content) // size
    for field, value in tensor.ListFields():
        if field.name.endswith("_val"):
            held = max(held, len(value))
    if count > max(held, _SPLAT):
        raise UnsafeModelError(
            "the model would unpack to far more than it weighs",
            where=where,
            expected=f"at most {held:,} elements",
            found=f"{count:,} elements",
        )


# what is taken out of it --------------------------------------------------------------------------


def _serving_function(meta: Any) -> tuple[str, list[int]]:  # noqa: ANN401 - protobuf's
    """The function behind the signature, and the objects that it captures."""
    objects = meta.object_graph_def
    at = 0
    for step in ("signatures", _SIGNATURE):
        children = {child.local_name: child.node_id for child in objects.nodes[at].children}
        if step not in children or not 0 <= children[step] < len(objects.nodes):
            raise UnsafeModelError("a SavedModel that serves nothing", where=step)
        at = children[step]
    name = objects.nodes[at].bare_concrete_function.concrete_function_name
    served = meta.signature_def[_SIGNATURE]
    if name not in objects.concrete_functions or len(served.inputs) != 1 or not served.outputs:
        raise UnsafeModelError("a SavedModel of more than one input, or of no function", where=name)
    return name, list(objects.concrete_functions[name].bound_inputs)


def _graph(name: str, library: dict[str, Any]) -> Any:  # noqa: ANN401 - protobuf's
    """A graph that knows the function and those that it calls."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef()
    graph.versions.producer = tf.version.GRAPH_DEF_VERSION
    for depth, function in _called(name, library):
        if depth > _MOST_DEPTH:
            raise UnsafeModelError("functions that call each other without end", where=name)
        graph.library.function.append(_bare(function))
    return graph


def _called(name: str, library: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """The function, and what it calls, with the longest way there."""
    depths = {name: 0}
    pending = [name]
    while pending:
        caller = pending.pop()
        if caller not in library:
            raise UnsafeModelError("a call of an unknown function", where=caller)
        for node in library[caller].node_def:
            callee = node.attr["f"].func.name if node.op in _CALLS else ""
            if callee and depths.get(callee, -1) <= depths[caller]:
                depths[callee] = depths[caller] + 1
                if depths[callee] > _MOST_DEPTH:
                    raise UnsafeModelError("functions that call each other without end", where=name)
                pending.append(callee)
    for called, depth in depths.items():
        yield depth, library[called]


def _bare(function: Any) -> Any:  # noqa: ANN401 - protobuf's
    """A function with its nodes, of which each has only what its operator asks for."""
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.python.framework import op_def_registry

    bare = FunctionDef()
    bare.signature.name = function.signature.name
    bare.signature.is_stateful = function.signature.is_stateful
    for ours, theirs in (
        (bare.signature.input_arg, function.signature.input_arg),
        (bare.signature.output_arg, function.signature.output_arg),
    ):
        for argument in theirs:
            check_name(argument.name, bare.signature.name)
            ours.add(name=argument.name, type=argument.type)
    bare.ret.update(function.ret)
    for node in function.node_def:
        if node.op not in _OPERATORS | _CALLS:
            raise UnsafeModelError(
                "a TensorFlow operator that a classifier does not need",
                where=node.name[:200],
                found=node.op[:200],
            )
        copy = bare.node_def.add(name=node.name, op=node.op)
        copy.input.extend(node.input)
        known = {attr.name for attr in op_def_registry.get(node.op).attr}
        known -= {"config", "config_proto", "executor_type"}
        if node.op == "Const" and node.attr["value"].tensor.string_val:
            raise UnsafeModelError("a constant that is no number", where=node.name)
        for key in known & set(node.attr):
            copy.attr[key].CopyFrom(node.attr[key])
    return bare


def _variables(meta: Any, captured: Iterable[int]) -> list[tuple[int, str, Any, bool]]:  # noqa: ANN401
    """The variables that the function captures: object, name, type and shape, trainable."""
    nodes = meta.object_graph_def.nodes
    found = []
    for index in captured:
        kind = nodes[index].WhichOneof("kind") if 0 <= index < len(nodes) else None
        if kind != "variable":
            raise UnsafeModelError(
                "a SavedModel whose function uses more than weights", found=str(kind)
            )
        variable = nodes[index].variable
        shape = [side.size for side in variable.shape.dim]
        elements(shape, check_name(variable.name, "saved_model.pb"))
        found.append((index, variable.name, (variable.dtype, shape), bool(variable.trainable)))
    return found


def _weights(path: Path, keys: list[tuple[int, str, Any, bool]]) -> list[Any]:
    """The variables' values from the checkpoint, once their sizes were compared with it."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    held = sum(each.stat().st_size for each in path.glob("variables/*"))
    if not keys:
        return []
    try:
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        objects = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        chosen, declared = [], 0
        for index, name, (dtype, shape), _ in keys:
            (attribute,) = objects.nodes[index].attributes
            key = attribute.checkpoint_key
            kind = tf.dtypes.as_dtype(dtype)
            if list(shapes[key]) != shape or types[key] != kind or attribute.full_name != name:
                raise UnsafeModelError("a variable that is another in its file", where=name)
            declared += elements(shape, name) * kind.size
            chosen.append(key)
        if declared > held + SLACK:
            raise UnsafeModelError("variables that are larger than their file", where=path.name)
        return [reader.get_tensor(key) for key in chosen]
    except (ValueError, LookupError, TypeError, DecodeError, tf.errors.OpError) as error:
        raise UnsafeModelError(
            "the model's variables cannot be read", where=path.name, found=str(error)[:200]
        ) from error
