"""The command line `slsa_for_models`: the list of its commands; each is a module of `commands`.

Modules that cost time to import (cryptography, sigstore, the frameworks) are imported by the
command that needs them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from model_signing.terminal import command_line

PROG = "slsa_for_models"
DESCRIPTION = "Train models in CI, say verifiably how they were made, and verify what others say."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    if not (sys.argv[1:] if argv is None else argv):
        build_parser().print_help(sys.stderr)
        return 2
    return command_line.run(build_parser, argv, PROG)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    from slsa_for_models.commands import (
        dataset,
        distribute,
        gcp,
        load,
        may_publish,
        policy,
        provenance,
        reproduce,
        subjects,
        train,
        verify,
    )

    parser = command_line.Parser(prog=PROG, description=DESCRIPTION)
    parser.add_argument("--version", action=command_line.Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        *(dataset, train, distribute, load, reproduce),
        *(subjects, may_publish, provenance, verify, policy),
        gcp,
    ):
        command.configure(commands)
    return parser
