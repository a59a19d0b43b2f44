"""`slsa_for_models dataset`: CIFAR-10's archive on disk, for several trainings."""

from __future__ import annotations

import argparse
from pathlib import Path

from slsa_for_models.cifar10 import archive
from slsa_for_models.commands.shared_options import Commands, add_mirror_option, say


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
    parser = commands.add_parser(
        "dataset",
        help="fetch CIFAR-10 once, for several trainings",
        description="Fetch CIFAR-10's binary archive from the first mirror that has it, and check "
        f"its pinned digest. Writes DIR/{archive.NAME}, for `train --data-dir DIR`.",
        epilog="example:\n  slsa_for_models dataset --output-dir data",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data"
    )
    add_mirror_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    target = args.output_dir / archive.NAME
    archive.fetch(target, say, archive.mirrors(args.dataset_url))
    print(f"{target}  sha256:{archive.SHA256}")
    return 0
