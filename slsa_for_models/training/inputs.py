"""What training reads, in its place in the workspace: only bytes that are those pinned."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model_signing.errors import Error
from slsa_for_models.errors import DatasetError
from slsa_for_models.evidence.training_plan import Pin
from slsa_for_models.evidence.training_record import describe_file, describe_model
from slsa_for_models.training import download

Say = Callable[[str], None]


@dataclass(frozen=True)
class AtHand:
    """Files that need not be fetched.

    Attributes:
        by_digest: SHA-256, hexadecimal -> a file that should have it.
        artifacts: The folder with the artifacts of earlier jobs, each in a folder of its name.
    """

    by_digest: Mapping[str, Path] = field(default_factory=dict)
    artifacts: Path | None = None


def place(pins: Iterable[Pin], workspace: Path, at_hand: AtHand, say: Say) -> tuple[Path, ...]:
    """Every input in its place, checked; none of them can be written any more.

    Args:
        pins: The inputs.
        workspace: A copy of the source.
        at_hand: What need not be fetched.
        say: Takes progress, a line at a time.

    Raises:
        DatasetError: One cannot be had, or is another one, or its place is taken.
    """
    return tuple(_place(pin, workspace, at_hand, say) for pin in pins)


def check_unchanged(pins: Iterable[Pin], placed: Iterable[Path]) -> None:
    """The inputs are still what they were.

    Raises:
        DatasetError: One is not.
    """
    for pin, path in zip(pins, placed, strict=True):
        is_file = path.is_file() and not path.is_symlink()
        if not is_file or describe_file(path, pin.path).sha256 != pin.sha256:
            raise DatasetError(
                "the command changed its data",
                where=pin.path,
                expected=pin.sha256,
                found="another file, or none",
            )


def place_models(models: Mapping[str, Path], workspace: Path) -> dict[Path, str]:
    """Base models in their places; returns each with its digest.

    Args:
        models: Place in the workspace -> a model that was verified; it is moved.
        workspace: A copy of the source.

    Raises:
        DatasetError: A place is taken, or leads out of the workspace.
    """
    placed = {}
    for name, model in models.items():
        path = workspace / name
        if not inside(path, workspace) or path.is_symlink() or path.exists():
            raise DatasetError("the source has something in the place of a base model", where=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(model, path)
        placed[path] = describe_model(path, path.name).sha256
    return placed


def check_same_models(placed: Mapping[Path, str]) -> None:
    """The base models are still what they were.

    Raises:
        DatasetError: One is not.
    """
    for path, digest in placed.items():
        if (
            path.is_symlink()
            or not path.exists()
            or describe_model(path, path.name).sha256 != digest
        ):
            raise DatasetError("the command changed a base model", where=path.name, expected=digest)


def inside(path: Path, workspace: Path) -> bool:
    """Whether no link on the way to a place leads out of the workspace."""
    return path.parent.resolve().is_relative_to(workspace.resolve())


def _place(pin: Pin, workspace: Path, at_hand: AtHand, say: Say) -> Path:
    path = workspace / pin.path
    if not inside(path, workspace):
        raise DatasetError("a link leads out of the workspace", where=pin.path)
    is_there = path.is_symlink() or path.exists()
    from_source = pin.uris[:1] == ("source:",)
    if from_source and (path.is_symlink() or not path.is_file()):
        raise DatasetError("the source does not have this input", where=pin.path)
    if is_there and not from_source:
        raise DatasetError("the source has a file in the place of an input", where=pin.path)
    if not from_source:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(pin, path, at_hand, say)
        except OSError as error:
            raise DatasetError(
                "an input cannot be had", where=_where(pin), found=error.strerror or str(error)
            ) from error
    found = describe_file(path, pin.path).sha256
    if found != pin.sha256:
        raise DatasetError(
            "an input is not the one that was pinned",
            where=_where(pin),
            expected=pin.sha256,
            found=found,
            fix="pin the file that is there now, if you trust it",
        )
    path.chmod(0o444)
    return path


def _fetch(pin: Pin, path: Path, at_hand: AtHand, say: Say) -> None:
    known = at_hand.by_digest.get(pin.sha256)
    uri = pin.uris[0] if pin.uris else ""
    scheme, _, rest = uri.partition(":")
    if known is not None:
        shutil.copyfile(known, path)
    elif scheme in ("http", "https"):
        wanted = download.Wanted("an input", pin.sha256)
        fix = "pin the file that is there now, if you trust it, or give a copy that is at hand"
        download.fetch(wanted, pin.uris, path, say, fix=fix)
    elif scheme == "file":
        shutil.copyfile(Path(rest.removeprefix("//")), path)
    elif scheme == "artifact":
        _copy_artifact(rest, path, at_hand.artifacts, uri)
    elif not uri:
        raise DatasetError(
            "an input has no address, and is not at hand",
            where=pin.path,
            expected=f"a file with SHA-256 {pin.sha256}",
        )
    else:
        with path.open("xb") as file:
            for piece in _from_elsewhere(uri):
                file.write(piece)


def _copy_artifact(name: str, path: Path, artifacts: Path | None, uri: str) -> None:
    if (
        artifacts is None
        or not (artifacts / name).is_file()
        or not inside(artifacts / name, artifacts)
    ):
        raise DatasetError(
            "there is no such artifact",
            where=uri,
            expected="artifact:NAME/FILE, of an earlier job of this run",
        )
    shutil.copyfile(artifacts / name, path)


def _from_elsewhere(uri: str) -> Iterator[memoryview | bytes]:
    """The bytes of the one file at an address of `model_signing.sources`."""
    from model_signing import sources
    from model_signing.oms.names import Selection

    if not sources.is_address(uri):
        known = ("https", "http", "file", "artifact", "source", *sources.PLACES)
        raise DatasetError(
            "this kind of address is not known",
            where=uri,
            expected=", ".join(f"{scheme}:" for scheme in known),
        )
    try:
        source = sources.open_source(uri)
        entries, _ = source.entries(Selection())
        if len(entries) != 1:
            raise DatasetError(
                "an address has to be that of one file",
                where=uri,
                found=f"{len(entries)} files",
            )
        ((name, entry),) = entries.items()
        yield from source.read(name, entry, 0, entry.size)
    except DatasetError:
        raise
    except Error as error:
        raise DatasetError(
            "an input cannot be had", where=uri, found=error.found or error.message, fix=error.fix
        ) from error


def _where(pin: Pin) -> str:
    return f"{pin.path} ({download.shown(pin.uris[0])})" if pin.uris else pin.path
