"""What actions/setup-python does, without a download. For demonstrations and tests only."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox.github.stand_ins.commands import StepError, run, set_output, value


def main() -> None:
    """Puts a Python of the wanted version on the PATH of the steps that follow."""
    wanted = value("VERSION") or f"{sys.version_info.major}.{sys.version_info.minor}"
    if not re.fullmatch(r"3\.\d+", wanted):
        raise StepError(f"The sandbox takes python-version as MAJOR.MINOR, not '{wanted}'")
    # The sandbox's own, but not its virtual environment; else another on this machine.
    own = str(Path(sys.executable).resolve())
    found = [(own, platform.python_version())]
    if other := shutil.which(f"python{wanted}"):
        found.append((other, _version(other)))
    for candidate, version in found:
        if version.startswith(f"{wanted}."):
            set_output("python-version", version)
            set_output("python-path", candidate)
            with Path(os.environ["GITHUB_PATH"]).open("a", encoding="utf-8") as path:
                path.write(f"{Path(candidate).parent}\n")
            print(f"Python {version} at {candidate}")
            return
    raise StepError(f"The version '{wanted}' of Python was not found on this machine")


def _version(python: str) -> str:
    script = "import platform; print(platform.python_version())"
    return subprocess.run(
        [python, "-I", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout.strip()


if __name__ == "__main__":
    run(main)
