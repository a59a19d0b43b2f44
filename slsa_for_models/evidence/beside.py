"""Evidence in a model or beside it, by the names that our workflows give it.

The names begin with the model's own, so that the evidence of two models in a folder never mixes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from model_signing.errors import UsageError
from model_signing.sources import AnyPath, Source, beside, can_attach, has_signatures, signatures
from slsa_for_models.evidence import statement_names
from slsa_for_models.evidence.provenance import PREDICATE_V02, PREDICATE_V1

PROVENANCE = (".provenance.sigstore.json", ".intoto.jsonl", ".attestation.sigstore.json")


def names(
    model: Path, signature_name: str | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `find` looks for, in it or beside it: names of a signature, and of provenance."""
    places = beside.places(model, signature_name), _provenance(model)
    signature, provenance = (tuple(path.name for path in paths) for paths in places)
    return signature, provenance


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
    return signature, tuple(path for path in _provenance(model) if path.is_file())


def _provenance(model: Path) -> tuple[Path, ...]:
    return tuple(beside.place(model, f"{{}}{suffix}") for suffix in PROVENANCE)


class Fetched(NamedTuple):
    """A signature file on this machine, and the names in the model of what it was fetched from."""

    path: Path | None
    inside: tuple[str, ...] = ()


class Attached(NamedTuple):
    """Files with what was attached to a model in its registry: one of all provenance; summaries."""

    provenance: tuple[Path, ...] = ()
    vsa: tuple[Path, ...] = ()


@contextmanager
def attached(model: Source, *, provenance: bool, vsa: bool) -> Iterator[Attached]:
    """What was attached to a model in its registry, as files for as long as the context lasts.

    Args:
        model: The model.
        provenance: Whether provenance is wanted.
        vsa: Whether verification summaries are.

    Raises:
        UsageError: Its place attaches nothing. FileError: It does not answer.
    """
    if not can_attach(model):
        raise UsageError("--attached is for a model in a registry", found=str(model))
    kinds = {PREDICATE_V02, PREDICATE_V1} if provenance else set()
    provenances = [data for _, data in model.attached(kinds)] if kinds else []
    summaries = [data for _, data in model.attached({statement_names.VSA})] if vsa else []
    with TemporaryDirectory(prefix="attached-") as folder:
        together = Path(folder, "attached provenance")
        if provenances:
            together.write_bytes(_in_one(provenances))
        files = [Path(folder, f"attached summary {n}") for n in range(1, len(summaries) + 1)]
        for path, data in zip(files, summaries, strict=True):
            path.write_bytes(data)
        yield Attached((together,) if provenances else (), tuple(files))


@contextmanager
def at_hand(*places: AnyPath | None) -> Iterator[tuple[Path, ...]]:
    """Files of evidence, as far as there are any; fetched from addresses while the context lasts.

    Raises:
        FileError: One cannot be read. BundleError: It is too large.
    """
    with ExitStack() as stack:
        yield tuple(
            _fetched(stack, place) if isinstance(place, str) else place
            for place in (signatures.where(one) for one in places if one is not None)
        )


def _fetched(stack: ExitStack, address: str) -> Path:
    data = signatures.read(address)
    folder = stack.enter_context(TemporaryDirectory(prefix="evidence-"))
    path = Path(folder, _name(address))
    path.write_bytes(data)
    return path


def _name(address: str) -> str:
    name = address.rpartition("/")[2]
    # Places have longer names than file systems.
    return "evidence" if name in ("", ".", "..") or len(os.fsencode(name)) > 255 else name


@contextmanager
def fetched(model: Source, signature: AnyPath | None, *, look: bool) -> Iterator[Fetched]:
    """A signature from an address, as a file for as long as the context lasts.

    Args:
        model: What it is about.
        signature: A path, an address, or None.
        look: Whether to take what lies with the model where that is elsewhere, if `signature` is
            None. Several become one file with several attestations.

    Raises:
        FileError: It cannot be read.
    """
    place = None if signature is None else signatures.where(signature)
    if isinstance(place, str):
        found = [(place, signatures.read(place))]
    elif look and place is None and has_signatures(model):
        found = list(model.signatures())
    else:
        found = []
    if not found:
        yield Fetched(place if isinstance(place, Path) else None)
        return
    names = {name for address, _ in found for name in signatures.own(model, address)}
    data = [content for _, content in found]
    with TemporaryDirectory(prefix="signature-") as folder:
        path = Path(folder, _name(found[0][0]))
        path.write_bytes(_in_one(data))
        yield Fetched(path, tuple(sorted(names)))


def _in_one(bundles: list[bytes]) -> bytes:
    """One file with several attestations, or the only one as it is."""
    return bundles[0] if len(bundles) == 1 else b"[%s]" % b",".join(bundles)
