"""PKCS #11, in a process of its own: a token's module brings its own copies of native libraries.

SoftHSM's does not survive in a process that has loaded PyTorch and TensorFlow, as the one that runs
the other tests may have.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CASES = Path(__file__).with_name("pkcs11_cases.py")


def test_the_cases_pass_in_a_process_of_their_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-rs", str(CASES)],
        cwd=CASES.parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b\d+ passed", done.stdout), done.stdout
    untested = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE)
    if untested:
        pytest.skip("; ".join(sorted(set(untested))))
