"""One row for each expectation: where a policy states it, and which option does.

The reader of policies and the options of the command line are made from these rows; the schema of
policies and docs/policy.md are compared with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from model_signing.errors import UsageError
from slsa_for_models.errors import PolicyError
from slsa_for_models.evidence.github import GITHUB_ISSUER, is_github
from slsa_for_models.evidence.kinds import slsa_generator
from slsa_for_models.verdict import expectations
from slsa_for_models.verdict.expectations import (
    Bounds,
    Builder,
    Expected,
    Pattern,
    Signer,
    SummaryVerifier,
)

Toml = Mapping[str, Any]


def _as_stated(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Row:
    """An expectation, or a part of one.

    Attributes:
        key: Where a policy states it: `TABLE.NAME`, or the whole table.
        help: What is expected, as the help and the document say it.
        parse: Makes the attribute of what the policy or a plain option states, and refuses what can
            be no value of it; None where the row of the whole table does.
        usage: The option that states it, and its value as `command_line.add_options` has it; ""
            where only a policy can.
        attribute: That of `Expectations`; "" where it is called as the key is, `NAME`.
    """

    key: str
    help: str
    parse: Callable[[Any], object] | None = _as_stated
    usage: str = ""
    attribute: str = ""

    @property
    def field(self) -> str:
        """The attribute of `Expectations`."""
        return self.attribute or self.key.rpartition(".")[2]

    @property
    def option(self) -> str:
        """The option's name, or ""."""
        return self.usage.partition(" ")[0]

    @property
    def value(self) -> str:
        """What the help calls the option's value."""
        return self.usage.partition(" ")[2]


# What a policy states -> attributes of `Expectations` ---------------------------------------------


def expected(value: Any) -> Expected:  # noqa: ANN401 - a text or {pattern}, by the schema
    """A text that has to be the same, or a pattern.

    Raises:
        PolicyError: Not a regular expression.
    """
    if isinstance(value, str):
        return value
    try:
        re.compile(value["pattern"])
    except re.error as error:
        raise PolicyError(
            "not a regular expression", found=f"{value['pattern']}: {error}"
        ) from None
    return Pattern(value["pattern"])


def _source(value: object) -> Expected:
    """An exact repository in the form that provenance has; a pattern is taken as it stands."""
    return expectations.source_uri(value) if isinstance(value, str) else expected(value)


def _issuer(value: str) -> str:
    if not is_github(value):
        raise PolicyError("not an issuer of GitHub's tokens", where="source.issuer", found=value)
    return value


def _builder(entry: Toml) -> Builder:
    if "@" in entry["id"]:
        raise PolicyError("git references of a builder stand in `refs`", found=entry["id"])
    who = _who(entry, "builder", needed=False)
    if "identity" in entry and "issuer" not in entry:
        raise PolicyError("an identity needs its issuer", where="builder")
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
        refs=tuple(expected(ref) for ref in entry.get("refs", ())),
        level=level,
        pipeline=expected(entry["pipeline"]) if "pipeline" in entry else None,
        **who,
    )


def _age(value: str) -> timedelta:
    count = int(value[:-1])
    return timedelta(hours=count) if value.endswith("h") else timedelta(days=count)


def _verifiers(entries: list[Toml]) -> tuple[SummaryVerifier, ...]:
    names = [entry["id"] for entry in entries]
    if len(set(names)) != len(names):
        raise PolicyError("two verifiers have the same id", where="vsa.verifier")
    return tuple(map(_verifier, entries))


def _verifier(entry: Toml) -> SummaryVerifier:
    who = _who(entry, f"vsa.verifier {entry['id']}")
    on_github = "identity" in entry and is_github(entry.get("issuer", GITHUB_ISSUER))
    if on_github and "source_uri" not in entry:
        raise PolicyError(
            "a verifier that is a GitHub workflow needs source_uri: whoever calls a reusable "
            "workflow has its identity",
            where=entry["id"],
        )
    return SummaryVerifier(
        id=entry["id"],
        source_uri=_source(entry["source_uri"]) if "source_uri" in entry else None,
        **who,
    )


def _who(entry: Toml, where: str, *, needed: bool = True) -> dict[str, Any]:
    """Who signs, by an identity or by a key: what builders, signers and verifiers share."""
    from slsa_for_models.evidence.envelopes import read_key  # no help needs it

    if "identity" in entry and "public_key" in entry:
        raise PolicyError("identity and public_key exclude each other", where=where)
    if needed and "identity" not in entry and "public_key" not in entry:
        raise PolicyError("neither an identity nor a key is stated", where=where)
    if "issuer" in entry and "identity" not in entry:
        raise PolicyError("an issuer without an identity says nothing", where=where)
    return {
        "identity": expected(entry["identity"]) if "identity" in entry else None,
        "issuer": entry.get("issuer"),
        "public_key": read_key(entry["public_key"]) if "public_key" in entry else None,
    }


def _digest(option: str, digits: int, text: str) -> str:
    if re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is None:
        wanted = f"{digits} hexadecimal digits, lower case"
        raise UsageError("not a full digest", where=option, expected=wanted, found=text)
    return text


ROWS: tuple[Row, ...] = (
    Row(
        "source.uri",
        "the repository, exactly; needed wherever a workflow signed",
        _source,
        "--source-uri github.com/ORG/REPO",
        attribute="source_uri",
    ),
    Row("source.repository_id", "GitHub's number of it: a repository registered anew has another"),
    Row("source.owner_id", "GitHub's number of its owner"),
    Row("source.visibility", "public, private or internal"),
    Row("source.branch", "its branch, exactly", expected, "--source-branch BRANCH"),
    Row("source.tag", "its tag, exactly", expected, "--source-tag TAG"),
    Row(
        "source.versioned_tag",
        "its version tag, as far as it is given",
        lambda text: expectations.parse_version(text)[0],
        "--source-versioned-tag vX[.Y[.Z]]",
    ),
    Row(
        "source.commit",
        "its commit",
        partial(_digest, "--source-commit", 40),
        "--source-commit HEX",
        attribute="source_commit",
    ),
    Row(
        "builder",
        "trust this builder, and no other unless repeated; by default the generic SLSA "
        "generator at a full version tag, and the workflow named by --identity",
        lambda entries: tuple(map(_builder, entries)),
        "--builder-id ID[@REF]...",
        attribute="builders",
    ),
    Row(
        "build.inputs",
        "what the caller of the workflow chose; repeatable",
        lambda inputs: {name: expected(value) for name, value in inputs.items()},
        "--build-workflow-input NAME=VALUE...",
    ),
    Row("build.runners", "the runner environments accepted; by default github-hosted"),
    Row(
        "build.events",
        "the events that may have started the run; by default not pull_request_target, "
        "issue_comment or workflow_run, which others cause",
    ),
    Row("build.environment", "the deployment environment that it was released through", expected),
    Row(
        "signer",
        "who must have signed the model: a workflow or an e-mail",
        lambda entry: Signer(**_who(entry, "signer")),
        "--identity ID",
    ),
    Row("source.issuer", "and who vouches for them", _issuer, "--identity-provider URL"),
    Row(
        "signer.public_key",
        "of a model signed with a key, and of the builder where that is no workflow",
        None,
        "--public-key PEM",
        attribute="signer",
    ),
    Row(
        "builder.public_key",
        "of the builder named by --builder-id, such as Tekton Chains, where its key is not "
        "the model's",
        None,
        "--builder-key PEM",
        attribute="builders",
    ),
    Row(
        "build.dataset_sha256",
        "of the training data",
        partial(_digest, "--dataset-digest", 64),
        "--dataset-digest SHA256",
    ),
    Row("build.data", "SHA-256 of every file of the training data by its path: these and no other"),
    Row("build.runner_labels", "labels of larger runners that you know to be GitHub's"),
    Row(
        "build.metrics",
        "bounds of the figures that training claims",
        lambda metrics: {name: Bounds(**bounds) for name, bounds in metrics.items()},
    ),
    Row("build.dependencies", "SHA-256 of other dependencies by name"),
    Row(
        "require.level",
        "SLSA Build level",
        int,
        "--minimum-level |1|2|3",
        attribute="minimum_level",
    ),
    Row(
        "require.evidence",
        "the kinds of evidence that must be given and accepted",
        attribute="required",
    ),
    Row("require.base_models", "whether every base model that is named must be given and verified"),
    Row(
        "load.code",
        "whether the model may hold code that loading it can run; either way no code of others, "
        "and no file that is malformed",
        usage="--code |refused|allowed",
    ),
    Row(
        "base_model",
        "policies for base models: each that is named, and has to be given, has to meet one",
        attribute="base_policies",
    ),
    Row(
        "vsa.resource_uri", "what a verification summary must be about", usage="--resource-uri URI"
    ),
    Row(
        "vsa.max_age",
        "how long ago it may have been signed, by a trusted clock: hours (36h) or days (30d)",
        _age,
        attribute="summary_age",
    ),
    Row(
        "vsa.verifier",
        "whose verification summaries are believed",
        _verifiers,
        attribute="verifiers",
    ),
)
