"""The table of model formats: a format's name is the name of the file a training run writes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from model_signing.errors import DependencyError, UsageError


@dataclass(frozen=True)
class Format:
    """One way to save a trained model.

    Attributes:
        name: The file (or directory) name, which is also what users call the format.
        framework: `pytorch` or `tensorflow`; an extra of this distribution, and `MODULES`' key.
        save: The framework module's function (model, path) that writes it.
        load: The framework module's function (path) that reads it back, as safely as it can be.
        holds: What is inside, for people.
        directory: Whether it is a directory instead of a file.
        runs_code: Whether loading it runs whatever code the file holds (Python's pickle).
        reproducible: Whether the same training run gives the same bytes.
    """

    name: str
    framework: str
    save: str
    load: str
    holds: str
    directory: bool = False
    runs_code: bool = False
    reproducible: bool = True


FORMATS = {
    format.name: format
    for format in (
        Format(
            "tensorflow_model.keras",
            "tensorflow",
            "save_keras",
            "load_keras",
            "architecture and weights, Keras 3",
        ),
        Format(
            "pytorch_model.pth",
            "pytorch",
            "save_state_dict",
            "load_state_dict",
            "weights (state dict)",
        ),
    )
}

MODULES = {
    "pytorch": "slsa_for_models.pytorch_cifar10",
    "tensorflow": "slsa_for_models.tensorflow_cifar10",
}


def find(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: There is none; the message lists those there are.
    """
    if name not in FORMATS:
        raise UsageError(
            "unknown model format", found=name, expected=f"one of {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def framework(format: Format) -> ModuleType:
    """Import and return the module that trains, saves and loads the format.

    Raises:
        DependencyError: The framework is not installed.
    """
    try:
        return importlib.import_module(MODULES[format.framework])
    except ImportError as error:
        raise DependencyError(
            f"{format.name} needs a package that is not installed",
            found=str(error),
            fix=f"pip install 'model-transparency[{format.framework}]'",
        ) from error
