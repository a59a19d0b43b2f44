"""`slsa_for_models dataset`: CIFAR-10's archive on disk, for several trainings."""

from __future__ import annotations

import argparse

from model_signing.terminal import command_line
from slsa_for_models.cifar10 import archive
from slsa_for_models.commands.shared_options import DATA, fetch_archive, say

_OPTIONS: dict[str, command_line.Row] = {
    "--output-dir": ("DIR = data", "default: data"),
    "--dataset-url": DATA["--dataset-url"],
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Fetch CIFAR-10's binary archive from the first mirror that has it, and check "
        f"its pinned digest. Writes DIR/{archive.NAME}, for `train --data-dir DIR`."
    )
    parser.epilog = "example:\n  slsa_for_models dataset --output-dir data"
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    target = args.output_dir / archive.NAME
    fetch_archive(target, archive.mirrors(args.dataset_url), say)
    print(f"{target}  sha256:{archive.SHA256}")
    return 0
