"""`slsa_for_models distribute`: several processes that train together on this machine."""

from __future__ import annotations

import argparse

from model_signing.terminal import command_line
from slsa_for_models.cifar10 import processes

_OPTIONS: dict[str, command_line.Row] = {
    "--processes": ("N!", "how many", int),
    "format": ("FORMAT", "as of `train`"),
    "training": ("-- OPTIONS*", "of `train`"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Train with several processes on this machine, each with a part of every "
        "batch. What follows -- are options of `slsa_for_models train`."
    )
    parser.epilog = (
        "example:\n  slsa_for_models distribute --processes 2 pytorch_model.pth -- "
        "--dataset synthetic --threads 1"
    )
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    options = [word for word in args.training if word != "--"]
    processes.launch(args.format, options, args.processes)
    return 0
