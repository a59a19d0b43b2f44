"""Train again and compare the bytes: a recipe by its record, any command by its provenance.

Equality is proof enough; where it fails, the report says what could have caused it: other data,
versions, processor features or source, and how far the weights are apart.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from slsa_for_models.cifar10 import plan as recipes
from slsa_for_models.cifar10.training import MOST_EPOCHS, MOST_SEED, MOST_THREADS
from slsa_for_models.errors import RecordError, ReproductionError, UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.training.recipes import machine
from slsa_for_models.training.run import train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from slsa_for_models.cifar10.plan import Files
    from slsa_for_models.evidence.training_plan import Pin, Plan, Scalar
    from slsa_for_models.evidence.training_record import Environment, TrainingRecord
    from slsa_for_models.models.formats import Format
    from slsa_for_models.training.inputs import AtHand, Say
    from slsa_for_models.training.run import Machine


def reproduce(
    model: Path,
    said: TrainingRecord,
    find_images: Callable[[], tuple[tuple[Pin, ...], Files]],
    say: Say,
    *,
    confined: bool = True,
) -> str:
    """Run a recipe again and compare.

    Args:
        model: The model the record is about.
        said: The record of a recipe; not trusted.
        find_images: Called when the record has been found to be about the model; gives the images
            that it names, and where they are.
        say: Takes progress, a line at a time.
        confined: Whether the recipe is confined.

    Returns:
        The SHA-256 that both have.

    Raises:
        RecordError: The record is not of this model, or asks for what cannot be done.
        ReproductionError: The data or the result is another; the message says what differs.
    """
    _check_about(model, said)
    format, parameters = _recipe(said)
    pins, files = find_images()
    plan = recipes.of(format, {**parameters, "minimum-accuracy": 0}, pins)  # bytes are compared
    return repeat(model, said, plan, machine(files, confined=confined), say)


def check_repeatable(plan: Plan, at_hand: AtHand) -> None:
    """Says before the work that a training cannot be repeated, if that is known.

    Args:
        plan: By a verified provenance.
        at_hand: Inputs that need not be fetched.

    Raises:
        ReproductionError: It cannot.
    """
    problems = []
    if plan.network:
        problems.append("it had a network, and nobody knows what it read there")
    if not plan.requirements:
        problems.append("its packages were not locked")
    lost = [
        pin.path
        for pin in plan.data
        if pin.sha256 not in at_hand.by_digest
        and (not pin.uris or pin.uris[0].startswith(("artifact:", "file:")))
    ]
    if lost:
        problems.append(f"inputs are not to be had without --data: {', '.join(lost[:10])}")
    if problems:
        raise ReproductionError("this training cannot be repeated", found="; ".join(problems))


def repeat(model: Path, said: TrainingRecord, plan: Plan, where: Machine, say: Say) -> str:
    """Follow a plan again and compare.

    Args:
        model: The model.
        said: What training said then; not trusted.
        plan: What was asked for then.
        where: This machine.
        say: Takes progress, a line at a time.

    Returns:
        The SHA-256 that both have.

    Raises:
        RecordError: The record is not of this model.
        ReproductionError: The data or the result is another; the message says what differs.
    """
    _check_about(model, said)
    if plan.dataset_sha256 != said.dataset.sha256:
        raise ReproductionError(
            "the data set is another one",
            expected=f"SHA-256 {said.dataset.sha256}",
            found=str(plan.dataset_sha256),
        )
    with tempfile.TemporaryDirectory(prefix="reproduction-") as scratch:
        folder = Path(scratch, "out")
        again = train(plan, where, folder, say)
        if again.model.sha256 == said.model.sha256:
            return said.model.sha256
        format = formats.FORMATS.get(said.model.name)
        apart = f"; {_weights_apart(model, folder / format.name, format)}" if format else ""
    differences = _differences(said.environment, again.environment)
    raise ReproductionError(
        "the retrained model is not identical",
        where=str(model),
        expected=f"SHA-256 {said.model.sha256}",
        found=f"{again.model.sha256}{apart}{_figures(said, again)}",
        fix="; ".join(differences)
        or "versions, threads, source and processor features are those "
        "of the record: a difference in hardware remains, or the record is not true",
    )


def _check_about(model: Path, said: TrainingRecord) -> None:
    from slsa_for_models.evidence import training_record

    given = training_record.describe_model(model, said.model.name)
    if given.sha256 != said.model.sha256:
        raise RecordError(
            "the training record is of another model",
            where=str(model),
            expected=f"SHA-256 {said.model.sha256}",
            found=given.sha256,
        )


def _figures(said: TrainingRecord, again: TrainingRecord) -> str:
    """The figures of both, side by side, but those of single epochs."""
    names = [name for name in said.metrics if not name.startswith("epoch.")]
    pairs = [
        f"{name} {said.metrics[name]:.6g}, now {again.metrics[name]:.6g}"
        for name in names[:10]
        if name in again.metrics
    ]
    return f"; {'; '.join(pairs)}" if pairs else ""


def _recipe(said: TrainingRecord) -> tuple[Format, Mapping[str, Scalar]]:
    """The format and the parameters of a recipe, within what the command line accepts."""
    if said.command[:3] != recipes.COMMAND:
        raise RecordError(
            "the training record is of a command that is no recipe of ours",
            expected=" ".join(recipes.COMMAND),
            found=" ".join(said.command)[:200],
        )
    format, parameters = formats.find(said.model.name), dict(said.parameters)
    for name, least, most in (
        ("epochs", 1, MOST_EPOCHS),
        ("seed", 0, MOST_SEED),
        ("threads", 1, MOST_THREADS),
    ):
        value = parameters.get(name)
        if not isinstance(value, int) or not least <= value <= most:
            raise RecordError(
                "the training record asks for a run that cannot be",
                where=f"parameters.{name}",
                expected=f"a whole number from {least} to {most}",
                found=str(value),
            )
    plan = recipes.of(format, parameters, ())
    if plan.words != said.command:
        raise RecordError(
            "the training record has a command that this version does not train with",
            expected=" ".join(plan.words),
            found=" ".join(said.command)[:1000],
        )
    return format, parameters


def _differences(said: Environment, here: Environment) -> list[str]:
    """What can change the bytes and is not as the record says, in words."""
    then, now = dataclasses.asdict(said), dataclasses.asdict(here)
    found = []
    for name in sorted({*then["packages"], *now["packages"]}):
        versions = [where["packages"].get(name, "absent") for where in (then, now)]
        if versions[0] != versions[1]:
            found.append(f"{name} was {versions[0]}, is {versions[1]}")
    found += [
        f"{field} was {then[field]}, is {now[field]}"
        for field in (
            *("python", "platform", "cpus", "accelerators"),
            *("requirements_sha256", "source_sha256"),
        )
        if then[field] != now[field] and None not in (then[field], now[field])
    ]
    for words, features in (
        ("had", set(then["cpu_features"]) - set(now["cpu_features"])),
        ("did not have", set(now["cpu_features"]) - set(then["cpu_features"])),
    ):
        if features:
            found.append(f"the processor then {words} {', '.join(sorted(features))}")
    return found


def _weights_apart(model: Path, again: Path, format: Format) -> str:
    """How far the two models' weights are from each other, in words."""
    from slsa_for_models.cifar10.predictions import difference
    from slsa_for_models.models.load import load_unverified

    framework = formats.framework(format)
    try:
        given, made = (framework.weights(load_unverified(path, format)) for path in (model, again))
    except UnsafeModelError as error:
        return f"the weights were not compared: {error.message}"
    if not given:
        return "the format's loader does not show weights"
    if given.keys() != made.keys():
        return "the weights have other names"
    largest = max(difference(given[name], made[name]) for name in given)
    return f"weights differ by up to {largest:.2g} of the largest"
