"""What a test run that is killed leaves running: nothing."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import limited, until
from tests.support.material import ROOT

KILLED = """
import subprocess, sys
from tests.support.limits import ended_with_us
subprocess.Popen(ended_with_us(["sh", "-c", "echo $$; exec sleep 600"]))  # it says its number
sys.stdin.read()
"""


@pytest.mark.skipif(not shutil.which("setpriv"), reason="not tested: no setpriv (util-linux)")
def test_a_server_ends_with_a_test_run_that_is_killed() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", KILLED]
    with limited(subprocess.Popen(command, cwd=ROOT, text=True, **pipes)) as run:  # type: ignore[call-overload]
        server = int(run.stdout.readline())
        run.kill()
        run.wait(60)

    def ended() -> bool | None:
        with contextlib.suppress(FileNotFoundError):
            state = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[0]
            return state == "Z" or None
        return True

    until(ended, "its end")
