"""The command line `slsa_for_models`; options only. What a command does is in its own module.

Modules that cost time to import (cryptography, sigstore, the frameworks) are imported by the
command that needs them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_signing import console

PROG = "slsa_for_models"
DESCRIPTION = "Train models in CI, say verifiably how they were made, and verify what others say."

_Subparsers = argparse._SubParsersAction  # argparse has no public name for it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return console.run(build_parser, argv, PROG)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    from slsa_for_models import train
    from slsa_for_models.gcp import steps

    parser = console.Parser(prog=PROG, description=DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train.configure(commands)
    _configure_subjects(commands)
    steps.configure(commands)
    return parser


# subjects -----------------------------------------------------------------------------------------


def _configure_subjects(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "subjects",
        help="list what provenance of a model is about",
        description="Print the SHA-256 of every file of the models, as sha256sum lines in base64 "
        "on one line: the input `base64-subjects` of slsa-github-generator.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file or a directory")
    parser.add_argument(
        "--format",
        choices=["base64", "text", "json"],
        default="base64",
        help="base64 (default), text as sha256sum prints it, or json",
    )
    parser.add_argument(
        "--expected", metavar="BASE64", help="refuse models with other subjects than these"
    )
    parser.set_defaults(run=_subjects)


def _subjects(args: argparse.Namespace) -> int:
    from slsa_for_models import subjects

    found = [
        subject for path in args.paths for subject in subjects.of_model(subjects.measure(path))
    ]
    if args.expected is not None:
        subjects.check_encoded(args.expected, found)
    if args.format == "json":
        import json

        print(json.dumps([{"name": item.name, "sha256": item.sha256} for item in found], indent=2))
    elif args.format == "text":
        sys.stdout.write(subjects.checksums(found))
    else:
        print(subjects.encode(found))
    return 0
