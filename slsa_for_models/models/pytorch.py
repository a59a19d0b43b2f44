"""PyTorch's formats, loaded as safely as each can be, whoever saved them.

Importing this module imports PyTorch; only the commands that need it do so.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import safetensors.torch
import torch
from torch import Tensor, nn

from slsa_for_models.models import onnx_runtime

Array = Any  # numpy's arrays of any type


def weights(
    model: nn.Module | dict[str, Tensor] | onnxruntime.InferenceSession,
) -> dict[str, Array]:
    """Weights and statistics by name; none of an ONNX session, which does not show them."""
    if isinstance(model, onnxruntime.InferenceSession):
        return {}
    named = model if isinstance(model, dict) else model.state_dict()
    return {name: tensor.numpy() for name, tensor in named.items()}


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read weights with the restricted unpickler, which builds tensors and nothing else."""
    named: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return named


def load_pickle(path: Path) -> object:
    """Read whatever a pickle holds; it can run any code. For those who trust its signer."""
    return torch.load(path, weights_only=False)


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """Read a TorchScript program that only computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            path, map_location="cpu"
        )
    return model


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read weights from safetensors."""
    return safetensors.torch.load_file(path)


def load_folder(path: Path) -> dict[str, Tensor]:
    """Read the weights of all shards in a folder, of which no two have a tensor in common."""
    named: dict[str, Tensor] = {}
    for shard in sorted(path.glob("*.safetensors")):
        named.update(safetensors.torch.load_file(shard))
    return named


def load_onnx(path: Path) -> onnxruntime.InferenceSession:
    """Read an ONNX graph."""
    return onnx_runtime.session(path)
