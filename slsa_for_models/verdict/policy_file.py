"""Policy files: TOML, described by schemas/policy.v1.json and docs/policy.md.

A policy is read only where it is named; nothing that came with a model is ever taken for one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from model_signing.errors import UsageError, printable
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import PolicyError
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence.github import GITHUB_ISSUER
from slsa_for_models.verdict.expectation_table import ROWS, Toml
from slsa_for_models.verdict.expectations import Expectations, Expected, Pattern
from slsa_for_models.verdict.result import Accepted, Signed, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1024 * 1024


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
        # A fraction is nothing that a schema knows: 1.0 is not 1 in TOML.
        document = tomllib.loads(data.decode(), parse_float=Decimal)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError("the policy is not TOML", where=str(path), found=str(error)) from None
    json_schema.check(document, json_schema.load("policy.v1.json"), PolicyError, "The policy")
    try:
        found = _expectations(_located(document, path.parent))
    except UsageError as error:  # what would be a usage error on the command line
        raise PolicyError(error.message, where=str(path), found=error.found) from None
    return replace(found, policy_sha256=sha256(data).hexdigest())


def _expectations(document: Toml) -> Expectations:
    found = ((row, _at(document, row.key)) for row in ROWS if row.parse is not None)
    stated: dict[str, Any] = {
        row.field: row.parse(value) for row, value in found if row.parse and value is not None
    }
    return Expectations(**stated, stated=frozenset(stated))


def _at(document: Toml, key: str) -> object:
    """What stands under `TABLE.NAME`, or None."""
    table, _, name = key.partition(".")
    return document.get(table, {}).get(name) if name else document.get(table)


def _located(document: Toml, folder: Path) -> Toml:
    """The policy, with the keys it names where they are: relative to it."""

    def locate(entry: Toml) -> Toml:
        if "public_key" not in entry:
            return entry
        return {**entry, "public_key": folder / entry["public_key"]}

    found = dict(document)
    if "signer" in found:
        found["signer"] = locate(found["signer"])
    if "builder" in found:
        found["builder"] = [locate(entry) for entry in found["builder"]]
    if "verifier" in found.get("vsa", {}):
        verifiers = [locate(entry) for entry in found["vsa"]["verifier"]]
        found["vsa"] = {**found["vsa"], "verifier": verifiers}
    return found


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
