"""Evidence beside a model, by the names that our workflows give it.

The names begin with the model's own, so that the evidence of two models in a folder never mixes.
"""

from __future__ import annotations

from pathlib import Path

SIGNATURE = ".sig"
PROVENANCE = (".provenance.sigstore.json", ".intoto.jsonl", ".attestation.sigstore.json")


def names(model: Path) -> tuple[str, ...]:
    """The names that are looked for."""
    return tuple(f"{model.absolute().name}{suffix}" for suffix in (SIGNATURE, *PROVENANCE))


def find(model: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """The signature and the provenance files that lie beside a model."""
    model = model.absolute()  # the folder one stands in has a name, too
    signature, *provenance = (model.with_name(name) for name in names(model))
    found = tuple(path for path in provenance if path.is_file())
    return signature if signature.is_file() else None, found
