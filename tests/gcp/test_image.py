"""The Dockerfile: what can be tried without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.checkout import ROOT

DOCKERFILE = (ROOT / "slsa_for_models/gcp/Dockerfile").read_text().replace("\\\n", "")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def test_base_images_are_pinned_by_digest():
    assert instructions("FROM")
    for image in instructions("FROM"):
        assert re.match(r"python@sha256:[0-9a-f]{64}( AS build)?$", image)


def test_it_does_not_run_as_root():
    assert instructions("USER") == ["65532:65532"]


def copy_context(target: Path) -> None:
    """What the first stage copies, where it copies it to."""
    for line in instructions("COPY"):
        if line.startswith("--from"):
            continue
        *sources, destination = line.split()
        for source in sources:
            path = target / destination
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, path)
            else:
                path.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, path)


@pytest.mark.full
def test_the_first_stage_builds_the_programs(tmp_path):
    copy_context(tmp_path / "src")
    (command,) = (line for line in instructions("RUN") if "ROLES" in line)
    done = subprocess.run(
        ["sh", "-c", command.replace("/opt/model-transparency", str(tmp_path / "opt"))],
        cwd=tmp_path / "src",
        env={**os.environ, "ROLES": "gcp", "MODEL_TRANSPARENCY_CACHE": str(tmp_path / "opt")},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    programs = tmp_path / "opt/gcp/bin"
    for command in ("slsa_for_models", "model_signing"):
        assert (
            subprocess.run(
                [programs / command, "--help"],
                capture_output=True,
                timeout=1800,
            ).returncode
            == 0
        )
    imported = subprocess.run(
        [programs / "python", "-c", "import google.cloud.storage"],
        timeout=1800,
    )
    assert imported.returncode == 0


def test_the_context_is_in_the_repository(tmp_path):
    copy_context(tmp_path)
    assert (tmp_path / "actions/setup/environment.py").is_file()
    assert (tmp_path / "requirements/gcp.txt").is_file()
