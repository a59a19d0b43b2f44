"""ONNX Runtime, which needs no framework."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def session(path: Path) -> onnxruntime.InferenceSession:
    """Read an ONNX graph that is all in this file, without warnings, which name its parts."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal; failures reach us as exceptions
    return onnxruntime.InferenceSession(
        path.read_bytes(),
        options,
        providers=["CPUExecutionProvider"],
        # It would compute what is constant, however large, and only warn where it cannot.
        disabled_optimizers=["ConstantFolding"],
    )
