"""Archives and programs that are made to show a check one thing and a framework another."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from slsa_for_models.models import formats
from tests.support.strangers import found_harmful, found_harmless

JITTED = formats.FORMATS["pytorch_jitted_model.pt"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Harmless(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.relu()


class RunsWhenLoaded(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.relu()

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return 1, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.training = state[1]


class Other(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.save(pixels, "/tmp/never")
        return pixels


@torch.jit.interface
class Layer(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pass


class CallsAnother(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Other()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer.forward(pixels)


CallsAnother.__annotations__ = {"layer": Layer}  # not as text: TorchScript reads it


def script(module: nn.Module, rename: Callable[[str], str] = str) -> bytes:
    """A TorchScript archive, rewritten by `zipfile`, with its members renamed."""
    saved, archive = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(module), saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(archive, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith(".debug_pkl"):
                new.writestr(rename(member.filename), old.read(member))
    return archive.getvalue()


def end(archive: bytes) -> tuple[int, int, int, int]:
    """Where the last record is; how many members, the directory's size and offset in it."""
    at = len(archive) - 22
    return at, *struct.unpack("<10xHII2x", archive[at:])


def two_faced() -> bytes:
    """Python's reader sees `Harmless`, PyTorch's sees `RunsWhenLoaded`.

    Both directories have one size. Python takes the bytes before the last record for the directory,
    PyTorch what is at the offset in it.
    """
    hidden, shown = script(RunsWhenLoaded()), bytearray(script(Harmless()))
    hidden_end, members, hidden_size, hidden_at = end(hidden)
    shown_end, _, shown_size, shown_at = end(bytes(shown))
    position = shown_at
    while position < shown_end:
        lengths = struct.unpack_from("<3H", shown, position + 28)
        (header,) = struct.unpack_from("<I", shown, position + 42)
        struct.pack_into("<I", shown, position + 42, header + hidden_at - shown_at)
        last, position = position, position + 46 + sum(lengths)
    padding = hidden_size - shown_size  # as a comment of the last member
    struct.pack_into("<H", shown, last + 32, padding)
    directory = shown[:shown_end] + b" " * padding
    record = struct.pack("<4s4x2H2L2x", b"PK\5\6", members, members, hidden_size, hidden_at)
    return hidden[:hidden_end] + directory + record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (two_faced, "more than one directory"),
        (lambda: b"anything" + script(Harmless()), "something around it"),
        (lambda: script(Harmless()) + bytes(22), "something around it|no.*zip archive"),
        (lambda: script(RunsWhenLoaded()), "runs when loaded"),
        (lambda: script(RunsWhenLoaded(), lambda name: name.replace(".py", ".PY")), "is not known"),
        (lambda: script(CallsAnother()), "operator that a classifier does not need"),
    ],
    ids=["two directories", "before", "after", "plain", "another case", "through an interface"],
)
def test_torchscript_that_hides_something(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    model = tmp_path / JITTED.name
    model.write_bytes(content())
    found_harmful(model, message)


@pytest.mark.parametrize("rewritten", [True, False], ids=["zip", "zip64"])
def test_ordinary_archives_pass(tmp_path: Path, rewritten: bool) -> None:
    model = tmp_path / JITTED.name
    if rewritten:
        model.write_bytes(script(Harmless()))
    else:
        torch.jit.save(torch.jit.script(Harmless()), model)  # PyTorch writes zip64 itself
        assert b"PK\6\7" in model.read_bytes()
    assert found_harmless(model)(-torch.ones(1)).item() == 0


def test_the_two_readers_differ(tmp_path: Path) -> None:
    """What makes the check needed: without it the hidden class is what PyTorch loads."""
    model = tmp_path / JITTED.name
    model.write_bytes(two_faced())
    with zipfile.ZipFile(model) as archive:
        code = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
    assert b"__setstate__" not in code
    assert torch.jit.load(model).original_name == "RunsWhenLoaded"
