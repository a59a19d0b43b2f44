"""Start-up: a command imports what it uses and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from slsa_for_models import cli
from tests.support.material import ROOT

SCRIPT = """
import sys
from slsa_for_models.cli import main
code = main(sys.argv[1:])
print(code, *sys.modules, file=sys.stderr)
"""
HEAVY = {"cryptography", "sigstore", "pydantic", "requests", "http", "ssl", "asyncio"}
FRAMEWORKS = {"numpy", "torch", "tensorflow", "keras", "onnx", "safetensors", "google"}
COMMANDS = tuple(cli._COMMANDS)
# A command that takes the options of another, and the other.
WITH = {"policy": {"verify"}, "exec": {"verify"}}


def loaded(*arguments: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    code, *modules = run.stderr.splitlines()[-1].split()
    assert code == "0"
    return set(modules)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy_and_no_other_command(command: str) -> None:
    modules = loaded(*filter(None, [command, "--help"]))
    assert {name.partition(".")[0] for name in modules} & (HEAVY | FRAMEWORKS) == set()
    files = {name.replace("-", "_") for name in COMMANDS}
    folder = "slsa_for_models.commands."
    found = {name.removeprefix(folder) for name in modules if name.startswith(folder)}
    assert found & files == {command.replace("-", "_")} - {""} | WITH.get(command, set())


def test_listing_subjects_needs_no_cryptography() -> None:
    modules = loaded("subjects", __file__)
    assert {name.partition(".")[0] for name in modules} & (HEAVY | FRAMEWORKS) == set()
