"""Options of several commands: trust, output, times, numbers, the data set."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import FileError, UsageError
from model_signing.terminal import command_line
from slsa_for_models.cifar10 import archive

if TYPE_CHECKING:
    from model_signing.methods.sigstore_trust import SigstoreTrust
    from slsa_for_models.cifar10.plan import Files
    from slsa_for_models.evidence.training_plan import Base, Pin
    from slsa_for_models.training.run import Say

MOST_IMAGES = 1_000_000  # of each split of the synthetic set


def number(least: float, most: float, kind: type = int) -> Callable[[str], float]:
    """An argparse type: a number in a range."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            value: float = kind(text)
            if least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")

    return convert


TRUST: dict[str, command_line.Row] = {
    "--trust-config": ("FILE", "the client trust configuration of a private Sigstore"),
    "--offline": ("", "use the trust root on this machine as it is"),
}
"""Which Sigstore, for `trust`."""

PROGRESS: dict[str, command_line.Row] = {"--no-progress": ("", "no progress bar")}
"""Of what hashes a model."""

DATA: dict[str, command_line.Row] = {
    "--dataset": (
        "cifar10|synthetic",
        "photographs, or made-up images of shapes (default: cifar10)",
    ),
    "--data-dir": (
        "DIR",
        "CIFAR-10's binary archive or unpacked batches on disk, instead of a download",
    ),
    "--dataset-url": (
        "URL",
        "mirrors of CIFAR-10's binary archive, in the order in which they are tried, with "
        "spaces between them; its digest is checked all the same (default: the authors', copies)",
    ),
    "--train-images": (
        "N = 6000",
        "size of the synthetic set (default: 6000)",
        number(10, MOST_IMAGES),
    ),
    "--test-images": (
        "N = 1000",
        "size of the synthetic set (default: 1000)",
        number(10, MOST_IMAGES),
    ),
}
"""Which images, for `images`."""

UNCONFINED: command_line.Row = (
    "",
    "let the command write anywhere and use the network, where it cannot be kept from that; the "
    "record says so",
)


def trust(args: argparse.Namespace) -> SigstoreTrust:
    """The Sigstore instance that the options of `TRUST` name."""
    from model_signing.methods.sigstore_trust import SigstoreTrust

    return SigstoreTrust(trust_config=args.trust_config, offline=args.offline)


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is a page such as `verify --html` writes."""
    return beginning.startswith(b"<!DOCTYPE html")


def is_prose(beginning: bytes) -> bool:
    """Whether a file that begins so is text that may be appended to: no key, no JSON, no model."""
    try:
        text = beginning.decode()
    except UnicodeDecodeError as error:  # a character that is cut off at the end is no matter
        text = "" if error.start < len(beginning) - 3 else beginning[: error.start].decode()
    return "\0" not in text and bool(text) and not text.lstrip().startswith(("{", "-----BEGIN"))


def check_writable(path: Path, over: Callable[[bytes], bool] | None = None) -> None:
    """Before the work, not after it.

    Args:
        path: The output.
        over: Whether an older file may be replaced, by its first bytes; by default a Sigstore
            bundle may, and nothing else.

    Raises:
        FileError: The output cannot be written, or another file would be lost.
    """
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        found = "a directory" if path.is_dir() else "not writable, or no such directory"
        raise FileError("the output cannot be written", where=str(path), found=found)
    if over is None:
        from model_signing.safe_files import check_output

        check_output(path)
    elif path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            beginning = file.read(4096)
        if not over(beginning):
            raise FileError(
                "the output would destroy a file of another kind",
                where=str(path),
                expected="a new file, or an older one like it",
                fix="choose another name, or remove the file first",
            )


def check_apart(output: Path, read: Iterable[object]) -> None:
    """What is read is not written to, and nothing is added to a model.

    Raises:
        FileError: It would be.
    """
    place = output.resolve()
    for path in (one for one in read if isinstance(one, Path) and one.exists()):
        there = path.resolve()
        same = output.exists() and output.samefile(path)
        if same or (there.is_dir() and (place == there or there in place.parents)):
            raise FileError(
                "the output is a part of the model" if path.is_dir() else "the output is also read",
                where=str(output),
                fix="choose another place for it",
            )


def moment(text: str) -> datetime:
    """An argparse type: a time with a time zone (RFC 3339).

    Raises:
        UsageError: Another form.
    """
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise UsageError("not a time with a time zone (RFC 3339)", found=text)
    return found


def check_data_options(args: argparse.Namespace) -> None:
    """One source of images, and an address that is one; see `DATA`.

    Raises:
        UsageError: Several, of which all but one would be ignored; or no address.
    """
    sources = {
        "--dataset synthetic": args.dataset == "synthetic",
        "--data-dir": args.data_dir is not None,
        "--dataset-url": args.dataset_url is not None,
    }
    given = [name for name, is_given in sources.items() if is_given]
    if len(given) > 1:
        raise UsageError("more than one data set", expected="one of them", found=", ".join(given))
    archive.mirrors(args.dataset_url)


def images(args: argparse.Namespace, say: Say) -> tuple[tuple[Pin, ...], Files]:
    """The data set that the options of `DATA` ask for: its pins, and where its files are."""
    from slsa_for_models.cifar10 import plan

    default = Path.home() / ".cache" / "model-transparency"
    cache = Path(os.environ.get("MODEL_TRANSPARENCY_CACHE") or default) / "data"
    if args.dataset == "synthetic":
        from slsa_for_models.cifar10 import dataset

        sizes = (args.train_images, args.test_images)
        return plan.made_up(dataset.made_up(*sizes, 0, cache), *sizes)
    if args.data_dir:
        return plan.of_folder(args.data_dir)
    path, urls = cache / archive.NAME, archive.mirrors(args.dataset_url)
    if not path.exists():
        fetch_archive(path, urls, say)
    return plan.the_archive(urls), {archive.SHA256: path}


def fetch_archive(target: Path, urls: Sequence[str], say: Say) -> None:
    """Fetches CIFAR-10's archive to `target`, which appears only when whole and as pinned.

    Raises:
        DatasetError: No mirror has it, or it cannot be stored.
    """
    from slsa_for_models.training import download

    wanted = download.Wanted("CIFAR-10", archive.SHA256, archive.SIZE)
    download.fetch(wanted, urls, target, say, fix=archive.WAYS_OUT)


def verified(base: Base, args: argparse.Namespace, folder: Path) -> Path:
    """A copy of a base model whose every byte its own policy accepts.

    Raises:
        Error: It is refused, or cannot be had.
    """
    from slsa_for_models.evidence.training_plan import in_source
    from slsa_for_models.verdict.policy_file import load_policy
    from slsa_for_models.verdict.verification import verify

    source = args.source or Path()
    kind, _, rest = base.uri.partition(":")
    local = {"source": source, "artifact": args.artifacts or Path(), "file": Path("/")}
    model = in_source(local[kind], rest.lstrip("/")) if kind in local else base.uri
    copy = folder / f"model-{len(list(folder.iterdir()))}"
    verdict = verify(
        model,
        load_policy(in_source(source, base.policy)),
        signature=in_source(source, base.signature),
        trust=trust(args),
        copy_to=copy,
    )
    verdict.require()
    say(f"base model {base.path}: verified, {verdict.signer}")
    return copy / verdict.model.name if verdict.model.single else copy


def say(line: str) -> None:
    """Progress, a line at a time, beside what the command prints."""
    print(line, file=sys.stderr, flush=True)
