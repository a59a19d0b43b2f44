"""`slsa_for_models reproduce`: train again from a record and compare the bytes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.commands.shared_options import (
    DATA,
    MOST_IMAGES,
    UNCONFINED,
    check_data_options,
    images,
    say,
)
from slsa_for_models.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path

    from slsa_for_models.evidence.training_plan import Pin
    from slsa_for_models.evidence.training_record import TrainingRecord


_OPTIONS: dict[str, command_line.Row] = {
    "model": ("FILE", "a file or a directory"),
    "--training-record": ("FILE!", "the training.json that `train` wrote"),
    "--data-dir": ("DIR", "CIFAR-10's binary batches or archive on disk"),
    "--dataset-url": DATA["--dataset-url"],
    "--unconfined": UNCONFINED,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Train again with the data, seed, threads and parameters that the record "
        "names, and compare the result with the model, byte for byte."
    )
    parser.epilog = (
        "example:\n"
        "  slsa_for_models reproduce out/pytorch_model.pth --training-record out/training.json"
    )
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.safe_files import read_bounded
    from slsa_for_models.evidence import training_record
    from slsa_for_models.training.reproduce import reproduce

    said = training_record.parse(read_bounded(args.training_record, training_record.MAX_BYTES))
    confined = not args.unconfined
    sha256 = reproduce(args.model, said, lambda: _images(args, said), say, confined=confined)
    print(f"identical: {args.model}  sha256:{sha256}")
    return 0


def _images(
    args: argparse.Namespace, said: TrainingRecord
) -> tuple[tuple[Pin, ...], dict[str, Path]]:
    """The data set that the record names, made or found again."""
    from slsa_for_models.cifar10.archive import NAME
    from slsa_for_models.cifar10.plan import sizes_made_up

    files = said.dataset.files
    sizes = sizes_made_up(files[0].uri) if files else None
    if sizes is None and [file.name for file in files] != [NAME] and not args.data_dir:
        raise UsageError("the model was trained on a folder's images", fix="give it by --data-dir")
    if sizes is not None and (args.data_dir or args.dataset_url):
        raise UsageError(
            "the model was trained on made-up images",
            fix="leave out --data-dir and --dataset-url",
        )
    if sizes is not None and not all(10 <= size <= MOST_IMAGES for size in sizes):
        raise RecordError("the training record asks for a set that cannot be", found=str(sizes))
    train_images, test_images = sizes or (0, 0)
    dataset = "cifar10" if sizes is None else "synthetic"
    choices = {"train_images": train_images, "test_images": test_images, "dataset": dataset}
    args = argparse.Namespace(**{**vars(args), **choices})
    check_data_options(args)
    pins, at_hand = images(args, say)
    return pins, dict(at_hand)
