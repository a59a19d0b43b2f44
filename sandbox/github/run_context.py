"""What GitHub tells the jobs of a run: contexts, variables, the event, identity claims.

For demonstrations and tests only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.github.planner import Job, Source
from sandbox.github.workflows import FROM_FORKS

ACTOR = "developer"
IDS = {"repository_id": "1001", "repository_owner_id": "2002", "actor_id": "3003"}


@dataclass(frozen=True)
class Context:
    """What is the same for all jobs of a run, in the forms in which they meet it.

    Attributes:
        caller: The repository whose workflow runs, at the ref that it runs for.
        workflow: That workflow's path.
        workflow_name: Its name; its path if it has none.
        event_name: What triggered the run.
        run_id: `github.run_id`.
        run_attempt: `github.run_attempt`.
        different: What the event's payload has instead of the usual, by its topmost names.
    """

    caller: Source
    workflow: str
    workflow_name: str
    event_name: str
    run_id: str
    run_attempt: int
    different: Mapping[str, Any] = field(default_factory=dict)

    @property
    def workflow_ref(self) -> str:
        """`github.workflow_ref`."""
        return f"{self.caller.name}/{self.workflow}@{self.caller.ref}"

    def expressions(self) -> dict[str, str]:
        """Contexts that act leaves empty."""
        return {
            "github.workflow_ref": self.workflow_ref,
            "github.workflow_sha": self.caller.commit,
            "github.repository_id": IDS["repository_id"],
            "github.repository_owner_id": IDS["repository_owner_id"],
            "github.repository_visibility": self.caller.visibility,
            "github.actor_id": IDS["actor_id"],
            "github.triggering_actor": ACTOR,
            "runner.environment": "github-hosted",
        }

    def environment(self) -> dict[str, str]:
        """Variables that GitHub sets; `SHA_REF` is act's name for `github.sha`."""
        owner = self.caller.name.partition("/")[0]
        is_pull_request = self.event_name in (*FROM_FORKS, "pull_request_target")
        variables = {
            "SHA_REF": self.caller.commit,
            "GITHUB_REPOSITORY": self.caller.name,
            "GITHUB_REPOSITORY_OWNER": owner,
            "GITHUB_REF": self.caller.ref,
            "GITHUB_REF_NAME": re.sub(r"^refs/(heads|tags|pull)/", "", self.caller.ref),
            "GITHUB_REF_TYPE": "tag" if self.caller.ref.startswith("refs/tags/") else "branch",
            "GITHUB_BASE_REF": "main" if is_pull_request else "",
            "GITHUB_HEAD_REF": "change" if is_pull_request else "",
            "GITHUB_RUN_ID": self.run_id,
            "GITHUB_RUN_NUMBER": "1",
            "GITHUB_RUN_ATTEMPT": str(self.run_attempt),
        }
        for name, value in self.expressions().items():
            variables[name.upper().replace(".", "_")] = value
        return variables

    def claims(self, job: Job) -> dict[str, str]:
        """What the job's identity tokens say."""
        return {
            **IDS,
            "repository": self.caller.name,
            "repository_visibility": self.caller.visibility,
            "ref": self.caller.ref,
            "sha": self.caller.commit,
            "workflow": self.workflow_name,
            "workflow_ref": self.workflow_ref,
            "workflow_sha": self.caller.commit,
            "job_workflow_ref": job.workflow_ref,
            "job_workflow_sha": job.workflow_sha,
            "event_name": self.event_name,
            "run_id": self.run_id,
            "run_attempt": str(self.run_attempt),
            "actor": ACTOR,
        }

    def payload(self, inputs: Mapping[str, str]) -> dict[str, Any]:
        """The event, as far as workflows look into it."""
        owner, _, name = self.caller.name.partition("/")
        repository = {
            "id": int(IDS["repository_id"]),
            "name": name,
            "full_name": self.caller.name,
            "owner": {"login": owner, "id": int(IDS["repository_owner_id"])},
            "private": self.caller.visibility != "public",
            "visibility": self.caller.visibility,
            "html_url": f"https://github.com/{self.caller.name}",
            "default_branch": "main",
        }
        payload: dict[str, Any] = {
            "repository": repository,
            "sender": {"login": ACTOR, "id": int(IDS["actor_id"])},
            "ref": self.caller.ref,
        }
        if self.event_name == "workflow_dispatch":
            payload |= {"inputs": dict(inputs), "workflow": self.workflow}
        elif self.event_name == "push":
            payload |= {"after": self.caller.commit, "deleted": False, "forced": False}
        elif self.event_name == "schedule":
            payload |= {"schedule": "0 0 * * 1", "workflow": self.workflow}
        elif self.event_name == "merge_group":
            group = {"head_sha": self.caller.commit, "head_ref": self.caller.ref}
            group |= {"base_sha": "0" * 40, "base_ref": "refs/heads/main"}
            payload |= {"action": "checks_requested", "merge_group": group}
        elif self.event_name.startswith("pull_request"):
            head = {"ref": "change", "sha": self.caller.commit, "repo": {"fork": True}}
            base = {"ref": "main", "repo": repository}
            payload |= {"number": 1, "pull_request": {"number": 1, "head": head, "base": base}}
        return payload | dict(self.different)


def ref_of(event_name: str, ref: str) -> str:
    """What a workflow runs at, in a repository that is looked at at `ref`."""
    if event_name in FROM_FORKS:
        return "refs/pull/1/merge"
    if event_name == "merge_group":
        return f"refs/heads/gh-readonly-queue/main/pr-1-{'0' * 40}"
    return ref
