"""What a saved model predicts, asked in a new process, and how good that is.

`python -m slsa_for_models.cifar10.predictions FORMAT MODEL IMAGES OUTPUT` is that process:
it knows nothing but the files, as somebody else's would.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from model_signing.errors import Error
from model_signing.terminal import command_line
from slsa_for_models.cifar10 import recipe
from slsa_for_models.cifar10.dataset import Array
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import formats
from slsa_for_models.models.formats import Format
from slsa_for_models.models.load import load_unverified

TOLERANCE = 1e-4
"""Two engines' logits differ by rounding, relative to the largest, by less than this."""


def predict_in_new_process(format: Format, model: Path, images: Array, scratch: Path) -> Array:
    """Logits (n, 10) that the saved model gives for the images.

    Args:
        format: Which loader to use.
        model: The saved file or directory.
        images: Unsigned bytes (n, 3, 32, 32).
        scratch: A private folder for exchanging arrays.

    Raises:
        TrainingError: The process failed; the message has its last line.
    """
    inputs, outputs = scratch / "images.npy", scratch / "logits.npy"
    np.save(inputs, images)
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [sys.executable, "-m", __name__, format.name, model, inputs, outputs],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    if finished.returncode:
        lines = finished.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise TrainingError(
            "the saved model cannot be loaded again", where=format.name, found=lines[-1]
        )
    logits: Array = np.load(outputs, allow_pickle=False)
    inputs.unlink()
    outputs.unlink()
    return logits


def difference(first: Array, second: Array) -> float:
    """The largest difference of two values, relative to the largest value (at least 1).

    Infinite for different shapes, and where one is not a number.
    """
    if first.shape != second.shape:
        return float("inf")
    scale = np.max(np.abs(first), initial=1)
    largest = float(np.max(np.abs(first - second), initial=0) / scale)
    return largest if np.isfinite(largest) else float("inf")


def score(logits: Array, labels: Array) -> tuple[float, float]:
    """Accuracy in 0..1 and mean cross-entropy in nats."""
    accuracy = float((logits.argmax(1) == labels).mean())
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_likelihood = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = float(-log_likelihood[np.arange(len(labels)), labels].mean())
    return round(accuracy, 6), round(loss, 6)


def _main(name: str, model: str, images: str, output: str) -> None:
    format = formats.find(name)
    loaded = load_unverified(Path(model), format, pickle=format.runs_code)  # it is our own
    logits = recipe(format).predict(loaded, np.load(images, allow_pickle=False))
    np.save(output, logits)


if __name__ == "__main__":
    command_line.own_process()
    try:
        _main(*sys.argv[1:])
    except Error as error:
        sys.exit(" ".join(str(error).split()))
