"""`slsa_for_models reproduce`: train again from a record and compare the bytes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.commands.shared_options import (
    DATA,
    MOST_IMAGES,
    check_data_options,
    load_data,
    say,
)
from slsa_for_models.errors import RecordError

if TYPE_CHECKING:
    from slsa_for_models.cifar10.dataset import Data
    from slsa_for_models.evidence.training_record import TrainingRecord
    from slsa_for_models.training.run import Say


_OPTIONS: dict[str, command_line.Row] = {
    "model": ("FILE", "a file or a directory"),
    "--training-record": ("FILE!", "the training.json that `train` wrote"),
    "--data-dir": ("DIR", "CIFAR-10's binary batches or archive on disk"),
    "--dataset-url": DATA["--dataset-url"],
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
    sha256 = reproduce(args.model, said, lambda: _load_data(args, said, say), say)
    print(f"identical: {args.model}  sha256:{sha256}")
    return 0


def _load_data(args: argparse.Namespace, said: TrainingRecord, say: Say) -> Data:
    """The data set that the record names, made or found again."""
    sizes = {"train_images": said.dataset.train_images, "test_images": said.dataset.test_images}
    if said.dataset.name == "cifar10-directory" and not args.data_dir:
        raise UsageError("the model was trained on a folder's images", fix="give it by --data-dir")
    if said.dataset.name == "synthetic" and (args.data_dir or args.dataset_url):
        raise UsageError(
            "the model was trained on made-up images",
            fix="leave out --data-dir and --dataset-url",
        )
    if said.dataset.name == "synthetic" and not all(
        10 <= size <= MOST_IMAGES for size in sizes.values()
    ):
        raise RecordError("the training record asks for a set that cannot be", found=str(sizes))
    dataset = "synthetic" if said.dataset.name == "synthetic" else "cifar10"
    args = argparse.Namespace(**{**vars(args), **sizes, "dataset": dataset})
    check_data_options(args)
    return load_data(args, say)
