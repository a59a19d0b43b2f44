"""The TensorFlow classifier: the Keras network, its training, and how it is saved and loaded.

Importing this module imports TensorFlow; only the commands that need it do so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors only

import keras
import numpy as np
import tensorflow as tf

from slsa_for_models.cifar10 import Array, Split

PARAMETERS = {
    "batch_size": 64,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-3,
    "label_smoothing": 0.1,
}


def network() -> keras.Sequential:
    """Pixels (n, 32, 32, 3) in 0..255 to ten logits."""
    layers = keras.layers
    net = [
        keras.Input((32, 32, 3), name="pixels"),
        layers.BatchNormalization(center=False, scale=False, name="normalize"),
    ]
    for number, filters in enumerate((32, 64, 64), start=1):
        net += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"convolution_{number}"),
            layers.BatchNormalization(momentum=0.9, name=f"batch_normalization_{number}"),
            layers.ReLU(name=f"relu_{number}"),
            layers.MaxPooling2D(name=f"pool_{number}"),
        ]
    net += [layers.Flatten(name="flatten"), layers.Dense(10, name="logits")]
    return keras.Sequential(net, name="cifar10")


def fit(
    data: Split, epochs: int, seed: int, threads: int, report: Callable[[float, float], None]
) -> keras.Model:
    """Train on the images; the same arguments give the same weights on the same kind of CPU.

    Args:
        data: Images (n, 3, 32, 32) and labels, unsigned bytes.
        epochs: Passes over them.
        seed: Of weights, order and flips.
        threads: Sums are split among them, so another number rounds differently.
        report: Takes each epoch's mean loss and accuracy.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    batch_size = int(PARAMETERS["batch_size"])
    steps = epochs * math.ceil(len(data.labels) / batch_size)
    warmup = steps * 3 // 10

    def prepare(pixels: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        flipped = tf.image.random_flip_left_right(pixels, seed=seed)
        return tf.cast(flipped, tf.float32), tf.one_hot(label, 10)

    batches = (
        tf.data.Dataset.from_tensor_slices((_channels_last(data.images), data.labels))
        .shuffle(len(data.labels), seed=seed)
        .map(prepare)
        .batch(batch_size)
        .prefetch(1)
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=PARAMETERS["learning_rate"] / 25,
        warmup_target=PARAMETERS["learning_rate"],
        warmup_steps=warmup,
        decay_steps=steps - warmup,
    )
    model = network()
    model.compile(
        optimizer=keras.optimizers.SGD(
            schedule,
            momentum=PARAMETERS["momentum"],
            weight_decay=PARAMETERS["weight_decay"],
            nesterov=True,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=PARAMETERS["label_smoothing"]
        ),
        metrics=["accuracy"],
    )
    each_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: report(logs["loss"], logs["accuracy"])
    )
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[each_epoch])
    return model


def predict(model: keras.Model, images: Array) -> Array:
    """Logits (n, 10) for images (n, 3, 32, 32) of unsigned bytes."""
    logits: Array = model.predict(_channels_last(images), batch_size=500, verbose=0)
    return logits


def save_keras(model: keras.Model, path: Path) -> None:
    """`tensorflow_model.keras`: architecture and weights in Keras 3's archive."""
    model.save(path)


def load_keras(path: Path) -> keras.Model:
    """Read in Keras' safe mode, which refuses Lambda layers."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _channels_last(images: Array) -> Array:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
