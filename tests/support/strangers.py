"""Models that strangers made, examined by this process: to start another for each takes seconds.

What may do harm, or take more than it may, is not for this. Of each format, and of each kind of
refusal, one case goes all the way instead: through `load_unverified`, in the tests beside.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.models.safety import quarantine


def found_harmless(model: Path) -> Any:
    """What the framework makes of a model after the check of its format."""
    row = formats.LOADED[model.name]
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder, row.name)
        quarantine.examine(row, model, clean, limit=False)
        return getattr(formats.framework(row), row.load)(clean if clean.exists() else model)


def found_harmful(model: Path, message: str | None = None) -> UnsafeModelError:
    """Why a model is refused; nothing is written."""
    before = sorted(model.parent.rglob("*"))
    with pytest.raises(UnsafeModelError, match=message) as refused:
        found_harmless(model)
    assert sorted(model.parent.rglob("*")) == before
    return refused.value
