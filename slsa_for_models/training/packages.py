"""The packages that a training is given: those of its lock, and nothing of them runs before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from model_signing.safe_files import read_bounded
from slsa_for_models.errors import TrainingError
from slsa_for_models.evidence.training_plan import MAX_LOCK_BYTES, check_lock


def lock_digest(lock: Path, name: str) -> str:
    """The SHA-256 of locked requirements, hexadecimal.

    Raises:
        TrainingError: They cannot be read, or are not locked.
    """
    from model_signing.errors import FileError

    try:
        data = read_bounded(lock, MAX_LOCK_BYTES)
    except FileError as error:
        raise TrainingError(
            "the requirements cannot be read", where=name, found=error.found or error.message
        ) from error
    return check_lock(data, name)


def install(lock: Path, folder: Path, python: Path | None) -> Path:
    """Installs them into an environment of their own; only wheels, of which nothing is executed.

    Args:
        lock: Locked requirements.
        folder: Where the environment is made.
        python: The interpreter; by default the one that runs this.

    Returns:
        The folder of its programs.

    Raises:
        TrainingError: It cannot be.
    """
    interpreter = str(python or sys.executable)
    programs = folder / "bin"
    steps = (
        [interpreter, "-I", "-m", "venv", str(folder)],
        [
            *(str(programs / "python"), "-I", "-m", "pip", "install", "--quiet"),
            *("--disable-pip-version-check", "--no-input", "--require-hashes"),
            *("--only-binary", ":all:", "--requirement", str(lock)),
        ],
    )
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, check=False)
            said, failed = done.stderr.decode(errors="replace"), done.returncode != 0
        except OSError as error:
            said, failed = error.strerror or "", True
        if failed:
            lines = [line for line in said.splitlines() if line.strip()]
            raise TrainingError(
                "the locked packages cannot be installed",
                where=lock.name,
                found=(lines or ["no message"])[-1][:500],
            )
    return programs
