"""Fixtures of the tests that run workflows."""

from __future__ import annotations

import pytest

from sandbox.sigstore import LocalSigstore
from tests.workflows.runs import Sandbox


@pytest.fixture(scope="session")
def sandbox(sigstore: LocalSigstore, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """Runs workflows of this repository and of its consumers."""
    return Sandbox(sigstore, tmp_path_factory.mktemp("sandbox"))
