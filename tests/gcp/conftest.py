"""One run of the Tekton pipeline for all tests here: a command of a project's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from sandbox.checkout import ROOT, programs_of
from sandbox.clusters import tekton_demo

DATA = b"x,y\n1,2\n2,4\n3,6\n"
SCRIPT = """
import csv, json, sys
rows = list(csv.DictReader(open("data/train.csv")))
slope = sum(int(row["y"]) for row in rows) / sum(int(row["x"]) for row in rows)
json.dump({"slope": slope, "options": sys.argv[1:]}, open("model.json", "w"))
json.dump({"error": {"test": 0.25}}, open("metrics.json", "w"))
"""
PLAN = {
    "command": "python train.py {parameters}",
    "data": f"{hashlib.sha256(DATA).hexdigest()}  data/train.csv  source:",
    "parameters": '{"rate": 0.1}',
    "metrics": "metrics.json",
}


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of programs that stands for a role's image: its Python, our code as it is here."""

    @cache
    def programs(role: str) -> Path:
        folder, python = tmp_path_factory.mktemp(role), programs_of(role) / "python"
        for name in ("slsa_for_models", "model_signing"):
            line = f'PYTHONPATH="{ROOT}" exec "{python}" -m {name} "$@"'
            _script(folder / name, line)
        _script(folder / "python", f'exec "{python}" "$@"')
        return folder

    return programs


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a training script and its data."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "data/train.csv").write_bytes(DATA)
    (folder / "train.py").write_text(SCRIPT)
    return folder


@pytest.fixture(scope="session")
def outcome(sigstore, image, project, tmp_path_factory) -> tekton_demo.Outcome:
    return tekton_demo.run(
        "model.json",
        tmp_path_factory.mktemp("run"),
        sigstore=sigstore,
        programs={"gcp": image("gcp")},
        project=project,
        PLAN=json.dumps(PLAN),
    )


def _script(path: Path, line: str) -> None:
    # Tekton's steps have variables of their own.
    path.write_text(f"#!/bin/sh\nexport PYTHONDONTWRITEBYTECODE=1\n{line}\n")
    path.chmod(0o755)
