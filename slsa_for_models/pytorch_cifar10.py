"""The PyTorch classifier: the network, its training loop, and how it is saved and loaded.

Importing this module imports PyTorch; only the commands that need it do so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from slsa_for_models.cifar10 import Array, Split

PARAMETERS: dict[str, float] = {
    "batch_size": 64,
    "learning_rate": 0.1,
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
    loss_function = nn.CrossEntropyLoss(label_smoothing=PARAMETERS["label_smoothing"])
    optimizer = torch.optim.SGD(
        model.parameters(),
        momentum=PARAMETERS["momentum"],
        weight_decay=PARAMETERS["weight_decay"],
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PARAMETERS["learning_rate"],
        total_steps=epochs * math.ceil(len(pixels) / batch_size),
    )
    for _ in range(epochs):
        loss_sum = correct = 0.0
        for rows in torch.split(torch.randperm(len(pixels)), batch_size):
            images, wanted = _flip_half(pixels[rows].float()), classes[rows]
            logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = loss_function(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(rows)
            correct += (logits.argmax(1) == wanted).sum().item()
        report(loss_sum / len(pixels), correct / len(pixels))
    model.eval()
    return model


def predict(model: nn.Module, images: Array) -> Array:
    """Logits (n, 10) for images (n, 3, 32, 32) of unsigned bytes."""
    with torch.inference_mode():
        parts = [model(part.float()) for part in torch.split(torch.from_numpy(images), 500)]
    return torch.cat(parts).numpy()


def save_state_dict(model: nn.Module, path: Path) -> None:
    """`pytorch_model.pth`: the weights by name."""
    torch.save(model.state_dict(), path)


def load_state_dict(path: Path) -> nn.Sequential:
    """Read by PyTorch's restricted unpickler, which builds tensors and nothing else."""
    model = network()
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    return model


def _flip_half(images: Tensor) -> Tensor:
    """Mirror a random half of the images, left to right."""
    flipped = torch.rand(len(images)) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images)
