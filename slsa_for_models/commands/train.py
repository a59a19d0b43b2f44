"""`slsa_for_models train`: one model and its training record, or one message why not."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.cifar10.processes import MOST_PROCESSES
from slsa_for_models.cifar10.training import MOST_EPOCHS, MOST_SEED, MOST_THREADS
from slsa_for_models.commands.shared_options import (
    DATA,
    TRUST,
    UNCONFINED,
    check_data_options,
    images,
    number,
    say,
    verified,
)
from slsa_for_models.evidence.training_plan import INPUTS
from slsa_for_models.models import formats

if TYPE_CHECKING:
    from slsa_for_models.evidence.training_plan import Plan
    from slsa_for_models.training.run import Machine

_COMMON: dict[str, command_line.Row] = {
    "words": ("-- COMMAND*", "a training command, after --; or the FORMAT of a recipe"),
    "--output-dir": ("DIR = out", "default: out"),
    "--unconfined": UNCONFINED,
}
_OWN: dict[str, command_line.Row] = {
    "--model": ("NAME", "the file or folder that the command writes"),
    "--source": ("DIR", "the folder that it runs in a copy of (default: the current one)"),
    "--directory": ("NAME", "the folder in it where the command starts"),
    "--data": ("FILE", "what it reads besides, a line each: SHA256  PATH  URI"),
    "--base-model": (
        "LINE...",
        "a model that it starts from, verified before: PATH URI SIGNATURE POLICY, the last two "
        "files of the source; repeatable",
    ),
    "--artifacts": ("DIR", "where artifact:NAME/FILE is to be found"),
    "--parameters": (
        "JSON",
        "a flat object, in the file named by TRAINING_PARAMETERS and as --NAME=VALUE in place of "
        "the word {parameters}",
    ),
    "--metrics": ("NAME", "the JSON file of numbers that it writes"),
    "--network": ("none|allowed", "while it runs (default: none)"),
    "--python": ("PATH", "the interpreter that gets the locked packages (default: this one)"),
}
_INPUTS: dict[str, command_line.Row] = {
    "--workflow-inputs": (
        "JSON",
        "all of this, or of a recipe, as toJSON(inputs) of a workflow gives it",
    ),
}
# Options that would be ignored beside it; inputs of `actions/train` that say where, not what; and
# those of a workflow's that are about other jobs, or about this one before it starts.
_STATED = (
    *("words", "--directory", "--data", "--base-model", "--parameters", "--metrics", "--network"),
    "--requirements",
)
_OF_THE_ACTION = ("source", "output-dir", "data-artifact")
_OF_THE_WORKFLOW = ("runner", "provenance", "private-repository")
_LOCK: dict[str, command_line.Row] = {
    "--requirements": (
        "FILE",
        "hash-locked packages: of a command, installed for it from the source; of a recipe, those "
        "that this was installed from (default: those of our own set-up)",
    ),
}
_RECIPE: dict[str, command_line.Row] = {
    **DATA,
    "--epochs": (
        "N",
        "passes over the training images (default: 6 on photographs, 3 on synthetic ones)",
        number(1, MOST_EPOCHS),
    ),
    "--seed": ("N", "default: 0", number(0, MOST_SEED)),
    "--threads": (
        "N",
        "default: 2, on any machine: another number gives other bytes",
        number(1, MOST_THREADS),
    ),
    "--processes": ("N", "that train together on this machine", number(2, MOST_PROCESSES)),
    "--minimum-accuracy": (
        "FRACTION",
        "fail below this accuracy on the test images (default: what guessing will not reach)",
        number(0, 1, float),
    ),
}
# Inputs of a recipe, and what a workflow has for those that nobody chose.
_OF_A_RECIPE = {name[2:]: "" for name in _RECIPE} | {
    "dataset": "cifar10",
    "epochs": "6",
    "seed": "0",
}
KNOWN = {*INPUTS, *_OF_THE_ACTION, *_OF_A_RECIPE} - {"runner"}
"""Inputs that decide a training here."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Run any training command on data that were checked, without a network, in a folder that "
        "is all it can write; or a recipe, which trains a CIFAR-10 classifier. Writes the model "
        "and training.json, the record of the run."
    )
    rows = "\n".join(f"  {row.name:<28}{row.holds}" for row in formats.FORMATS.values())
    parser.epilog = (
        f"formats of the recipes:\n{rows}\n\nexamples:\n"
        "  slsa_for_models train --model model.pkl --data data.sha256 --metrics metrics.json \\\n"
        "    --requirements requirements.lock --output-dir out -- python train.py data model.pkl\n"
        "  slsa_for_models train pytorch_model.pth --dataset synthetic --output-dir out"
    )
    command_line.add_options(parser, {**_COMMON, **_INPUTS, **_LOCK})
    command_line.add_options(parser.add_argument_group("of a command"), _OWN)
    command_line.add_options(parser.add_argument_group("Sigstore, for base models"), TRUST)
    command_line.add_options(parser.add_argument_group("of a recipe"), _RECIPE)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from slsa_for_models.training import run as training

    inputs = _inputs(args)
    is_recipe = inputs is not None and not inputs.get("command")
    if inputs is not None and is_recipe:
        args = _as_options(args, inputs)
    elif args.model and inputs is None:
        inputs = _own_inputs(args)
    plan, machine = _recipe(args) if inputs is None or is_recipe else _own(args, inputs)
    with tempfile.TemporaryDirectory(prefix="base-models-") as folder:
        bases = {base.path: verified(base, args, Path(folder)) for base in plan.base_models}
        machine = replace(machine, base_models=bases)
        record = training.train(plan, machine, args.output_dir, say)
    print(f"{args.output_dir / record.model.name}  sha256:{record.model.sha256}")
    return 0


def _inputs(args: argparse.Namespace) -> dict[str, object] | None:
    """What `--workflow-inputs` has, each of them something that decides a training here."""
    from slsa_for_models.attesting.build_context import MAX_INPUTS_BYTES, parse_inputs

    if not args.workflow_inputs:
        return None
    _refuse(args, (*_STATED, *_RECIPE), "an input already")
    given: dict[str, object] = dict(parse_inputs(args.workflow_inputs, 2 * MAX_INPUTS_BYTES))
    plan = parse_inputs(str(given.pop("plan", "{}")))  # as `actions/train` has it
    given |= {name: value for name, value in plan.items() if name not in _OF_THE_WORKFLOW}
    inputs = {name: value for name, value in given.items() if value != ""}
    if odd := sorted({*inputs} - KNOWN):
        raise UsageError(
            "the inputs have one that is not known",
            where="--workflow-inputs",
            found=odd[0],
            fix=command_line.suggestion(odd[0], KNOWN),
        )
    ignored = {*_OF_A_RECIPE, "data-artifact"} & {*inputs} if inputs.get("command") else set()
    if odd := sorted(one for one in ignored if str(inputs[one]) != _OF_A_RECIPE.get(one)):
        raise UsageError(
            "with a command no recipe is trained, and these inputs are a recipe's",
            where="--workflow-inputs",
            found=", ".join(odd),
            fix="leave them out; a command has its own in the input parameters",
        )
    if args.model and PurePosixPath(str(inputs.setdefault("model", args.model))).name != args.model:
        raise UsageError(
            "the inputs name another model",
            where="--workflow-inputs",
            expected=args.model,
            found=str(inputs["model"]),
        )
    _check_said_twice(args, inputs)
    return inputs


def _check_said_twice(args: argparse.Namespace, inputs: Mapping[str, object]) -> None:
    """Inputs that say where, as options do: a workflow's action has both, from one place."""
    for name, option in (("source", args.source or Path()), ("output-dir", args.output_dir)):
        if name in inputs and Path(str(inputs[name])) != option:
            raise UsageError(
                "an option says otherwise than the input",
                where=f"input {name}",
                expected=str(option),
                found=str(inputs[name]),
                fix="leave the input out",
            )
    if inputs.get("command") and "python-version" in inputs and args.python is None:
        raise UsageError(
            "nothing here chooses a Python by its version",
            where="input python-version",
            found=str(inputs["python-version"]),
            fix="leave the input out, or give --python PATH",
        )


def _as_options(args: argparse.Namespace, inputs: Mapping[str, object]) -> argparse.Namespace:
    """The inputs of a recipe as the options that they stand for, read as those are."""
    from slsa_for_models.evidence import training_plan

    given = {name: str(value) for name, value in inputs.items()}
    for name, value in given.items():
        training_plan.check_no_secret(value, f"input {name}")
    of_commands = training_plan.INPUTS - {"model", "runner", "python-version"}
    usual = {"directory": ".", "network": "none"}
    if odd := sorted(name for name in of_commands & {*given} if given[name] != usual.get(name)):
        raise UsageError(
            "without a command a recipe is trained, and these inputs are a command's",
            where="--workflow-inputs",
            found=", ".join(odd),
            fix="leave them out, or give the input command",
        )
    words = [f"--{name}={value}" for name, value in given.items() if f"--{name}" in _RECIPE]
    if "data-artifact" in given:
        if args.artifacts is None:
            where = "input data-artifact"
            raise UsageError("there are no artifacts here", where=where, fix="give --artifacts DIR")
        words.append(f"--data-dir={args.artifacts}")
        if found := sorted({"data-dir", "dataset-url"} & {*given}):
            expected = "one of data-artifact, data-dir and dataset-url"
            raise UsageError("more than one data set", expected=expected, found=", ".join(found))
    words += [f"--output-dir={args.output_dir}", *(["--unconfined"] if args.unconfined else [])]
    parser = command_line.Parser(prog="slsa_for_models train")
    configure(parser)
    return parser.parse_args([*words, "--", *([given["model"]] if "model" in given else [])])


def _own_inputs(args: argparse.Namespace) -> dict[str, object]:
    """The options of a command, as the inputs of a workflow that they stand for."""
    return {
        "command": shlex.join(args.words),
        "model": args.model,
        "directory": args.directory,
        "data": _text(args.data) if args.data else "",
        "base-model": "\n".join(args.base_model),
        "parameters": args.parameters,
        "requirements": args.requirements and str(args.requirements),
        "metrics": args.metrics,
        "network": args.network,
    }


def _own(args: argparse.Namespace, inputs: Mapping[str, object]) -> tuple[Plan, Machine]:
    """A command of the caller's own."""
    from slsa_for_models.evidence import training_plan
    from slsa_for_models.training.inputs import AtHand
    from slsa_for_models.training.run import Machine

    _refuse(args, _RECIPE, "a recipe's, and a command is given")
    source = args.source or Path()
    plan = training_plan.read(inputs, source)
    machine = Machine(
        source=source,
        at_hand=AtHand(artifacts=args.artifacts),
        python=args.python,
        confined=not args.unconfined,
    )
    return plan, machine


def _text(path: Path) -> str:
    from model_signing.safe_files import read_bounded

    try:
        return read_bounded(path, 1 << 20).decode()
    except UnicodeDecodeError:
        raise UsageError("not text in UTF-8", where=str(path)) from None


def _recipe(args: argparse.Namespace) -> tuple[Plan, Machine]:
    """A plan of ours, by the name of its format."""
    from slsa_for_models.cifar10 import plan as recipes
    from slsa_for_models.training import run as training
    from slsa_for_models.training.recipes import machine

    if len(args.words) != 1:
        raise UsageError(
            "neither a command nor a format",
            expected="--model NAME and, after --, a command; or one FORMAT",
            found=shlex.join(args.words) or "nothing",
        )
    _refuse(args, _OWN, "a command's, and a recipe is given")
    # Before anything slow.
    row = formats.find(args.words[0])
    check_data_options(args)
    training.check_output(args.output_dir, row.name)
    formats.check_installed(row)
    pins, at_hand = images(args, say)
    is_synthetic = args.dataset == "synthetic"
    parameters = {
        "epochs": args.epochs or (3 if is_synthetic else 6),
        "seed": args.seed or 0,
        "threads": args.threads or 2,
        "processes": args.processes,
        "minimum-accuracy": args.minimum_accuracy,
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    plan = recipes.of(row, given, pins)
    return plan, machine(at_hand, args.requirements, confined=not args.unconfined)


def _refuse(args: argparse.Namespace, table: Iterable[str], why: str) -> None:
    """Options that would be ignored."""
    defaults = {"--dataset": "cifar10", "--train-images": 6000, "--test-images": 1000}
    defaults["--network"] = "none"
    given = [
        name
        for name in table
        if getattr(args, command_line.attribute(name)) not in (None, False, [], defaults.get(name))
    ]
    if given:
        raise UsageError(f"an option is {why}", found=", ".join(given))
