"""Fixtures of the sandbox's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.sigstore import LocalSigstore


@pytest.fixture(scope="session")
def foreign_sigstore() -> Iterator[LocalSigstore]:
    """Another Sigstore, which shares nothing with the first."""
    with LocalSigstore() as running:
        yield running
