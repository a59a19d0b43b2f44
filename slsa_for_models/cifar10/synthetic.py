"""A synthetic set in CIFAR-10's layout, for machines with no network and for tests.

Ten families of shapes, each in random colours, place, size and rotation, over a coloured gradient
with noise. A convolutional network learns them in seconds; a linear model hardly beats chance, so
the set tells a training run that works from one that does not.

The bytes depend on the arguments alone: every random choice is a byte of SHAKE-128, and pixels are
made of it in integer arithmetic. No version of NumPy, CPU or operating system changes them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

VERSION = 1  # raised whenever the same arguments give other bytes

_CHUNK = 1000  # images made at once: bounds memory, and is part of the random stream's key
_ONE = 4096  # 1.0 in the shapes' coordinates
_ANGLES = [(step - 32) / 64 for step in range(64)]  # radians, about +-29 degrees
_COSINES = np.array([round(256 * math.cos(angle)) for angle in _ANGLES], np.int32)
_SINES = np.array([round(256 * math.sin(angle)) for angle in _ANGLES], np.int32)
_POSE_BYTES = 16
_PIXEL_BYTES = 3 * 32 * 32

_Array = np.ndarray[Any, np.dtype[Any]]


def _inside(u: _Array, v: _Array) -> _Array:
    inside: _Array = np.maximum(np.abs(u), np.abs(v)) < _ONE
    return inside


def _ring(u: _Array, v: _Array) -> _Array:
    squared = u * u + v * v
    ring: _Array = (squared < _ONE * _ONE) & (squared > _ONE * _ONE * 2 // 5)
    return ring


# Which pixels each class covers; (u, v) are in units of the shape's radius, times _ONE.
_SHAPES: tuple[Callable[[_Array, _Array], _Array], ...] = (
    lambda u, v: u * u + v * v < _ONE * _ONE,  # disc
    _ring,
    lambda u, v: np.maximum(np.abs(u), np.abs(v)) < _ONE * 6 // 7,  # square
    lambda u, v: _inside(u, v) & (np.maximum(np.abs(u), np.abs(v)) > _ONE * 3 // 5),  # frame
    lambda u, v: _inside(u, v) & (np.minimum(np.abs(u), np.abs(v)) < _ONE * 2 // 7),  # plus
    lambda u, v: _inside(u, v) & (np.abs(np.abs(u) - np.abs(v)) < _ONE * 2 // 5),  # cross
    lambda u, v: (np.abs(v) < _ONE * 6 // 7) & (np.abs(u) * 2 < v + _ONE),  # triangle
    lambda u, v: _inside(u, v) & (v // (_ONE // 4) % 2 == 0),  # horizontal bars
    lambda u, v: _inside(u, v) & (u // (_ONE // 4) % 2 == 0),  # vertical bars
    lambda u, v: _inside(u, v) & ((u // (_ONE // 3) + v // (_ONE // 3)) % 2 == 0),  # checkerboard
)


def batches(train_images: int, test_images: int, seed: int) -> dict[str, bytes]:
    """The six files of a CIFAR-10 binary distribution, as bytes by file name.

    Args:
        train_images: Images over the five training batches together, at least 10.
        test_images: Images in the test batch, at least 10.
        seed: Any integer; another seed gives other images of the same families.
    """
    train, test = _records("train", train_images, seed), _records("test", test_images, seed)
    files = {
        f"data_batch_{number}.bin": part.tobytes()
        for number, part in enumerate(np.array_split(train, 5), start=1)
    }
    return {**files, "test_batch.bin": test.tobytes()}


def _records(split: str, count: int, seed: int) -> _Array:
    """`count` records of one label byte and 3,072 pixel bytes; labels take turns."""
    records = np.empty((count, 1 + _PIXEL_BYTES), np.uint8)
    records[:, 0] = np.arange(count) % 10
    for start in range(0, count, _CHUNK):
        chunk = records[start : start + _CHUNK]
        key = f"synthetic CIFAR-10 v{VERSION}, seed {seed}, {split} images from {start}"
        stream = hashlib.shake_128(key.encode()).digest(len(chunk) * (_POSE_BYTES + _PIXEL_BYTES))
        randomness = np.frombuffer(stream, np.uint8).reshape(len(chunk), -1).astype(np.int32)
        chunk[:, 1:] = _draw(chunk[:, 0], randomness).reshape(len(chunk), -1)
    return records


def _draw(labels: _Array, randomness: _Array) -> _Array:
    """Images (n, 3, 32, 32) of the labels' families, posed and coloured by the random bytes."""
    pose = randomness[:, :_POSE_BYTES, None, None]
    noise = randomness[:, _POSE_BYTES:].reshape(-1, 3, 32, 32)
    y, x = np.mgrid[-31:32:2, -31:32:2].astype(np.int32)  # half pixels from the centre

    dx = x - ((pose[:, 0] * 23 >> 8) - 11)
    dy = y - ((pose[:, 1] * 23 >> 8) - 11)
    radius = 11 + (pose[:, 2] * 12 >> 8)
    cosine, sine = _COSINES[pose[:, 3] >> 2], _SINES[pose[:, 3] >> 2]
    u = (dx * cosine + dy * sine) * (_ONE // 256) // radius
    v = (dy * cosine - dx * sine) * (_ONE // 256) // radius
    shape = np.zeros(u.shape, bool)
    for label, covers in enumerate(_SHAPES):
        rows = labels == label
        shape[rows] = covers(u[rows], v[rows])

    foreground, background = pose[:, 4:7], pose[:, 7:10]
    gradient = ((pose[:, 10:13] - 128) * x + (pose[:, 13:16] - 128) * y) >> 7
    pixels = np.where(shape[:, None], foreground, background + gradient)
    drawn: _Array = np.clip(pixels + (noise * 87 >> 8) - 43, 0, 255).astype(np.uint8)
    return drawn
