"""A training plan: what the caller of a training decides, read from a workflow's inputs.

Whoever trains follows it, whoever signs writes into the provenance what it pins, and whoever
verifies reads it in the provenance: all three by this reader. It fetches and runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from model_signing.errors import UsageError
from model_signing.oms import strict_json
from slsa_for_models.errors import TrainingError
from slsa_for_models.evidence.statement_names import RECORD

MOST_PINS = 1000
MOST_PARAMETERS = 256
MAX_LOCK_BYTES = 16 << 20

INPUTS = frozenset(
    {
        *("command", "model", "directory", "data", "data-file", "parameters"),
        *("requirements", "python-version", "metrics", "network", "base-model", "runner"),
    }
)
"""Inputs of a workflow that decide a training: nobody but the workflow that trained states them."""

Scalar = str | int | float | bool

_PIN = re.compile(r"(?:sha256:)?([0-9a-f]{64})\s+(\S+)((?:\s+\S+)+)")
_HTTP = re.compile(r"https?://[^/\s]+\S*")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:\S*")
# What services make their credentials look like; and a key of 40 digits behind a word for one.
_SECRET = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22}|glpat-[\w-]{20}|hf_[A-Za-z0-9]{30}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|sk-[A-Za-z0-9_-]{20}|xox[abprs]-[\w-]{10}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}|PRIVATE KEY-----"
    r"|://[^/\s@]*:[^/\s@]+@|[?&](?:X-Amz-Signature|X-Goog-Signature|sig|Signature|token)="
    r"|(?i:key|token|secret|password)\W{1,3}[0-9a-f]{40}(?![0-9a-f])"
)
_LOCKED = re.compile(
    r"[A-Za-z0-9][\w.\-]*(\[[\w.\-, ]*\])?\s*==\s*[^\s;*,]+(\s*;[^#]*?)?"
    r"(\s+--hash=sha256:[0-9a-f]{64})+"
)
_ODD_REMARK = re.compile(r"\s*#(.*\\$|.*coding[:=]\s*(?!utf-?8\b)[-\w.])", re.IGNORECASE)
_INDEX = re.compile(r"--(extra-)?index-url[ =]\S+|--find-links[ =]\S+")


@dataclass(frozen=True)
class Pin:
    """A file that training reads.

    Attributes:
        sha256: Its digest, hexadecimal.
        path: Its place in the workspace.
        uris: Where it can be had, in the order in which they are tried; none of a file at hand.
    """

    sha256: str
    path: str
    uris: tuple[str, ...] = ()


@dataclass(frozen=True)
class Base:
    """A model that training starts from: verified before, and read-only.

    Attributes:
        path: Its place in the workspace.
        uri: Where it is: an address of `model_signing.sources`, `source:PATH` or
            `artifact:NAME/PATH`.
        signature: Its OMS signature, a file of the source.
        policy: What is expected of it, a file of the source.
    """

    path: str
    uri: str
    signature: str
    policy: str


@dataclass(frozen=True)
class Plan:
    """One training, as far as its caller decides it.

    Attributes:
        command: Its words; no shell reads them.
        model: The file or folder that it writes, in the workspace.
        directory: Where it starts, in the workspace.
        data: What it reads besides the source.
        data_file: The file of the source that has further pins, or "".
        base_models: What it starts from.
        parameters: For it, in the file that `TRAINING_PARAMETERS` names, and as `--NAME=VALUE` in
            place of the word `{parameters}`.
        requirements: The locked packages, a file of the source, or "".
        metrics: The JSON file of numbers that it writes, in the workspace, or "".
        network: Whether it has one.
    """

    command: tuple[str, ...]
    model: str
    directory: str = "."
    data: tuple[Pin, ...] = ()
    data_file: str = ""
    base_models: tuple[Base, ...] = ()
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    requirements: str = ""
    metrics: str = ""
    network: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The command with its parameters."""
        options = tuple(f"--{name}={_word(value)}" for name, value in self.parameters.items())
        return tuple(
            word
            for given in self.command
            for word in (options if given == "{parameters}" else (given,))
        )

    @property
    def dataset_sha256(self) -> str | None:
        """See `dataset_digest`."""
        return dataset_digest((pin.path, pin.sha256) for pin in self.data)


def dataset_digest(files: Iterable[tuple[str, str]]) -> str | None:
    """The SHA-256 of a data set as a whole, hexadecimal; None without any.

    That of its one file, or of what `sha256sum PATH...` prints of several, sorted by path.

    Args:
        files: Path and SHA-256 of each.
    """
    lines = sorted(files)
    if len(lines) == 1:
        return lines[0][1]
    return listing_digest(lines) if lines else None


def listing_digest(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256, hexadecimal, of what `sha256sum` prints of files, by path and SHA-256 of each."""
    listing = "".join(f"{digest}  {path}\n" for path, digest in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def read(inputs: Mapping[str, object], source: Path | None = None) -> Plan:
    """The plan in a workflow's inputs.

    Args:
        inputs: By name, as `toJSON(inputs)` has them; what is no part of a plan is looked at for
            secrets only.
        source: The source, for a file of pins in it; without it that file is not read.

    Raises:
        UsageError: It asks for what cannot be, or it would publish a secret.
        FileError: The file of pins cannot be read.
    """
    text = {name: str(value) for name, value in inputs.items() if value is not None}
    for name, value in text.items():
        check_no_secret(value, f"input {name}")
    network = text.get("network") or "none"
    if network not in ("none", "allowed"):
        raise UsageError(
            "unknown value", where="input network", expected="none or allowed", found=network
        )
    plan = Plan(
        command=_words(text.get("command", "")),
        model=_inside(text.get("model", ""), "model"),
        directory=_inside(text.get("directory") or ".", "directory"),
        data=tuple(_pins(text.get("data", ""), "input data")),
        data_file=_inside(text.get("data-file", ""), "data-file", optional=True),
        base_models=tuple(_bases(text.get("base-model", ""))),
        parameters=_parameters(text.get("parameters", "")),
        requirements=_inside(text.get("requirements", ""), "requirements", optional=True),
        metrics=_inside(text.get("metrics", ""), "metrics", optional=True),
        network=network == "allowed",
    )
    if plan.data_file and source is not None:
        plan = _with_pins(plan, source)
    _check_places(plan)
    return plan


def in_source(source: Path, name: str) -> Path:
    """A file that a plan names, where no link leads out of the source.

    A commit is the caller's: in the job that signs, a link could lead to what nobody may read.

    Args:
        source: The source, or another folder that a plan names files in.
        name: The file's path in it.

    Raises:
        UsageError: One does.
    """
    path = source / name
    if not path.resolve().is_relative_to(source.resolve()):
        raise UsageError("a link leads out of the source", where=name, found=ascii(name))
    return path


def _with_pins(plan: Plan, source: Path) -> Plan:
    from dataclasses import replace

    from model_signing.safe_files import read_bounded

    data = read_bounded(in_source(source, plan.data_file), 1 << 20)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError("not text in UTF-8", where=plan.data_file) from None
    check_no_secret(text, plan.data_file)
    return replace(plan, data=(*plan.data, *_pins(text, plan.data_file)))


def _check_places(plan: Plan) -> None:
    name = PurePosixPath(plan.model).name
    if name == RECORD or not re.fullmatch(r"[!-~]{1,128}", name):
        raise UsageError(
            "a model cannot have this name",
            where="input model",
            expected=f"letters, digits and marks without blanks; not {RECORD}",
            found=plan.model,
        )
    if len(plan.data) > MOST_PINS:
        raise UsageError(
            "too many inputs", where="input data", expected=f"at most {MOST_PINS} files"
        )
    taken = {*filter(None, (plan.model, plan.metrics))}
    for path in (*(base.path for base in plan.base_models), *(pin.path for pin in plan.data)):
        above = {str(folder) for folder in PurePosixPath(path).parents}
        if path in taken or above & taken:
            raise UsageError("two files have the same place", where="input data", found=path)
        taken.add(path)


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError("not a command", where="input command", found=str(error)) from None
    if not words:
        raise UsageError("no command", where="input command", expected="the words of a command")
    return words


def check_no_secret(text: str, where: str) -> None:
    """Refuses what looks like a credential: a plan is published with the model, for good.

    Args:
        text: Whatever the caller wrote.
        where: What it is, for the message.

    Raises:
        UsageError: It does.
    """
    if found := _SECRET.search(text):
        raise UsageError(
            "this looks like a secret, and what is given here is published with the model",
            where=where,
            found=f"{found[0][:7]}...",
            fix="fetch what needs it in an earlier job, and hand over the data as an artifact",
        )


def _lines(text: str) -> Iterator[str]:
    """Those that are not empty and no remarks."""
    stripped = (line.strip() for line in text.splitlines())
    return (line for line in stripped if line and not line.startswith("#"))


def _pins(text: str, where: str) -> Iterator[Pin]:
    for line in _lines(text):
        match = _PIN.fullmatch(line)
        uris = tuple(match[3].split()) if match else ()
        several = len(uris) > 1
        if match is None or not all((_HTTP if several else _URI).fullmatch(uri) for uri in uris):
            raise UsageError(
                "not a pinned input",
                where=where,
                expected="SHA256  PATH  URI (or several of https:, to be tried in this order)",
                found=line[:200],
            )
        yield Pin(match[1], _inside(match[2], "data"), uris)


def _bases(text: str) -> Iterator[Base]:
    for line in _lines(text):
        words = line.split()
        if len(words) != 4 or not _URI.fullmatch(words[1]):
            raise UsageError(
                "not a base model",
                where="input base-model",
                expected="PATH  URI  SIGNATURE  POLICY",
                found=line[:200],
            )
        path, uri, signature, policy = words
        files = (_inside(word, "base-model") for word in (path, signature, policy))
        yield Base(next(files), uri, *files)


def _inside(path: str, name: str, *, optional: bool = False) -> str:
    """A relative path that stays in the workspace, in its plain form."""
    if optional and not path:
        return ""
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts or not path.isprintable():
        raise UsageError(
            "not a path in the workspace",
            where=f"input {name}",
            expected="a relative path without ..",
            found=path or "nothing",
        )
    return str(PurePosixPath(path))


def _parameters(text: str) -> dict[str, Scalar]:
    if not text.strip():
        return {}
    data = text.encode(errors="surrogateescape")
    found: Any = strict_json.loads(data, UsageError, "the input parameters")
    name = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,127}")
    flat = isinstance(found, dict) and all(
        isinstance(value, Scalar) and name.fullmatch(key) for key, value in found.items()
    )
    if not flat or len(found) > MOST_PARAMETERS:
        raise UsageError(
            "the parameters are not a flat JSON object",
            where="input parameters",
            expected=f"at most {MOST_PARAMETERS} texts, numbers, true and false, by names of "
            "letters, digits, '_', '.', '/' and '-'",
            found=text[:200],
        )
    parameters: dict[str, Scalar] = found
    return parameters


def _word(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_lock(data: bytes, name: str) -> str:
    """The SHA-256 of requirements of which every entry has a version and a hash, hexadecimal.

    Args:
        data: The file.
        name: What messages call it.

    Raises:
        TrainingError: One has not.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise TrainingError("the requirements are not text in UTF-8", where=name) from None
    # `pip` ends a remark with its line, whatever stands there, and reads by the encoding in one.
    odd = next((line for line in text.splitlines() if _ODD_REMARK.match(line)), None)
    if odd is not None:
        raise TrainingError(
            "a remark in the requirements could hide an entry",
            where=name,
            expected="no \\ at the end of a remark, and no encoding but UTF-8",
            found=odd[:200],
        )
    for entry in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        entry = " ".join(re.sub(r"(^|\s)#.*", "", entry).split())
        if entry and not _LOCKED.fullmatch(entry) and not _INDEX.fullmatch(entry):
            raise TrainingError(
                "the requirements are not locked",
                where=f"{name}: {entry.split()[0]}",
                expected="NAME==VERSION --hash=sha256:... in every entry",
                found=entry[:200],
                fix="uv pip compile --generate-hashes requirements.in -o requirements.lock",
            )
    return hashlib.sha256(data).hexdigest()
