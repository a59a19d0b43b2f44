"""The training record: what a training run says about itself.

It is a claim by the training job. Whoever reads it (the signing job first of all) treats it as
hostile input: `parse` bounds it and checks it against the published JSON Schema,
`schemas/training-record.v1.json`, which is also what describes the fields.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from model_signing.oms import strict_json
from slsa_for_models.errors import RecordError
from slsa_for_models.evidence import json_schema

SCHEMA = "https://model-transparency.dev/training-record/v1"
MAX_BYTES = 1024 * 1024

_SCHEMA_FILE = "training-record.v1.json"

Parameters = Mapping[str, int | float | str]
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class File:
    """One file of a data set or of a model that is a directory; `size` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Model:
    """The output; `files` only for a directory."""

    name: str
    format: str
    framework: str
    size: int
    sha256: str
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """The input; `files` only where it is not the pinned archive."""

    name: str
    sha256: str
    source: str | None
    train_images: int
    test_images: int
    parameters: Parameters = dataclasses.field(default_factory=dict)
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images."""

    epoch: int
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Metrics:
    """How good the model is; the test figures are of the saved and reloaded model."""

    test_accuracy: float
    test_loss: float
    minimum_accuracy: float
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class Environment:
    """What the run ran on, as far as it can change the model's bytes."""

    python: str
    packages: Mapping[str, str]
    platform: str
    cpu_features: tuple[str, ...]
    requirements_sha256: str | None
    source_sha256: str


@dataclass(frozen=True)
class TrainingRecord:
    """One training run; times are RFC 3339 in UTC."""

    model: Model
    dataset: Dataset
    parameters: Parameters
    metrics: Metrics
    environment: Environment
    started: str
    finished: str
    schema: str = SCHEMA


def encode(record: TrainingRecord) -> bytes:
    """The record as JSON, sorted and indented, ending in a newline."""
    document = dataclasses.asdict(record)
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def parse(data: bytes) -> TrainingRecord:
    """Read a record that may have been made to harm.

    Raises:
        RecordError: More than 1 MiB, not strict JSON, or not what the schema describes.
    """
    if len(data) > MAX_BYTES:
        raise RecordError(
            "the training record is too large",
            expected=f"at most {MAX_BYTES} bytes",
            found=f"{len(data)} bytes",
        )
    document = strict_json.loads(data, RecordError, "The training record")
    json_schema.check(document, json_schema.load(_SCHEMA_FILE), RecordError, "The training record")
    return TrainingRecord(
        schema=document["schema"],
        model=_filled(Model, {**document["model"], "files": _files(document["model"])}),
        dataset=_filled(Dataset, {**document["dataset"], "files": _files(document["dataset"])}),
        parameters=document["parameters"],
        metrics=Metrics(
            **{
                **document["metrics"],
                "epochs": tuple(_filled(Epoch, one) for one in document["metrics"]["epochs"]),
            }
        ),
        environment=Environment(
            **{
                **document["environment"],
                "cpu_features": tuple(document["environment"]["cpu_features"]),
            }
        ),
        started=document["started"],
        finished=document["finished"],
    )


def describe_model(path: Path, format: str, framework: str) -> Model:
    """What the record says of a saved model: a file, or a directory with all its files.

    Args:
        path: The model.
        format: How it was saved, such as `pytorch_model.pth`.
        framework: `pytorch` or `tensorflow`.
    """
    if not path.is_dir():
        file = _file(path, path.name)
        return Model(path.name, format, framework, file.size, file.sha256)
    names = sorted(
        entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()
    )
    files = tuple(_file(path / name, name) for name in names)
    size, digest = sum(file.size for file in files), listing_digest(files)
    return Model(path.name, format, framework, size, digest, files)


def listing_digest(files: Iterable[File]) -> str:
    """SHA-256 of the files' listing as `sha256sum NAME...` prints it, in the order given."""
    listing = "".join(f"{file.sha256}  {file.name}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _file(path: Path, name: str) -> File:
    data = path.read_bytes()
    return File(name, hashlib.sha256(data).hexdigest(), len(data))


def _files(document: dict[str, Any]) -> tuple[File, ...]:
    return tuple(_filled(File, file) for file in document["files"])


def _filled(kind: type[_Part], values: Mapping[str, Any]) -> _Part:
    """A part of the record; 1.0 is the integer 1 in JSON Schema, and becomes one here."""
    return kind(
        **{
            name: int(value) if kind.__annotations__[name] == "int" else value
            for name, value in values.items()
        }
    )
