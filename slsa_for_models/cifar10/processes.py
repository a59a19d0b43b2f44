"""Several processes train one model together, started by the framework's own launcher.

PyTorch: `torchrun`, which tells each process its place in `RANK` and `WORLD_SIZE`. TensorFlow:
`tf.distribute.MultiWorkerMirroredStrategy`, which reads it from `TF_CONFIG`. Both hold across
machines, too, when something that knows the machines sets these variables (torchrun with
`--nnodes`, Kubeflow Trainer, Vertex AI). `slsa_for_models train --processes` starts all here.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_signing.errors import UsageError
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import formats

MOST_PROCESSES = 64


@dataclass(frozen=True)
class Place:
    """One of `size` processes; the first, `rank` 0, writes the model."""

    rank: int
    size: int


def place(environ: Mapping[str, str]) -> Place:
    """This process's place among those that train together; alone, it is 0 of 1.

    Raises:
        UsageError: The launcher's variables make no sense.
    """
    try:
        if "WORLD_SIZE" in environ:
            found = Place(int(environ["RANK"]), int(environ["WORLD_SIZE"]))
        elif "TF_CONFIG" in environ:
            config = json.loads(environ["TF_CONFIG"])
            workers = config["cluster"]["worker"]
            found = Place(int(config["task"]["index"]), len(workers))
        else:
            found = Place(0, 1)
    except (ValueError, KeyError, TypeError):
        found = Place(-1, 0)
    if not 0 <= found.rank < found.size <= MOST_PROCESSES:
        raise UsageError(
            "the variables of the launcher make no sense",
            where="RANK and WORLD_SIZE, or TF_CONFIG",
            expected=f"a place among at most {MOST_PROCESSES} processes",
        )
    return found


def launch(format: str, options: Sequence[str], processes: int) -> None:
    """Trains with several processes on this machine, each with a part of every batch.

    Args:
        format: A key of `formats.FORMATS`.
        options: Of `python -m slsa_for_models.cifar10`.
        processes: How many.

    Raises:
        UsageError: Not a number of processes, or an unknown format.
        TrainingError: One of them failed.
    """
    if not 2 <= processes <= MOST_PROCESSES:
        raise UsageError(
            "not a number of processes",
            expected=f"2 to {MOST_PROCESSES}",
            found=str(processes),
        )
    start = {"pytorch": _torchrun, "tensorflow": _workers}[formats.find(format).framework]
    code = start(["slsa_for_models.cifar10", format, *options], processes)
    if code:
        raise TrainingError("one of the processes failed", found=f"exit code {code}")


def _torchrun(module: list[str], processes: int) -> int:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={processes}", "-m", *module]
    with subprocess.Popen(command) as started:
        try:
            return started.wait()
        finally:  # it ends its processes only if it is told to
            started.terminate()


def _workers(module: list[str], processes: int) -> int:
    """One process for each worker of a `TF_CONFIG`; when one fails, the others are ended."""
    workers = [f"127.0.0.1:{port}" for port in _free_ports(processes)]
    started = []
    for index in range(processes):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        started.append(subprocess.Popen([sys.executable, "-m", *module], env=environment))
    try:
        while any(process.poll() is None for process in started):
            failed = [process.returncode for process in started if process.returncode]
            if failed:
                return failed[0]
            time.sleep(0.1)
        return next((process.returncode for process in started if process.returncode), 0)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]
