"""`slsa_for_models subjects`: what provenance of a model is about."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slsa_for_models.commands.shared_options import Commands


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
    parser = commands.add_parser(
        "subjects",
        help="list what provenance of a model is about",
        description="Print the SHA-256 of every file of the models, as sha256sum lines in base64 "
        "on one line: the input `base64-subjects` of slsa-github-generator.",
        epilog="example:\n  slsa_for_models subjects out/pytorch_model.pth --format text",
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from slsa_for_models.evidence import subjects

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


# may-publish --------------------------------------------------------------------------------------
