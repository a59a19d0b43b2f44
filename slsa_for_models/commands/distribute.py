"""`slsa_for_models distribute`: several processes that train together on this machine."""

from __future__ import annotations

import argparse

from slsa_for_models.cifar10 import processes
from slsa_for_models.commands.shared_options import Commands


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
    parser = commands.add_parser(
        "distribute",
        help="train with several processes on this machine",
        description="Train with several processes on this machine, each with a part of every "
        "batch. What follows -- are options of `slsa_for_models train`.",
        epilog="example:\n  slsa_for_models distribute --processes 2 pytorch_model.pth -- "
        "--dataset synthetic --threads 1",
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("format", metavar="FORMAT", help="as of `train`")
    parser.add_argument("training", nargs="*", metavar="-- OPTIONS", help="of `train`")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    options = [word for word in args.training if word != "--"]
    processes.launch(args.format, options, args.processes)
    return 0
