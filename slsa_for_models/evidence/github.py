"""GitHub Actions as evidence names it: issuer, workflows at a git reference, runners."""

from __future__ import annotations

import re

from slsa_for_models.errors import ContextError

GITHUB = "https://github.com/"
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
"""The issuer of GitHub's tokens; those of an enterprise may have one of its own below it."""

SIGNING_WORKFLOW = "/.github/workflows/sign.yml"
"""Our workflow that signs what others made."""

STARTED_BY_OTHERS = frozenset({"pull_request_target", "issue_comment", "workflow_run"})
"""Events that people without write access cause, and whose runs have a repository's own rights
(GitHub documentation, "Events that trigger workflows"; GitHub Security Lab, "Preventing pwn
requests")."""

GITHUB_RUNNERS = frozenset(
    f"ubuntu-{version}"
    for version in ("latest", "26.04", "24.04", "22.04", "26.04-arm", "24.04-arm", "22.04-arm")
)
"""Labels of GitHub's standard Linux machines (GitHub documentation, "GitHub-hosted runners")."""

_WORKFLOW_REF = re.compile(r"([^/@\s]+/[^/@\s]+)/([^@\s]+)@([^@\s]+)")


def is_github(issuer: str) -> bool:
    """Whether tokens of this issuer are those of GitHub Actions jobs.

    Source: GitHub documentation, "Customizing the issuer value for an enterprise": `…/SLUG`.
    Fulcio takes each of them and certifies the same fields.
    """
    return issuer == GITHUB_ISSUER or issuer.startswith(f"{GITHUB_ISSUER}/")


def names_workflow(builder_id: str) -> bool:
    """Whether an id is that of a GitHub workflow."""
    return builder_id.startswith("https://") and "/.github/workflows/" in builder_id


def split_workflow(reference: str, *, where: str) -> tuple[str, str, str]:
    """`OWNER/NAME/PATH@REF` -> (`OWNER/NAME`, `PATH`, `REF`); exactly one `@`.

    Raises:
        ContextError: Another form.
    """
    match = _WORKFLOW_REF.fullmatch(reference)
    if match is None:
        raise ContextError(
            "this does not name a workflow file at a git reference",
            where=where,
            expected="OWNER/NAME/PATH@REF",
            found=reference,
        )
    repository, path, ref = match.groups()
    return repository, path, ref
