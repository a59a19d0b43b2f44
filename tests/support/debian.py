"""Programs from Debian's packages for the tests, unpacked into the cache folder, not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path


def unpacked(*packages: str) -> Path:
    """The folder with what these packages hold; it is empty, or not there, where none is to be had.

    apt-get checks what it downloads. The first package names the folder.
    """
    cache = Path(os.environ.get("MODEL_TRANSPARENCY_CACHE") or "~/.cache/model-transparency")
    folder = cache.expanduser() / packages[0]
    if folder.exists() or not (shutil.which("apt-get") and shutil.which("dpkg")):
        return folder
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    work.mkdir(parents=True)
    fetch = ["apt-get", "download", "-qq", *packages]
    done = subprocess.run(fetch, cwd=work, capture_output=True, check=False, timeout=300)
    if done.returncode == 0:
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, work], check=True, timeout=300)
        with contextlib.suppress(OSError):  # another process was faster
            work.rename(folder)
    shutil.rmtree(work, ignore_errors=True)
    return folder
