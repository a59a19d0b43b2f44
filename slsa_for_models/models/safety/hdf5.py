"""HDF5: what is in a stranger's file, written anew without what only the library understands.

The HDF5 library crashes and hangs on malformed files. So it reads a stranger's file in a process
that may die (see `quarantine`), and what Keras reads afterwards is a file of plain numbers that
this module wrote.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import SLACK, check_name, check_size, keras_config, zips

_MOST_ITEMS = 100_000
_GZIP, _SHUFFLE = 1, 2  # filters; others are plugins, which the library would load

# What Keras reads, of groups and data sets. `layer_names` may be split over several attributes.
_ATTRIBUTES = r"(layer|weight)_names\d*|name|keras_version|backend"
_KERAS_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}


def clean_weights(path: Path, clean: Path) -> None:
    """Writes the weights of a `.weights.h5` file anew."""
    with path.open("rb") as source, h5py.File(clean, "w") as target:
        _copy(source, target, "")


def clean_model(path: Path, clean: Path) -> None:
    """Writes architecture and weights of an `.h5` file into a folder `clean`."""
    clean.mkdir()
    with path.open("rb") as source, h5py.File(clean / "weights.h5", "w") as target:
        texts = _copy(source, target, "|model_config|training_config")
    config = keras_config.check(texts.get("model_config", "").encode())
    (clean / "config.json").write_bytes(config)


def clean_keras(path: Path, clean: Path) -> None:
    """Writes architecture and weights of a `.keras` archive into a folder `clean`."""
    with zips.opened(path) as archive:
        names = set(archive.namelist())
        if names != _KERAS_MEMBERS:
            raise UnsafeModelError(
                "a Keras archive with other members than expected",
                where=path.name,
                expected=", ".join(sorted(_KERAS_MEMBERS)),
                found=", ".join(sorted(names))[:200],
            )
        clean.mkdir()
        config = keras_config.check(zips.read_small(archive, "config.json"))
        (clean / "config.json").write_bytes(config)
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(clean / "model.weights.h5", "w") as target:
        _copy(weights, target, "")


def _copy(source: BinaryIO, target: h5py.File, more_attributes: str) -> dict[str, str]:
    """Copies groups, plain numbers and known attributes; returns the root's texts."""
    size = source.seek(0, io.SEEK_END)
    try:
        with h5py.File(source, "r") as root:
            seen: dict[int, str] = {}
            declared, pending = 0, [root]
            texts = _texts(root, more_attributes)
            while pending:
                group = pending.pop()
                for name in group:
                    item = _item(group, check_name(name, group.name), seen)
                    for key, text in _texts(item, "").items():
                        if isinstance(item, h5py.Group):
                            target.require_group(item.name).attrs[key] = text
                    if isinstance(item, h5py.Group):
                        pending.append(item)
                        target.require_group(item.name)
                    else:
                        _check_data(item)
                        declared += item.nbytes
                        check_size(declared, size, "HDF5 data sets")
                        target[item.name] = item[()]
            return texts
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsafeModelError(
            "the model is not well-formed HDF5", found=str(error)[:200]
        ) from error


def _item(group: h5py.Group, name: str, seen: dict[int, str]) -> Any:  # noqa: ANN401 - h5py's
    where = f"{group.name}/{name}"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UnsafeModelError("HDF5 with a link to elsewhere", where=where)
    item = group[name]
    address = h5py.h5o.get_info(item.id).addr
    if address in seen:
        raise UnsafeModelError("HDF5 with two names for one thing", where=where)
    seen[address] = where
    if len(seen) > _MOST_ITEMS:
        raise UnsafeModelError("HDF5 with too many things in it", where=where)
    if not isinstance(item, h5py.Group | h5py.Dataset):
        raise UnsafeModelError("HDF5 with a named type", where=where)
    return item


def _check_data(item: h5py.Dataset) -> None:
    """Refuses everything but numbers that are stored in this file."""
    if item.external or item.is_virtual:
        raise UnsafeModelError("HDF5 with data in another file", where=item.name)
    if item.dtype.kind not in "fiub" or item.dtype.hasobject or item.shape is None:
        raise UnsafeModelError("HDF5 with more than numbers", where=item.name)
    plan = item.id.get_create_plist()
    filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
    if filters - {_GZIP, _SHUFFLE}:
        raise UnsafeModelError("HDF5 with an unknown filter", where=item.name, found=str(filters))
    chunk = item.dtype.itemsize
    for side in item.chunks or ():
        chunk *= side
    if chunk > item.nbytes + SLACK:
        raise UnsafeModelError("HDF5 with a chunk larger than its data", where=item.name)


def _texts(item: Any, more: str) -> dict[str, Any]:  # noqa: ANN401 - h5py's
    """The attributes, which are text or rows of text, read when their sizes are known."""
    found: dict[str, Any] = {}
    if len(item.attrs) > _MOST_ITEMS:
        raise UnsafeModelError("HDF5 with too many attributes", where=item.name)
    for name in item.attrs:
        if not re.fullmatch(_ATTRIBUTES + more, name, re.ASCII):
            raise UnsafeModelError("HDF5 with an unknown attribute", where=item.name, found=name)
        attribute = h5py.h5a.open(item.id, name.encode())
        kind = attribute.get_type()
        empty = 0 in attribute.shape  # Keras writes an empty row of names as numbers
        if not empty and not isinstance(kind, h5py.h5t.TypeStringID):
            raise UnsafeModelError("HDF5 with an attribute that is no text", where=item.name)
        if len(attribute.shape) > 1 or math.prod(attribute.shape) > _MOST_ITEMS:
            raise UnsafeModelError("HDF5 with an attribute too large", where=item.name)
        value = [] if empty else item.attrs[name]
        found[name] = _text(value, f"{item.name}@{name}")
    return found


def _text(value: Any, where: str) -> Any:  # noqa: ANN401 - text or a row of it
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if isinstance(value, str):
        return check_name(value, where) if "config" not in where else value
    names = [_text(each, where) for each in value]
    return np.array([name.encode() for name in names], dtype=None if names else "S1")
