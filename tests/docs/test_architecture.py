"""The picture of who may import whom is true: every import is an arrow, or follows from arrows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/architecture.md"
PACKAGES = ("model_signing", "slsa_for_models")
Arrow = tuple[str, str]


def drawn() -> set[Arrow]:
    """The arrows of the picture; what is in the frame is a room of `model_signing`."""
    text = DOCUMENT.read_text(encoding="utf-8").split("```mermaid\n")[1].split("```")[0]
    found: set[Arrow] = set()
    for package, part in zip(reversed(PACKAGES), text.split("subgraph"), strict=True):
        for line in part.splitlines():
            sides = [
                [re.sub(r"\w+\[(\w+)\]", r"\1", room.strip()) for room in side.split("&")]
                for side in line.split("-->")
            ]
            for left, right in pairwise(sides):
                found |= {(f"{package}.{a}", f"{package}.{b}") for a, b in product(left, right)}
    return {
        (left, right.replace(".".join(reversed(PACKAGES)), PACKAGES[0])) for left, right in found
    }


def imported() -> Iterator[Arrow]:
    """Every import of ours, from room to room; into `model_signing` from outside, as one."""
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        here = path.relative_to(ROOT).with_suffix("").parts[:2]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [module + alias.name for alias in node.names]
            for package, *rest in (name.split(".") for name in names):
                if package in PACKAGES:
                    yield ".".join(here), ".".join([package, *rest[: package == here[0]]])


def follows(arrows: set[Arrow], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        new = {right for left, right in arrows if left == here} - seen
        seen |= new
        waiting += new
    return seen


def test_every_import_follows_from_the_picture() -> None:
    arrows = drawn()
    rooms = {left for left, _ in arrows} | {right for _, right in arrows}
    # Not drawn: errors, below everything; and what starts a package.
    found = {(a, b) for a, b in imported() if a in rooms and b in rooms}
    found = {(a, b) for a, b in found if a != b and not a.startswith(f"{b}.")}
    assert len(found) > 40
    assert {(a, b) for a, b in found if b not in follows(arrows, a)} == set()
    assert [room for room in rooms if room in follows(arrows, room)] == []


def test_every_room_is_in_the_picture() -> None:
    """But for errors, below everything, and Kubeflow's pipeline."""
    there = {
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or list(path.glob("*.py"))
    }
    in_picture = {room for arrow in drawn() for room in arrow} - {PACKAGES[0]}
    missing = {room.partition(".")[2] for room in there ^ in_picture}
    assert missing == {"__init__", "__main__", "errors", "kubeflow"}
