"""CIFAR-10's binary archive: which bytes, and where they can be had. Imports nothing heavy."""

from __future__ import annotations

import re

from model_signing.errors import UsageError

NAME = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SIZE = 170_052_171
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
"""The files in it."""

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
