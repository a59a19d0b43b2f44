"""This checkout: where it is, what it is called on GitHub, and its locked environments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = "model-transparency/model-transparency"


def programs_of(role: str) -> Path:
    """The folder of programs of a locked environment, built if there is none yet."""
    builder = [sys.executable, str(ROOT / "actions/setup/environment.py"), role]
    result = subprocess.run(builder, check=True, stdout=subprocess.PIPE, text=True, timeout=1800)
    return Path(result.stdout.strip())
