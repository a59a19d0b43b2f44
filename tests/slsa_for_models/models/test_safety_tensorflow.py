"""A SavedModel whose serving function writes files, with operators that every SavedModel has."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.models.load import load_unverified

SAVED_MODEL = formats.FORMATS["tensorflow_saved_model"]


class Writer(tf.Module):
    def __init__(self, target: Path) -> None:
        super().__init__()
        self.target = str(target)

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3])])
    def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        written = tf.raw_ops.SaveV2(
            prefix=self.target, tensor_names=["x"], shape_and_slices=[""], tensors=[pixels]
        )
        with tf.control_dependencies([written]):
            return {"logits": tf.reduce_mean(pixels, axis=[1, 2])}


def test_saved_model_that_writes_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    model, writer = tmp_path / SAVED_MODEL.name, Writer(tmp_path / "proof")
    tf.saved_model.save(writer, str(model), signatures=writer.__call__)
    with pytest.raises(UnsafeModelError, match="a TensorFlow operator") as refused:
        load_unverified(model, SAVED_MODEL)
    assert refused.value.found == "SaveV2"
    assert not list(tmp_path.glob("proof*"))
