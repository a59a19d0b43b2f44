"""Models as they lie on Hugging Face: a folder of safetensors and of what is no code."""

from __future__ import annotations

from pathlib import Path

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import contents
from slsa_for_models.models.safety import weights


def check_folder(path: Path, clean: Path) -> None:
    """Refuses a folder with anything but safetensors, and what is no code, or with half a model."""
    names = [one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()]
    for code in contents.code(names, path.joinpath):
        raise UnsafeModelError("the model holds code", where=code.file, found=str(code))
    contents.statements(names, path.joinpath)
    seen: dict[str, str] = {}
    for shard in sorted(path.glob("*.safetensors")):
        for tensor in weights.safetensors(shard):
            if (other := seen.setdefault(tensor, shard.name)) != shard.name:
                raise UnsafeModelError(
                    "a tensor is in two files", where=tensor, found=f"{other} and {shard.name}"
                )
    if not seen:
        raise UnsafeModelError("the folder has no weights in safetensors", where=path.name)
