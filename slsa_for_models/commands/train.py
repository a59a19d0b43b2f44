"""`slsa_for_models train`: one model file and its training record, or one message why not."""

from __future__ import annotations

import argparse
import os

from model_signing.terminal import command_line
from slsa_for_models.cifar10 import processes, recipe
from slsa_for_models.commands.shared_options import (
    DATA,
    check_data_options,
    load_data,
    number,
    say,
)
from slsa_for_models.models import formats
from slsa_for_models.training import run as training

_OPTIONS: dict[str, command_line.Row] = {
    "format": ("FORMAT", "a format below: the model's file name"),
    "--output-dir": ("DIR = out", "default: out"),
    **DATA,
    "--epochs": (
        "N",
        "passes over the training images (default: 6 on photographs, 3 on synthetic ones)",
        number(1, training.MOST_EPOCHS),
    ),
    "--seed": ("N = 0", "default: 0", number(0, training.MOST_SEED)),
    "--threads": (
        "N = 2",
        "default: 2, on any machine: another number gives other bytes",
        number(1, training.MOST_THREADS),
    ),
    "--minimum-accuracy": (
        "FRACTION",
        "fail below this accuracy on the test images (default: what guessing will not reach)",
        number(0, 1, float),
    ),
    "--requirements": (
        "FILE",
        "the hash-locked requirements this was installed from; its digest is recorded "
        "(default: those of our own set-up)",
    ),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = "Train a CIFAR-10 classifier. Writes DIR/FORMAT and DIR/training.json."
    rows = "\n".join(f"  {row.name:<28}{row.holds}" for row in formats.FORMATS.values())
    parser.epilog = (
        f"formats:\n{rows}\n\nexample:\n"
        "  slsa_for_models train pytorch_model.pth --dataset synthetic --output-dir out"
    )
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    # Before anything slow.
    row = formats.find(args.format)
    check_data_options(args)
    training.check_output(args.output_dir, row)
    framework = recipe(row)
    data = load_data(args, say)
    photographs = data.description.name != "synthetic"
    images = data.description.test_images
    minimum = args.minimum_accuracy
    choices = training.Choices(
        format=args.format,
        epochs=args.epochs or (6 if photographs else 3),
        seed=args.seed,
        threads=args.threads,
        minimum_accuracy=training.above_chance(images) if minimum is None else minimum,
        requirements=args.requirements,
    )
    if processes.place(os.environ).rank:  # of processes that train together, the first writes
        framework.fit(data.train, choices.epochs, choices.seed, choices.threads, lambda *_: None)
        return 0
    record = training.train(choices, data, args.output_dir, say)
    print(f"{args.output_dir / record.model.name}  sha256:{record.model.sha256}")
    return 0
