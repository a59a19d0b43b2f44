"""What one provenance says, compared with what is expected: each check with its own refusal.

SLSA v1.2, verifying-artifacts: the builder and its level (1.4), the expectations (2).
"""

from __future__ import annotations

from slsa_for_models.errors import BuilderError, RunError, SourceError
from slsa_for_models.evidence.claims import Facts
from slsa_for_models.evidence.github import GITHUB_RUNNERS, SIGNING_WORKFLOW, STARTED_BY_OTHERS
from slsa_for_models.evidence.kinds import KINDS
from slsa_for_models.evidence.provenance import Provenance
from slsa_for_models.verdict.expectations import (
    VERSION,
    Builder,
    Expectations,
    Expected,
    check_reference,
    matches,
    parse_version,
)

OF_RUN = {
    "event": "events",
    "repository id": "repository_id",
    "owner id": "owner_id",
    "visibility": "visibility",
    "environment": "environment",
}
"""Certified fact -> the expectation of it; of the run itself, whoever shows the certificate."""


def check_builder(
    expected: Expectations, provenance: Provenance, builders: tuple[Builder, ...]
) -> Builder:
    """The root of trust for this builder, among those its signer may speak for (1.4).

    Raises:
        BuilderError: There is none, or it does not make provenance of this kind.
    """
    found = next((item for item in builders if item.accepts(provenance.builder_id)), None)
    if found is None:
        message = "the builder is trusted at other references than this one"
        where = "builder.id, behind the @"
        check_reference(provenance.builder_id, builders, BuilderError, message, where)
        raise BuilderError(
            "not a trusted builder",
            where="builder.id",
            expected=" | ".join(str(builder) for builder in expected.builders),
            found=provenance.builder_id,
            fix="if you trust it, name it with --builder-id or in a policy",
        )
    if found.pipeline is not None and not matches(found.pipeline, provenance.pipeline or ""):
        raise BuilderError(
            "the builder ran another pipeline",
            where="externalParameters.buildConfigSource",
            expected=str(found.pipeline),
            found=provenance.pipeline or "one written into the run itself",
        )
    # A caller of our sign.yml may get hold of its token (docs/private-sigstore.md). Another kind
    # may come from a workflow of that name in the source's own repository.
    own = found.id.startswith(f"{provenance.source_uri.removeprefix('git+')}/")
    signs_only = found.id.endswith(SIGNING_WORKFLOW) and (provenance.kind.trains or not own)
    only = found.id if any(found.id == kind.only_builder for kind in KINDS) else None
    if provenance.kind.only_builder != only or signs_only:
        raise BuilderError(
            f"this builder does not make provenance of the kind {provenance.kind}",
            where="buildType",
            expected="the SLSA generator's kind from it and nobody else; none from sign.yml",
            found=provenance.builder_id,
        )
    return found


def level_of(
    builder: Builder, provenance: Provenance, facts: Facts, labels: tuple[str, ...] = ()
) -> int:
    """The SLSA Build level (verifying-artifacts 1.4), never taken from the provenance.

    A GitHub workflow that the caller trusts is Build L2 when GitHub runs it: the platform signs.
    It is L3 when it belongs to another repository than the source, so that who writes the source
    cannot change the builder. Everything else is L1 unless a policy says more. No policy says more
    of a training on a machine of somebody's own.

    Args:
        builder: The entry that accepted the provenance.
        provenance: What it accepted.
        facts: What the certificate says; see `claims.certified_facts`.
        labels: See `highest_level`.
    """
    level = builder.level
    if level is None and facts.get("runner") == "github-hosted":
        # GitHub's names do not distinguish case.
        level = 2 if builder.id.lower().startswith(f"{facts['repository']}/".lower()) else 3
    return min(1 if level is None else level, highest_level(provenance, labels))


def highest_level(provenance: Provenance, labels: tuple[str, ...] = ()) -> int:
    """3; but 1 for a training that does not name one of GitHub's own machines as its runner.

    Whoever owns the machine can change the model, and no certificate says whose it was: only the
    jobs that sign have one. The label does not prove the contrary (docs/threat-model.md, E).

    Args:
        provenance: What it says.
        labels: Of larger runners that the verifier knows to be GitHub's, besides the standard ones.
    """
    runner = provenance.inputs.get("runner")
    known = runner in GITHUB_RUNNERS or runner in labels
    return 3 if not provenance.kind.trains or known else 1


def check_source(expected: Expectations, provenance: Provenance) -> str:
    """The canonical repository and the commit.

    Raises:
        SourceError: Another one.
    """
    uri, commit = provenance.source_uri, provenance.source_commit
    _check_built_from("repository", expected.source_uri, uri, "source")
    _check_built_from("commit", expected.source_commit, commit, "source")
    return f"{uri.removeprefix('git+')} at {commit[:12]}"


def check_event(expected: Expectations, event: str | None) -> None:
    """What started a run, if people without write access can cause it, has to be named.

    Raises:
        RunError: It is not.
    """
    if event in STARTED_BY_OTHERS and event not in expected.events:
        raise RunError(
            "the run was started by an event that people without write access cause",
            where="certificate: trigger (.20)",
            expected=" or ".join(expected.events) or "another event",
            found=event,
            fix="if such a run builds nothing of theirs, name it in a policy: [build] events",
        )


def check_run(expected: Expectations, facts: Facts) -> str:
    """The run as its certificate has it: what started it, of which repository, released how.

    Raises:
        SourceError: Of another repository, owner or visibility, or no certificate says.
        RunError: Started or released otherwise, or no certificate says.
    """
    check_event(expected, facts.get("event"))
    for name, field in OF_RUN.items():
        stated, found = getattr(expected, field), facts.get(name)
        wanted: tuple[Expected, ...] = stated if isinstance(stated, tuple) else (stated,)
        if stated and not (found and any(matches(one, found) for one in wanted)):
            of_source = name in ("repository id", "owner id", "visibility")
            raise (SourceError if of_source else RunError)(
                f"the run has another {name}" if found else f"no certificate names the {name}",
                where=f"certificate: {name}",
                expected=" or ".join(map(str, wanted)),
                found=found or "none",
            )
    said = {"event": "started by", "environment": "environment", "repository id": "repository id"}
    named = [f"{said[name]} {facts[name]}" for name in said if facts.get(name)]
    return ", ".join([*named, *filter(None, [facts.get("visibility")])]) or "no certificate says"


def check_ref(expected: Expectations, provenance: Provenance) -> str:
    """Branch, tag and versioned tag.

    Raises:
        SourceError: Another one, or none where one is expected.
    """
    branch, tag = provenance.branch, provenance.tag
    _check_built_from("branch", expected.branch, branch, "source reference")
    _check_built_from("tag", expected.tag, tag, "source reference")
    if expected.versioned_tag is not None:
        _check_versioned_tag(expected.versioned_tag, tag)
    said = f"branch {branch}" if branch else f"tag {tag}" if tag else ""
    return said or "no branch or tag named"


def _check_built_from(what: str, wanted: Expected | None, found: str, where: str) -> None:
    if wanted is not None and not (found and matches(wanted, found)):
        raise SourceError(
            f"built from another {what}" if found else f"the provenance names no {what}",
            where=where,
            expected=str(wanted),
            found=found or f"no {what}",
        )


def _check_versioned_tag(wanted: str, tag: str) -> None:
    """As slsa-verifier: v1 accepts v1.2.3, v1.2 accepts v1.2.3; build metadata is ignored."""
    expected, found = parse_version(wanted), VERSION.fullmatch(tag)
    # A shortened tag stands for zeros: v1 is v1.0.0.
    numbers = [int(part or 0) for part in found.group(1, 2, 3)] if found else []
    given = [int(part) for part in expected.group(1, 2, 3) if part is not None]
    if (
        found is None
        or numbers[: len(given)] != given
        or (len(given) == 3 and expected[4] != found[4])
    ):
        raise SourceError(
            "built from another version" if tag else "the provenance names no tag, so no version",
            where="source reference",
            expected=wanted,
            found=tag or "no tag",
        )
