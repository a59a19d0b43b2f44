"""What the control plane knows of a build: a frozen value made from the job's identity token.

The token's claims are read without checking the token's signature. That is sound for exactly one
use, which is the one here: the token is our own, and the certificate authority that signs our key
checks the same token and writes the same claims into the certificate. A claim that were wrong here
would contradict that certificate, and `slsa_for_models verify` compares the two field by field.
Nothing is taken from `GITHUB_*` variables, which build code could have set.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from model_signing.errors import UsageError
from model_signing.oms import strict_json
from slsa_for_models.errors import ContextError
from slsa_for_models.evidence.github import GITHUB, GITHUB_ISSUER, is_github, split_workflow
from slsa_for_models.evidence.training_plan import Scalar

MAX_TOKEN_BYTES = 64 * 1024
MAX_INPUTS_BYTES = 64 * 1024


@dataclass(frozen=True)
class BuildContext:
    """One job of one workflow run, as GitHub's identity token describes it.

    Attributes:
        repository: `OWNER/NAME` of the repository the run belongs to (the caller's).
        repository_id: GitHub's number for it.
        owner_id: GitHub's number for its owner.
        commit: The caller's commit, hexadecimal.
        ref: The caller's full git reference, such as `refs/heads/main`.
        event: What triggered the run, such as `push`.
        workflow: `OWNER/NAME/PATH@REF` of the workflow file the run started with.
        builder: `OWNER/NAME/PATH@REF` of the (reusable) workflow the job is defined in.
        builder_commit: The commit of that workflow.
        run_id: The run's number.
        run_attempt: Its attempt, from 1.
        runner: `github-hosted` or `self-hosted`.
        inputs: What the caller chose: the inputs of the reusable workflow.
        started: When the run started, if the workflow noted it (RFC 3339).
        finished: When the provenance was made, by the signing job's clock.
    """

    repository: str
    repository_id: str
    owner_id: str
    commit: str
    ref: str
    event: str
    workflow: str
    builder: str
    builder_commit: str
    run_id: str
    run_attempt: str
    runner: str
    inputs: Mapping[str, Scalar]
    started: datetime | None
    finished: datetime

    @property
    def builder_id(self) -> str:
        """The build signer URI that Fulcio certifies (extension 1.3.6.1.4.1.57264.1.9)."""
        return GITHUB + self.builder

    @property
    def invocation(self) -> str:
        """The run invocation URI that Fulcio certifies (extension 1.3.6.1.4.1.57264.1.21)."""
        return f"{GITHUB}{self.repository}/actions/runs/{self.run_id}/attempts/{self.run_attempt}"


# BuildContext field -> claim (GitHub documentation, "OpenID Connect reference").
_CLAIMS = {
    "repository": "repository",
    "repository_id": "repository_id",
    "owner_id": "repository_owner_id",
    "commit": "sha",
    "ref": "ref",
    "event": "event_name",
    "workflow": "workflow_ref",
    "builder": "job_workflow_ref",
    "builder_commit": "job_workflow_sha",
    "run_id": "run_id",
    "run_attempt": "run_attempt",
    "runner": "runner_environment",
}


def from_token(
    token: str,
    *,
    inputs: Mapping[str, Scalar],
    started: datetime | None,
    now: datetime,
) -> BuildContext:
    """The context of the GitHub Actions job that owns `token`.

    Args:
        token: The job's OpenID Connect token (a JWT), audience `sigstore`.
        inputs: The reusable workflow's inputs, from `parse_inputs`.
        started: When the run started, if known.
        now: The current time, with a time zone.

    Raises:
        ContextError: Not a JWT, not from GitHub Actions, or a claim is absent or malformed.
    """
    claims = token_claims(token)
    if not is_github(str(claims.get("iss"))):
        raise ContextError(
            "the identity token is not that of a GitHub Actions job",
            where="claim iss",
            expected=GITHUB_ISSUER,
            found=str(claims.get("iss")),
            fix="run this in a workflow job that is granted `id-token: write`",
        )
    values = {field: _claim(claims, name) for field, name in _CLAIMS.items()}
    for field in ("workflow", "builder"):
        split_workflow(values[field], where=f"claim {_CLAIMS[field]}")
    return BuildContext(**values, inputs=dict(inputs), started=started, finished=now)


def check_public(token: str) -> str:
    """Refuses to sign for a repository that is not public, or that may not be: logs are, for good.

    Args:
        token: The job's OpenID Connect token, which GitHub made: its word is the only one that
            every kind of event has. Certificates say it as extension 1.3.6.1.4.1.57264.1.22.

    Returns:
        The repository, `OWNER/NAME`.

    Raises:
        ContextError: The repository is private or internal, or the token does not say.
    """
    claims = token_claims(token)
    visibility = claims.get("repository_visibility")
    if visibility != "public":
        raise ContextError(
            "signing would publish the name of a repository that is not public",
            where="claim repository_visibility",
            expected="public",
            found="nothing" if visibility is None else ascii(visibility),
            fix="set the input 'private-repository' to true if that is meant, or sign with a "
            "private Sigstore by 'trust-config'",
        )
    return str(claims.get("repository"))


def token_claims(token: str) -> dict[str, object]:
    """The claims of a JWT (RFC 7519), its signature not checked; see the module's first lines.

    Raises:
        ContextError: Not a JWT.
    """
    parts = token.strip().split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN_BYTES:
        raise ContextError("the identity token is not a JSON Web Token")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        payload = b""
    claims = strict_json.loads(payload, ContextError, "the identity token")
    if not isinstance(claims, dict):
        raise ContextError("the identity token's payload is not a JSON object")
    return claims


def parse_inputs(text: str, most: int = MAX_INPUTS_BYTES) -> dict[str, Scalar]:
    """The inputs of a reusable workflow, as the expression `toJSON(inputs)` writes them.

    An input that is null was not chosen, and is left out.

    Args:
        text: JSON.
        most: Of how many characters at most.

    Raises:
        UsageError: Not a flat JSON object of strings, numbers and booleans.
    """
    inputs: object = None
    if len(text) <= most:
        data = text.encode(errors="surrogateescape")
        inputs = strict_json.loads(data, UsageError, "--workflow-inputs")
    if not isinstance(inputs, dict) or not all(
        value is None or isinstance(value, Scalar) for value in inputs.values()
    ):
        raise UsageError(
            "the workflow inputs are not a flat JSON object",
            where="--workflow-inputs",
            expected=f"what toJSON(inputs) gives, at most {most >> 10} KiB",
        )
    return {name: value for name, value in inputs.items() if value is not None}


def _claim(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise ContextError(
            "the identity token lacks a claim of GitHub Actions, or it is malformed",
            where=f"claim {name}",
            found="nothing" if value is None else ascii(value),
        )
    return value
