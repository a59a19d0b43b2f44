"""Policy files: TOML, described by schemas/policy.v1.json and docs/policy.md.

A policy is read only where it is named; nothing that came with a model is ever taken for one.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
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
from slsa_for_models.evidence.statement import value_at
from slsa_for_models.verdict.expectation_table import ROWS, Toml
from slsa_for_models.verdict.expectations import Expectations, Expected, Pattern, matches
from slsa_for_models.verdict.result import Accepted, Signed, Verdict, with_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1024 * 1024
MOST_NESTED = 10


def load_policy(path: str | os.PathLike[str], *, within: int = MOST_NESTED) -> Expectations:
    """What a policy expects.

    Args:
        path: A TOML file; the keys and the policies it names lie relative to it.
        within: How many policies may name one another.

    Raises:
        FileError: It, or a key it names, cannot be read.
        PolicyError: Not TOML, not what the schema describes, or it contradicts itself.
    """
    path = Path(path)
    data = read_bounded(path, MAX_BYTES)
    try:
        found = _expectations(_parsed(data), path.parent, within)
    except PolicyError as error:
        error.where = f"{path}: {error.where}" if error.where else str(path)
        raise
    return replace(found, policy_sha256=sha256(data).hexdigest())


def _parsed(data: bytes) -> Toml:
    try:
        # A fraction is nothing but a bound of a figure: 1.0 is not 1 in TOML.
        document: Toml = tomllib.loads(data.decode("utf-8-sig"), parse_float=Decimal)
    except UnicodeDecodeError:
        raise PolicyError(
            "the policy is not TOML", expected="text in UTF-8", found="another encoding"
        ) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError("the policy is not TOML", found=str(error)) from None
    _fractions(document)
    json_schema.check(document, json_schema.load("policy.v1.json"), PolicyError, "the policy")
    return document


def _expectations(document: Toml, folder: Path, within: int) -> Expectations:
    stated: dict[str, Any] = {}
    _locate(document, folder, within)
    for row in ROWS:
        if row.parse is None or (value := value_at(document, row.key)) is None:
            continue
        try:
            stated[row.field] = row.parse(value)
        except UsageError as error:  # what would be a usage error on the command line
            said = {name: getattr(error, name) for name in ("expected", "found", "fix")}
            raise PolicyError(error.message, where=row.key, **said) from None
        except PolicyError as error:
            error.where = error.where or row.key
            raise
    return Expectations(**stated, stated=frozenset(stated))


def _fractions(document: Toml) -> None:
    """Bounds of figures as numbers; whatever else is a fraction is none of ours."""
    metrics = value_at(document, "build.metrics")
    for bounds in metrics.values() if isinstance(metrics, dict) else ():
        for name, value in bounds.items() if isinstance(bounds, dict) else ():
            if isinstance(value, Decimal) and value.is_finite():
                bounds[name] = float(value)


def _locate(document: Toml, folder: Path, within: int) -> None:
    """The keys and policies that a policy names are where they are: relative to it."""
    bases = document.get("base_model", [])
    if bases and not within:
        raise PolicyError("policies for base models name one another without end")
    bases[:] = [load_policy(folder / entry["policy"], within=within - 1) for entry in bases]
    verifiers = document.get("vsa", {}).get("verifier", [])
    for entry in (document.get("signer", {}), *document.get("builder", []), *verifiers):
        if "public_key" in entry:
            entry["public_key"] = folder / entry["public_key"]


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
    import tomlkit

    accepted = verdict.require().accepted
    if not accepted:
        raise PolicyError("a policy is made of accepted provenance", found="none")
    kinds = sorted({item.provenance.kind.name for item in accepted})
    signer = {} if verdict.signer is None else _who(verdict.signer, public_key)
    tables: dict[str, Any] = {
        "version": 1,
        "source": _source_of(accepted, expected),
        "builder": [
            _builder_of(item, builder_key)
            for item in {item.provenance.builder_id: item for item in accepted}.values()
        ],
        "signer": signer,
        "build": _build_of(verdict, expected),
        "require": {
            "evidence": [*(["signature"] if signer else []), *kinds],
            "level": verdict.level,
        },
        "load": {"code": expected.code} if expected.code else {},
    }
    document, model = tomlkit.document(), printable(verdict.model.name)
    document.add(
        tomlkit.comment(f'Made from the verified model "{model}"; read before you rely on it.')
    )
    document.update({name: table for name, table in tables.items() if table})
    text = tomlkit.dumps(document)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PolicyError(
            "a policy cannot hold what is not Unicode",
            found=printable(text.split("\n")[text.count("\n", 0, error.start)]),
            fix="give the file another name",
        ) from None
    return text


def _source_of(accepted: Sequence[Accepted], expected: Expectations) -> dict[str, Any]:
    table: dict[str, Any] = {"uri": accepted[0].provenance.source_uri.removeprefix("git+https://")}
    if expected.issuer != GITHUB_ISSUER:
        table["issuer"] = expected.issuer
    branches = {item.provenance.branch for item in accepted} - {""}
    tags = {item.provenance.tag for item in accepted} - {""}
    if len(tags) == 1:
        (tag,), versions = tags, Pattern(r"v[0-9]+\.[0-9]+\.[0-9]+")
        table["tag"] = _toml(versions if matches(versions, tag) else tag)
    elif len(branches) == 1:
        (table["branch"],) = branches
    return table


def _builder_of(item: Accepted, builder_key: str | None) -> dict[str, Any]:
    name, at, ref = item.provenance.builder_id.partition("@")
    table = {"id": name, **({"refs": [ref]} if at else {}), "level": item.level}
    if not item.provenance.kind.signed_by_github_workflow:
        table |= _who(item.signed, builder_key)
    if item.provenance.kind.runs_a_pipeline and (pinned := _pipeline(item)) is not None:
        table["pipeline"] = _toml(pinned)
    return table


def _who(signed: Signed, public_key: str | None) -> dict[str, Any]:
    authenticated = signed.authenticated
    if authenticated.method == "key":
        if public_key is None:
            raise UsageError("the policy has to name the file of the key", where=signed.label)
        return {"public_key": public_key}
    return {"identity": authenticated.identity or "", "issuer": authenticated.issuer or ""}


def _pipeline(item: Accepted) -> Expected | None:
    """As the verifier pinned it; else the same file of the same repository, at any commit."""
    found, builder_id = item.provenance.pipeline, item.provenance.builder_id
    pinned = next(one.pipeline for one in item.signed.builders if one.accepts(builder_id))
    if pinned is None and found is not None:
        uri, _, rest = found.partition("@")
        path = rest.partition("#")[2]
        pinned = Pattern(f"{re.escape(uri)}@(sha1|sha256):[0-9a-f]+#{re.escape(path)}")
    return pinned


def _build_of(verdict: Verdict, expected: Expectations) -> dict[str, Any]:
    table: dict[str, Any] = {}
    stated = with_command(verdict.accepted)
    said = stated.provenance.inputs if stated else {}
    own = {name: said[name] for name in ("command", "network", "runner") if said.get(name)}
    inputs = {**own, **expected.inputs}
    if inputs:
        table["inputs"] = _toml(inputs)
    dataset = verdict.dataset
    if dataset and "," not in dataset:  # of several inputs (Tekton) nobody says which it is
        table["dataset_sha256"] = dataset
    return table


def _toml(value: Expected | Mapping[str, Expected]) -> Any:  # noqa: ANN401 - as tomlkit has it
    """A text, or a table within a line."""
    import tomlkit

    if isinstance(value, str):
        return value
    table = tomlkit.inline_table()
    pairs = {"pattern": value.regex} if isinstance(value, Pattern) else value
    table.update({name: _toml(one) for name, one in pairs.items()})
    return table
