"""What in a model is code, by name or by a look into it; and what its files say of themselves."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import contents
from slsa_for_models.models import gguf as header
from slsa_for_models.models.safety import zips


def found(root: Path, *, look: bool = True) -> dict[str, str]:
    paths = [path for path in root.rglob("*") if path.is_file()]
    names = [path.relative_to(root).as_posix() for path in paths]
    code = contents.code(names, (lambda name: root / name) if look else None)
    return {one.file: f"{one.what} {one.elsewhere}".strip() for one in code}


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


@pytest.mark.parametrize(
    "name",
    [
        *("modeling_tiny.py", "sub/tokenization.PY", "cache.pyc", "lib.so", "lib.so.1.2", "a.dll"),
        *("pytorch_model.bin", "model.pt", "model.pth", "optimizer.pkl", "a.joblib", "last.ckpt"),
        *("model.h5", "saved_model.pb", "model.nemo", "model.pt2", "model.keras", "a.llamafile"),
        *("checkpoint.pth.tar", "pipe.pkl.gz", "a.joblib.z", "a.tar.pt.gz.tar", "svm.sav", "a.p"),
    ],
)
@pytest.mark.parametrize("look", [True, False])
def test_a_name_that_loaders_take_for_code(tmp_path: Path, name: str, look: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"anything")
    assert list(found(tmp_path, look=look)) == [name]


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "model.gguf", "model.onnx", "tokenizer.json", "vocab.txt"),
        *("README.md", "py", "so", "model.weights.h5", "merges.txt", "spiece.model", ".gitignore"),
        *("corpus.tar", "corpus.txt.gz", "stub.py.gz", "tar", ".tar.gz"),
    ],
)
def test_a_name_that_is_no_code(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    assert found(tmp_path) == {}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_code_and_is_not_run(
    tmp_path: Path, protocol: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol))
    archive(tmp_path / "model.pt", **{"model/data.pkl": pickle.dumps(Evil(), protocol)})
    assert list(found(tmp_path)) == ["model.pt", "pytorch_model.bin"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["config.json", "sub/tokenizer_config.json", "my-config.json"])
@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"auto_map": {"AutoModel": "modeling.Tiny"}}, "auto_map: modeling.Tiny"),
        ({"auto_map": {"AutoTokenizer": [None, "t.Fast"]}}, "auto_map: t.Fast"),
        ({"auto_map": "a/b--m.Evil"}, "auto_map: m.Evil of a/b a/b"),
        (
            {"custom_pipelines": {"x": {"impl": "a/b--m.Evil"}}},
            "custom_pipelines: m.Evil of a/b a/b",
        ),
        ({"text_config": {"auto_map": {"A": "a/b--m.Evil"}}}, "auto_map: m.Evil of a/b a/b"),
        ({"parts": [{"auto_map": {"A": "m.Tiny"}}]}, "auto_map: m.Tiny"),
        ([{"type": "custom_st.Evil"}], "imports custom_st.Evil"),
    ],
)
def test_configurations_that_name_code(
    tmp_path: Path, name: str, config: object, what: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(config))
    assert found(tmp_path) == {name: what}


@pytest.mark.parametrize(
    "config",
    [
        *(b"{}", b"[]", b'{"auto_map": 3}', b'{"a": NaN}'),
        *(
            b'[{"type": "sentence_transformers.models.Pooling"}]',
            b"[1]",
            b'{"auto_map": {"a": {}}}',
        ),
    ],
)
def test_configurations_that_name_none(tmp_path: Path, config: bytes) -> None:
    (tmp_path / "config.json").write_bytes(config)
    assert found(tmp_path) == {}


@pytest.mark.parametrize("config", [b"{", b"\xff", b"null", b"[" * 100_000])
def test_configurations_that_another_reader_may_understand(tmp_path: Path, config: bytes) -> None:
    """Such as one with more of its stack left, where lists lie in lists."""
    (tmp_path / "config.json").write_bytes(config)
    assert found(tmp_path) == {"config.json": "a configuration that cannot be read"}


@pytest.mark.parametrize(
    ("layer", "code"), [("Dense", False), ("Lambda", True), ("MyOwn", True), ("TFSMLayer", True)]
)
def test_layers_of_keras_that_are_code(tmp_path: Path, layer: str, code: bool) -> None:
    layers = [{"class_name": layer, "module": "keras.layers", "config": {"name": "a"}}]
    config = {"class_name": "Sequential", "module": "keras", "config": {"layers": layers}}
    archive(tmp_path / "model.keras", **{"config.json": json.dumps(config).encode()})
    assert list(found(tmp_path)) == (["model.keras"] if code else [])
    if code:
        assert layer in found(tmp_path)["model.keras"] or "Keras" in found(tmp_path)["model.keras"]


@pytest.mark.parametrize(
    ("at", "central", "bits", "why"),
    [
        (6, 8, b"\1\0", "is encrypted"),  # general purpose bit 0 (PKWARE APPNOTE 4.4.4)
        (8, 10, b"\x63\0", "compression method"),
        (41, None, b"\xff\xff", "invalid block type"),  # of the compressed bytes, behind the name
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_not_found_harmless(
    tmp_path: Path, at: int, central: int | None, bits: bytes, why: str
) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b"{}" * 100)
    data = bytearray(path.read_bytes())
    data[at : at + 2] = bits
    if central is not None:
        start = data.index(b"PK\1\2") + central
        data[start : start + 2] = bits
    path.write_bytes(data)
    assert "not the zip archive" in found(tmp_path)["m.keras"]
    with pytest.raises(UnsafeModelError) as refused, zips.opened(path) as archive:
        archive.read("config.json")
    assert why in (refused.value.found or "")


# What files say of themselves ---------------------------------------------------------------------


def said(root: Path) -> list[str]:
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return contents.statements(names, lambda name: root / name)


def refusal(root: Path) -> str:
    with pytest.raises(UnsafeModelError) as refused:
        said(root)
    return refused.value.message


def safetensors(path: Path, data: bytes = b"", **header: object) -> None:
    """The format's own words: 8 bytes of length, JSON, the tensors' bytes."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def sharded(root: Path, **weight_map: str) -> None:
    safetensors(root / "m-1.safetensors", b"x" * 8, a=tensor("F32", [2], 0, 8))
    safetensors(root / "m-2.safetensors", b"x" * 3, b=tensor("F8_E8M0", [3], 0, 3))
    index = {"metadata": {"total_size": 11}, "weight_map": weight_map}
    (root / "model.safetensors.index.json").write_text(json.dumps(index))


def test_what_a_folder_of_shards_says(tmp_path: Path) -> None:
    sharded(tmp_path, a="m-1.safetensors", b="m-2.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "revision": "v1"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    assert said(tmp_path) == [
        "adapter_config.json: LORA adapter of org/base at v1",
        "config.json: llama, LlamaForCausalLM, float32",
        "2 safetensors: 2 tensors: 1 F32, 1 F8_E8M0",
        "tokenizer: tokenizer.json",
    ]


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "m-1.safetensors", "c": "m-3.safetensors"}, "a file that is not part of the model"),
        ({"a": "../m-1.safetensors"}, "a file that is not part of the model"),
        ({"a": "m-2.safetensors"}, "a tensor that the file does not have"),
    ],
)
def test_an_index_that_its_files_do_not_bear_out(
    tmp_path: Path, weight_map: dict[str, str], message: str
) -> None:
    sharded(tmp_path, **weight_map)
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": ["a"]}'])
def test_an_index_that_is_none(tmp_path: Path, index: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    assert refusal(tmp_path) == "an index of shards is malformed"


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor("F32", [2], 0, 4)},
        {"a": tensor("F32", [2], 8, 16)},
        {"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [1], 4, 8)},
        {"a": tensor("F32", [-2], 0, 8)},
        {"a": tensor("F99", [2], 8, 0)},
        {"a": tensor("F32", [1], 0, 4)},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": tensor("F32", [2], 0, 8), "__metadata__": {"x": 1}},
    ],
)
def test_offsets_that_do_not_fit_the_file(tmp_path: Path, header: dict[str, object]) -> None:
    safetensors(tmp_path / "m.safetensors", b"x" * 8, **header)
    assert refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 8, b"\xff" * 3000, b"\2" + b"\0" * 7])
def test_what_is_no_safetensors(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    assert refusal(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A model by ggml's own library."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(512)
    writer.add_token_list(["a", "b" * 5000])
    writer.add_token_scores([0.5, 1.0])
    writer.add_array("nested", [[1, 2], [3]])
    writer.add_tensor("token_embd.weight", np.zeros((4, 64), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((2, 64), np.float16))
    quantized = gguf.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_a_gguf_file_says(written: Path) -> None:
    assert said(written.parent) == [
        "tiny.gguf: GGUF version 3, llama, Tiny, context of 512; 3 tensors: 1 F16, 1 F32, 1 Q8_0"
    ]


def test_sizes_of_tensors_are_those_of_ggml() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert theirs == header._TYPES


def test_a_gguf_file_that_is_cut_off_anywhere_is_refused(written: Path) -> None:
    data = written.read_bytes()
    for length in [*range(700), len(data) - 65]:  # the header has about as many bytes
        written.write_bytes(data[:length])
        assert refusal(written.parent)


@pytest.mark.slow
def test_no_byte_of_a_gguf_header_makes_anything_but_a_refusal(written: Path) -> None:
    data = written.read_bytes()
    for index in range(700):
        for value in (0, 1, 9, 0x7F, 0xFF):
            written.write_bytes(data[:index] + bytes([value]) + data[index + 1 :])
            with suppress(UnsafeModelError):
                said(written.parent)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<IQQ", 3, 1 << 40, 0),
        struct.pack("<IQQ", 3, 0, 1 << 40),
        struct.pack("<IQQ", 9, 0, 0),
        struct.pack(">IQQ", 3, 0, 0),
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 1 << 62),  # a list of texts
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 62),  # of numbers
        struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 1000,
        struct.pack("<IQQQ1sIQ", 3, 0, 1, 1, b"k", 8, 1 << 63),
        struct.pack("<IQQQ1sIQQIQ", 3, 1, 0, 1, b"t", 2, 1 << 60, 1 << 60, 0, 0),
        struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 1 << 31),
    ],
)
def test_a_gguf_header_that_promises_too_much(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + body)
    assert refusal(tmp_path)
