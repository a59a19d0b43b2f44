"""Train again from a record and compare the bytes.

Equality is proof enough; where it fails, the report says what could have caused it: other data,
versions, processor features or source, and how far the weights are apart.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from slsa_for_models.cifar10 import recipe
from slsa_for_models.errors import RecordError, ReproductionError, UnsafeModelError
from slsa_for_models.models import formats

if TYPE_CHECKING:
    from collections.abc import Callable

    from slsa_for_models.cifar10.dataset import Data
    from slsa_for_models.evidence.training_record import Environment, TrainingRecord
    from slsa_for_models.models.formats import Format
    from slsa_for_models.training.run import Choices, Say


def reproduce(model: Path, said: TrainingRecord, load_data: Callable[[], Data], say: Say) -> str:
    """Train again and compare.

    Args:
        model: The model the record is about.
        said: The record; not trusted.
        load_data: Called when the record has been found to be about the model.
        say: Takes progress, a line at a time.

    Returns:
        The SHA-256 that both have.

    Raises:
        RecordError: The record is not of this model, or asks for what cannot be done.
        ReproductionError: The data or the result is another; the message says what differs.
    """
    from slsa_for_models.evidence import training_record
    from slsa_for_models.training.environment import describe
    from slsa_for_models.training.run import train

    # 1. The record is about these bytes.
    format = formats.find(said.model.format)
    given = training_record.describe_model(model, format.name, format.framework)
    if given.sha256 != said.model.sha256:
        raise RecordError(
            "the training record is of another model",
            where=str(model),
            expected=f"SHA-256 {said.model.sha256}",
            found=given.sha256,
        )
    choices = _choices(said)
    ours = {**choices.numbers(), **recipe(format).PARAMETERS}
    if said.parameters != ours:
        raise RecordError(
            "the training record has parameters that this version does not train with",
            expected=str(ours),
            found=str(dict(said.parameters))[:1000],
        )
    # 2. The data are those it names.
    data = load_data()
    if data.description.sha256 != said.dataset.sha256:
        raise ReproductionError(
            "the data set is another one",
            where=data.description.name,
            expected=f"SHA-256 {said.dataset.sha256}",
            found=data.description.sha256,
        )
    # 3. What is known to matter and differs here: said before the work, and again if it fails.
    differences = _differences(said, describe(format.framework))
    for difference in differences:
        say(f"differs from the record: {difference}")
    # 4. The same run again.
    with tempfile.TemporaryDirectory(prefix="reproduction-") as folder:
        again = train(choices, data, Path(folder), say)
        if again.model.sha256 == given.sha256:
            return given.sha256
        apart = _weights_apart(model, Path(folder, format.name), format)
    raise ReproductionError(
        "the retrained model is not identical",
        where=str(model),
        expected=f"SHA-256 {given.sha256}",
        found=f"{again.model.sha256}; {apart}",
        fix="; ".join(differences)
        or "versions, threads, source and processor features are those "
        "of the record: a difference in hardware remains, or the record is not true",
    )


def _choices(said: TrainingRecord) -> Choices:
    """The record's parameters as those of a run, within what the command line accepts."""
    from slsa_for_models.training.run import MOST_EPOCHS, MOST_SEED, MOST_THREADS, Choices

    numbers: dict[str, int] = {}
    for name, least, most in (
        ("epochs", 1, MOST_EPOCHS),
        ("seed", 0, MOST_SEED),
        ("threads", 1, MOST_THREADS),
    ):
        value = said.parameters.get(name)
        if not isinstance(value, int) or not least <= value <= most:
            raise RecordError(
                "the training record asks for a run that cannot be",
                where=f"parameters.{name}",
                expected=f"a whole number from {least} to {most}",
                found=str(value),
            )
        numbers[name] = value
    return Choices(
        format=said.model.format,
        epochs=numbers["epochs"],
        seed=numbers["seed"],
        threads=numbers["threads"],
        minimum_accuracy=0,
    )


def _differences(said: TrainingRecord, here: Environment) -> list[str]:
    """What can change the bytes and is not as the record says, in words."""
    then = dataclasses.asdict(said.environment)
    now = dataclasses.asdict(here)
    found = []
    for name in sorted({*then["packages"], *now["packages"]}):
        versions = [where["packages"].get(name, "absent") for where in (then, now)]
        if versions[0] != versions[1]:
            found.append(f"{name} was {versions[0]}, is {versions[1]}")
    found += [
        f"{field} was {then[field]}, is {now[field]}"
        for field in ("python", "platform", "requirements_sha256", "source_sha256")
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
