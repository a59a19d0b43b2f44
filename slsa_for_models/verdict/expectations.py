"""What a verifier expects, as values; and the comparisons, each with its own refusal.

SLSA v1.2, verifying-artifacts: the roots of trust of step 1 (builders and their levels) and the
expectations of step 2. Texts compare exactly unless a pattern is asked for; patterns are anchored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta

from model_signing.errors import Error, FileError, UsageError
from slsa_for_models.evidence.github import GITHUB_ISSUER, names_workflow
from slsa_for_models.evidence.kinds import slsa_generator

_FULL_VERSION_TAG = re.compile(r"refs/tags/v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}")
# Semantic Versioning 2.0.0, with `v` before it: no leading zeros, no empty identifiers.
_N = r"(0|[1-9][0-9]{0,17})"
_PART, _META = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)", r"[0-9A-Za-z-]+"
VERSION = re.compile(
    rf"v{_N}(?:\.{_N}(?:\.{_N}(-{_PART}(?:\.{_PART})*)?(?:\+{_META}(?:\.{_META})*)?)?)?"
)
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s@]+")
# The host has a dot or a port, so that ORG/REPO is not taken for HOST/REPO.
_REPOSITORY = re.compile(
    r"git\+https://(?:github\.com/[^/@\s?#]+/[^/@\s?#]+"
    r"|(?!github\.com/)[^/@\s]+[.:][^/@\s]+(?:/[^/@\s?#]+)+)"
)


@dataclass(frozen=True)
class Pattern:
    """A regular expression that has to match a whole text."""

    regex: str

    def __str__(self) -> str:
        return f"pattern {self.regex}"


Expected = str | Pattern


@dataclass(frozen=True)
class Bounds:
    """What a number may be; None for no bound."""

    minimum: float | None = None
    maximum: float | None = None

    def __str__(self) -> str:
        words = (("at least", self.minimum), ("at most", self.maximum))
        return " and ".join(f"{said} {value:g}" for said, value in words if value is not None)

    def hold(self, value: float) -> bool:
        """Whether a number is within them."""
        least = self.minimum is None or value >= self.minimum
        return least and (self.maximum is None or value <= self.maximum)


def matches(expected: Expected, found: str) -> bool:
    """Exactly, or as a whole by the pattern."""
    if isinstance(expected, Pattern):
        return re.fullmatch(expected.regex, found) is not None
    return expected == found


@dataclass(frozen=True)
class Builder:
    """An entry in the roots of trust: who may sign for a `builder.id`, and its level.

    Attributes:
        id: The builder's id, without `@` and git reference.
        refs: The references accepted after the `@`; none means any full version tag,
            `refs/tags/vX.Y.Z`. The SLSA generator is held to full version tags in any case.
        level: The SLSA Build level it is trusted up to, if the verifier decides it; None for
            `level_of`'s own table.
        public_key: PEM, where it signs with a key.
        identity: The certificate's identity, where it signs keyless elsewhere than on GitHub.
        issuer: That identity's issuer.
        pipeline: What it has to have run (Tekton), as `Provenance.pipeline`; None for anything.
    """

    id: str
    refs: tuple[Expected, ...] = ()
    level: int | None = None
    public_key: bytes | None = None
    identity: Expected | None = None
    issuer: str | None = None
    pipeline: Expected | None = None

    @property
    def is_workflow(self) -> bool:
        """Whether it is a GitHub workflow, which signs with its own identity."""
        return self.public_key is None and self.identity is None

    def __str__(self) -> str:
        refs = [str(ref) for ref in self.refs] or ["refs/tags/vX.Y.Z"]
        return f"{self.id}@{' or '.join(refs)}" if self.is_workflow else self.id

    def accepts(self, builder_id: str) -> bool:
        """Whether `builder_id` is this builder at an accepted reference."""
        if not self.is_workflow:
            return builder_id == self.id
        name, at, ref = builder_id.partition("@")
        if name != self.id or not at or "@" in ref:
            return False
        if name.startswith(slsa_generator.REPOSITORY) and not _FULL_VERSION_TAG.fullmatch(ref):
            return False
        if not self.refs:
            return _FULL_VERSION_TAG.fullmatch(ref) is not None
        return any(matches(expected, ref) for expected in self.refs)


GENERATOR = Builder(slsa_generator.BUILDER_ID, level=3)
"""Trusted unless the caller names others: the generic SLSA generator at a full version tag."""


def builder_from_option(text: str, public_key: bytes | None = None) -> Builder:
    """`--builder-id ID` or `ID@REF`, with slsa-verifier's meaning: a short REF is a tag.

    Args:
        text: The option's value.
        public_key: PEM; not for a GitHub workflow, which signs with its own identity.

    Raises:
        UsageError: Not a URI, more than one `@`, or nothing after it.
    """
    name, at, ref = text.partition("@")
    if not _URI.fullmatch(name) or "@" in ref or (at and not ref):
        raise UsageError(
            "not a builder id", where="--builder-id", expected="a URI, or URI@REF", found=text
        )
    if public_key is not None and not names_workflow(name):
        return Builder(text, public_key=public_key)
    level = 3 if name == slsa_generator.BUILDER_ID else None
    return Builder(name, (ref, f"refs/tags/{ref}") if at else (), level)


def builder_from_identity(identity: str) -> Builder | None:
    """The workflow that a caller names as the model's signer, trusted for its own provenance too.

    None where the identity is not a workflow at a git reference.
    """
    name, _, ref = identity.partition("@")
    return Builder(name, (ref,)) if names_workflow(name) and ref and "@" not in ref else None


def check_reference(
    found: str, trusted: Iterable[Builder], refusal: type[Error], message: str, where: str
) -> None:
    """Refuses a workflow that is trusted, but not at this git reference; another one it lets pass.

    Args:
        found: The workflow as certified, with its reference.
        trusted: Those that are.
        refusal: The error class to raise.
        message: What it says.
        where: Where the reference stands.

    Raises:
        Error: As `refusal`: another reference.
    """
    name, _, ref = found.partition("@")
    same = [builder for builder in trusted if builder.is_workflow and builder.id == name]
    refs = [str(one) for builder in same for one in builder.refs] or ["refs/tags/vX.Y.Z"]
    short = ref.removeprefix("refs/heads/")
    if not same or not ref:
        return
    if name.startswith(slsa_generator.REPOSITORY):
        fix = "call the SLSA generator at a full version tag, the only reference that is trusted"
    elif short in refs and short != ref:
        fix = f"for a branch write @{ref}"
    else:
        fix = f"if you trust this reference, too, name it: {found}, or refs in a policy"
    raise refusal(message, where=where, expected=" or ".join(refs), found=ref, fix=fix)


def workflow(identity: str) -> Builder:
    """A GitHub workflow at one git reference, trusted for the provenance it makes.

    Args:
        identity: `https://github.com/ORG/REPO/.github/workflows/FILE.yml@REF`, as it stands in
            certificates: the reference in full, such as `refs/tags/v1.2.3`, or a commit.

    Raises:
        UsageError: Another form.
    """
    if (builder := builder_from_identity(identity)) is None:
        raise UsageError(
            "not a workflow at a git reference",
            expected="https://github.com/ORG/REPO/.github/workflows/FILE.yml@REF",
            found=identity,
        )
    return builder


@dataclass(frozen=True)
class Signer:
    """Who may sign the model (OMS): a keyless identity, or a key."""

    identity: Expected | None = None
    issuer: str | None = None
    public_key: bytes | None = None


@dataclass(frozen=True)
class SummaryVerifier:
    """A verifier whose summaries (VSA) are believed, bound to how it signs."""

    id: str
    identity: Expected | None = None
    issuer: str | None = None
    public_key: bytes | None = None
    source_uri: Expected | None = None


@dataclass(frozen=True)
class Expectations:
    """Everything that is compared with evidence. None or empty: not expected.

    Attributes:
        source_uri: The repository, `git+https://HOST/ORG/REPO`; see `source_uri` for shorter forms.
        issuer: Whose tokens its workflows have: GitHub's, or an enterprise's own below it.
        repository_id: GitHub's number of it, which stays when it is renamed, and is another when
            it is registered anew (certificate extension .15).
        owner_id: GitHub's number of its owner (.17).
        visibility: `public`, `private` or `internal` (.22).
        source_commit: Its commit, hexadecimal.
        branch: A branch's name, without `refs/heads/`.
        tag: A tag's name, without `refs/tags/`.
        versioned_tag: `vX`, `vX.Y` or `vX.Y.Z`, compared as far as it goes.
        builders: The roots of trust.
        inputs: Parameters that the caller of the workflow must have chosen.
        runners: The runner environments accepted (certificate extension .11).
        events: The events that may have started the run (.20). Without any: every one but those
            that others cause, `STARTED_BY_OTHERS`.
        environment: The deployment environment that the job named (.23), whose rules it passed.
        signer: Who may sign the model; by default one of `builders`.
        dataset_sha256: The data set's digest, hexadecimal.
        data: Path -> SHA-256, hexadecimal, of every file of the data set: these and no other.
        runner_labels: Labels of larger runners that are known to be GitHub's, besides its standard
            ones: a training on one is not on a machine of somebody's own.
        metrics: Name -> bounds of a figure that training claims.
        dependencies: Name of another dependency -> SHA-256, hexadecimal.
        minimum_level: The lowest SLSA Build level accepted.
        required: Kinds of evidence that must be there: `signature`, `vsa`, and names of `KINDS`.
        base_models: Whether every base model named must be given and verified.
        base_policies: What is expected of base models: each that is named, and has to be given, has
            to meet one of these. Without any, what is expected of the model itself.
        verifiers: Whose verification summaries are believed.
        code: Whether the model may hold code that loading it can run: "refused" or "allowed".
        resource_uri: What a verification summary must be about; one has to be there, unless only a
            policy states this.
        summary_age: How long ago a verification summary may have been signed, at most.
        policy_sha256: Digest of the policy's file as it was read, hexadecimal.
        stated: Names of the fields that a policy states, be it with what would hold without it.
    """

    source_uri: Expected | None = None
    issuer: str = GITHUB_ISSUER
    repository_id: str | None = None
    owner_id: str | None = None
    visibility: str | None = None
    source_commit: str | None = None
    branch: Expected | None = None
    tag: Expected | None = None
    versioned_tag: str | None = None
    builders: tuple[Builder, ...] = (GENERATOR,)
    inputs: Mapping[str, Expected] = field(default_factory=dict)
    runners: tuple[str, ...] = ("github-hosted",)
    events: tuple[str, ...] = ()
    environment: Expected | None = None
    signer: Signer | None = None
    dataset_sha256: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    runner_labels: tuple[str, ...] = ()
    metrics: Mapping[str, Bounds] = field(default_factory=dict)
    dependencies: Mapping[str, str] = field(default_factory=dict)
    minimum_level: int = 0
    required: tuple[str, ...] = ()
    base_models: bool = False
    code: str | None = None
    base_policies: tuple[Expectations, ...] = ()
    verifiers: tuple[SummaryVerifier, ...] = ()
    resource_uri: str | None = None
    summary_age: timedelta | None = None
    policy_sha256: str | None = field(default=None, compare=False)
    stated: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.source_uri, str):
            object.__setattr__(self, "source_uri", source_uri(self.source_uri))

    def _values(self) -> dict[str, object]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.compare}

    def applied(self) -> dict[str, object]:
        """Every expectation by its attribute, also by default; what is not expected is left out."""
        return {name: value for name, value in self._values().items() if value}

    def chosen(self) -> list[str]:
        """The attributes of what is expected otherwise than by default."""
        default = Expectations()._values()
        return [name for name, value in self._values().items() if value != default[name]]

    @property
    def evidence(self) -> set[str]:
        """Kinds that must be there: `required`, and what else an expectation is compared with.

        A signer who is no builder has to have signed; a resource that is expected, and not by a
        policy, which says what a summary has to be if there is one, has to have a summary.
        """
        who = self.signer
        builds = who and any(
            who == Signer(by.identity, by.issuer, by.public_key) or by.accepts(f"{who.identity}")
            for by in self.builders
        )
        signature = {"signature"} if who and not builds else set()
        summary = {"vsa"} if self.resource_uri and "resource_uri" not in self.stated else set()
        return {*self.required, *signature, *summary}

    def stating(self, **more: object) -> Expectations:
        """These expectations and more, of what they leave open.

        A workflow that signs the model speaks for itself, too: it is a builder besides the default
        one, unless builders are stated.

        Args:
            more: Attributes and their values; None or empty: not expected.

        Raises:
            UsageError: Not an attribute, or something else is stated already.
        """
        before = self._values()
        unknown = ", ".join(sorted(more.keys() - before.keys()))
        if unknown:
            raise UsageError("not an expectation", expected=", ".join(before), found=unknown)
        given = {name: value for name, value in more.items() if value}
        stated = self.stated.union(self.chosen())
        # Not only the policy states this any more: see `evidence`.
        left = self.stated - ({"resource_uri"} & given.keys())
        result = replace(self, **given, stated=left)  # type: ignore[arg-type]
        after = result._values()
        for name in given:
            if name in stated and before[name] != after[name]:
                raise UsageError(
                    "an option contradicts the policy",
                    where=name,
                    expected=shown(before[name]),
                    found=shown(after[name]),
                    fix="state it in one of them only",
                )
        identity = result.signer.identity if "signer" in given and result.signer else None
        signing = builder_from_identity(identity) if isinstance(identity, str) else None
        if signing is not None and "builders" not in stated | given.keys():
            return replace(result, builders=(*self.builders, signing))
        return result


def shown(value: object) -> str:
    """What is expected, in the words of policies: a builder is `id ... refs ... level 3`."""
    if isinstance(value, bytes):
        return _key_shown(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(one)}" for name, one in value.items())
    if isinstance(value, tuple):
        return " | ".join(map(shown, value))
    if isinstance(value, (Builder, Signer, SummaryVerifier)):
        stated = ((one.name, getattr(value, one.name)) for one in fields(value))
        return " ".join(f"{name} {shown(one)}" for name, one in stated if one not in (None, ()))
    if isinstance(value, Expectations):  # of base models
        listed = (f"{name}: {shown(one)}" for name, one in value.applied().items())
        return f"policy SHA-256 {value.policy_sha256}, {'; '.join(listed)}"
    if isinstance(value, timedelta):
        hours = value // timedelta(hours=1)
        return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key_shown(pem: bytes) -> str:
    from slsa_for_models.evidence.envelopes import fingerprint  # needs cryptography

    try:
        return f"key SHA-256 {fingerprint(pem)}"
    except FileError:  # said where it is used
        return "a file that holds no public key"


def source_uri(text: str) -> str:
    """`github.com/ORG/REPO`, `https://...` or `git+https://...` -> `git+https://HOST/ORG/REPO`.

    Raises:
        UsageError: Another form; also a trailing slash, a `.git` or a git reference.
    """
    uri = text
    if not uri.startswith("git+"):
        uri = f"git+{uri}" if "://" in uri else f"git+https://{uri}"
    if not _REPOSITORY.fullmatch(uri) or uri.endswith(".git"):
        raise UsageError(
            "not a repository", where="--source-uri", expected="github.com/ORG/REPO", found=text
        )
    return uri


def parse_version(text: str) -> re.Match[str]:
    """A semantic version with `v`, perhaps shortened to its first parts.

    Raises:
        UsageError: Another form.
    """
    if (match := VERSION.fullmatch(text)) is None:
        raise UsageError(
            "not a version",
            where="--source-versioned-tag",
            expected="vX, vX.Y or vX.Y.Z",
            found=text,
        )
    return match
