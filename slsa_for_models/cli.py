"""The command line `slsa_for_models`: the list of its commands; each is a module of `commands`."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module

from model_signing.terminal import command_line

PROG = "slsa_for_models"
DESCRIPTION = "Train models in CI, say verifiably how they were made, and verify what others say."
EPILOG = (
    "`slsa_for_models COMMAND --help` has examples.\n\n"
    "exit codes: 0 done or verified, 1 refused or failed, 2 usage"
)

# `may-publish` is commands/may_publish.py, with `configure(parser)`.
_COMMANDS = {
    "dataset": "fetch CIFAR-10 once, for several trainings",
    "train": "run a training command on checked data, and write the model with its record",
    "load": "verify a model and load it as safely as its format allows",
    "reproduce": "train again from a training record and compare the bytes",
    "subjects": "list what provenance of a model is about",
    "may-publish": "refuse to sign where that would publish a private repository's name",
    "provenance": "say verifiably how a model was trained",
    "verify": "verify a model, its signature and its provenance: one verdict",
    "exec": "start a program with a verified model, or not",
    "policy": "write down what to expect of a model",
    "gcp": "steps of the Tekton pipeline: clone, upload, download",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    if argv is None:
        command_line.own_process()
        # What a short run makes it keeps, mostly modules: looking through them for garbage whenever
        # there are some hundred more takes an eighth of a verification.
        gc.set_threshold(20_000)
    given = sys.argv[1:] if argv is None else argv
    if not given:
        build_parser(given).print_help(sys.stderr)
        return 2
    return command_line.run(lambda: build_parser(given), given, PROG)


def build_parser(given: Sequence[str] = tuple(_COMMANDS)) -> argparse.ArgumentParser:
    """All commands, with the options of those that are `given`: no other is imported."""
    parser = command_line.Parser(prog=PROG, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action=command_line.Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, purpose in _COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name in given:
            module = import_module(f"slsa_for_models.commands.{name.replace('-', '_')}")
            module.configure(command)
    return parser
