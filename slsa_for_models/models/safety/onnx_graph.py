"""ONNX: one graph of known operators, with its weights in it."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import onnx_runtime
from slsa_for_models.models.safety import check_name, elements, words

# What a convolutional network or a perceptron consists of. Not among them: what holds graphs of its
# own (If, Loop, Scan), and what makes large tensors of small ones (ConstantOfShape, Expand, Tile,
# Range), which ONNX Runtime does while it loads.
_OPERATORS = words(
    """
    Constant Identity Cast Shape Gather Slice Squeeze Unsqueeze Reshape Flatten Transpose Concat
    Conv Gemm MatMul BatchNormalization LayerNormalization InstanceNormalization
    MaxPool AveragePool GlobalAveragePool GlobalMaxPool Pad Dropout
    Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign
    Softmax LogSoftmax Clip Erf Exp Log Sqrt Pow Reciprocal Abs Neg Floor Ceil
    Add Sub Mul Div Min Max Sum Mean ReduceMean ReduceMax ReduceMin ReduceSum ArgMax
    """
)
_DOMAINS = {"", "ai.onnx"}

_ITEM_SIZES: dict[int, int] = {  # of the types that hold numbers, in whole bytes
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT16: 2,
    onnx.TensorProto.INT16: 2,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.UINT32: 4,
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.UINT64: 8,
}
_VALUES = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")

# The messages' fields that may be there; the others are refused, and notes are left out.
_FIELDS: dict[type[Message], frozenset[str]] = {
    onnx.ModelProto: words("ir_version producer_name producer_version opset_import graph"),
    onnx.OperatorSetIdProto: words("domain version"),
    onnx.GraphProto: words("name node initializer input output value_info"),
    onnx.NodeProto: words("name op_type domain input output attribute"),
    onnx.AttributeProto: words("name type f i s t floats ints strings"),
    onnx.TensorProto: words("name data_type dims raw_data") | set(_VALUES),
    onnx.ValueInfoProto: words("name type"),
    onnx.TypeProto: words("tensor_type denotation"),
    onnx.TypeProto.Tensor: words("elem_type shape"),
    onnx.TensorShapeProto: words("dim"),
    onnx.TensorShapeProto.Dimension: words("dim_value dim_param denotation"),
}
_NOTES = words("doc_string metadata_props model_version domain quantization_annotation")


def clean_model(path: Path, clean: Path) -> None:
    """Writes an ONNX graph anew, if it is all in this file and of known operators.

    Raises:
        UnsafeModelError: It is not.
    """
    clean.write_bytes(_checked(path))
    onnx_runtime.session(clean)  # which does not survive everything


def _checked(path: Path) -> bytes:
    data = path.read_bytes()
    if data[4:8] == b"ORTM":  # the same bytes would be another model to ONNX Runtime
        raise UnsafeModelError("the model is in ONNX Runtime's own format", where=path.name)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise UnsafeModelError("the model is not well-formed ONNX", where=path.name) from error
    model.DiscardUnknownFields()
    for opset in model.opset_import:
        if opset.domain not in _DOMAINS:
            raise UnsafeModelError("ONNX operators of a foreign domain", found=opset.domain[:200])
    _check(model)
    for node in model.graph.node:
        if node.op_type not in _OPERATORS or node.domain not in _DOMAINS:
            raise UnsafeModelError(
                "an ONNX operator that a classifier does not need",
                where=node.name[:200],
                found=f"{node.domain}:{node.op_type}"[:200].removeprefix(":"),
            )
    checked: bytes = model.SerializeToString(deterministic=True)
    return checked


def _check(model: Message) -> None:
    """Looks at every field of every message there is, and takes the notes out."""
    pending = [model]
    while pending:
        message = pending.pop()
        allowed = _FIELDS.get(type(message))
        for field, value in message.ListFields():
            if field.name in _NOTES and not (
                field.name == "domain" and allowed and "domain" in allowed
            ):
                message.ClearField(field.name)
                continue
            if field.name in ("external_data", "data_location"):
                name = str(message.name)[:200]  # type: ignore[attr-defined,unused-ignore]
                raise UnsafeModelError("an ONNX tensor in another file", where=name)
            if allowed is None or field.name not in allowed:
                raise UnsafeModelError(
                    "a part of an ONNX model that a classifier does not need",
                    where=type(message).__name__,
                    found=field.name,
                )
            if field.type == field.TYPE_STRING:
                for text in [value] if isinstance(value, str) else value:
                    check_name(text, f"{type(message).__name__}.{field.name}")
            elif field.message_type is not None:
                pending += [value] if isinstance(value, Message) else value
        if isinstance(message, onnx.TensorProto):
            _check_tensor(message)
        if isinstance(message, onnx.AttributeProto):
            for words_of_it in (message.s, *message.strings):
                check_name(words_of_it.decode("utf-8", "replace"), message.name)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Refuses a tensor of another size than its bytes in the file have."""
    count = elements(tensor.dims, tensor.name)
    size = _ITEM_SIZES.get(tensor.data_type)
    if size is None:
        raise UnsafeModelError("an ONNX tensor of an unknown type", where=tensor.name)
    held = max(len(getattr(tensor, name)) for name in _VALUES)
    if len(tensor.raw_data) != count * size and not (held == count and not tensor.raw_data):
        raise UnsafeModelError(
            "a tensor's size is not that of its bytes",
            where=tensor.name,
            expected=f"{count * size:,} bytes",
            found=f"{len(tensor.raw_data) or held * size:,} bytes",
        )
