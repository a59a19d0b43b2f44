"""CIFAR-10's binary archive: which bytes, and where they can be had. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import UsageError

if TYPE_CHECKING:
    from slsa_for_models.cifar10.download import Say

NAME = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SIZE = 170_052_171

# The authors' own server, which is slow or redirects to nowhere since June 2026, and copies that
# other projects serve to their users. A weekly workflow says which of them are still there.
MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/"
    "cifar-10-binary.tar.gz",
)
URL = MIRRORS[0]

WAYS_OUT = (
    "name a mirror with --dataset-url URL, give a copy on disk with --data-dir DIR (the archive or "
    "its unpacked folder), or train on made-up data with --dataset synthetic"
)


def mirrors(text: str | None) -> tuple[str, ...]:
    """The addresses in an option's value, with white space between them; `MIRRORS` without one.

    Raises:
        UsageError: None, or one that is not of HTTP.
    """
    if text is None:
        return MIRRORS
    urls = tuple(text.split())
    for url in urls or ("",):
        if re.match(r"https?://[^/]", url) is None:
            raise UsageError(
                "not an address", where="--dataset-url", expected="https://...", found=url
            )
    return urls


def fetch(target: Path, say: Say, urls: Sequence[str]) -> None:
    """Fetches the archive to `target`, which appears only when whole and with the pinned digest.

    Args:
        target: Where the archive shall be; its folder is made.
        say: Takes progress, a line at a time.
        urls: Any mirrors, in the order in which they are tried: the digest decides, not the server.

    Raises:
        DatasetError: No mirror has it, or it cannot be stored.
    """
    from slsa_for_models.cifar10 import download

    wanted = download.Wanted("CIFAR-10", SHA256, SIZE)
    download.fetch(wanted, urls, target, say, fix=WAYS_OUT)
