"""This checkout: where it is, what it is called on GitHub, and its locked environments."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = "model-transparency/model-transparency"
BUILD_SECONDS = 3600


class SetupError(Exception):
    """An environment could not be had; the reason was printed."""


@cache
def programs_of(role: str) -> Path:
    """The folder of programs of a locked environment, built if there is none yet.

    Raises:
        SetupError: It could not be built.
    """
    builder = [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), role]
    done = subprocess.run(
        builder, check=False, stdout=subprocess.PIPE, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode:
        raise SetupError(f"the environment '{role}' could not be built")
    return Path(done.stdout.strip())


def framework_of(model: str) -> str | None:
    """The role that trains a format, by the word that its name starts with."""
    name = model.partition("_")[0]
    return name if name in ("pytorch", "tensorflow") else None
