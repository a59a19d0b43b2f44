"""OMS 8.4, 8.5: what is there, compared with what was signed; messages say how it differs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from model_signing.errors import MismatchError
from model_signing.oms.manifest import Manifest
from model_signing.sources import Entry, Source

_SHOWN = 10  # names in one message


def named_as(source: Source, entries: Mapping[str, Entry], signed: Manifest) -> Manifest:
    """OMS 11: v0.3.1 and v1.0.0 named the file of a single-file model "."."""
    if not source.single or list(signed.files) != ["."]:
        return signed
    (name,) = entries
    digests = {name + resource[1:]: digest for resource, digest in signed.digests.items()}
    return replace(signed, digests=digests, files={name: signed.files["."]})


def compare_files(source: Source, entries: Mapping[str, Entry], signed: Manifest) -> None:
    """The same files, of the same sizes.

    Raises:
        MismatchError: Some are missing, were not signed, or have another size.
    """
    missing = [name for name in signed.files if name not in entries]
    unsigned = [name for name in entries if name not in signed.files]
    if missing or unsigned:
        lists = {"not signed": unsigned, "missing": missing}
        raise MismatchError(
            "the model does not have the files that were signed (OMS 8.4)",
            where=str(source),
            found="; ".join(
                [f"{what}: {some(names)}" for what, names in lists.items() if names]
                + _alike(missing, unsigned)
                + _remarks(source, {name: signed.digests.get(name, "") for name in missing})
            ),
            fix=None if missing else "remove them, or excuse them with --ignore-unsigned-files",
            files={"missing": sorted(missing), "unsigned": sorted(unsigned)},
        )
    for name, size in signed.files.items():
        if size is not None and size != entries[name].size:
            raise MismatchError(
                "a file does not have the size that was signed (OMS 8.4)",
                where=name,
                expected=f"{size} bytes",
                files={"changed": [name]},
                **{
                    "found": f"{entries[name].size} bytes",
                    **_cause(source, entries, [name]),
                },
            )


def _remarks(source: Source, missing: Mapping[str, str]) -> list[str]:
    """What the place knows of names that were signed, with these digests, and are not there."""
    remark = getattr(source, "remark", None)
    return list(filter(None, [remark(missing)])) if remark else []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _alike(missing: Sequence[str], unsigned: Sequence[str]) -> list[str]:
    """Names of which one was signed and another is there, that a reader would take for one."""
    found = []
    for what, key in (
        ("another Unicode form", partial(unicodedata.normalize, "NFC")),
        ("upper and lower case", _folded),
    ):
        there = {key(name): name for name in unsigned}
        alike = [(name, there[key(name)]) for name in sorted(missing) if key(name) in there]
        if alike:
            signed, other = (ascii(name)[1:-1] for name in alike[0])
            found.append(f"they differ in {what}: {signed} was signed, {other} is there")
            break
    return found


def compare_digests(
    source: Source, entries: Mapping[str, Entry], actual: Manifest, signed: Manifest
) -> None:
    """The same bytes.

    Raises:
        MismatchError: Some are not.
    """
    different = [name for name in signed.digests if actual.digests[name] != signed.digests[name]]
    if different:
        different.sort()  # as they are shown
        first = different[0]
        raise MismatchError(
            "the model is not what was signed (OMS 8.4)",
            files={"changed": different},
            **{
                "where": some(different),
                "expected": f"{signed.algorithm} {signed.digests[first]}",
                "found": f"{signed.algorithm} {actual.digests[first]}",
                **_cause(source, entries, [name for name in different if name in entries]),
            },
        )


def _cause(source: Source, entries: Mapping[str, Entry], names: Sequence[str]) -> dict[str, str]:
    """What explains a file that is not as signed, if something does."""
    from model_signing.sources.strays import is_pointer

    pointers = [name for name in names if is_pointer(source, name, entries[name])]
    if not pointers:
        return {}
    found = f"a pointer of Git LFS in place of the file: {some(pointers)}"
    return {"found": found, "fix": "get the files with `git lfs pull`"}


def some(names: Sequence[str]) -> str:
    """The first of many names, and how many there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
