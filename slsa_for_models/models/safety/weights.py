"""Files of weights alone: PyTorch's state dicts, and safetensors."""

from __future__ import annotations

import io
from pathlib import Path

from model_signing.oms import strict_json
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import check_name, check_size, elements, zips
from slsa_for_models.models.safety.pickles import Machine

_MEMBERS = (
    r"data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id"
)

_MOST_HEADER = 8 * 1024 * 1024
_ITEM_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


def check_state_dict(path: Path, clean: Path) -> None:
    """Refuses a PyTorch archive of anything but tensors in plain containers."""
    with zips.opened(path) as archive:
        folder = zips.check_allowed(archive, _MEMBERS)
        prefix = f"{folder}data/"
        sizes = {
            member.filename.removeprefix(prefix): member.file_size
            for member in archive.infolist()
            if member.filename.startswith(prefix)
        }
        if f"{folder}data.pkl" not in archive.namelist():
            raise UnsafeModelError("not a PyTorch archive", where=path.name)
        machine = Machine(sizes, frozenset(), "data.pkl")
        found = machine.run(zips.read_small(archive, f"{folder}data.pkl"))
        if not isinstance(found, dict):
            raise UnsafeModelError("not a state dict", where=path.name, found=type(found).__name__)
        check_size(machine.bytes, sum(sizes.values()), "tensors")  # several may share their bytes


def check_safetensors(path: Path, clean: Path) -> None:
    """Refuses a file whose header and bytes differ, or that has names nobody would give."""
    safetensors(path)


def safetensors(path: Path, *, later_types: bool = False) -> dict[str, str]:
    """The tensors of a file, by name: their types.

    Args:
        path: A file in safetensors.
        later_types: Whether a type may be one that is not known, whose size is not checked.

    Raises:
        UnsafeModelError: Its header and its bytes differ, or it has names nobody would give.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MOST_HEADER, size - 8):
            raise UnsafeModelError("the header is too long", where=path.name, found=f"{length:,}")
        header = file.read(length)
        left = size - file.seek(0, io.SEEK_CUR)
    tensors = strict_json.loads(header.rstrip(b" "), UnsafeModelError, "the header")
    strict_json.fields(tensors, UnsafeModelError, path.name, "", None)
    _check_notes(tensors.pop("__metadata__", {}), path.name)
    spans = sorted(
        _span(check_name(name, path.name), row, later_types) for name, row in tensors.items()
    )
    ends = [0, *(end for _, end in spans)]
    if [start for start, _ in spans] != ends[:-1] or ends[-1] != left:
        raise UnsafeModelError("the tensors do not fill the file one by one", where=path.name)
    return {name: row["dtype"] for name, row in tensors.items()}


def _check_notes(notes: object, where: str) -> None:
    noted = strict_json.fields(notes, UnsafeModelError, where, "", None)
    for text in (*noted, *noted.values()):
        if not isinstance(text, str):
            raise UnsafeModelError("metadata that is no text", where=where)
        check_name(text, where)


def _span(name: str, row: object, later_types: bool) -> tuple[int, int]:
    """Where a tensor's bytes are, of which there are as many as its shape asks for."""
    fields = strict_json.fields(row, UnsafeModelError, name, "dtype shape data_offsets")
    shape, offsets, dtype = fields["shape"], fields["data_offsets"], fields["dtype"]
    known = dtype in list(_ITEM_SIZES)
    if not known and not (later_types and isinstance(dtype, str)):
        raise UnsafeModelError("a tensor of unknown type", where=name, found=str(dtype)[:80])
    for numbers in (shape, offsets):
        whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
        if not whole or len(offsets) != 2:
            raise UnsafeModelError("a tensor's shape or place is malformed", where=name)
    start, end = offsets
    count = elements(shape, name)
    if start < 0 or end < start or (known and end - start != count * _ITEM_SIZES[dtype]):
        raise UnsafeModelError("a tensor's size is not that of its bytes", where=name)
    return start, end
