"""Signature files, wherever they lie: on this machine, or at an address beside a model."""

from __future__ import annotations

import os
from pathlib import Path

from model_signing import safe_files
from model_signing.errors import BundleError, FileError, UsageError
from model_signing.oms.bundle import MAX_BUNDLE_SIZE, is_bundle
from model_signing.sources import (
    AnyPath,
    AttachingSource,
    Source,
    can_attach,
    has_signatures,
    is_address,
    local,
    open_source,
    place_of,
)
from model_signing.sources.local import LocalSource

Where = Path | str
"""A path, or an address."""


def where(signature: AnyPath) -> Where:
    """An address as it is, anything else as a path."""
    if isinstance(signature, str) and is_address(signature):
        return signature
    return signature if isinstance(signature, Path) else Path(signature)


def read(place: Where) -> bytes:
    """A signature file.

    Raises:
        FileError: It cannot be read, or there is none. BundleError: It is too large.
    """
    if isinstance(place, Path):
        return safe_files.read_bounded(place)
    data = _older(place)
    if data is None:
        raise FileError("there is no file at this address", where=place)
    return data


def beside(model: AnyPath | Source) -> tuple[Source, list[tuple[str, bytes]]]:
    """A model elsewhere, and the signature files that lie with it: address and content.

    Raises:
        UsageError: It is on this machine, where its signature has to be named.
        FileError: There is none, or the place does not answer.
    """
    source = open_source(model)
    if not has_signatures(source):
        raise UsageError("--signature is required: the file with the model's signature")
    found = list(source.signatures())
    if not found:
        raise FileError(
            "no signature lies with the model",
            where=str(source),
            fix="name one with --signature: a file, or an address",
        )
    return source, found


def own(source: Source, signature: Where | None) -> set[str]:
    """OMS 6.2: the signature file's own name in the model; also of what it links to."""
    if signature is None:
        return set()
    if isinstance(source, LocalSource):
        if isinstance(signature, str):
            return set()
        paths = [signature]
        if signature.is_symlink():
            paths.append(Path(os.path.realpath(signature)))
        return {name for path in paths if (name := local.name_inside(source.path, path))}
    name = source.inside(signature) if isinstance(signature, str) and has_signatures(source) else ""
    return {name} if name else set()


def check_output(source: Source, signature: Where) -> None:
    """Fails before the hashing, not after it; and never writes over the model.

    Raises:
        FileError: It cannot be written, or would replace something else than a signature.
    """
    if isinstance(signature, str):
        _check_older(signature, _older(signature))
        return
    model = os.path.realpath(source.path) if isinstance(source, LocalSource) else None
    if os.path.realpath(signature) == model:
        raise FileError("the signature needs a file of its own", where=str(signature))
    safe_files.check_output(signature)
    if own(source, signature) and signature.is_file() and not signature.stat().st_size:
        raise FileError(
            "the signature would replace a file of the model",
            where=str(signature),
            fix="choose another name with --signature",
        )


def write(signature: Where, bundle: bytes) -> None:
    """Writes a signature file, whole or not at all.

    Raises:
        FileError: It cannot be written.
    """
    if isinstance(signature, str):
        place_of(signature).write_file(signature, bundle)
    else:
        safe_files.write_atomic(signature, bundle, over_bundles_only=True)


def attaching(source: Source) -> AttachingSource:
    """The source, if signatures can be attached to its model: before it is hashed, not after.

    Raises:
        UsageError: Its place attaches nothing. FileError: We may not.
    """
    if not can_attach(source):
        raise UsageError(
            "a signature is attached to a model in a registry",
            where=str(source),
            expected="oci://HOST[:PORT]/NAME:TAG",
            fix="name a file for the signature with --signature",
        )
    source.check_attach()
    return source


def _older(address: str) -> bytes | None:
    data: bytes | None = place_of(address).read_file(address, MAX_BUNDLE_SIZE + 1)
    if data is not None and len(data) > MAX_BUNDLE_SIZE:
        expected = f"at most {MAX_BUNDLE_SIZE} bytes"
        raise BundleError("the file is too large", where=address, expected=expected)
    return data


def _check_older(address: str, data: bytes | None) -> None:
    if data is not None and not is_bundle(data):
        raise FileError(
            "the output would replace something that is no signature",
            where=address,
            expected="a new name, or one older Sigstore bundle",
            fix="choose another name",
        )
