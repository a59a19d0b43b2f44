"""`slsa_for_models subjects`: what provenance of a model is about."""

from __future__ import annotations

import argparse
import sys

from model_signing.terminal import command_line

_OPTIONS: dict[str, command_line.Row] = {
    "path": ("PATH+", "a file or a directory, or its address", command_line.place),
    "--format": ("base64|text|json", "base64 (default), text as sha256sum prints it, or json"),
    "--expected": ("BASE64", "refuse models with other subjects than these"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Print the SHA-256 of every file of the models, as sha256sum lines in base64 "
        "on one line: the input `base64-subjects` of slsa-github-generator."
    )
    parser.epilog = "example:\n  slsa_for_models subjects out/pytorch_model.pth --format text"
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from slsa_for_models.evidence import subjects

    found = [subject for path in args.path for subject in subjects.of_model(subjects.measure(path))]
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
