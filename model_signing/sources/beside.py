"""Where the signature of a model on this machine lies by itself: in the model, or beside it."""

from __future__ import annotations

import os
from pathlib import Path

from model_signing.errors import FileError, UsageError
from model_signing.sources.local import basename

IN_FOLDER = "model.sig"
BESIDE = "{}.sig"


def place(model: Path, name: str | None = None) -> Path:
    """Where the signature of a model goes.

    Args:
        model: A file or a folder.
        name: What the signature is called: in the model's folder, or, where the name has a `{}`,
            beside the model, whose own name that stands for. A single file's folder is the one it
            lies in. By default `model.sig` in a folder, `FILE.sig` beside a file.

    Raises:
        UsageError: The name is a path.
    """
    folder = model.is_dir()
    return _place(model, folder, name or (IN_FOLDER if folder else BESIDE))


def _place(model: Path, folder: bool, name: str) -> Path:
    if name in (".", "..") or "/" in name or os.sep in name:
        raise UsageError("--signature-name is a name, not a path", found=name)
    if "{}" not in name:
        return (model if folder else model.parent) / name
    if model.name in ("", ".."):  # the folder one stands in has a name, too
        model = Path(os.path.realpath(model))
    return model.with_name(name.replace("{}", basename(model)))


def places(model: Path, name: str | None = None) -> tuple[Path, ...]:
    """Where the signature of a model may lie, the likeliest first; raises as `place`."""
    folder = model.is_dir()
    names = (name,) if name else (BESIDE, IN_FOLDER) if folder else (BESIDE,)
    return tuple(_place(model, folder, one) for one in names)


def find(model: Path, name: str | None = None) -> Path:
    """The signature that lies in a model or beside it.

    Raises:
        UsageError: As `place`.
        FileError: There is none.
    """
    looked = places(model, name)
    for path in looked:
        if os.path.isfile(path):  # noqa: PTH113 - for each of a thousand models
            return path
    if not os.path.lexists(model):
        raise FileError("there is no such model", where=str(model))
    raise FileError(
        "there is no signature in the model or beside it",
        where=str(model),
        expected=" or ".join(map(str, looked)),
        fix="say where it lies with --signature, or what it is called with --signature-name",
    )
