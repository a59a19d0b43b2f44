"""The training command of the CIFAR-10 recipes: one model and its metrics, or one message why not.

It reads its images in the folder that it starts in and writes there; it is run like any other
command (`slsa_for_models.training`), and knows nothing of that. A model counts only after it was
loaded in a new process and gave the predictions of the model in memory.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import FileError
from slsa_for_models.cifar10 import recipe
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import formats

if TYPE_CHECKING:
    from slsa_for_models.cifar10.dataset import Data

METRICS = "metrics.json"
MOST_EPOCHS = 1000
MOST_THREADS = 1024
MOST_SEED = 2**32 - 1
MOST_EPOCHS_SHOWN = 100

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choices:
    """What the caller of a run chooses.

    Attributes:
        format: A key of `formats.FORMATS`.
        epochs: Passes over the training images.
        seed: Of weights, order and augmentation.
        threads: Of the framework; part of what decides the model's bytes.
        minimum_accuracy: On the test images, in 0..1; the run fails below it. None for what
            guessing will not reach.
    """

    format: str
    epochs: int
    seed: int
    threads: int
    minimum_accuracy: float | None = None


def above_chance(images: int) -> float:
    """The accuracy that guessing among ten classes reaches once in a thousand times (3.1 sigma)."""
    return round(0.1 + 3.1 * math.sqrt(0.1 * 0.9 / images), 4)


def train(choices: Choices, data: Data, folder: Path, say: Say) -> dict[str, object]:
    """Train, save, reload, evaluate.

    Args:
        choices: Format and parameters.
        data: From `dataset`.
        folder: Where the model and `metrics.json` are written.
        say: Takes progress, a line at a time.

    Returns:
        The metrics.

    Raises:
        TrainingError: The loss is not finite, the accuracy is below the minimum, or the saved
            model is not the trained one.
        DependencyError: The framework is not installed.
        FileError: The model cannot be saved.
    """
    from slsa_for_models.cifar10 import predictions

    # 1. Train.
    format = formats.find(choices.format)
    framework = recipe(format)
    watch = Watch(choices.epochs, len(data.train.labels), say)
    model = framework.fit(data.train, choices.epochs, choices.seed, choices.threads, watch)

    # 2. Save under the final name: some formats contain it.
    saved = folder / format.name
    try:
        framework.SAVE[format.name](model, saved)
    except Exception as error:  # each framework reports a full disk by a class of its own
        raise FileError(
            "the model cannot be saved", where=format.name, found=str(error).split("\n")[0]
        ) from error

    # 3. What counts is what a stranger would load: a new process, the safe loader.
    predicted = framework.predict(model, data.test.images)
    logits = predictions.predict_in_new_process(format, saved, data.test.images, folder)
    accuracy, loss = predictions.score(logits, data.test.labels)
    _check_result(choices, predictions.difference(predicted, logits), accuracy, len(logits))
    say(f"test accuracy {accuracy:.4f}, loss {loss:.4f} (saved, loaded again in a new process)")
    metrics = {"test_accuracy": accuracy, "test_loss": loss, "epoch": watch.shown}
    (folder / METRICS).write_text(json.dumps(metrics))
    return metrics


def _check_result(choices: Choices, apart: float, accuracy: float, images: int) -> None:
    """Refuses a model that is not the trained one, or not good enough."""
    from slsa_for_models.cifar10.predictions import TOLERANCE

    if apart > TOLERANCE:
        raise TrainingError(
            "the saved model does not predict what the trained one does",
            where=choices.format,
            expected=f"logits that differ by at most {TOLERANCE} of the largest",
            found=f"{apart:.3g}",
        )
    minimum = choices.minimum_accuracy
    minimum = above_chance(images) if minimum is None else minimum
    if accuracy < minimum:
        raise TrainingError(
            "the model is not good enough",
            expected=f"test accuracy of at least {minimum}",
            found=f"{accuracy:.4f}",
            fix="train for more --epochs, or ask for less with --minimum-accuracy",
        )


class Watch:
    """Called by the framework after each epoch: progress, metrics, and the check for NaN."""

    def __init__(self, epochs: int, images: int, say: Say) -> None:
        self.shown: dict[str, dict[str, float]] = {}
        self._number, self._total, self._images, self._say = 0, epochs, images, say
        self._start = self._last = time.monotonic()

    def __call__(self, loss: float, accuracy: float) -> None:
        """Note one epoch's mean loss and accuracy; the last hundred are kept.

        Raises:
            TrainingError: The loss is not a finite number.
        """
        now, self._number = time.monotonic(), self._number + 1
        seconds, self._last = now - self._last, now
        if not math.isfinite(loss):
            raise TrainingError(
                "the training diverged",
                where=f"epoch {self._number}",
                found=f"loss {loss}",
                fix="try another --seed",
            )
        speed = self._images / max(seconds, 1e-9)
        self.shown[str(self._number)] = {
            "loss": round(loss, 6),
            "accuracy": round(accuracy, 6),
            "seconds": round(seconds, 3),
            "images_per_second": round(speed, 1),
        }
        self.shown.pop(str(self._number - MOST_EPOCHS_SHOWN), None)
        left = (now - self._start) / self._number * (self._total - self._number)
        self._say(
            f"epoch {self._number}/{self._total}  loss {loss:.4f}  accuracy {accuracy:.4f}  "
            f"{speed:,.0f} images/s  {left:.0f} s left"
        )
