"""The table of model formats: a format's name is the name of the file a training run writes."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from model_signing.errors import DependencyError, UsageError
from model_signing.terminal.command_line import suggestion

if TYPE_CHECKING:
    from model_signing.sources import Source


@dataclass(frozen=True)
class Format:
    """One way to save a trained model.

    Attributes:
        name: The file (or directory) name, which is also what users call the format.
        framework: `pytorch` or `tensorflow`; an extra of this distribution, and its modules' name.
        check: The function of `safety`, as module.name, that refuses what is not harmless, and
            mostly writes it anew.
        load: The framework module's function (path) that reads what was found harmless.
        holds: What is inside, for people.
        directory: Whether it is a directory instead of a file.
        rehearsed: Whether the framework's own loader is tried where it may die, too.
        runs_code: Whether loading it runs whatever code the file holds (Python's pickle).
    """

    name: str
    framework: str
    check: str
    load: str
    holds: str
    directory: bool = False
    rehearsed: bool = False
    runs_code: bool = False


FORMATS = {
    format.name: format
    for format in (
        Format(
            "tensorflow_model.keras",
            "tensorflow",
            "hdf5.clean_keras",
            "load_keras",
            "architecture and weights, Keras 3",
            rehearsed=True,
        ),
        Format(
            "tensorflow_hdf5_model.h5",
            "tensorflow",
            "hdf5.clean_model",
            "load_keras",
            "architecture and weights, HDF5",
            rehearsed=True,
        ),
        Format(
            "tensorflow_hdf5.weights.h5",
            "tensorflow",
            "hdf5.clean_weights",
            "load_hdf5_weights",
            "weights, HDF5",
        ),
        Format(
            "tensorflow_saved_model",
            "tensorflow",
            "saved_model.clean_model",
            "load_saved_model",
            "graph and weights, a directory",
            directory=True,
            rehearsed=True,
        ),
        Format(
            "pytorch_model.pth",
            "pytorch",
            "weights.check_state_dict",
            "load_state_dict",
            "weights, a state dict",
        ),
        Format(
            "pytorch_full_model.pth",
            "pytorch",
            "",
            "load_pickle",
            "the module itself, a pickle: code",
            runs_code=True,
        ),
        Format(
            "pytorch_jitted_model.pt",
            "pytorch",
            "torchscript.clean_program",
            "load_torchscript",
            "graph and weights, TorchScript",
            rehearsed=True,
        ),
        Format(
            "pytorch_model.safetensors",
            "pytorch",
            "weights.check_safetensors",
            "load_safetensors",
            "weights, safetensors",
        ),
        Format(
            "pytorch_model.onnx",
            "pytorch",
            "onnx_graph.clean_model",
            "load_onnx",
            "graph and weights, ONNX",
        ),
    )
}


FOLDER = Format(
    "safetensors_folder",
    "pytorch",
    "folder.check_folder",
    "load_folder",
    "weights in safetensors, configuration and tokenizer, a directory",
    directory=True,
)
"""The layout of models on Hugging Face: loaded, never trained here."""

LOADED = {**FORMATS, FOLDER.name: FOLDER}
_MODULES = {"pytorch": "torch", "tensorflow": "tensorflow"}


def find(name: str, known: Mapping[str, Format] = FORMATS) -> Format:
    """The format of that name, among those `known`.

    Raises:
        UsageError: There is none; the message lists those there are.
    """
    if name not in known:
        raise UsageError(
            "unknown model format",
            found=name,
            expected=f"one of {', '.join(known)}",
            fix=suggestion(name, known),
        )
    return known[name]


def to_load(model: Source, name: str | None = None) -> Format:
    """The format of a model: of that name, by the model's own, or by the layout of its folder.

    Of a folder elsewhere whose name says nothing it is the layout that folders there have.

    Raises:
        UsageError: As `find`. FileError: The model is not there.
    """
    from model_signing.sources.local import LocalSource  # `--help` needs none of it

    if name is None and model.name not in LOADED and not model.single:
        other = isinstance(model, LocalSource) and not Path(model.path, "config.json").is_file()
        if not other:
            return FOLDER
    return find(name or model.name, LOADED)


def framework(format: Format, package: str = __package__) -> ModuleType:
    """Import and return a package's module for the format's framework; by default, the loaders.

    Raises:
        DependencyError: The framework is not installed.
    """
    try:
        with importing():
            return importlib.import_module(f"{package}.{format.framework}")
    except ImportError as error:
        raise _missing(format, str(error)) from error


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While a framework is imported: nothing of its thousands of modules is garbage.

    Looking for some in them takes a fifth of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def check_installed(format: Format) -> None:
    """Refuse a format whose framework is not there, without the seconds that importing it takes.

    Raises:
        DependencyError: The framework is not installed.
    """
    module = _MODULES[format.framework]
    if importlib.util.find_spec(module) is None:
        raise _missing(format, f"No module named '{module}'")


def _missing(format: Format, found: str) -> DependencyError:
    return DependencyError(
        f"{format.name} needs a package that is not installed",
        found=found,
        fix=f"pip install 'model-transparency[{format.framework}]'",
    )
