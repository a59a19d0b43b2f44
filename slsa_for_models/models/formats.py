"""The table of model formats: a format's name is the name of the file a training run writes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from model_signing.errors import DependencyError, UsageError
from model_signing.terminal.command_line import suggestion


@dataclass(frozen=True)
class Format:
    """One way to save a trained model.

    Attributes:
        name: The file (or directory) name, which is also what users call the format.
        framework: `pytorch` or `tensorflow`; an extra of this distribution, and its modules' name.
        load: The framework module's function (path) that reads it back, as safely as it can be.
        holds: What is inside, for people.
        directory: Whether it is a directory instead of a file.
        runs_code: Whether loading it runs whatever code the file holds (Python's pickle).
    """

    name: str
    framework: str
    load: str
    holds: str
    directory: bool = False
    runs_code: bool = False


FORMATS = {
    format.name: format
    for format in (
        Format(
            "tensorflow_model.keras",
            "tensorflow",
            "load_keras",
            "architecture and weights, Keras 3",
        ),
        Format(
            "tensorflow_hdf5_model.h5",
            "tensorflow",
            "load_hdf5",
            "architecture and weights, HDF5",
        ),
        Format(
            "tensorflow_hdf5.weights.h5",
            "tensorflow",
            "load_hdf5_weights",
            "weights, HDF5",
        ),
        Format(
            "tensorflow_saved_model",
            "tensorflow",
            "load_saved_model",
            "graph and weights, a directory",
            directory=True,
        ),
        Format(
            "pytorch_model.pth",
            "pytorch",
            "load_state_dict",
            "weights, a state dict",
        ),
        Format(
            "pytorch_full_model.pth",
            "pytorch",
            "load_full_model",
            "the module itself, a pickle: code",
            runs_code=True,
        ),
        Format(
            "pytorch_jitted_model.pt",
            "pytorch",
            "load_torchscript",
            "graph and weights, TorchScript",
        ),
        Format(
            "pytorch_model.safetensors",
            "pytorch",
            "load_safetensors",
            "weights, safetensors",
        ),
        Format(
            "pytorch_model.onnx",
            "pytorch",
            "load_onnx",
            "graph and weights, ONNX",
        ),
    )
}


def find(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: There is none; the message lists those there are.
    """
    if name not in FORMATS:
        raise UsageError(
            "unknown model format",
            found=name,
            expected=f"one of {', '.join(FORMATS)}",
            fix=suggestion(name, FORMATS),
        )
    return FORMATS[name]


def framework(format: Format, package: str = __package__) -> ModuleType:
    """Import and return a package's module for the format's framework; by default, the loaders.

    Raises:
        DependencyError: The framework is not installed.
    """
    try:
        return importlib.import_module(f"{package}.{format.framework}")
    except ImportError as error:
        raise DependencyError(
            f"{format.name} needs a package that is not installed",
            found=str(error),
            fix=f"pip install 'model-transparency[{format.framework}]'",
        ) from error
