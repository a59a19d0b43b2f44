"""Evidence in a model or beside it, by the names that our workflows give it.

The names begin with the model's own, so that the evidence of two models in a folder never mixes.
"""

from __future__ import annotations

from pathlib import Path

from model_signing.sources import beside

PROVENANCE = (".provenance.sigstore.json", ".intoto.jsonl", ".attestation.sigstore.json")


def names(model: Path) -> tuple[str, ...]:
    """The names that are looked for beside it."""
    return tuple(path.name for path in _places(model))


def find(model: Path, signature_name: str | None = None) -> tuple[Path | None, tuple[Path, ...]]:
    """The signature and the provenance files of a model.

    Args:
        model: A file or a folder.
        signature_name: See `model_signing.sources.beside.place`.

    Raises:
        UsageError: As that.
    """
    looked = beside.places(model, signature_name)
    signature = next((path for path in looked if path.is_file()), None)
    _, *provenance = _places(model)
    return signature, tuple(path for path in provenance if path.is_file())


def _places(model: Path) -> tuple[Path, ...]:
    suffixes = (beside.BESIDE, *(f"{{}}{suffix}" for suffix in PROVENANCE))
    return tuple(beside.place(model, name) for name in suffixes)
