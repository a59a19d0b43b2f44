"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.sigstore import LocalSigstore


@pytest.fixture(scope="session")
def sigstore() -> Iterator[LocalSigstore]:
    """A Sigstore on this machine. A test that turns its knobs makes its own instead."""
    with LocalSigstore() as running:
        yield running


@pytest.fixture(scope="session")
def trust_config(sigstore: LocalSigstore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of that Sigstore's client trust config."""
    return sigstore.write_trust_config(tmp_path_factory.mktemp("sigstore") / "trust-config.json")
