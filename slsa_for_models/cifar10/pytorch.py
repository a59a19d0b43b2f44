"""The PyTorch recipe: the network, its training loop, and how it is saved.

Importing this module imports PyTorch; only the commands that need it do so.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors.torch
import torch
from torch import Tensor, nn

from slsa_for_models.cifar10 import processes
from slsa_for_models.cifar10.dataset import Array, Split
from slsa_for_models.models import formats, undated_zip

PARAMETERS: dict[str, float] = {
    "batch_size": 64,
    "learning_rate": 0.03,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "label_smoothing": 0.1,
}


def network() -> nn.Sequential:
    """Pixels (n, 3, 32, 32) in 0..255 to ten logits; made of PyTorch's own modules only."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        nn.BatchNorm2d(3, affine=False),  # learns the pixels' mean and scale
        *block(3, 32),
        *block(32, 64),
        *block(64, 64),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    )


def fit(
    data: Split, epochs: int, seed: int, threads: int, report: Callable[[float, float], None]
) -> nn.Sequential:
    """Train on the images; the same arguments give the same weights on the same kind of CPU.

    Under `torchrun`, each process takes its part of every batch and all average the gradients.

    Args:
        data: Images (n, 3, 32, 32) and labels, unsigned bytes.
        epochs: Passes over them.
        seed: Of weights, order and flips.
        threads: Sums are split among them, so another number rounds differently.
        report: Takes each epoch's mean loss and accuracy.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    pixels = torch.from_numpy(data.images)
    classes = torch.from_numpy(data.labels).long()
    batch_size = int(PARAMETERS["batch_size"])

    model = network()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    place = processes.place(os.environ)
    together = place.size > 1
    if together:
        torch.distributed.init_process_group("gloo")
    replica = nn.parallel.DistributedDataParallel(model) if together else model
    loss_function = nn.CrossEntropyLoss(label_smoothing=PARAMETERS["label_smoothing"])
    optimizer = _optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PARAMETERS["learning_rate"],
        total_steps=epochs * math.ceil(len(pixels) / batch_size),
    )
    sums: list[torch.distributed.Work] = []
    for _ in range(epochs):
        loss_sum = correct = 0.0
        for rows in torch.split(torch.randperm(len(pixels)), batch_size):
            images, wanted = _flip_half(pixels[rows].float()), classes[rows]
            if len(rows) >= 2 * place.size:  # what cannot be split is trained by each as a whole
                images, wanted = images[place.rank :: place.size], wanted[place.rank :: place.size]
            logits = replica(images.contiguous(memory_format=torch.channels_last))
            loss = loss_function(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(rows)
            correct += (logits.argmax(1) == wanted).sum().item() * len(rows) / len(wanted)
        totals = torch.tensor([loss_sum, correct], dtype=torch.float64) / len(pixels) / place.size
        if together:
            sums.append(torch.distributed.all_reduce(totals, async_op=True))
            sums[-1].wait()
        report(*totals.tolist())
    if together:
        # Gloo's threads end here, and would wait for ever for the interpreter that waits for them
        # if one had the last reference to a tensor of Python's: so `sums` lives longer.
        torch.distributed.destroy_process_group()
        del replica
        sums.clear()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.eval()
    return model


def predict(
    model: nn.Module | dict[str, Tensor] | onnxruntime.InferenceSession, images: Array
) -> Array:
    """Logits (n, 10) for images (n, 3, 32, 32) of unsigned bytes; any loader's model will do."""
    if isinstance(model, dict):
        model = with_weights(model)
    pixels = [part.float() for part in torch.split(torch.from_numpy(images), 500)]
    if isinstance(model, nn.Module):
        with torch.inference_mode():
            return torch.cat([model(part) for part in pixels]).numpy()
    (name,) = (value.name for value in model.get_inputs())
    return np.concatenate([model.run(None, {name: part.numpy()})[0] for part in pixels])


def save_state_dict(model: nn.Module, path: Path) -> None:
    """Save the weights by name (PyTorch's recommended way)."""
    torch.save(model.state_dict(), path)


def save_full_model(model: nn.Module, path: Path) -> None:
    """Save the module with all its attributes: a pickle."""
    torch.save(model, path)


def save_torchscript(model: nn.Module, path: Path) -> None:
    """Save the traced computation, without the source locations of whoever traced it.

    Those are in members named *.debug_pkl, and go into the archive's serialization identifier.
    """
    traces = (".debug_pkl", ".data/serialization_id")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is a format we offer
        traced = torch.jit.trace(model, torch.zeros(1, 3, 32, 32))  # type: ignore[no-untyped-call]
        traced.save(path)
    undated_zip.rewrite(path, lambda name, data: None if name.endswith(traces) else data)


def save_safetensors(model: nn.Module, path: Path) -> None:
    """Save the weights by name in a format that can hold nothing else."""
    safetensors.torch.save_file(model.state_dict(), path)


def save_onnx(model: nn.Module, path: Path) -> None:
    """Save the traced computation as an ONNX graph, for any number of images."""
    with warnings.catch_warnings():
        # The newer exporter writes the source locations of whoever exports into the file.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 32, 32),),
            path,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_axes={"pixels": {0: "images"}, "logits": {0: "images"}},
            dynamo=False,
        )


def with_weights(named: dict[str, Tensor]) -> nn.Sequential:
    """The network with weights that were saved alone."""
    model = network()
    model.load_state_dict(named)
    model.eval()
    return model


def _optimizer(model: nn.Module) -> torch.optim.SGD:
    with formats.importing():  # the first one of a process imports PyTorch's compiler
        return torch.optim.SGD(
            model.parameters(),
            momentum=PARAMETERS["momentum"],
            weight_decay=PARAMETERS["weight_decay"],
            nesterov=True,
        )


def _flip_half(images: Tensor) -> Tensor:
    """Mirror a random half of the images, left to right."""
    flipped = torch.rand(len(images)) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


SAVE: dict[str, Callable[[nn.Module, Path], None]] = {
    "pytorch_model.pth": save_state_dict,
    "pytorch_full_model.pth": save_full_model,
    "pytorch_jitted_model.pt": save_torchscript,
    "pytorch_model.safetensors": save_safetensors,
    "pytorch_model.onnx": save_onnx,
}
"""How each format is written: model and path in."""
