"""The nine recipes as a training plan: what `slsa_for_models train FORMAT` stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from slsa_for_models.cifar10 import archive
from slsa_for_models.cifar10.archive import BATCHES
from slsa_for_models.errors import DatasetError
from slsa_for_models.evidence.training_plan import Pin, Plan, Scalar

if TYPE_CHECKING:
    from slsa_for_models.models.formats import Format

_METRICS = "metrics.json"
_SYNTHETIC = "synthetic:"
COMMAND = ("python", "-m", "slsa_for_models.cifar10")

Files = Mapping[str, Path]
"""SHA-256, hexadecimal -> a file that has it."""


def of(format: Format, parameters: Mapping[str, Scalar], data: Sequence[Pin]) -> Plan:
    """The plan of a recipe.

    Args:
        format: What is trained.
        parameters: Options of `python -m slsa_for_models.cifar10` by name.
        data: The archive, or the six batches.
    """
    return Plan(
        command=(*COMMAND, format.name, "{parameters}"),
        model=format.name,
        data=tuple(data),
        parameters=dict(sorted(parameters.items())),  # as a record has them
        metrics=_METRICS,
    )


def from_inputs(inputs: Mapping[str, object]) -> Plan | None:
    """The plan of a recipe that the inputs of `train.yml` ask for; None if of none.

    Images of the caller's own have no pins in the inputs: the plan has none either.
    """
    from slsa_for_models.models.formats import FORMATS

    format = FORMATS.get(str(inputs.get("model")))
    numbers = {name: inputs.get(name) for name in ("epochs", "seed")}
    if format is None or inputs.get("dataset") not in ("cifar10", "synthetic"):
        return None
    if not all(re.fullmatch(r"\d{1,10}(\.0)?", str(value)) for value in numbers.values()):
        return None
    given: dict[str, Scalar] = {name: int(float(str(value))) for name, value in numbers.items()}
    own = inputs["dataset"] != "cifar10" or inputs.get("data-dir") or inputs.get("data-artifact")
    return of(format, {**given, "threads": 2}, () if own else the_archive())


def made_up(folder: Path, train_images: int, test_images: int) -> tuple[tuple[Pin, ...], Files]:
    """The synthetic set of that size, in a folder where it was made, pinned and named as that."""
    pins, files = of_folder(folder)
    name = f"{_SYNTHETIC}{train_images}/{test_images}"
    return tuple(Pin(pin.sha256, pin.path, (name,)) for pin in pins), files


def sizes_made_up(uri: str | None) -> tuple[int, int] | None:
    """How many images to train and to test with a made-up set has, by its address."""
    found = re.fullmatch(re.escape(_SYNTHETIC) + r"(\d{1,9})/(\d{1,9})", uri or "")
    return (int(found[1]), int(found[2])) if found else None


def the_archive(urls: Iterable[str] = archive.MIRRORS) -> tuple[Pin, ...]:
    """CIFAR-10's archive, by the digest that is pinned here, from any of these mirrors."""
    return (Pin(archive.SHA256, archive.NAME, tuple(urls)),)


def of_folder(folder: Path) -> tuple[tuple[Pin, ...], Files]:
    """What a folder has: the archive, or six batches of CIFAR-10's layout; and where they are.

    Raises:
        DatasetError: Neither is there, or it cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError("there is no such folder", where=str(folder), fix=archive.WAYS_OUT)
    if (folder / archive.NAME).is_file():
        return the_archive(), {archive.SHA256: folder / archive.NAME}
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / BATCHES[0]).is_file():
            return _pinned({name: place / name for name in BATCHES})
    raise DatasetError(
        "there is no CIFAR-10 in this folder",
        where=str(folder),
        expected=f"{archive.NAME}, or {BATCHES[0]} to {BATCHES[-1]}, "
        "here or in cifar-10-batches-bin/",
    )


def _pinned(files: Mapping[str, Path]) -> tuple[tuple[Pin, ...], Files]:
    """Files pinned as they are now; nobody else can have them."""
    pins, at_hand = [], {}
    for name, path in files.items():
        try:
            digest = sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DatasetError(
                "the data set cannot be read", where=str(path), found=error.strerror or str(error)
            ) from error
        pins.append(Pin(digest, name))
        at_hand[digest] = path
    return tuple(pins), at_hand
