"""`slsa_for_models reproduce`: train again and compare the bytes."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.commands import expectation_options
from slsa_for_models.commands.shared_options import (
    DATA,
    MOST_IMAGES,
    TRUST,
    UNCONFINED,
    check_data_options,
    images,
    say,
    trust,
    verified,
)
from slsa_for_models.errors import RecordError, ReproductionError

if TYPE_CHECKING:
    from slsa_for_models.evidence.training_plan import Pin
    from slsa_for_models.evidence.training_record import TrainingRecord
    from slsa_for_models.verdict.expectations import Expectations


_OPTIONS: dict[str, command_line.Row] = {
    "model": ("FILE", "a file or a directory"),
    "--training-record": (
        "FILE",
        "the training.json that `train` wrote; enough for a recipe",
    ),
    "--provenance": (
        "FILE...",
        "provenance of the training, which is verified first; repeatable",
    ),
    "--source": ("DIR", "a clone of the repository that has the commit (default: it is fetched)"),
    "--data": ("DIR", "a folder with inputs, found by their digests"),
    "--python": ("PATH", "the interpreter that gets the locked packages (default: this one)"),
    "--data-dir": ("DIR", "of a recipe: CIFAR-10's binary batches or archive on disk"),
    "--dataset-url": DATA["--dataset-url"],
    "--unconfined": UNCONFINED,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Train again and compare the result with the model, byte for byte: a recipe by its "
        "record; any command by verified provenance, from its commit, with its lock and its data."
    )
    parser.epilog = (
        "examples:\n"
        "  slsa_for_models reproduce out/pytorch_model.pth --training-record out/training.json\n"
        "  slsa_for_models reproduce model.pkl --provenance model.pkl.provenance.sigstore.json \\\n"
        "    --source-uri github.com/ORG/REPO --identity WORKFLOW"
    )
    command_line.add_options(parser, _OPTIONS)
    command_line.add_options(parser.add_argument_group("Sigstore"), TRUST)
    expectation_options.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.safe_files import read_bounded
    from slsa_for_models.evidence import training_record
    from slsa_for_models.training.reproduce import reproduce

    expected = expectation_options.expectations(args)
    if args.provenance:
        sha256 = _by_provenance(args, expected)
    elif args.training_record:
        _check_nothing_expected(args)
        data = read_bounded(args.training_record, training_record.MAX_BYTES)
        said = training_record.parse(data)
        confined = not args.unconfined
        sha256 = reproduce(args.model, said, lambda: _images(args, said), say, confined=confined)
    else:
        raise UsageError("nothing to repeat", expected="--provenance or --training-record")
    print(f"identical: {args.model}  sha256:{sha256}")
    return 0


def _check_nothing_expected(args: argparse.Namespace) -> None:
    """A record alone is nobody's word: it is repeated, and compared with nothing else."""
    for option in expectation_options.OPTIONS:
        if getattr(args, command_line.attribute(option)):
            raise UsageError(
                f"{option} is of verified provenance",
                expected="--provenance",
                found="--training-record alone",
            )


def _by_provenance(args: argparse.Namespace, expected: Expectations) -> str:
    """What a verified provenance says, done again."""
    from slsa_for_models.evidence import training_plan
    from slsa_for_models.training import reproduce
    from slsa_for_models.training.inputs import AtHand
    from slsa_for_models.training.run import Machine
    from slsa_for_models.verdict.run_conclusion import GitHubApi
    from slsa_for_models.verdict.verification import verify

    verdict = verify(
        args.model,
        expected,
        provenance=args.provenance,
        training_record=args.training_record,
        trust=trust(args),
        run_conclusion=GitHubApi.from_environment(os.environ) if args.run_conclusion else None,
    ).require()
    said = verdict.record
    found = [one.provenance for one in verdict.accepted if one.provenance.kind.trains]
    if said is None or not found:
        raise ReproductionError("no accepted provenance says how the model was trained")
    inputs, commit = found[0].inputs, found[0].source_commit
    if not inputs.get("command"):
        confined = not args.unconfined
        find = partial(_images, args, said)
        return reproduce.reproduce(args.model, said, find, say, confined=confined)
    with tempfile.TemporaryDirectory(prefix="reproduction-") as folder:
        source = Path(folder, "source")
        source.mkdir()
        _check_out(args.source, found[0].source_uri.removeprefix("git+"), commit, source)
        plan = training_plan.read(inputs, source)
        at_hand = AtHand(by_digest=_by_digest(args.data) if args.data else {})
        reproduce.check_repeatable(plan, at_hand)
        args.source, args.artifacts = source, args.data
        bases = {base.path: verified(base, args, Path(folder)) for base in plan.base_models}
        machine = Machine(
            source=source,
            at_hand=at_hand,
            base_models=bases,
            python=args.python,
            confined=not args.unconfined,
        )
        return reproduce.repeat(args.model, said, plan, machine, say)


def _check_out(clone: Path | None, url: str, commit: str, folder: Path) -> None:
    """The files of a commit, of a clone on this machine or from its address."""
    from slsa_for_models.gcp import steps

    if clone is None:
        steps.clone(url, commit, folder)
        return
    git = ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null"]
    for command in (
        [*git, "clone", "--quiet", "--no-checkout", "--shared", str(clone), str(folder)],
        [*git, "-C", str(folder), "checkout", "--quiet", "--detach", commit],
    ):
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise ReproductionError(
                "the source does not have the commit",
                where=str(clone),
                expected=commit,
                found=(lines or ["no message"])[-1],
            )


def _by_digest(folder: Path) -> dict[str, Path]:
    """SHA-256 -> file, of all files in a folder."""
    from slsa_for_models.evidence.training_record import describe_file

    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {describe_file(path, path.name).sha256: path for path in files}


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
