"""A model in memory, from the bytes that were verified."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_signing.errors import Error
from model_signing.safe_files import temporary_folder
from model_signing.sources import AnyPath, Source, open_source
from model_signing.sources.copying import Copy
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models import formats
from slsa_for_models.models.safety.quarantine import Examination

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_signing.methods import Verifier
    from slsa_for_models.models.formats import Format


def load_model(
    model: AnyPath | Source,
    signature: AnyPath | None,
    verifier: Verifier,
    *,
    format: str | None = None,
    allow_pickle: bool = False,
) -> Any:  # noqa: ANN401 - each framework has its own classes
    """Verify a model, then load it with the safest loader its format has.

        verifier = model_signing.key_verifier("publisher.pub")
        model = load_model("pytorch_model.pth", "pytorch_model.pth.sig", verifier)

    Args:
        model: A file; or a directory, for `tensorflow_saved_model` and `safetensors_folder`; or
            where else it lies, see `model_signing.sources`.
        signature: Its OMS signature, or its address; None: what lies with a model elsewhere.
        verifier: Whose signature is accepted; see `model_signing.methods`.
        format: A key of `formats.FORMATS`, or "safetensors_folder"; by default the model's name,
            or what a folder with a `config.json` is: the layout of models on Hugging Face.
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

    source = open_source(model)
    # 1. The format decides the loader, and whether loading is safe at all.
    row = formats.to_load(source, format)
    if row.runs_code and not allow_pickle:
        raise _refused_pickle(source, row)
    # 2. Whose model it is, and that these are its bytes. Loaders read paths, some of them lazily:
    # they get a private copy of the verified bytes.
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        private = folder / (row.name if row.directory else "model")
        with Copy(private, lasting=False) as copy:
            model_signing.verify(source, signature, verifier, copy_to=copy)
            copy.keep()
        path = Path(copy.kept.path)
        if path.is_dir() is not row.directory:
            raise UnsafeModelError(
                "the model is not of its format", where=str(source), expected=row.holds
            )
        # Loaders go by a file's name.
        path = path if row.directory else path.rename(folder / row.name)
        # 3. Load, after a process of its own found it harmless.
        return load_unverified(path, row, pickle=row.runs_code)


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


def _refused_pickle(model: Path | Source, format: Format) -> UnsafeModelError:
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
