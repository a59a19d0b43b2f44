"""A training run: one model file and its training record, or one message why not.

The steps of a run stand in `train`. Nothing appears under its final name before the saved model
was loaded in a new process and gave the predictions of the model in memory.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from model_signing.errors import FileError
from slsa_for_models.cifar10 import processes as distribute
from slsa_for_models.cifar10 import recipe
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import formats
from slsa_for_models.training.publishing import check_place
from slsa_for_models.training.publishing import publish as _publish
from slsa_for_models.training.publishing import staging as _staging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from slsa_for_models.cifar10.dataset import Data
    from slsa_for_models.evidence.training_record import Epoch, TrainingRecord
    from slsa_for_models.models.formats import Format

RECORD = "training.json"

MOST_EPOCHS = 1000
MOST_THREADS = 1024
MOST_SEED = 2**32 - 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choices:
    """What the caller of a run chooses.

    Attributes:
        format: A key of `formats.FORMATS`.
        epochs: Passes over the training images.
        seed: Of weights, order and augmentation.
        threads: Of the framework; part of what decides the model's bytes.
        minimum_accuracy: On the test images, in 0..1; the run fails below it.
        requirements: The hash-locked requirements the framework was installed from, if known.
    """

    format: str
    epochs: int
    seed: int
    threads: int
    minimum_accuracy: float
    requirements: Path | None = None

    def numbers(self) -> dict[str, int | float]:
        """Those that decide the model's bytes."""
        return {"epochs": self.epochs, "seed": self.seed, "threads": self.threads}


def check_output(output: Path, format: Format) -> None:
    """What is no earlier result is not replaced; nor is what others have signed.

    Raises:
        FileError: Something else has the model's or the record's name, or a signature or
            provenance of a model of that name lies beside it.
    """
    model = output / format.name
    check_place(model, "saved_model.pb" if format.directory else "")
    check_place(output / RECORD)
    kinds = ("sig", "provenance*", "intoto.jsonl", "attestation.sigstore.json")
    found = [path.name for kind in kinds for path in model.parent.glob(f"{model.name}.{kind}")]
    if found:
        raise FileError(
            f"{model} is signed already",
            found=", ".join(found),
            fix="choose another --output-dir, or remove what is found there",
        )


def above_chance(images: int) -> float:
    """The accuracy that guessing among ten classes reaches once in a thousand times (3.1 sigma)."""
    return round(0.1 + 3.1 * math.sqrt(0.1 * 0.9 / images), 4)


def train(choices: Choices, data: Data, output: Path, say: Say) -> TrainingRecord:
    """Train, save, reload, evaluate, record.

    Args:
        choices: Format and parameters.
        data: From `cifar10`.
        output: Folder for the model and `training.json`; made if it does not exist.
        say: Takes progress, a line at a time.

    Raises:
        TrainingError: The loss is not finite, the accuracy is below the minimum, or the saved
            model is not the trained one.
        DependencyError: The framework is not installed.
        FileError: The output cannot be written.
    """
    from slsa_for_models.cifar10 import predictions
    from slsa_for_models.evidence import training_record as record
    from slsa_for_models.training.environment import describe

    # 1. Everything that can be refused is refused before the work.
    format = formats.find(choices.format)
    environment = describe(format.framework, choices.requirements)
    check_output(output, format)
    with _staging(output) as staging:
        framework = recipe(format)

        # 2. Train.
        started = _now()
        watch = Watch(choices.epochs, data.description.train_images, say)
        model = framework.fit(data.train, choices.epochs, choices.seed, choices.threads, watch)

        # 3. Save under the final name in a private folder: some formats contain their name.
        saved = staging / format.name
        try:
            framework.SAVE[format.name](model, saved)
        except Exception as error:  # each framework reports a full disk by a class of its own
            raise FileError(
                "the model cannot be saved", where=str(output), found=str(error).split("\n")[0]
            ) from error

        # 4. What counts is what a stranger would load: a new process, the safe loader.
        predicted = framework.predict(model, data.test.images)
        logits = predictions.predict_in_new_process(format, saved, data.test.images, staging)
        accuracy, loss = predictions.score(logits, data.test.labels)
        _check_result(choices, predictions.difference(predicted, logits), accuracy)
        say(f"test accuracy {accuracy:.4f}, loss {loss:.4f} (saved, loaded again in a new process)")

        # 5. Record, and only now give both their names.
        size = distribute.place(os.environ).size
        processes = {"processes": size} if size > 1 else {}
        result = record.TrainingRecord(
            model=record.describe_model(saved, format.name, format.framework),
            dataset=data.description,
            parameters={**choices.numbers(), **processes, **framework.PARAMETERS},
            metrics=record.Metrics(accuracy, loss, choices.minimum_accuracy, tuple(watch.epochs)),
            environment=environment,
            started=started,
            finished=_now(),
        )
        (staging / RECORD).write_bytes(record.encode(result))
        _publish(staging, output, [format.name, RECORD])
    return result


def _check_result(choices: Choices, apart: float, accuracy: float) -> None:
    """Refuses a model that is not the trained one, or not good enough."""
    from slsa_for_models.cifar10.predictions import TOLERANCE

    if apart > TOLERANCE:
        raise TrainingError(
            "the saved model does not predict what the trained one does",
            where=choices.format,
            expected=f"logits that differ by at most {TOLERANCE} of the largest",
            found=f"{apart:.3g}",
        )
    if accuracy < choices.minimum_accuracy:
        raise TrainingError(
            "the model is not good enough",
            expected=f"test accuracy of at least {choices.minimum_accuracy}",
            found=f"{accuracy:.4f}",
            fix="train for more --epochs, or ask for less with --minimum-accuracy",
        )


class Watch:
    """Called by the framework after each epoch: progress, metrics, and the check for NaN."""

    def __init__(self, epochs: int, images: int, say: Say) -> None:
        self.epochs: list[Epoch] = []
        self._total, self._images, self._say = epochs, images, say
        self._start = self._last = time.monotonic()

    def __call__(self, loss: float, accuracy: float) -> None:
        """Note one epoch's mean loss and accuracy.

        Raises:
            TrainingError: The loss is not a finite number.
        """
        from slsa_for_models.evidence.training_record import Epoch

        now = time.monotonic()
        number, seconds = len(self.epochs) + 1, now - self._last
        self._last = now
        if not math.isfinite(loss):
            raise TrainingError(
                "the training diverged",
                where=f"epoch {number}",
                found=f"loss {loss}",
                fix="try another --seed",
            )
        speed = self._images / max(seconds, 1e-9)
        self.epochs.append(
            Epoch(number, round(loss, 6), round(accuracy, 6), round(seconds, 3), round(speed, 1))
        )
        left = (now - self._start) / number * (self._total - number)
        self._say(
            f"epoch {number}/{self._total}  loss {loss:.4f}  accuracy {accuracy:.4f}  "
            f"{speed:,.0f} images/s  {left:.0f} s left"
        )


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
