"""What a model is to provenance: the SHA-256 of every file, and one name for all of them.

Files are enumerated and hashed by `model_signing`, so that provenance and signature speak of the
same files (design: git's own files are left out, symbolic links refused). A directory's OMS root
digest says nothing about file names (OMS 6.5.1): it only ever stands beside its files.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from model_signing.errors import FileError, UsageError
from model_signing.hashing import Means, hash_model
from model_signing.oms import statement
from model_signing.oms.manifest import Manifest, Serialization
from model_signing.oms.names import GIT_PATHS, HUB_PATH, Selection, covered
from model_signing.sources import AnyPath, Source, can_attach, open_source
from slsa_for_models.errors import RecordError, SubjectError
from slsa_for_models.evidence.training_plan import listing_digest

if TYPE_CHECKING:
    from model_signing.api import Verified
    from model_signing.sources.copying import Copy
    from slsa_for_models.evidence.statement import Resource
    from slsa_for_models.evidence.training_record import TrainingRecord

MAX_ENCODED = 96 * 1024
"""A directory with a longer list of files has one subject, the digest of its signed OMS payload.
The list is an environment variable of the jobs that sign, ours and the generator's, for which Linux
has 128 KiB."""

MOST_FOLDERS = 100
"""Places in a list of subjects where a model may lie: each is compared as a whole."""

_PLAIN = Serialization("files", "sha256", None, False, GIT_PATHS)


@dataclass(frozen=True)
class Subject:
    """A name and the SHA-256 of what it names, hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ModelDigests:
    """A model as it was hashed.

    Attributes:
        name: The last part of its path.
        single: Whether it is one file.
        files: Relative name -> SHA-256; for a single file, its own name.
        root: The OMS root digest: SHA-256 over the files' raw digests, sorted by name.
        payload_sha256: SHA-256 of the OMS statement, which binds names too: the signed one, or the
            one that signing a directory with default options makes; "" for an unsigned file.
        manifest_sha256: Of the manifest that names all files, where they lie in a registry and were
            compared with it; else "".
    """

    name: str
    single: bool
    files: Mapping[str, str]
    root: str
    payload_sha256: str
    manifest_sha256: str = ""

    @property
    def sha256(self) -> str:
        """The one digest that identifies the model: of the file, or of the OMS payload."""
        return next(iter(self.files.values())) if self.single else self.payload_sha256


def measure(
    model: AnyPath | Source,
    means: Means = Means(),  # noqa: B008  (frozen)
    copy: Copy | None = None,
) -> ModelDigests:
    """Hashes a model.

    Args:
        model: A file or a directory, or where else it lies.
        means: With what.
        copy: Gets the bytes as they are hashed.

    Raises:
        FileError: It cannot be read, is empty, or has symbolic links or unusable names.
    """
    source = open_source(model)
    # As `sign` leaves out by default, and notes what was there (OMS 6.2).
    selection = Selection((*GIT_PATHS, HUB_PATH), noted=frozenset({HUB_PATH}))
    entries, there = source.entries(selection)
    hub = (HUB_PATH,) if any(covered(name, (HUB_PATH,)) for name in there) else ()
    how = replace(_PLAIN, ignore_paths=(*GIT_PATHS, *hub))
    built = hash_model(source, entries, how, **means._asdict(), copy=copy)
    return _digests(source, built, None)


def of_verified(
    model: AnyPath | Source, verified: Verified, copy: Copy | None = None
) -> ModelDigests:
    """The digests of a model whose OMS signature holds: those of the verified bytes.

    A signature with other digests than SHA-256 of whole files says nothing that provenance could
    be compared with; then the files are hashed once more, in the copy if there is one.
    """
    signed = verified.manifest
    links, payload = signed.serialization.allow_symlinks, verified.payload_digest
    source = open_source(model, allow_symlinks=links)
    if signed.serialization.method == "files" and signed.algorithm == "sha256":
        return _digests(source, signed, payload)
    # The signature decided which files are the model.
    lies = source if copy is None else copy.source
    entries, _ = lies.entries(Selection(listed=signed.files.keys(), only_listed=True))
    how = replace(_PLAIN, allow_symlinks=links)
    return _digests(source, hash_model(lies, entries, how), payload)


def of_model(model: ModelDigests) -> tuple[Subject, ...]:
    """The subjects of a model's provenance.

    A file: itself. A directory: every file as `NAME/FILE`, and the OMS root as `NAME`; above
    `MAX_ENCODED` characters in base64, only the OMS payload's digest as `NAME`.
    """
    if model.single:
        return (Subject(model.name, model.sha256),)
    listed = [Subject(f"{model.name}/{name}", digest) for name, digest in model.files.items()]
    listed.append(Subject(model.name, model.root))
    if len(encode(listed)) > MAX_ENCODED:
        return (Subject(model.name, model.payload_sha256),)
    return tuple(listed)


def checksums(subjects: Iterable[Subject]) -> str:
    """Lines as `sha256sum` prints them.

    Raises:
        UsageError: Two subjects have one name.
    """
    subjects = tuple(subjects)
    names = [subject.name for subject in subjects]
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UsageError("two subjects have the same name", found=twice)
    return "".join(f"{subject.sha256}  {subject.name}\n" for subject in subjects)


def encode(subjects: Iterable[Subject]) -> str:
    """`checksums` in base64, on one line: what slsa-github-generator takes."""
    return base64.b64encode(checksums(subjects).encode()).decode()


def check_encoded(expected: str, found: Iterable[Subject]) -> None:
    """Compares subjects with those that another job reported.

    Args:
        expected: Base64, from `encode`.
        found: The subjects at hand.

    Raises:
        UsageError: `expected` is not base64 of checksums.
        SubjectError: They differ.
    """
    try:
        text = base64.b64decode(expected, validate=True).decode()
        lines = [line.partition("  ") for line in text.removesuffix("\n").split("\n")]
    except (binascii.Error, ValueError):
        raise UsageError("not base64 of sha256sum lines", where="--expected") from None
    wanted = {name: digest for digest, _, name in lines}
    if len(wanted) != len(lines):  # whoever attests to the lines would attest to both digests
        raise SubjectError("the same file was reported twice", where="--expected")
    at_hand = {subject.name: subject.sha256 for subject in found}
    # A directory's root, which says least of what differs, comes last.
    for name in sorted(wanted.keys() | at_hand.keys(), reverse=True):
        if wanted.get(name) != at_hand.get(name):
            raise SubjectError(
                "the model is not the one that was reported",
                where=name,
                expected=wanted.get(name, "not listed"),
                found=at_hand.get(name, "no such file"),
                fix="do not use it: it changed between two jobs",
            )


def check(subjects: Iterable[Resource], model: ModelDigests) -> str:
    """Whether provenance is about this model (SLSA v1.2 verifying-artifacts, 1.2).

    A file: one subject has its digest. A directory: its OMS payload is a subject; or every file is
    one by name and digest. Either in a registry: its manifest is one. Where the root digest is
    named, nothing else is below that name. Others name the files with a common folder before them,
    with `./`, or by base names alone; subjects outside that folder are other artifacts.

    Returns:
        What matched, and how, in words.

    Raises:
        SubjectError: It is about something else, or names it ambiguously.
    """
    subjects = tuple(subjects)
    listed = [(subject.name, subject.sha256) for subject in subjects if subject.sha256]
    without = {_plain(subject.name) for subject in subjects if not subject.sha256}
    for name, digest in listed:
        if digest == model.manifest_sha256:
            return f"{name} sha256:{digest} (the manifest in its registry)"
    if model.single:
        return _check_file(listed, without, model)
    for name, digest in listed:
        if digest == model.payload_sha256:
            return f"{name} sha256:{digest} (the signed list of its files)"
    root = next((f"{name}/" for name, digest in listed if digest == model.root), None)
    if root is not None:
        below = [(name[len(root) :], one) for name, one in listed if name.startswith(root)]
        _compare(below, model, without, root)
        return f"{len(below)} files of {root.rstrip('/') or model.name}, each by name and digest"
    plain = [(_plain(name), digest) for name, digest in listed]
    return _check_named_by_others(plain, without, model)


def _plain(name: str) -> str:
    """A name without `./` before it, which changes nothing."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _check_file(listed: Sequence[tuple[str, str]], without: Set[str], model: ModelDigests) -> str:
    for name, digest in listed:
        if digest == model.sha256:
            return f"{name} sha256:{digest}"
    expected = next((digest for name, digest in listed if name == model.name), None)
    raise SubjectError(
        "the provenance is about other bytes",
        where=model.name,
        expected=expected or _such_as(listed),
        found=model.sha256,
        fix="its subject of that name has no sha256 to compare" if model.name in without else None,
    )


def _such_as(listed: Sequence[tuple[str, str]]) -> str:
    if not listed:
        return "a subject with a sha256"
    name, digest = listed[0]
    return f"one of {len(listed)} subjects, such as {name} sha256:{digest}"


def _check_named_by_others(
    listed: Sequence[tuple[str, str]], without: Set[str], model: ModelDigests
) -> str:
    """With a common folder, with none, or by base names: the first that fits; else the nearest."""
    refusals: list[tuple[int, SubjectError]] = []
    for below, named, folder, how in _readings(listed, model):
        try:
            _compare(below, named, without, folder)
        except SubjectError as error:
            matching = sum(named.files.get(name) == digest for name, digest in below)
            refusals.append((matching, error))
            continue
        others = len(listed) - len(below)
        beside = f"; {others} other subjects" if others else ""
        return f"{len(below)} files, each by digest{how}{beside}"
    raise max(refusals, key=lambda entry: entry[0])[1]


def _readings(
    listed: Sequence[tuple[str, str]], model: ModelDigests
) -> Iterator[tuple[list[tuple[str, str]], ModelDigests, str, str]]:
    """What may be meant: names and digests, of what model, below which folder, in words."""
    # Where its rarest file lies, the others have to lie; the same bytes first.
    how_often = Counter(digest for _, digest in listed)
    rare = min(model.files, key=lambda name: how_often[model.files[name]])
    tails = [entry for entry in listed if f"/{entry[0]}".endswith(f"/{rare}")]
    tails.sort(key=lambda entry: entry[1] != model.files[rare])
    found = [name[: -len(rare)] for name, _ in tails]
    for folder in [*dict.fromkeys(found)][:MOST_FOLDERS] or [f"{model.name}/"]:
        below = [(name[len(folder) :], one) for name, one in listed if name.startswith(folder)]
        if not folder:  # what else was built may lie beside the files
            below = [(name, one) for name, one in below if name in model.files]
        yield below, model, folder, f", below {folder}" if folder else ", by its own name"
    bases = {name.rpartition("/")[2]: digest for name, digest in model.files.items()}
    if len(bases) == len(model.files) and any("/" in name for name in model.files):
        by_base = [(name, one) for name, one in listed if name in bases]
        yield by_base, replace(model, files=bases), "", " and base name"


def _compare(
    below: Sequence[tuple[str, str]], model: ModelDigests, without: Set[str], folder: str
) -> None:
    """The files named are those of the model, no more and no less.

    Raises:
        SubjectError: They are not, or two subjects have one name.
    """
    wanted = dict(below)
    if len(wanted) != len(below):
        twice = Counter(name for name, _ in below).most_common(1)[0][0]
        raise SubjectError("two subjects have the same name", where=f"{folder}{twice}")
    for name in sorted(wanted.keys() | model.files.keys()):
        if wanted.get(name) != model.files.get(name):
            names = wanted.keys() | model.files.keys()
            alike = [one for one in names if one != name and one.lower() == name.lower()]
            fix = f"{name} and {alike[0]} differ in upper and lower case" if alike else None
            if f"{folder}{name}" in without:
                fix = "its subject has no sha256 to compare"
            raise SubjectError(
                "the provenance is about other files",
                where=name,
                expected=wanted.get(name, "not listed"),
                found=model.files.get(name, "no such file"),
                fix=fix,
            )


def check_record(record: TrainingRecord, model: ModelDigests) -> None:
    """Whether a training record is about this model: a file's digest, or that of a listing.

    Raises:
        RecordError: It is about another one.
    """
    found = model.sha256 if model.single else listing_digest(model.files.items())
    if record.model.sha256 != found:
        raise RecordError(
            "the training record is about another model",
            where="model.sha256",
            expected=record.model.sha256,
            found=found,
        )


def _digests(source: Source, built: Manifest, payload: str | None) -> ModelDigests:
    if not built.digests:
        raise FileError("the model has no files", where=str(source))
    name, single = source.name, source.single
    digests = {name: next(iter(built.digests.values()))} if single else dict(built.digests)
    root = statement.root_digest(built.digests.values())
    if payload is None:
        payload = "" if single else sha256(statement.encode(name, built)).hexdigest()
    manifest = source.known_as[1] if can_attach(source) else ""
    return ModelDigests(name, single, digests, root, payload, manifest)
