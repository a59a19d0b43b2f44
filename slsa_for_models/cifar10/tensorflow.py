"""The TensorFlow recipe: the Keras network, its training, and how it is saved.

Importing this module imports TensorFlow; only the commands that need it do so.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slsa_for_models.cifar10 import processes
from slsa_for_models.cifar10.dataset import Array, Split
from slsa_for_models.errors import TrainingError
from slsa_for_models.models import undated_zip
from slsa_for_models.models.tensorflow import silent  # first: it sets what Keras reads

with silent():
    import h5py
    import keras
    import tensorflow as tf


PARAMETERS = {
    "batch_size": 64,
    "learning_rate": 0.03,
    "momentum": 0.9,
    "weight_decay": 5e-3,
    "label_smoothing": 0.1,
}


def network() -> keras.Sequential:
    """Pixels (n, 32, 32, 3) in 0..255 to ten logits."""
    layers = keras.layers
    net = [
        keras.Input((32, 32, 3), name="pixels"),
        layers.BatchNormalization(momentum=0.9, center=False, scale=False, name="normalize"),
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

    With a `TF_CONFIG` of several workers, each takes its part of every batch
    (MultiWorkerMirroredStrategy).

    Args:
        data: Images (n, 3, 32, 32) and labels, unsigned bytes.
        epochs: Passes over them.
        seed: Of weights, order and flips.
        threads: Sums are split among them, so another number rounds differently.
        report: Takes each epoch's mean loss and accuracy.
    """
    strategy = _make_deterministic(seed, threads)
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
    with strategy.scope():
        model = network()
        optimizer = keras.optimizers.SGD(
            schedule,
            momentum=PARAMETERS["momentum"],
            weight_decay=PARAMETERS["weight_decay"],
            nesterov=True,
        )
    smoothing = PARAMETERS["label_smoothing"]
    if strategy.num_replicas_in_sync > 1:
        return _fit_together(strategy, model, optimizer, smoothing, batches, epochs, report)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        metrics=["accuracy"],
    )
    each_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: report(logs["loss"], logs["accuracy"])
    )
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[each_epoch])
    return model


def _fit_together(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    smoothing: float,
    batches: tf.data.Dataset,
    epochs: int,
    report: Callable[[float, float], None],
) -> keras.Model:
    """The loop of `Model.fit`, which in Keras 3 does not train under this strategy."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    shared = strategy.experimental_distribute_dataset(batches.with_options(options))
    loss_function = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="none"
    )
    batch_size = PARAMETERS["batch_size"]

    def step(images: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = loss_function(wanted, logits)
            # The strategy adds the gradients up: together they are those of the batch's mean.
            loss = tf.reduce_sum(losses) / batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        right = tf.equal(tf.argmax(logits, 1), tf.argmax(wanted, 1))
        return tf.stack(
            [
                tf.reduce_sum(losses),
                tf.reduce_sum(tf.cast(right, tf.float32)),
                tf.cast(tf.shape(images)[0], tf.float32),
            ]
        )

    @tf.function  # type: ignore[untyped-decorator,unused-ignore]
    def all_steps(images: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(step, args=(images, wanted)), axis=None)

    for _ in range(epochs):
        loss, correct, images = np.sum([all_steps(*batch).numpy() for batch in shared], axis=0)
        report(float(loss / images), float(correct / images))
    # A model of its own, which knows nothing of the strategy.
    alone = network()
    alone.set_weights(model.get_weights())
    return alone


def predict(model: keras.Model | dict[str, Array], images: Array) -> Array:
    """Logits (n, 10) for images (n, 3, 32, 32) of unsigned bytes; any loader's model will do."""
    if isinstance(model, dict):
        model = with_weights(model)
    logits: Array = model.predict(_channels_last(images), batch_size=500, verbose=0)
    return logits


def save_keras(model: keras.Model, path: Path) -> None:
    """Save architecture and weights in Keras 3's archive, without date and memory addresses."""
    _for_inference(model).save(path)
    undated_zip.rewrite(path, _timeless)


def save_hdf5(model: keras.Model, path: Path) -> None:
    """Save architecture and weights in Keras' older HDF5 layout."""
    _for_inference(model).save(path)


def save_hdf5_weights(model: keras.Model, path: Path) -> None:
    """Save the weights alone."""
    _for_inference(model).save_weights(path)


def save_saved_model(model: keras.Model, path: Path) -> None:
    """Save TensorFlow's graph and weights, without the random identifier of each export."""
    tf.saved_model.save(_for_inference(model), path)
    (path / "fingerprint.pb").unlink()


def with_weights(named: dict[str, Array]) -> keras.Model:
    """The network with weights that were saved alone."""
    model = network()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tensorflow_hdf5.weights.h5")  # the name tells Keras the format
        with h5py.File(path, "w") as file:
            for name, array in named.items():
                file[name] = array
        model.load_weights(path)
    return model


def _make_deterministic(seed: int, threads: int) -> tf.distribute.Strategy:
    """Fix everything that could make the next run of this process's first training differ.

    Returns:
        How the work is shared. It has to be made between the threads and everything else.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise TrainingError(
            "TensorFlow has started with another number of threads in this process",
            expected=str(threads),
            fix="train in a new process",
        ) from error
    together = processes.place(os.environ).size > 1
    distribution = tf.distribute
    strategy = (
        distribution.MultiWorkerMirroredStrategy() if together else distribution.get_strategy()
    )
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    with silent():
        tf.zeros(1)  # the first operation writes notes, too
    return strategy


def _for_inference(model: keras.Model) -> keras.Model:
    """The same network without optimizer and training history."""
    copy = network()
    copy.set_weights(model.get_weights())
    return copy


def _timeless(member: str, data: bytes) -> bytes:
    """A Keras archive's member without the date, and with counted object numbers."""
    if member == "metadata.json":
        return json.dumps({**json.loads(data), "date_saved": "1980-01-01@00:00:00"}).encode()
    if member == "config.json":
        numbers: dict[int, int] = {}

        def count(node: dict[str, object]) -> dict[str, object]:
            address = node.get("shared_object_id")
            if isinstance(address, int):
                node["shared_object_id"] = numbers.setdefault(address, len(numbers))
            return node

        return json.dumps(json.loads(data, object_hook=count)).encode()
    return data


def _channels_last(images: Array) -> Array:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


SAVE: dict[str, Callable[[keras.Model, Path], None]] = {
    "tensorflow_model.keras": save_keras,
    "tensorflow_hdf5_model.h5": save_hdf5,
    "tensorflow_hdf5.weights.h5": save_hdf5_weights,
    "tensorflow_saved_model": save_saved_model,
}
"""How each format is written: model and path in."""
