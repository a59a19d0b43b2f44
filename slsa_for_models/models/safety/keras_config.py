"""Keras' description of an architecture: classes that only compute, and values of known kinds."""

from __future__ import annotations

import json
from typing import Any

from model_signing.oms import strict_json
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import check_name, words

_MOST_BYTES = 1024 * 1024
_MOST_LAYERS = 2000
_MOST_NUMBER = 2**32  # a seed may be that

# Layers, and parts of layers, that only compute. Not among them: Lambda (CVE-2024-3660,
# CVE-2025-1550, CVE-2025-9905), TFSMLayer (CVE-2026-1462) and TorchModuleWrapper, which bring
# code; StringLookup and the like (CVE-2025-12058), which read files; "function", which names any.
_CLASSES = words(
    """
    Sequential Functional InputLayer __keras_tensor__ DTypePolicy
    Dense Conv1D Conv2D Conv3D Conv2DTranspose DepthwiseConv2D SeparableConv2D
    BatchNormalization GroupNormalization LayerNormalization Normalization Rescaling
    Activation ReLU LeakyReLU PReLU ELU Softmax Dropout SpatialDropout2D GaussianNoise
    MaxPooling2D AveragePooling2D GlobalMaxPooling2D GlobalAveragePooling2D
    Flatten Reshape Permute ZeroPadding2D Cropping2D UpSampling2D
    Add Subtract Multiply Average Maximum Minimum Concatenate
    RandomFlip RandomCrop RandomRotation RandomTranslation RandomZoom
    Zeros Ones Constant RandomNormal RandomUniform TruncatedNormal VarianceScaling
    GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Orthogonal
    L1 L2 L1L2 MaxNorm NonNeg UnitNorm
    """
)
_MODULES = {
    "keras",
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.src.models.functional",
    "builtins",
    None,
}

# What describes an object, and what describes the arguments of these classes. Keras looks at every
# key that it knows anywhere, so that no other may be there.
_OBJECT = words(
    "class_name config module registered_name build_config shared_object_id name inbound_nodes"
    " build_input_shape"
)
_KEYS = _OBJECT | words(
    """
    args kwargs mask training layers input_layers output_layers trainable dtype
    batch_shape batch_input_shape sparse ragged optional shape input_shape keras_history
    units activation use_bias kernel_initializer bias_initializer kernel_regularizer
    bias_regularizer activity_regularizer kernel_constraint bias_constraint lora_rank lora_alpha
    quantization_config quantization_mode
    filters kernel_size strides padding data_format dilation_rate groups output_padding
    depth_multiplier depthwise_initializer depthwise_regularizer depthwise_constraint
    pointwise_initializer pointwise_regularizer pointwise_constraint
    axis momentum epsilon center scale beta_initializer gamma_initializer
    moving_mean_initializer moving_variance_initializer beta_regularizer gamma_regularizer
    beta_constraint gamma_constraint synchronized renorm renorm_clipping renorm_momentum
    rms_scaling offset mean variance invert
    max_value negative_slope threshold alpha alpha_initializer alpha_regularizer alpha_constraint
    shared_axes rate noise_shape seed stddev pool_size keepdims target_shape dims cropping size
    interpolation mode factor height width height_factor width_factor fill_mode fill_value
    value minval maxval distribution gain input_axes output_axes l1 l2 max_norm
    """
)

# Activations by name, which Keras looks up among its own functions.
_ACTIVATIONS = words(
    """
    linear relu relu6 leaky_relu elu selu celu gelu silu swish mish softplus softsign softmax
    log_softmax sigmoid log_sigmoid hard_sigmoid hard_silu hard_swish hard_tanh tanh exponential
    squareplus soft_shrink hard_shrink tanh_shrink sparse_plus sparsemax sparse_sigmoid threshold
    glu
    """
)


def check(config: bytes) -> bytes:
    """Refuses an architecture with anything but classes and keys that are known only to compute.

    Returns:
        The same without what only training needs.

    Raises:
        UnsafeModelError: It names another, or is no strict JSON.
    """
    if len(config) > _MOST_BYTES:
        raise UnsafeModelError("the Keras configuration is too large", found=f"{len(config):,}")
    root = strict_json.loads(config, UnsafeModelError, "the Keras configuration")
    if isinstance(root, dict):
        # HDF5 files do not say where the class of the whole is.
        functional = root.get("class_name") == "Functional"
        root.setdefault("module", "keras.src.models.functional" if functional else "keras")
    pending, layers = [root], 0
    while pending:
        node = pending.pop()
        if isinstance(node, int | float) and abs(node) > _MOST_NUMBER:
            raise UnsafeModelError("a number in the Keras configuration is absurd", found=str(node))
        if isinstance(node, str):
            check_name(node, "the Keras configuration")
        elif isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            node.pop("compile_config", None)
            # Objects that are shared bear their address in some memory.
            pending += [value for key, value in node.items() if key != "shared_object_id"]
            if "class_name" in node:
                layers += 1
                _check_class(node)
            _check_keys(node)
    if layers > _MOST_LAYERS * 10:  # each layer has some objects
        raise UnsafeModelError("the Keras configuration has too many layers", found=str(layers))
    return json.dumps(root).encode()


def _check_class(node: dict[str, Any]) -> None:
    """Compares what Keras would look a class up by; each may be any JSON value."""
    name, module = node["class_name"], node.get("module")
    registered = node.get("registered_name")
    known = name in list(_CLASSES) and module in list(_MODULES)
    if not known or registered not in (None, name):
        raise UnsafeModelError(
            "a Keras layer that is not known to be harmless",
            expected="layers that only compute",
            found=f"{module}.{name}"[:200],
            fix="load it yourself if you trust it with all your rights",
        )


def _check_keys(node: dict[str, Any]) -> None:
    for key, value in node.items():
        if key not in _KEYS:
            raise UnsafeModelError(
                "a key in the Keras configuration that is not known to be harmless",
                where=str(node.get("class_name", ""))[:80] or None,
                found=key[:80],
                fix="load it yourself if you trust it with all your rights",
            )
        if key == "activation" and isinstance(value, str) and value not in _ACTIVATIONS:
            raise UnsafeModelError("a Keras activation that is not known", found=value[:80])
