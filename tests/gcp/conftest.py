"""One run of the Tekton pipeline for all tests here, on a data set too small to learn from."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from sandbox.checkout import ROOT, programs_of
from sandbox.clusters import tekton_demo

TINY = ("--train-images=320", "--test-images=100", "--minimum-accuracy=0")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of programs that stands for a role's image: its Python, our code as it is here."""

    @cache
    def programs(role: str) -> Path:
        folder, python = tmp_path_factory.mktemp(role), programs_of(role) / "python"
        for name in ("slsa_for_models", "model_signing"):
            line = f'PYTHONPATH="{ROOT}" exec "{python}" -m {name} "$@"'
            _script(folder / name, line)
        # Without PYTHONPATH: the train step takes the package of the clone that it is started in.
        _script(folder / "python", f'exec "{python}" "$@"')
        return folder

    return programs


@pytest.fixture(scope="session")
def outcome(sigstore, image, tmp_path_factory) -> tekton_demo.Outcome:
    return tekton_demo.run(
        "pytorch_model.pth",
        tmp_path_factory.mktemp("run"),
        sigstore=sigstore,
        programs={role: image(role) for role in ("gcp", "pytorch")},
        training_options=TINY,
        EPOCHS="1",
    )


def _script(path: Path, line: str) -> None:
    compiled = os.environ["PYTHONPYCACHEPREFIX"]  # Tekton's steps have variables of their own
    path.write_text(f"#!/bin/sh\nexport PYTHONPYCACHEPREFIX='{compiled}'\n{line}\n")
    path.chmod(0o755)
