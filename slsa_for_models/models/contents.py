"""What is in a model: code that whoever loads it may run, and what its files say of themselves.

A name decides where no look into the file can settle it: loaders go by names, too. Nothing here
runs, unpickles or imports anything of the model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import gguf
from slsa_for_models.models.safety import keras_config, weights, zips

_MOST_CONFIG = 64 * 1024 * 1024  # bytes of a configuration
_CONFIGURATIONS = ("config.json", "modules.json", "model_index.json")
_WEIGHTS = (".weights.h5", ".weights.hdf5")  # Keras' alone
_PICKLES = "bin pt pth ckpt pkl pickle p joblib dill sav pdparams pdopt"
# joblib unpacks what it loads; and many a checkpoint of PyTorch is called .pth.tar, and is none.
_PACKINGS = "gz bz2 xz lzma z lz4 zst tar"
_PACKED = re.compile(
    rf"(.*\.(?:{_PICKLES.replace(' ', '|')}))(?:\.(?:{_PACKINGS.replace(' ', '|')}))+"
)
_ELSEWHERE = "--"  # between repository and module in transformers' auto_map
_INDEX = (".safetensors.index.json", ".bin.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_OWN_MODULES = "sentence_transformers."

_Kinds = dict[str, tuple[str, Callable[[Path], None] | None]]


@dataclass(frozen=True)
class Code:
    """Something in a model that loading it can run.

    Attributes:
        file: Where.
        what: In words.
        elsewhere: Where it comes from, if that is not the model itself: nobody signed it.
    """

    file: str
    what: str
    elsewhere: str = ""

    def __str__(self) -> str:
        return f"{self.file} ({self.what})"


def code(names: Iterable[str], path_of: Callable[[str], Path] | None) -> list[Code]:
    """All code in a model.

    Args:
        names: Its files.
        path_of: Where a file lies; without it names alone decide.

    Raises:
        OSError: A file cannot be read.
    """
    return [one for name in _looked_at(names) for one in _of_file(name, path_of)]


def _looked_at(names: Iterable[str]) -> list[str]:
    """The few of a million files whose names say that there may be something."""
    return sorted(
        name
        for name in names
        if name.rpartition(".")[2].lower() in _SUFFIXES or ".so." in name.lower()
    )


def _of_file(name: str, path_of: Callable[[str], Path] | None) -> Iterator[Code]:
    base = name.rpartition("/")[2].lower()
    base = _PACKED.sub(r"\1", base)
    _, dot, suffix = base.rpartition(".")
    suffix = "so" if ".so." in base else dot and suffix
    if suffix in _KINDS and not base.endswith(_WEIGHTS):
        what, harmless = _KINDS[suffix]
        why = "" if path_of is None or harmless is None else _refusal(harmless, path_of(name))
        if why is not None:
            yield Code(name, f"{what}: {why}" if why else what)
    elif path_of is not None and base.endswith(_CONFIGURATIONS):
        if (config := _configuration(path_of(name))) is None:
            # Another reader may be more patient, or have more of its stack left.
            yield Code(name, "a configuration that cannot be read")
        yield from _of_config(name, config)


def _refusal(harmless: Callable[[Path], object], path: Path) -> str | None:
    """Why a file is not found harmless; None if it is."""
    try:
        harmless(path)
    except (UnsafeModelError, RecursionError, MemoryError) as error:
        return getattr(error, "message", "") or type(error).__name__
    return None


def _check_weights(path: Path) -> None:
    weights.check_state_dict(path, path)


def _check_keras(path: Path) -> None:
    with zips.opened(path) as archive:
        if "config.json" not in archive.namelist():
            raise UnsafeModelError("it has no config.json")
        keras_config.check(zips.read_small(archive, "config.json"))


def _kinds(names: str, what: str, harmless: Callable[[Path], None] | None = None) -> _Kinds:
    return dict.fromkeys(names.split(), (what, harmless))


# How a file's name ends -> what it is, and what finds out whether it is harmless all the same.
_KINDS: _Kinds = {
    **_kinds("py pyw pyc pyo ipy", "Python code"),
    **_kinds("so dll dylib pyd exe llamafile jar class", "machine code"),
    **_kinds(_PICKLES, "a pickle", _check_weights),
    **_kinds("pt2 nemo mar", "an archive that can bring code"),
    **_kinds("h5 hdf5", "a Keras model in HDF5, whose layers can be code"),
    **_kinds("keras", "a Keras model", _check_keras),
    **_kinds("pb pbtxt", "a TensorFlow graph, which can read and write files"),
}

_SUFFIXES = {*_KINDS, *_PACKINGS.split(), "json", "gguf", "safetensors", "model", "txt"}


def _configuration(path: Path) -> Any:  # noqa: ANN401 - JSON, as its readers take it
    """What the libraries that read it would see; None if it cannot be read."""
    with path.open("rb") as file:
        data = file.read(_MOST_CONFIG + 1)
    if len(data) > _MOST_CONFIG:
        raise UnsafeModelError(
            "a configuration is too large", where=path.name, expected=f"{_MOST_CONFIG:,} bytes"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _of_config(name: str, config: object) -> Iterator[Code]:
    if isinstance(config, list):  # sentence-transformers' modules
        for entry in config:
            kind = entry.get("type") if isinstance(entry, dict) else None
            if isinstance(kind, str) and not kind.startswith(_OWN_MODULES):
                yield Code(name, f"imports {kind[:80]}")
    for table, value in _named(config, ("auto_map", "custom_pipelines")):
        repository, separator, module = value.rpartition(_ELSEWHERE)
        if separator:
            yield Code(name, f"{table}: {module[:80]} of {repository[:80]}", repository[:80])
        elif table == "auto_map":
            yield Code(name, f"auto_map: {value[:80]}")


def _named(config: object, tables: Collection[str]) -> Iterator[tuple[str, str]]:
    """All texts in these tables, which a part of a model has in a configuration of its own."""
    pending = [config]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            for table in tables:
                yield from ((table, text) for text in _texts(one.get(table)))
            pending += [value for key, value in one.items() if key not in tables]
        elif isinstance(one, list):
            pending += one


def statements(names: Collection[str], path_of: Callable[[str], Path]) -> list[str]:
    """What the files of a model say of it, in the formats that servers read.

    Args:
        names: Its files.
        path_of: Where a file lies.

    Raises:
        UnsafeModelError: A header is malformed or does not fit its file; or an index names a file
            that the model does not have, or a tensor that the file does not have.
        OSError: A file cannot be read.
    """
    said: list[str] = []
    tensors: dict[str, dict[str, str]] = {}
    looked = _looked_at(names)
    for name in looked:
        base = name.rpartition("/")[2]
        if base == "config.json":
            said += _architecture(name, _configuration(path_of(name)))
        elif base == "adapter_config.json":
            said += _adapter(name, _configuration(path_of(name)))
        elif base.endswith(".gguf"):
            said.append(f"{name}: {gguf.read(path_of(name))}")
        elif base.endswith(".safetensors"):
            tensors[name] = weights.safetensors(path_of(name), later_types=True)
    for name in looked:
        if name.endswith(_INDEX):
            _check_index(name, _configuration(path_of(name)), names, tensors)
    if tensors:
        types = Counter(kind for one in tensors.values() for kind in one.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in types.most_common(4))
        said.append(f"{len(tensors)} safetensors: {sum(types.values())} tensors: {kinds}")
    tokenizers = [name for name in looked if name.rpartition("/")[2] in _TOKENIZERS]
    return said + ([f"tokenizer: {', '.join(tokenizers[:4])}"] if tokenizers else [])


def _architecture(name: str, config: object) -> list[str]:
    if not isinstance(config, dict):
        return []
    found = [config.get(key) for key in ("model_type", "architectures", "dtype", "torch_dtype")]
    texts = [text[:80] for value in found for text in _texts(value)][:6]
    return [f"{name}: {', '.join(texts)}"] if texts else []


def _adapter(name: str, config: object) -> list[str]:
    """PEFT: its loaders fetch the model that it changes, which nobody has verified."""
    if not isinstance(config, dict):
        return []
    keys = ("peft_type", "base_model_name_or_path", "revision")
    kind, start, at = (" ".join(_texts(config.get(key)))[:80] for key in keys)
    return [f"{name}: {kind} adapter of {start}{f' at {at}' if at else ''}"] if start else []


def _check_index(
    name: str, index: object, names: Collection[str], tensors: Mapping[str, Mapping[str, str]]
) -> None:
    """Every shard that an index names is a file of the model, and has the tensors it should."""
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise UnsafeModelError("an index of shards is malformed", where=name)
    folder = name[: -len(name.rpartition("/")[2])]
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or folder + shard not in names:
            raise UnsafeModelError(
                "the index names a file that is not part of the model",
                where=name,
                found=str(shard)[:200],
            )
        if folder + shard in tensors and tensor not in tensors[folder + shard]:
            raise UnsafeModelError(
                "the index names a tensor that the file does not have",
                where=name,
                expected=f"{tensor[:200]} in {shard}",
            )


def _texts(value: object) -> Iterator[str]:
    """All texts in a value, however deep."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            pending += reversed(list(one.values()))
        elif isinstance(one, list):
            pending += reversed(one)
