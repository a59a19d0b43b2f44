"""The machine that a recipe of ours runs on: this interpreter, with this package."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import slsa_for_models
from slsa_for_models.evidence.training_plan import listing_digest
from slsa_for_models.training.inputs import AtHand
from slsa_for_models.training.run import Machine

# What actions/setup leaves in the environments that it builds: a copy of their lock.
LOCK_NAME = "locked-requirements.txt"


def machine(files: Mapping[str, Path], lock: Path | None = None, *, confined: bool) -> Machine:
    """Where a recipe finds its parts.

    Args:
        files: The images: SHA-256, hexadecimal -> the file.
        lock: The locked requirements that this was installed from; by default those that our own
            set-up left in the environment, if it did.
        confined: Whether the recipe is confined.
    """
    package, own = Path(slsa_for_models.__file__).parent, Path(sys.prefix, LOCK_NAME)
    path = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Machine(
        at_hand=AtHand(by_digest=files),
        programs=Path(sys.executable).parent,
        variables={"PYTHONPATH": os.pathsep.join(path)},
        lock=lock or (own if own.is_file() else None),
        source_sha256=source_digest(package),
        confined=confined,
    )


def source_digest(package: Path) -> str:
    """The digest of the listing of all modules, also in the folders below, sorted by name."""
    modules = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return listing_digest(
        (name, hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in sorted(modules.items())
    )
