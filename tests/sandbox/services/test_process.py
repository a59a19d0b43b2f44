"""What real services take and leave on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sandbox.checkout import ROOT
from sandbox.services import process
from sandbox.services.process import free_ports, temporary_folder

KILLED = """
import os, signal
from sandbox.services.process import temporary_folder
with temporary_folder("services-"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no service runs on Windows")
def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (new := tmp_path / "services-new").mkdir()  # no lock yet
    with temporary_folder("services-") as first:
        environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-B", "-c", KILLED]
        subprocess.run(command, env=environment, cwd=tmp_path, check=False, timeout=60)
        (left,) = set(tmp_path.iterdir()) - {first, new}
        with temporary_folder("services-") as second:
            assert set(tmp_path.iterdir()) == {first, second, new}
    assert not left.exists()
    assert set(tmp_path.iterdir()) == {new}


def test_no_two_get_the_same_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anybody listens there."""
    monkeypatch.setattr(process, "PORTS", range(12_000, 12_020))
    with free_ports(8) as first:
        with free_ports(8) as second:
            assert len({*first, *second}) == 16
            with pytest.raises(process.ServiceError, match="no port is free"), free_ports(5):
                pass
        with free_ports(5) as third:
            assert not {*first} & {*third}
