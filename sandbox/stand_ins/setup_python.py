"""What actions/setup-python does, without a download. For demonstrations and tests only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .commands import StepError, run, set_output, value


def main() -> None:
    """Puts a Python of the wanted version on the PATH of the steps that follow."""
    wanted = value("VERSION") or f"{sys.version_info.major}.{sys.version_info.minor}"
    if not re.fullmatch(r"3\.\d+", wanted):
        raise StepError(f"The sandbox takes python-version as MAJOR.MINOR, not '{wanted}'")
    for candidate in (os.path.realpath(sys.executable), shutil.which(f"python{wanted}")):
        version = _version(candidate) if candidate else ""
        if candidate and version.startswith(f"{wanted}."):
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
        [python, "-I", "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    run(main)
