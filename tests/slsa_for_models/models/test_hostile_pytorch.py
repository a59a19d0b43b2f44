"""Models that act, swell or speak while they are loaded or used: PyTorch's formats and ONNX."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from torch import nn

from slsa_for_models.errors import UnsafeModelError
from tests.support.strangers import found_harmful, found_harmless

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROOT = Path(__file__).resolve().parents[3]
JITTED, WEIGHTS = "pytorch_jitted_model.pt", "pytorch_model.pth"
SAFE, ONNX = "pytorch_model.safetensors", "pytorch_model.onnx"
FORGED = "x\n::error::forged by the model\n\x1b[2J"


def refuse(folder: Path, name: str, content: bytes, message: str) -> UnsafeModelError:
    """Loading is refused, and nothing is written."""
    (folder / name).write_bytes(content)
    return found_harmful(folder / name, message)


def edited(archive: bytes, edit: Callable[[str, bytes], bytes]) -> bytes:
    """The archive with other contents of its members."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
    return written.getvalue()


# --- TorchScript


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels * self.weight


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.inner(pixels)


def before_hook(self, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    torch.ops.aten.save(given[0], "written")
    return given


before_hook.__annotations__ = {"given": tuple[torch.Tensor], "return": tuple[torch.Tensor]}


def after_hook(self, given: tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
    torch.ops.aten.save(result, "written")
    return result


after_hook.__annotations__ = {
    "given": tuple[torch.Tensor],
    "result": torch.Tensor,
    "return": torch.Tensor,
}


class NeverCalled(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    @torch.jit.export
    def other(self, pixels: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.save(pixels, "written")
        return pixels


class Forks(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(torch.relu, pixels))


def script(module: nn.Module) -> bytes:
    saved = io.BytesIO()
    torch.jit.save(torch.jit.script(module), saved)
    return saved.getvalue()


def hooked(kind: str, inner: bool) -> bytes:
    module = Plain()
    getattr(module, f"register_forward_{kind}")(before_hook if "pre" in kind else after_hook)
    return script(Outer(module) if inner else module)


@pytest.mark.parametrize("inner", [False, True], ids=["outer", "inner"])
@pytest.mark.parametrize("kind", ["pre_hook", "hook"])
def test_torchscript_hook(tmp_path: Path, kind: str, inner: bool):
    refused = refuse(tmp_path, JITTED, hooked(kind, inner), "more than a classifier needs")
    assert refused.found == f"__forward_{kind}s__"


@pytest.mark.parametrize("module", [NeverCalled, Forks])
def test_torchscript_operator_that_no_graph_shows(tmp_path: Path, module: type[nn.Module]):
    refuse(tmp_path, JITTED, script(module()), "operator that a classifier|more than a classifier")


CODE = """class Plain(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  training : bool
  _is_full_backward_hook : NoneType
  def forward(self: __torch__.{module}.Plain, pixels: Tensor) -> Tensor:
    {line}
    return pixels
  def save(self: __torch__.{module}.Plain, pixels: Tensor) -> Tensor:
    return pixels
"""


@pytest.mark.parametrize(
    "line",
    [
        '_0 = (pixels).save("written")',  # an operator by the name of a method of ours
        '_0 = torch.save(pixels, "written")',
        '_0 = ops.aten.save(pixels, "written")',
        '_0 = torch.from_file("/etc/passwd", None, 10, )',
        "_0 = fork\n    _1 = _0(pixels, )",
        "if True:\n      fork = pixels\n    else:\n      _0 = fork(pixels, )",
        "_0 = ops.prim.rpc_async(pixels, )",
        "_0 = print(pixels)",
        "_0 = pixels.grad_fn",
        "pixels: Foreign = pixels",
        "self.weight = pixels",
        "import os",
        "_0 = __torch__.torch.classes.dist_rpc.WorkerInfo(pixels, )",
        'ops.prim.RaiseException("::error::", "os.system")',
        '_0 = "\\n::error::forged"',
        "_0 = 1e999",
    ],
)
def test_torchscript_line(tmp_path: Path, line: str):
    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith(".py"):
            return data
        module = name.partition("__torch__/")[2].removesuffix(".py").replace("/", ".")
        return CODE.format(module=module, line=line).encode()

    content = edited(script(Plain()), edit)
    refuse(tmp_path, JITTED, content, "TorchScript|plain text")


def test_torchscript_line_that_computes(tmp_path: Path):
    """What the lines above differ from."""
    (tmp_path / JITTED).write_bytes(script(Outer(Plain())))
    model = found_harmless(tmp_path / JITTED)
    assert model(torch.full((2,), 3.0)).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"  training : bool", b"  training : Tensor", "another type than declared"),
        (b"weight", b"heavy", "other attributes than its class"),
        (b"(Module)", b"(Interface)", "more than a classifier needs"),
        (b"  __parameters__ =", b"  __secrets__ =", "more than a classifier needs"),
        (b"  def forward", b"  def __setstate__", "runs when loaded"),
        (b"return", b"return" + b"(" * 300, "cannot be read"),
        (b"pixels", "pïxels".encode(), "cannot be read"),
    ],
)
def test_torchscript_class(tmp_path: Path, old: bytes, new: bytes, message: str):
    content = edited(
        script(Plain()), lambda name, data: data.replace(old, new) if name[-3:] == ".py" else data
    )
    refuse(tmp_path, JITTED, content, message)


def test_torchscript_object_of_a_class_of_pytorch(tmp_path: Path):
    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return data
        line = data[data.index(b"c__torch__") : data.index(b"Plain\n") + 6]
        return data.replace(line, b"c__torch__.torch.classes.dist_rpc\nWorkerInfo\n")

    refuse(tmp_path, JITTED, edited(script(Plain()), edit), "no part of a tensor")


def test_torchscript_archive_with_more_in_it(tmp_path: Path):
    content = io.BytesIO(script(Plain()))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(archive.namelist()[0].partition("/")[0] + "/extra/run.py", b"")
    refuse(tmp_path, JITTED, content.getvalue(), "not known")


# --- state dicts


def pickled(program: bytes) -> bytes:
    saved = io.BytesIO()
    torch.save({"x": torch.zeros(4)}, saved)
    return edited(
        saved.getvalue(), lambda name, data: program if name.endswith("data.pkl") else data
    )


def tensor(count: int = 4, shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85") -> bytes:
    """A state dict of one tensor, as PyTorch pickles it."""
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpu"
    storage += b"J" + struct.pack("<i", count) + b"tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + stride
    rebuilt += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\2}X\1\0\0\0x" + rebuilt + b"s."


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + bytes(4) + b"\x05\x85R.", "part of a tensor"),
        (b"\x80\x02c_codecs\nencode\nX\1\0\0\0aX\1\0\0\0a\x86R.", "no part of a tensor"),
        (tensor(count=2**30), "not that of its bytes"),
        (tensor(count=3), "not that of its bytes"),
        (tensor(shape=b"K\x05\x85"), "not within its storage"),
        (tensor(shape=b"J\xff\xff\xff\x7f\x85", stride=b"K\0\x85"), "not within its storage"),
        (tensor(shape=b"J\xff\xff\xff\xff\x85"), "negative"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "absurd place"),
        (b"\x80\x02}q\0X\1\0\0\0xh\0s.", "nested too deeply"),
        (b"\x80\x02" + b"]" * 200 + b"a" * 199 + b".", "nested too deeply"),
        (b"\x80\x02]X\3\0\0\0::xa.", "not plain text"),
        (b"\x80\x02K\1.", "not a state dict"),
        (b"\x80\x02}}.", "does not end where it should"),
        (b"\x80\x02}", "well-formed|does not end"),
        (b"\x80\x04\x96" + (20 * 10**9).to_bytes(8, "little") + b".", "well-formed"),
        (b"\x80\x02ccollections\nOrderedDict\n.", "more than tensors"),
    ],
)
def test_pickle(tmp_path: Path, program: bytes, message: str):
    refuse(tmp_path, WEIGHTS, pickled(program), message)


def test_pickle_of_a_tensor(tmp_path: Path):
    """What the programs above differ from."""
    (tmp_path / WEIGHTS).write_bytes(pickled(tensor()))
    assert found_harmless(tmp_path / WEIGHTS)["x"].tolist() == [0] * 4


def test_state_dict_with_a_name_for_the_terminal(tmp_path: Path):
    saved = io.BytesIO()
    torch.save({FORGED: torch.zeros(1)}, saved)
    refuse(tmp_path, WEIGHTS, saved.getvalue(), "not plain text")


# --- safetensors


def safe(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def row(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (safe({"x": row()}, length=2**40), "too long"),
        (safe({"x": row(shape=[2**40])}), "not that of its bytes"),
        (safe({"x": row(shape=[-2])}), "negative"),
        (safe({"x": row(shape=[2.0])}), "malformed"),
        (safe({"x": row(dtype="F31")}), "unknown type"),
        (safe({"x": row(), "y": row()}), "one by one"),
        (safe({"x": row()}, bytes(9)), "one by one"),
        (safe({"x": row(more=1)}), "unknown field"),
        (safe({FORGED: row()}), "not plain text"),
        (safe({"x": row(), "__metadata__": {"a": FORGED}}), "not plain text"),
        (safe({"x": row(), "__metadata__": {"a": 1}}), "no text"),
        (safe([]), "missing"),
    ],
)
def test_safetensors(tmp_path: Path, content: bytes, message: str):
    refuse(tmp_path, SAFE, content, message)


def test_safetensors_as_the_library_writes_them(tmp_path: Path):
    named = {"a": torch.arange(6).reshape(2, 3), "b": torch.ones(()), "c": torch.ones(0)}
    safetensors.torch.save_file(named, tmp_path / SAFE, {"format": "pt"})
    loaded = found_harmless(tmp_path / SAFE)
    assert {name: value.tolist() for name, value in loaded.items()} == {
        name: value.tolist() for name, value in named.items()
    }


# --- ONNX


def graph(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    sides = ["n", 3]
    made = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["pixels"], ["logits"], name="last")],
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, sides)],
        list(tensors),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="local")


def _foreign(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)


def _branch(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="then_branch", type="GRAPH").g.name = "inner"


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")


def _swollen(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="w", data_type=1, dims=[10**10], float_data=[1.0])


def _constant(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Constant", output=["c"]).attribute.add(
        name="value", type="TENSOR"
    ).t.CopyFrom(onnx.TensorProto(data_type=1, dims=[10**10], raw_data=bytes(4)))


def _texts(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="w", data_type=8, dims=[1], string_data=[b"x"])


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_function, "part of an ONNX model"),
        (_foreign, "foreign domain"),
        (_branch, "part of an ONNX model"),
        (_external, "in another file"),
        (_swollen, "not that of its bytes"),
        (_constant, "not that of its bytes"),
        (_texts, "part of an ONNX model|unknown type"),
        (_training, "part of an ONNX model"),
        (lambda model: model.graph.node[0].MergeFrom(onnx.NodeProto(name=FORGED)), "plain text"),
        (lambda model: model.graph.node[0].MergeFrom(onnx.NodeProto(domain="x")), "operator"),
        (lambda model: model.graph.node.add(op_type="ConstantOfShape"), "operator"),
        (lambda model: model.graph.node.add(op_type="Custom"), "operator"),
    ],
)
def test_onnx(tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str):
    model = graph()
    change(model)
    refuse(tmp_path, ONNX, model.SerializeToString(), message)


MEASURED = """
import resource, sys
from pathlib import Path
from slsa_for_models.models import formats
from slsa_for_models.models.load import load_unverified
row = formats.FORMATS[sys.argv[2]]
formats.framework(row)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_unverified(Path(sys.argv[1]), row)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def run(model: Path) -> subprocess.CompletedProcess[str]:
    """Loads a model in a process of its own, which prints the MiB that it took."""
    return subprocess.run(
        [sys.executable, "-c", MEASURED, str(model), model.name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_onnx_that_would_swell_while_it_is_loaded(tmp_path: Path):
    """Operators that are known, of constants that are small: the runtime would fold them."""
    wide = helper.make_tensor("w", TensorProto.FLOAT, [1, 60_000], bytes(240_000), raw=True)
    high = helper.make_tensor("h", TensorProto.FLOAT, [60_000, 1], bytes(240_000), raw=True)
    nodes = [
        helper.make_node("MatMul", ["h", "w"], ["square"]),
        helper.make_node("ReduceSum", ["square"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "pixels"], ["more"]),
    ]
    model = graph(*nodes, tensors=(wide, high))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 3]))
    (tmp_path / ONNX).write_bytes(model.SerializeToString())
    done = run(tmp_path / ONNX)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 256, "MiB, of which the product has 13,700"


def test_onnx_says_nothing_of_its_names(tmp_path: Path):
    (tmp_path / ONNX).write_bytes(
        graph(helper.make_node("Relu", ["pixels"], ["x"], name="::error::")).SerializeToString()
    )
    done = run(tmp_path / ONNX)
    assert done.returncode == 1
    assert not [line for line in (done.stdout + done.stderr).splitlines() if line[:2] == "::"]
