"""One run of the Tekton pipeline for all tests here, on a data set too small to learn from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox.checkout import ROOT
from sandbox.clusters import tekton_demo

TINY = ("--train-images=320", "--test-images=100", "--minimum-accuracy=0")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs that stands for every image: this Python, and our code as it is here."""
    folder = tmp_path_factory.mktemp("image")
    for name in ("slsa_for_models", "model_signing"):
        _script(folder / name, f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m {name} "$@"')
    # Without PYTHONPATH: the train step takes the package of the clone that it is started in.
    _script(folder / "python", f'exec "{sys.executable}" "$@"')
    return folder


@pytest.fixture(scope="session")
def outcome(sigstore, programs, tmp_path_factory) -> tekton_demo.Outcome:
    return tekton_demo.run(
        "pytorch_model.pth",
        tmp_path_factory.mktemp("run"),
        sigstore=sigstore,
        programs={"gcp": programs, "pytorch": programs},
        training_options=TINY,
        EPOCHS="1",
    )


def _script(path: Path, line: str) -> None:
    compiled = os.environ["PYTHONPYCACHEPREFIX"]  # Tekton's steps have variables of their own
    path.write_text(f"#!/bin/sh\nexport PYTHONPYCACHEPREFIX='{compiled}'\n{line}\n")
    path.chmod(0o755)
