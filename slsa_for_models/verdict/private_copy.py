"""A verified model where it is used: a copy that nobody else can write to.

Verification that ends before the model is loaded leaves a moment in which it can be exchanged. So
whoever loads it gets the bytes that were hashed, and never the place where they came from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from model_signing.hashing import Progress
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.safe_files import make_read_only, temporary_folder
from model_signing.sources import AnyPath, Source, open_source
from model_signing.sources.copying import Copy
from model_signing.sources.local import on_disk
from slsa_for_models.verdict.base_models import BaseModel
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import OFFLINE
from slsa_for_models.verdict.run_conclusion import GitHubApi
from slsa_for_models.verdict.verification import verify


@contextmanager
def verified(
    model: AnyPath | Source,
    expected: Expectations,
    *,
    signature: AnyPath | None = None,
    provenance: Sequence[AnyPath] = (),
    training_record: AnyPath | None = None,
    vsa: AnyPath | None = None,
    base_models: Sequence[BaseModel] = (),
    trust: SigstoreTrust = OFFLINE,
    run_conclusion: GitHubApi | None = None,
    progress: Progress | None = None,
    jobs: int | None = None,
    keep: AnyPath | None = None,
) -> Iterator[Path]:
    """The path of a copy of a model that is verified, whatever happens to the model itself.

        with verified("my-model", load_policy("policy.toml"), signature="my-model.sig") as path:
            model = AutoModel.from_pretrained(path)

    The copy is made of the bytes that are hashed, in the system's folder for temporary files
    (`TMPDIR`); it is nobody else's, it is read-only, and it goes when the block ends. A model that
    holds code is refused as a pickle is, unless `expected.code` is "allowed".

    It takes what `verify` takes, and `keep`: a folder that is not there yet, or is empty, where the
    copy appears instead, with the rights of any other folder, and stays.

    Raises:
        Error: The model is not verified (the verdict's first refusal), or anything that `verify`
            raises. Nothing is left then.
    """
    source = open_source(model)
    with place(source, keep) as copy:
        verify(
            source,
            for_use(expected),
            signature=signature,
            provenance=provenance,
            training_record=training_record,
            vsa=vsa,
            base_models=base_models,
            trust=trust,
            run_conclusion=run_conclusion,
            progress=progress,
            jobs=jobs,
            copy_to=copy,
        ).require()
        yield copied(source, copy, keep)


def for_use(expected: Expectations) -> Expectations:
    """What is expected of a model that is about to be loaded: no code, unless something is said."""
    return expected if expected.code else replace(expected, code="refused")


@contextmanager
def place(source: Source, keep: AnyPath | None, *, inherited: bool = False) -> Iterator[Copy]:
    """Where the copy of a model is to be: `keep`, or a place that goes when the block ends.

    Args:
        source: The model.
        keep: See `verified`.
        inherited: See `temporary_folder`.
    """
    if keep is not None:
        yield Copy(keep)
        return
    with temporary_folder(Path(tempfile.gettempdir()), inherited=inherited) as private:
        # Loaders take a folder's name for the model's.
        name = "model" if source.single else on_disk(source.name)
        yield Copy(private / name, lasting=False)


def copied(source: Source, copy: Copy, keep: AnyPath | None) -> Path:
    """What to load, of a model that was copied to its `place`: read-only, unless it is kept."""
    if keep is None:
        make_read_only(copy.folder)
    return copy.folder / on_disk(source.name) if source.single else copy.folder
