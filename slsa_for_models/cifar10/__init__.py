"""What only the CIFAR-10 recipes need."""

from __future__ import annotations

from types import ModuleType

from slsa_for_models.models import formats


def recipe(format: formats.Format) -> ModuleType:
    """Import and return the module that trains and saves (`SAVE`) with the format's framework.

    Raises:
        DependencyError: The framework is not installed.
    """
    return formats.framework(format, __name__)
