"""Accuracy and processor time of `slsa_for_models train`, beside the tutorials' recipes.

usage: python bench/accuracy.py --data-dir DIR --pytorch BIN --tensorflow BIN
           [--images N] [--json FILE] [--page FILE]

DIR holds CIFAR-10's binary batches or archive, BIN is the folder of programs of a framework's
environment (`actions/setup/environment.py pytorch` and `tensorflow`). Each row is a process of its
own, start-up, saving and reloading included; its processor time is the kernel's figure for it and
its children, which other work on the machine changes less than the wall time. Rows:

- ours: the command, for 6 epochs, and for as few as beat what the tutorial ends with;
- PyTorch tutorial: LeNet, SGD with rate 0.001 and momentum 0.9, batches of 4, 2 epochs
  (docs.pytorch.org, "Training a Classifier");
- Keras example: two blocks of two convolutions, dropout, RMSprop with rate 1e-4, here with batches
  of 256 for 6 epochs (keras-team/keras, examples/cifar10_cnn.py of Keras 2).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
HEARD = 0.5  # seconds
MARKS = ("<!-- figures: written by `make bench-accuracy` -->", "<!-- end of figures -->")


@dataclass(frozen=True)
class Row:
    """One recipe's result; times in seconds."""

    framework: str
    recipe: str
    epochs: int
    accuracy: float
    processor: float
    wall: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows one after the other and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR")
    for name in TUTORIALS:
        parser.add_argument(f"--{name.lower()}", type=Path, metavar="BIN")
    parser.add_argument("--images", type=int, metavar="N", help="train on N images, to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page")
    parser.add_argument("--tutorial", choices=list(TUTORIALS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.tutorial:
        print(TUTORIALS[args.tutorial](args.data_dir))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended, as after Ctrl-C
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = first_images(args.data_dir, Path(scratch), args.images)
        for framework, programs, model, recipe, epochs, few in (
            ("PyTorch", args.pytorch, "pytorch_model.pth", "tutorial: LeNet, SGD", 2, 1),
            (
                *("TensorFlow", args.tensorflow, "tensorflow_model.keras"),
                *("example: VGG-like, RMSprop", 6, 2),
            ),
        ):
            python = programs / "python"
            for count in (few, 6):
                rows.append(ours(python, framework, model, count, folder, Path(scratch, "out")))
                print(table(rows[-1:]), file=sys.stderr)
            rows.append(tutorial(python, framework, recipe, epochs, folder))
            print(table(rows[-1:]), file=sys.stderr)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    if args.page:
        before, rest = args.page.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        args.page.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}")
    return 0


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| Framework | Recipe | Epochs | Test accuracy | Processor s | Wall s |"]
    lines.append("|---|---|--:|--:|--:|--:|")
    lines += [
        f"| {row.framework} | {row.recipe} | {row.epochs} | {row.accuracy:.1%} "
        f"| {row.processor:.0f} | {row.wall:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def first_images(folder: Path, scratch: Path, images: int | None) -> Path:
    """The folder, or one with the first images of each of its batches."""
    if images is None:
        return folder
    source = folder if (folder / "test_batch.bin").exists() else folder / "cifar-10-batches-bin"
    for batch in source.glob("*_batch*.bin"):
        (scratch / batch.name).write_bytes(batch.read_bytes()[: images // 5 * 3073])
    return scratch


def ours(python: Path, framework: str, model: str, epochs: int, folder: Path, output: Path) -> Row:
    """The command; its record has the accuracy of the saved and reloaded model."""
    command = ["-m", "slsa_for_models", "train", model, f"--data-dir={folder}"]
    options = [f"--epochs={epochs}", f"--threads={THREADS}", "--minimum-accuracy=0"]
    processor, wall, _ = measure([str(python), *command, *options, f"--output-dir={output}"])
    record = json.loads((output / "training.json").read_bytes())
    return Row(framework, "ours", epochs, record["metrics"]["test_accuracy"], processor, wall)


def tutorial(python: Path, framework: str, recipe: str, epochs: int, folder: Path) -> Row:
    """A recipe below, in a process of its own."""
    processor, wall, printed = measure(
        [str(python), __file__, f"--tutorial={framework}", f"--data-dir={folder}"]
    )
    return Row(framework, recipe, epochs, float(printed.split()[-1]), processor, wall)


def measure(command: Sequence[str]) -> tuple[float, float, str]:
    """Processor and wall seconds of a Python process with its children, and what it printed."""
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        printed = b"".join(until_closed(process.stdout)) if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - start, printed.decode()


def until_closed(pipe: IO[bytes]) -> Iterator[bytes]:
    """What comes out of a pipe; a signal that comes just before a wait is heard soon, too."""
    while True:
        if select.select([pipe], [], [], HEARD)[0]:
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                return
            yield data


def pytorch_tutorial(folder: Path) -> float:
    """LeNet, as in PyTorch's "Training a Classifier"; returns the test accuracy."""
    import torch
    from torch import nn

    from slsa_for_models.cifar10 import dataset

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    data = dataset.load_folder(folder)

    def pixels(split: dataset.Split) -> torch.Tensor:
        return torch.from_numpy(split.images).float() / 127.5 - 1

    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    images, labels = pixels(data.train), torch.from_numpy(data.train.labels).long()
    for _ in range(2):
        for rows in torch.split(torch.randperm(len(images)), 4):
            optimizer.zero_grad()
            loss_function(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    with torch.inference_mode():
        guesses = net(pixels(data.test)).argmax(1).numpy()
    return float((guesses == data.test.labels).mean())


def tensorflow_tutorial(folder: Path) -> float:
    """Keras' old CIFAR-10 example without augmentation; returns the test accuracy."""
    import keras
    import tensorflow as tf

    from slsa_for_models.cifar10 import dataset

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    keras.utils.set_random_seed(0)
    data = dataset.load_folder(folder)
    layers = keras.layers
    net = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (32, 64):
        net.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        net.add(layers.Conv2D(filters, 3, activation="relu"))
        net.add(layers.MaxPooling2D())
        net.add(layers.Dropout(0.25))
    for layer in (
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ):
        net.add(layer)
    net.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=1e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    images, test = (
        split.images.transpose(0, 2, 3, 1).astype("float32") / 255
        for split in (data.train, data.test)
    )
    net.fit(images, data.train.labels, batch_size=256, epochs=6, verbose=0)
    return float(net.evaluate(test, data.test.labels, verbose=0)[1])


TUTORIALS = {"PyTorch": pytorch_tutorial, "TensorFlow": tensorflow_tutorial}

if __name__ == "__main__":
    sys.exit(main())
