"""What in a model is code: by the name that loaders go by, unless a look into it settles it."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest

from slsa_for_models.models import contents


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
        *(b"{}", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"auto_map": 3}', b'{"a": NaN}'),
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
