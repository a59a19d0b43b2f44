"""`python -m slsa_for_models.cifar10 FORMAT`: the recipes' training command, without its frame.

It reads CIFAR-10's archive or batches in the folder that it starts in, and writes the model and
`metrics.json` there. Several processes that train together are started by `--processes`, or by
torchrun or a `TF_CONFIG` of one's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from model_signing.terminal import command_line
from slsa_for_models.cifar10 import dataset, processes, recipe, training
from slsa_for_models.models import formats

_OPTIONS: dict[str, command_line.Row] = {
    "format": ("FORMAT", "the model's file name"),
    "--epochs": ("N!", "passes over the training images"),
    "--seed": ("N = 0", "default: 0"),
    "--threads": ("N = 2", "default: 2"),
    "--minimum-accuracy": ("FRACTION", "fail below it", float),
    "--processes": ("N = 1", "that train together on this machine"),
}
PROG = "python -m slsa_for_models.cifar10"


def build_parser() -> command_line.Parser:
    """The command's options."""
    parser = command_line.Parser(prog=PROG, description=(__doc__ or "").split("\n\n")[0])
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)
    return parser


def run(args: object) -> int:
    """The command."""
    given = vars(args)
    format = formats.find(given["format"])
    if given["processes"] > 1:
        words = [f"--{name}={given[name]}" for name in ("epochs", "seed", "threads")]
        if given["minimum_accuracy"] is not None:
            words.append(f"--minimum-accuracy={given['minimum_accuracy']}")
        processes.launch(format.name, words, given["processes"])
        return 0
    choices = training.Choices(
        format.name, given["epochs"], given["seed"], given["threads"], given["minimum_accuracy"]
    )
    data = dataset.load_folder(Path())
    if processes.place(os.environ).rank:  # of processes that train together, the first writes
        recipe(format).fit(
            data.train, choices.epochs, choices.seed, choices.threads, lambda *_: None
        )
        return 0
    training.train(choices, data, Path(), _say)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    if argv is None:
        command_line.own_process()
    return command_line.run(build_parser, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
