"""A model of a few files, and where its signature goes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name in ("a", "b.bin", "sub/c.bin", "sub/deep/é.bin"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 500)
    return root


@pytest.fixture
def signature(tmp_path: Path) -> Path:
    return tmp_path / "model.sig"
