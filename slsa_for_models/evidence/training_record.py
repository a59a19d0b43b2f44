"""The training record: what a training run says about itself.

It is a claim by the training job. Whoever reads it (the signing job first of all) treats it as
hostile input: `parse` bounds it and checks it against the published JSON Schema,
`schemas/training-record.v1.json`, which is also what describes the fields.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from model_signing.oms import strict_json
from slsa_for_models.errors import RecordError
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence.training_plan import Scalar, listing_digest

SCHEMA = "https://model-transparency.dev/training-record/v1"
MAX_BYTES = 1024 * 1024
MOST_FILES = 1000
MOST_METRICS = 1000
MOST_PACKAGES = 2000

_SCHEMA_FILE = "training-record.v1.json"
_PIECE = 1 << 20

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class File:
    """One file of a data set or of a model that is a directory; `size` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Model:
    """The output; `files` only of a directory of up to 1,000 of them."""

    name: str
    size: int
    sha256: str
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Input:
    """One file that training was given, in its place; `uri` where it was had, if that is public."""

    name: str
    sha256: str
    size: int
    uri: str | None = None


@dataclass(frozen=True)
class Dataset:
    """All of them; see `training_plan.dataset_digest` for the digest of the whole."""

    sha256: str | None
    files: tuple[Input, ...] = ()


@dataclass(frozen=True)
class Environment:
    """What the command ran on, as far as it can change the model's bytes."""

    python: str | None
    packages: Mapping[str, str]
    platform: str
    cpus: int | None
    cpu_features: tuple[str, ...]
    accelerators: tuple[str, ...]
    requirements_sha256: str | None
    source_sha256: str
    network: str
    confinement: str


@dataclass(frozen=True)
class TrainingRecord:
    """One training; times are RFC 3339 in UTC."""

    model: Model
    dataset: Dataset
    command: tuple[str, ...]
    parameters: Mapping[str, Scalar]
    metrics: Mapping[str, float]
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
    document = strict_json.loads(data, RecordError, "the training record")
    json_schema.check(document, json_schema.load(_SCHEMA_FILE), RecordError, "the training record")
    model, dataset, environment = (document[name] for name in ("model", "dataset", "environment"))
    features = {name: tuple(environment[name]) for name in ("cpu_features", "accelerators")}
    return TrainingRecord(
        **{
            **document,
            "model": _filled(Model, {**model, "files": _all(File, model["files"])}),
            "dataset": Dataset(dataset["sha256"], _all(Input, dataset["files"])),
            "command": tuple(document["command"]),
            "environment": _filled(Environment, {**environment, **features}),
        }
    )


def describe_model(path: Path, name: str) -> Model:
    """What the record says of a saved model: a file, or a directory with all its files.

    Args:
        path: Where it is.
        name: What it is called.
    """
    if not path.is_dir():
        file = describe_file(path, name)
        return Model(name, file.size, file.sha256)
    names = sorted(
        entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()
    )
    files = tuple(describe_file(path / inner, inner) for inner in names)
    size = sum(file.size for file in files)
    digest = listing_digest((file.name, file.sha256) for file in files)
    return Model(name, size, digest, files if len(files) <= MOST_FILES else ())


def describe_file(path: Path, name: str) -> File:
    """A file's digest and size, by a name of its own."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return File(name, digest.hexdigest(), size)


def _all(kind: type[_Part], documents: list[dict[str, Any]]) -> tuple[_Part, ...]:
    return tuple(_filled(kind, document) for document in documents)


def _filled(kind: type[_Part], values: Mapping[str, Any]) -> _Part:
    """A part of the record; 1.0 is the integer 1 in JSON Schema, and becomes one here."""
    return kind(
        **{
            name: int(value)
            if value is not None and kind.__annotations__[name].startswith("int")
            else value
            for name, value in values.items()
        }
    )
