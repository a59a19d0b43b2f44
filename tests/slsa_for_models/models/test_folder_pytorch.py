"""Folders in the layout of Hugging Face, written by its own library, verified and loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import save_torch_state_dict

import model_signing
from model_signing.errors import Error
from sandbox.hub import Hub
from slsa_for_models import Expectations, Signer, load_model, verified
from slsa_for_models.cli import main
from slsa_for_models.errors import UnsafeModelError
from tests.support.limits import limited
from tests.support.material import ROOT, new_key, private_pem, public_pem

KEY = new_key()
VERIFY = model_signing.key_verifier(public_pem(KEY))
STATE = {f"layers.{number}.weight": torch.rand(8, 16) for number in range(6)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in three shards, with index, configuration and tokenizer."""
    root = tmp_path / "tiny-llama"
    root.mkdir()
    save_torch_state_dict(STATE, root, max_shard_size=1200)
    assert len(list(root.glob("*.safetensors"))) == 3
    assert (root / "model.safetensors.index.json").is_file()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (root / "config.json").write_text(json.dumps(config))
    (root / "tokenizer.json").write_text("{}")
    return root


def sign(folder: Path) -> Path:
    signature = folder.with_name("model.sig")
    model_signing.sign(folder, signature, model_signing.key_signer(private_pem(KEY)))
    return signature


def test_the_weights_of_all_shards(folder: Path) -> None:
    loaded = load_model(folder, sign(folder), VERIFY)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)


def test_the_same_from_a_verified_copy(folder: Path) -> None:
    expected = Expectations(signer=Signer(public_key=public_pem(KEY)))
    with verified(folder, expected, signature=sign(folder)) as path:
        shards = [safetensors.torch.load_file(one) for one in path.glob("*.safetensors")]
    loaded = {name: value for shard in shards for name, value in shard.items()}
    assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)


def test_a_state_dict_is_no_code_and_a_module_is(folder: Path) -> None:
    expected = Expectations(signer=Signer(public_key=public_pem(KEY)))
    torch.save(STATE, folder / "pytorch_model.bin")
    with verified(folder, expected, signature=sign(folder)) as path:
        assert torch.load(path / "pytorch_model.bin", weights_only=True).keys() == STATE.keys()
    torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin")
    with (
        pytest.raises(UnsafeModelError, match="holds code"),
        verified(folder, expected, signature=sign(folder)),
    ):
        pytest.fail("it was verified")


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    options = ["--signature", str(sign(folder)), "--public-key", str(tmp_path / "key.pub")]
    assert main(["load", str(folder), *options]) == 0
    assert "verified and loaded: builtins.dict (weights in safetensors" in capsys.readouterr().out


def test_the_command_on_a_model_elsewhere(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    options = ("--public-key", str(tmp_path / "key.pub"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.commit("org/tiny-llama", {**files, "model.sig": sign(folder).read_bytes()})
    assert main(["load", "hf://org/tiny-llama", *options]) == 0
    said = capsys.readouterr().out
    assert said.startswith("hf://org/tiny-llama: verified and loaded: builtins.dict")
    hub.commit("org/tiny-llama", {**files, "model.sig": sign(folder).read_bytes(), "x": b""})
    assert main(["load", "hf://org/tiny-llama", *options]) == 1


def cut(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])


CHANGES: dict[str, Callable[[Path], object]] = {
    "code": lambda folder: (folder / "modeling.py").write_text(""),
    "pickle": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N."),
    "a shard less": lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(),
    "a shard cut": cut,
    "twice": lambda folder: safetensors.torch.save_file(STATE, folder / "again.safetensors"),
    "no weights": lambda folder: [one.unlink() for one in folder.glob("model*")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_signed_and_refused_all_the_same(folder: Path, change: str) -> None:
    CHANGES[change](folder)
    with pytest.raises(UnsafeModelError):
        load_model(folder, sign(folder), VERIFY)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_as_it_was_signed(folder: Path, change: str) -> None:
    signature = sign(folder)
    CHANGES[change](folder)
    with pytest.raises(Error, match=r"not what was signed|files that were"):
        load_model(folder, signature, VERIFY)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "pytorch_model.safetensors")
    one = tmp_path / "pytorch_model.safetensors"
    model_signing.sign(one, tmp_path / "s", model_signing.key_signer(private_pem(KEY)))
    with pytest.raises(UnsafeModelError, match="not of its format"):
        load_model(one, tmp_path / "s", VERIFY, format="safetensors_folder")


# A server in small that loads by safetensors' own library when it starts, as inference servers do.
SERVER = """
import http.server, pathlib, sys
import safetensors.torch
weights = dict()
for shard in pathlib.Path(sys.argv[1]).glob("*.safetensors"):
    weights |= safetensors.torch.load_file(shard)
total = sum(float(one.sum()) for one in weights.values())
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(total).encode())
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="not tested: exec is for Linux")
def test_a_server_starts_with_the_signed_weights_and_not_with_others(
    folder: Path, tmp_path: Path
) -> None:
    signature = sign(folder)
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    command = [sys.executable, "-m", "slsa_for_models", "exec", str(folder), "--offline"]
    command += ["--signature", str(signature), "--public-key", str(tmp_path / "key.pub")]
    command += ["--", sys.executable, "-c", SERVER, "{}"]
    start = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with limited(subprocess.Popen(command, **start), 120) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        port = int(line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            total = float(answer.read())
    assert total == pytest.approx(sum(float(one.sum()) for one in STATE.values()))
    shard = sorted(folder.glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with limited(subprocess.Popen(command, **start), 120) as process:
        said, why = process.communicate(timeout=100)
    assert (process.returncode, said) == (1, "")
    assert "the model is not what was signed" in why
