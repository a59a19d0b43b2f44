"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.sigstore import LocalSigstore

ROOT = Path(__file__).resolve().parents[1]

# Several workers train at once: threads that wait for each other sleep, and do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What tests start keeps its compiled modules: importing PyTorch takes 1 s with them, else 4 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell lets what it starts in the background ignore Ctrl-C; the processes tested are not to.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def sigstore() -> Iterator[LocalSigstore]:
    """A Sigstore on this machine. A test that turns its knobs makes its own instead."""
    with LocalSigstore() as running:
        yield running


@pytest.fixture(scope="session")
def trust_config(sigstore: LocalSigstore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of that Sigstore's client trust config."""
    return sigstore.write_trust_config(tmp_path_factory.mktemp("sigstore") / "trust-config.json")


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `make demo` printed, and the folder that it left. Copy the folder to do harm to it.

    The demonstration runs once, whichever of pytest-xdist's processes asks for it first.
    """
    import fcntl  # not on Windows, where this runs nothing either

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    output, printed = shared / "demonstration/out", shared / "demonstration/printed.txt"
    with (shared / "demonstration.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            done = subprocess.run(
                ["make", "demo", f"OUTPUT={output}"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout, encoding="utf-8")
    return printed.read_text(encoding="utf-8"), output
