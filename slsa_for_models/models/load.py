"""A model in memory, from the bytes that were verified."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_signing.errors import Error, FileError
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.models.safety.quarantine import Examination

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_signing.methods import Verifier
    from slsa_for_models.models.formats import Format


def load_model(
    model: str | os.PathLike[str],
    signature: str | os.PathLike[str],
    verifier: Verifier,
    *,
    format: str | None = None,
    allow_pickle: bool = False,
) -> Any:  # noqa: ANN401 - each framework has its own classes
    """Verify a model, then load it with the safest loader its format has.

        verifier = model_signing.key_verifier("publisher.pub")
        model = load_model("pytorch_model.pth", "pytorch_model.pth.sig", verifier)

    Args:
        model: A file, or a directory for `tensorflow_saved_model`.
        signature: Its OMS signature.
        verifier: Whose signature is accepted; see `model_signing.methods`.
        format: A key of `formats.FORMATS`; by default the model's name.
        allow_pickle: Load a format that can run any code, trusting the signer with that.

    Returns:
        `keras.Model`, `torch.nn.Module`, or for ONNX `onnxruntime.InferenceSession`. Of weights
        alone a dictionary by name: of `torch.Tensor`, or for `.weights.h5` of `numpy.ndarray`.

    Raises:
        UsageError: The format is unknown.
        UnsafeModelError: A pickle without `allow_pickle`; a model that is malformed or asks for
            more than computing.
        DependencyError: The framework is not installed.
        Error: The model is not what the signer signed; see `model_signing.verify`.
    """
    import model_signing

    model = Path(model)
    # 1. The format decides the loader, and whether loading is safe at all.
    row = formats.find(format or model.name)
    if row.runs_code and not allow_pickle:
        raise _refused_pickle(model, row)
    # 2. Whose model it is, and that these are its bytes.
    verified = model_signing.verify(model, signature, verifier)
    # 3. Loaders read paths, some of them lazily: they get a private copy of the verified bytes.
    with tempfile.TemporaryDirectory(prefix="verified-model-") as folder:
        copy = Path(folder, row.name)
        for name in verified.manifest.files:
            target = copy / name if row.directory else copy
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with verified.open(name) as source, target.open("xb") as private:
                    shutil.copyfileobj(source, private)
            except OSError as error:
                raise FileError(
                    "cannot copy the model", where=name, found=error.strerror
                ) from error
        # 4. Load, after a process of its own found it harmless.
        return load_unverified(copy, row, pickle=row.runs_code)


def load_unverified(path: Path, format: Format, *, pickle: bool = False) -> Any:  # noqa: ANN401
    """Load a model whose origin is known otherwise, such as one that was just trained.

    Args:
        path: The model.
        format: How it was saved.
        pickle: Use Python's unpickler, which runs any code.

    Raises:
        UnsafeModelError: It is malformed, or asks for more than computing.
        DependencyError: The framework is not installed.
    """
    if pickle:
        return _loaded(formats.framework(format).load_pickle, path, format)
    if format.runs_code:
        raise _refused_pickle(path, format)
    with tempfile.TemporaryDirectory(prefix="harmless-model-") as folder:
        clean = Path(folder, format.name)
        with Examination(path, format, clean) as examination:
            framework = formats.framework(format)  # which takes its time, too
            examination.wait()
        loader = getattr(framework, format.load)
        return _loaded(loader, clean if clean.exists() else path, format)


def _refused_pickle(model: Path, format: Format) -> UnsafeModelError:
    return UnsafeModelError(
        f"{format.name} is a pickle: loading it runs whatever code its maker put in",
        where=str(model),
        fix="take another format, or trust the signer with your rights: --allow-pickle",
    )


def _loaded(loader: Callable[[Path], Any], path: Path, format: Format) -> Any:  # noqa: ANN401
    try:
        return loader(path)
    except Error:
        raise
    except Exception as error:  # frameworks raise every class there is for a malformed file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsafeModelError(
            "the model cannot be loaded", where=format.name, found=lines[0][:300]
        ) from error
