"""What a recipe says that it ran on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import slsa_for_models
from slsa_for_models.training import recipes

PACKAGE = Path(slsa_for_models.__file__).parent
LISTING = "find . -name '*.py' -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"


@pytest.mark.skipif(sys.platform != "linux", reason="find -printf is GNU's")
def test_the_source_digest_is_that_of_all_modules_also_in_folders():
    """Known answer: the listing as coreutils makes it."""
    assert [path for path in PACKAGE.glob("*/*.py") if path.stat().st_size]
    listed = subprocess.run(
        LISTING, shell=True, cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=60
    )
    assert listed.stdout.split()[0] == recipes.source_digest(PACKAGE)
