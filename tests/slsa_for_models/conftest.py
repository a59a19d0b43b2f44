"""Fixtures of the provenance tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.sigstore import LocalSigstore
from tests.support.crafted import Workshop

SHARED = Path(os.environ.get("MODEL_TRANSPARENCY_SHARED", "../shared")).resolve()


@pytest.fixture
def workshop(sigstore: LocalSigstore, trust_config: Path, tmp_path: Path) -> Workshop:
    """Makes and verifies evidence in a folder of its own, with the sandbox's Sigstore."""
    return Workshop(sigstore, trust_config, tmp_path)


@pytest.fixture(scope="session")
def real() -> tuple[Path, Path]:
    """A real artifact and its real provenance by slsa-github-generator v2.1.0."""
    artifact = SHARED / "data" / "slsa" / "binary-linux-amd64-push-v14.2"
    if not artifact.is_file():
        pytest.skip(f"no {artifact}: set MODEL_TRANSPARENCY_SHARED to the folder that holds data/")
    return artifact, artifact.with_name(f"{artifact.name}.intoto.jsonl")
