"""The hash-locked files after `make lock` and after Dependabot: for every Python and system.

Dependabot runs uv with options that it reads out of a lock (dependabot-core,
uv/lib/dependabot/uv/file_updater/compile_file_updater.rb): `dependabot` below is that reading.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))
# Of one input two locks are made, and this one with an option that Dependabot does not know.
BY_HAND = "pytorch"


def source(lock: str) -> str:
    return "pytorch" if lock.startswith("pytorch") else lock


def split(text: str) -> tuple[str, str]:
    """The lines of comment that a lock starts with, and the rest."""
    lines = text.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "".join(lines[:first]), "".join(lines[first:])


def packages(text: str) -> dict[str, str]:
    """Each requirement with its marker and hashes, by name and version."""
    blocks = re.findall(r"^(\S+==\S+.*\n(?:[ \t].*\n)*)", text, re.MULTILINE)
    return {block.split("\n", 1)[0]: block for block in blocks}


@pytest.fixture(scope="module")
def uv() -> Path:
    """Of the locked environment that builds all others."""
    command = [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), "bootstrap"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return Path(made.stdout.strip()) / "uv"


def dependabot(uv: Path, folder: Path, lock: str, *more: str) -> str:
    """The lock as Dependabot would write it, in a copy of the folder."""
    shutil.copytree(REQUIREMENTS, folder, dirs_exist_ok=True)
    text = (folder / f"{lock}.txt").read_text(encoding="utf-8")
    options = ["--build-isolation", f"--output-file={lock}.txt"]
    options += ["--generate-hashes"] * ("--hash=sha" in text)
    options += ["--no-annotate"] * ("# via " not in text)
    options += ["--universal"] * ("--universal" in text)
    if version := re.search(r"--python-version[=\s]+(\d+\.\d+(?:\.\d+)?)", text):
        options.append(f"--python-version={version[1]}")
    subprocess.run(
        [uv, "pip", "compile", "--quiet", *options, *more, f"{source(lock)}.in"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )
    written = (folder / f"{lock}.txt").read_text(encoding="utf-8")
    return split(text)[0] + split(written)[1]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_says_how_it_is_made(lock: str) -> None:
    header, _ = split((REQUIREMENTS / f"{lock}.txt").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (options,) = re.findall(r"^LOCKED = (.*)$", makefile, re.MULTILINE)
    assert header.splitlines()[1:] == [
        f"#    uv pip compile {options} --output-file {lock}.txt {source(lock)}.in"
    ]


def test_what_dependabot_cannot_make_it_leaves_alone() -> None:
    document = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))
    (entry,) = (item for item in document["updates"] if item["package-ecosystem"] == "uv")
    assert entry["directory"] == "/requirements"
    assert entry["exclude-paths"] == [f"{BY_HAND}.txt"]


@pytest.mark.full
@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != BY_HAND])
def test_dependabot_writes_the_same_lock(uv: Path, tmp_path: Path, lock: str) -> None:
    """Nothing is missing that an input asks for, and nothing is there that none does."""
    before = (REQUIREMENTS / f"{lock}.txt").read_text(encoding="utf-8")
    assert dependabot(uv, tmp_path, lock) == before


@pytest.mark.full
def test_an_update_changes_one_package_and_keeps_every_system(uv: Path, tmp_path: Path) -> None:
    before = packages((REQUIREMENTS / "base.txt").read_text(encoding="utf-8"))
    after = packages(dependabot(uv, tmp_path, "base", "-P", "idna==3.10"))
    changed = {line for line in {*before, *after} if before.get(line) != after.get(line)}
    assert {line.partition("==")[0] for line in changed} == {"idna"}
    assert any(line.startswith("idna==3.10 ") for line in after)
    assert any(" ; " in line for line in after)


@pytest.mark.full
def test_without_the_header_a_lock_would_be_for_this_machine_only(uv: Path, tmp_path: Path) -> None:
    """So that the test above compares something."""
    lock = tmp_path / "base.txt"
    shutil.copytree(REQUIREMENTS, tmp_path, dirs_exist_ok=True)
    lock.write_text(split(lock.read_text(encoding="utf-8"))[1], encoding="utf-8")
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate"]
    subprocess.run(
        [*command, "--output-file=base.txt", "base.in"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )
    assert not any(" ; " in line for line in packages(lock.read_text(encoding="utf-8")))
