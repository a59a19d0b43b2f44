"""The commands of the page about models elsewhere, on a hub and a server of S3 on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.hub import TOKEN, Hub
from tests.support.buckets import seaweedfs
from tests.support.commands import blocks
from tests.support.material import ROOT, new_key, private_pem, public_pem

PAGE = ROOT / "docs" / "where-models-lie.md"
FILES = {"config.json": b"{}", "weights/model.safetensors": os.urandom(5000)}
PUT = """
import sys
from model_signing.sources.object_storage import write_file
for name in sys.argv[1:]:
    write_file(f"s3://models/my-model/{name}", b"content of " + name.encode())
"""


def test_the_commands_run(tmp_path: Path) -> None:
    for client in ("huggingface_hub", "obstore"):
        if importlib.util.find_spec(client) is None:
            pytest.skip(f"not tested: no {client}")
    key = new_key()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "key.pub").write_bytes(public_pem(key))
    for name in ("model_signing", "slsa_for_models"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        program.chmod(0o755)
    (tmp_path / "storage").mkdir()
    with Hub() as hub, seaweedfs(tmp_path / "storage") as variables:
        hub.commit("ORG/my-model", FILES)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **variables,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

        def run(*command: str) -> None:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr

        run(sys.executable, "-c", PUT, *FILES)
        commands = blocks(PAGE)
        assert len(commands) == 3
        for block in commands:
            run("bash", "-euo", "pipefail", "-c", block.text)
    copy = tmp_path / "my-model"
    copied = {path.relative_to(copy).as_posix(): path for path in copy.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in copied.items()} == FILES
