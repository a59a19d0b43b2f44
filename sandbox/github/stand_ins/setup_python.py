"""What actions/setup-python does, without a download. For demonstrations and tests only.

There is one Python here: the one that runs the sandbox. It stands for every version.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from sandbox.github.stand_ins.commands import StepError, run, set_output, value


def main() -> None:
    """Puts the sandbox's Python, but not its virtual environment, on the PATH of later steps."""
    own, version = str(Path(sys.executable).resolve()), platform.python_version()
    wanted = value("VERSION") or version
    if not re.fullmatch(r"3\.\d+(\.\d+)?", wanted):
        raise StepError(f"The sandbox takes python-version as MAJOR.MINOR, not '{wanted}'")
    set_output("python-version", version)
    set_output("python-path", own)
    with Path(os.environ["GITHUB_PATH"]).open("a", encoding="utf-8") as path:
        path.write(f"{Path(own).parent}\n")
    stands = "" if f"{version}.".startswith(f"{wanted}.") else f", which stands for {wanted}"
    print(f"Python {version} at {own}{stands}")


if __name__ == "__main__":
    run(main)
