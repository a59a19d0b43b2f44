"""Policy files: TOML, described by schemas/policy.v1.json and docs/policy.md.

A policy is read only where it is named; nothing that came with a model is ever taken for one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from model_signing.errors import UsageError, printable
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import PolicyError
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence.github import GITHUB_ISSUER, is_github
from slsa_for_models.evidence.kinds import slsa_generator
from slsa_for_models.verdict import expectations
from slsa_for_models.verdict.expectations import (
    Builder,
    Expectations,
    Expected,
    Pattern,
    Signer,
    SummaryVerifier,
)
from slsa_for_models.verdict.result import Accepted, Signed, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1024 * 1024
MAX_KEY_BYTES = 64 * 1024

Toml = Mapping[str, Any]


def load_policy(path: str | os.PathLike[str]) -> Expectations:
    """What a policy expects.

    Args:
        path: A TOML file; the keys it names lie relative to it.

    Raises:
        FileError: It, or a key it names, cannot be read.
        PolicyError: Not TOML, not what the schema describes, or it contradicts itself.
    """
    path = Path(path)
    data = read_bounded(path, MAX_BYTES)
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError("the policy is not TOML", where=str(path), found=str(error)) from None
    json_schema.check(document, json_schema.load("policy.v1.json"), PolicyError, "The policy")
    try:
        found = _expectations(document, path.parent)
    except UsageError as error:  # what would be a usage error on the command line
        raise PolicyError(error.message, where=str(path), found=error.found) from None
    return replace(found, policy_sha256=sha256(data).hexdigest())


def _expectations(document: Toml, folder: Path) -> Expectations:
    source, build, require, vsa = (
        document.get(name, {}) for name in ("source", "build", "require", "vsa")
    )
    # Field -> the table and the name it stands under, and what to make of it.
    table: dict[str, tuple[Toml, str, Callable[[Any], object]]] = {
        "source_uri": (source, "uri", _source),
        "issuer": (source, "issuer", _issuer),
        "source_commit": (source, "commit", str),
        "branch": (source, "branch", _required),
        "tag": (source, "tag", _required),
        "versioned_tag": (source, "versioned_tag", _versioned),
        "builders": (document, "builder", lambda all: tuple(_builder(one, folder) for one in all)),
        "inputs": (build, "inputs", lambda all: {k: _required(v) for k, v in all.items()}),
        "runners": (build, "runners", tuple),
        "signer": (document, "signer", lambda one: _signer(one, folder)),
        "dataset_sha256": (build, "dataset_sha256", str),
        "dependencies": (build, "dependencies", dict),
        "minimum_level": (require, "level", int),
        "required": (require, "evidence", tuple),
        "base_models": (require, "base_models", bool),
        "verifiers": (vsa, "verifier", lambda all: _verifiers(all, folder)),
        "resource_uri": (vsa, "resource_uri", str),
    }
    stated: dict[str, Any] = {
        field: make(part[name]) for field, (part, name, make) in table.items() if name in part
    }
    return Expectations(**stated, stated=frozenset(stated))


def _issuer(value: str) -> str:
    if not is_github(value):
        raise PolicyError("not an issuer of GitHub's tokens", where="source.issuer", found=value)
    return value


def _versioned(value: str) -> str:
    expectations.parse_version(value)
    return value


def _builder(entry: Toml, folder: Path) -> Builder:
    if "@" in entry["id"]:
        raise PolicyError("git references of a builder stand in `refs`", found=entry["id"])
    _check_method(entry, "builder", needs_issuer=True)
    if is_github(entry.get("issuer", "")):
        raise PolicyError(
            "a GitHub workflow is named by the builder's id; it needs no identity",
            found=entry["id"],
        )
    level = entry.get("level")
    if level is None and entry["id"] == slsa_generator.BUILDER_ID:
        level = expectations.GENERATOR.level
    by_workflow = "identity" not in entry and "public_key" not in entry
    if "pipeline" in entry and by_workflow:
        raise PolicyError(
            "a pipeline is Tekton's, and GitHub's workflows have none", where="builder"
        )
    if level == 3 and not by_workflow and "pipeline" not in entry:
        raise PolicyError(
            "a builder that runs any pipeline cannot reach Build L3",
            where="builder",
            expected='pipeline = "URI@sha1:COMMIT#PATH"',
            found=entry["id"],
        )
    return Builder(
        id=entry["id"],
        refs=tuple(_required(ref) for ref in entry.get("refs", ())),
        level=level,
        public_key=_key(entry, folder),
        identity=_expected(entry.get("identity")),
        issuer=entry.get("issuer"),
        pipeline=_expected(entry.get("pipeline")),
    )


def _signer(entry: Toml, folder: Path) -> Signer:
    _check_method(entry, "signer", needs_issuer=False)
    if "identity" not in entry and "public_key" not in entry:
        raise PolicyError("the signer has neither an identity nor a key", where="signer")
    return Signer(_expected(entry.get("identity")), entry.get("issuer"), _key(entry, folder))


def _verifiers(entries: list[Toml], folder: Path) -> tuple[SummaryVerifier, ...]:
    names = [entry["id"] for entry in entries]
    if len(set(names)) != len(names):
        raise PolicyError("two verifiers have the same id", where="vsa.verifier")
    return tuple(_verifier(entry, folder) for entry in entries)


def _verifier(entry: Toml, folder: Path) -> SummaryVerifier:
    _check_method(entry, "vsa.verifier", needs_issuer=False)
    if "identity" not in entry and "public_key" not in entry:
        raise PolicyError("a verifier has neither an identity nor a key", where=entry["id"])
    on_github = "identity" in entry and is_github(entry.get("issuer", GITHUB_ISSUER))
    if on_github and "source_uri" not in entry:
        raise PolicyError(
            "a verifier that is a GitHub workflow needs source_uri: whoever calls a reusable "
            "workflow has its identity",
            where=entry["id"],
        )
    return SummaryVerifier(
        id=entry["id"],
        identity=_expected(entry.get("identity")),
        issuer=entry.get("issuer"),
        public_key=_key(entry, folder),
        source_uri=_source(entry.get("source_uri")),
    )


def _check_method(entry: Toml, where: str, *, needs_issuer: bool) -> None:
    if "identity" in entry and "public_key" in entry:
        raise PolicyError("identity and public_key exclude each other", where=where)
    if "issuer" in entry and "identity" not in entry:
        raise PolicyError("an issuer without an identity says nothing", where=where)
    if needs_issuer and "identity" in entry and "issuer" not in entry:
        raise PolicyError("an identity needs its issuer", where=where)


def _key(entry: Toml, folder: Path) -> bytes | None:
    name = entry.get("public_key")
    return None if name is None else read_bounded(folder / name, MAX_KEY_BYTES)


def _source(value: object) -> Expected | None:
    """An exact repository in the form that provenance has; a pattern is taken as it stands."""
    return expectations.source_uri(value) if isinstance(value, str) else _expected(value)


def _expected(value: object) -> Expected | None:
    return None if value is None else _required(value)


def _required(value: Any) -> Expected:  # noqa: ANN401 - a text or {pattern}, by the schema
    if isinstance(value, str):
        return value
    try:
        re.compile(value["pattern"])
    except re.error as error:
        raise PolicyError(
            "not a regular expression", where=value["pattern"], found=str(error)
        ) from None
    return Pattern(value["pattern"])


# Writing ------------------------------------------------------------------------------------------


def policy_from(
    verdict: Verdict,
    expected: Expectations,
    public_key: str | None = None,
    builder_key: str | None = None,
) -> str:
    """The policy that a verified model, and its next versions, satisfy.

    Exact where versions agree: source repository, branch, builder and signer. A tag becomes a
    pattern for the same kind of tag only if it is a version.

    Args:
        verdict: An accepting one, with provenance.
        expected: What it was verified against.
        public_key: Relative to the policy, the file of the key that signed the model, if one did.
        builder_key: The same of the builder's key.

    Raises:
        Error: The verdict's first refusal, of a model that is not verified.
        PolicyError: No provenance was accepted, or TOML cannot hold what it says.
        UsageError: A key signed, and its file is not named.
    """
    accepted = verdict.require().accepted
    if not accepted:
        raise PolicyError("a policy is made of accepted provenance", found="none")
    first, model = accepted[0].provenance, printable(verdict.model.name)
    lines = [
        f'# Made from the verified model "{model}"; read before you rely on it.',
        "version = 1",
        "",
        "[source]",
        f"uri = {_text(first.source_uri.removeprefix('git+https://'))}",
    ]
    lines += [f"issuer = {_text(expected.issuer)}"] if expected.issuer != GITHUB_ISSUER else []
    branches = {item.provenance.branch for item in accepted} - {None}
    tags = {item.provenance.tag for item in accepted} - {None}
    if len(tags) == 1:
        tag = str(tags.pop()).removeprefix("refs/tags/")
        is_version = re.fullmatch(r"v\d+\.\d+\.\d+", tag) is not None
        pattern = r'{ pattern = "v[0-9]+\\.[0-9]+\\.[0-9]+" }'
        lines.append(f"tag = {pattern if is_version else _text(tag)}")
    elif len(branches) == 1:
        lines.append(f"branch = {_text(str(branches.pop()).removeprefix('refs/heads/'))}")
    for item in {item.provenance.builder_id: item for item in accepted}.values():
        name, at, ref = item.provenance.builder_id.partition("@")
        lines += ["", "[[builder]]", f"id = {_text(name)}"]
        lines += [f"refs = [{_text(ref)}]"] if at else []
        lines += [f"level = {item.level}"]
        if not item.provenance.kind.signed_by_github_workflow:
            lines += _who(item.signed, builder_key)
        if item.provenance.kind.runs_a_pipeline:
            lines += _pipeline(item)
    if verdict.signer is not None:
        lines += ["", "[signer]", *_who(verdict.signer, public_key)]
    lines += _build_lines(verdict, expected)
    kinds = sorted({item.provenance.kind.name for item in accepted})
    evidence = [*(["signature"] if verdict.signer else []), *kinds]
    lines += ["", "[require]", f"evidence = {json.dumps(evidence)}"]
    lines += [f"level = {verdict.level}"]
    return "\n".join(lines) + "\n"


def _who(signed: Signed, public_key: str | None) -> list[str]:
    authenticated = signed.authenticated
    if authenticated.method == "key":
        if public_key is None:
            raise UsageError("the policy has to name the file of the key", where=signed.label)
        return [f"public_key = {_text(public_key)}"]
    return [
        f"identity = {_text(authenticated.identity or '')}",
        f"issuer = {_text(authenticated.issuer or '')}",
    ]


def _pipeline(item: Accepted) -> list[str]:
    """As the verifier pinned it; else the same file of the same repository, at any commit."""
    found, builder_id = item.provenance.pipeline, item.provenance.builder_id
    builders = [one for one in item.signed.builders if one.accepts(builder_id)]
    pinned = builders[0].pipeline
    if pinned is None and found is not None:
        uri, _, rest = found.partition("@")
        path = rest.partition("#")[2]
        pinned = Pattern(f"{re.escape(uri)}@(sha1|sha256):[0-9a-f]+#{re.escape(path)}")
    return [] if pinned is None else [f"pipeline = {_toml(pinned)}"]


def _build_lines(verdict: Verdict, expected: Expectations) -> list[str]:
    lines = []
    if expected.inputs:
        pairs = [f"{_text(name)} = {_toml(value)}" for name, value in expected.inputs.items()]
        lines.append(f"inputs = {{ {', '.join(pairs)} }}")
    dataset = verdict.dataset
    if dataset and "," not in dataset:  # of several inputs (Tekton) nobody says which it is
        lines.append(f"dataset_sha256 = {_text(dataset)}")
    return ["", "[build]", *lines] if lines else []


def _toml(value: Expected) -> str:
    return f"{{ pattern = {_text(value.regex)} }}" if isinstance(value, Pattern) else _text(value)


def _text(value: str) -> str:
    """A TOML basic string: as JSON's, but that TOML has no surrogates and escapes delete.

    Raises:
        PolicyError: Not Unicode: a part of a file's name, which TOML cannot hold.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PolicyError(
            "a policy cannot hold what is not Unicode",
            found=printable(value),
            fix="rename the file",
        ) from None
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
