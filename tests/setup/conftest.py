"""A checkout to damage, and caches that start with the packages downloaded so far."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.checkout import programs_of

ROOT = Path(__file__).resolve().parents[2]
BUILDER = Path("actions/setup/environment.py")
COMPILED = "    compiled: bool = True"
Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the builder reads, so that a test may damage it."""
    root = tmp_path / "checkout"
    for name in ("actions/setup", "requirements", "model_signing", "slsa_for_models"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    # Compiling all modules takes longer than the rest, and next to none of them is run here.
    builder = (root / BUILDER).read_text(encoding="utf-8")
    assert COMPILED in builder
    changed = builder.replace(COMPILED, COMPILED.replace("True", "False"))
    (root / BUILDER).write_text(changed, encoding="utf-8")
    return root


@pytest.fixture
def empty_cache(tmp_path: Path) -> Path:
    """A cache folder without any environment. Packages are the ones downloaded for all."""
    folder = tmp_path / "cache"
    warm = programs_of("bootstrap").parents[2]
    for name in ("uv", "pip"):
        (warm / name).mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(warm / name)
    return folder


@pytest.fixture
def cache(empty_cache: Path) -> Path:
    """The same with the environment that builds the others."""
    bootstrap = programs_of("bootstrap").parent
    (empty_cache / "environments").mkdir()
    (empty_cache / "environments" / bootstrap.name).symlink_to(bootstrap)
    return empty_cache


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Runs the builder of a checkout with a cache, arguments and variables; None removes one."""

    def run(
        root: Path,
        cache: Path,
        *arguments: str,
        cwd: Path = tmp_path,
        umask: int = -1,
        **variables: str | None,
    ) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "MODEL_TRANSPARENCY_CACHE": str(cache), **variables}
        return subprocess.run(
            [sys.executable, "-I", str(root / BUILDER), *arguments],
            cwd=cwd,
            env={name: value for name, value in given.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            umask=umask,
        )

    return run


def environments(cache: Path) -> list[str]:
    """The environments in a cache, but for the one that builds others."""
    folder = cache / "environments"
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.exists() else []
    return sorted(name for name in names if not name.startswith("bootstrap-"))
