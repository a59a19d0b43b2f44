"""What slsa-github-generator's generic generator v2.1.0 does: SLSA v0.2 provenance, signed.

For demonstrations and tests only. Source: its Go code at tag v2.1.0 (internal/builders/generic,
slsa/buildtype.go, slsa/provenance.go, github/workflow.go); names of fields and rules are its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import jwt

from sandbox.github.stand_ins.commands import StepError, run, set_output, value
from sandbox.github.stand_ins.signing import identity_token, sign

BUILD_TYPE = "https://github.com/slsa-framework/slsa-github-generator/generic@v1"


def main() -> None:
    """Writes the signed provenance of the subjects into the working folder."""
    # It asks GitHub's API (.github/actions/privacy-check), for which internal is private, too.
    if value("GITHUB_REPOSITORY_VISIBILITY") != "public" and value("PRIVATE") != "true":
        raise StepError(
            f"{value('GITHUB_REPOSITORY')} is not public, and its name would be in the public log: "
            "see 'private-repository'"
        )
    subjects = parse_subjects(value("SUBJECTS"))
    path = provenance_path(value("PROVENANCE_NAME"), subjects)
    claims = jwt.decode(
        identity_token(value("GITHUB_REPOSITORY")), options={"verify_signature": False}
    )
    context = json.loads(value("GITHUB_CONTEXT"))
    bundle = sign(statement(subjects, context, json.loads(value("VARS_CONTEXT")), claims))
    with path.open("x", encoding="utf-8") as file:
        file.write(bundle)
    set_output("provenance-name", path.name)
    set_output("provenance-sha256", hashlib.sha256(bundle.encode()).hexdigest())


def parse_subjects(encoded: str) -> list[dict[str, Any]]:
    """The subjects in `sha256sum` lines in base64.

    Raises:
        StepError: Not base64, no subject, a digest that is not SHA-256, no name, a name twice.
    """
    try:
        lines = base64.b64decode(encoded, validate=True).decode().splitlines()
    except (binascii.Error, ValueError) as error:
        raise StepError("error decoding subjects (is it base64 encoded?)") from error
    subjects: list[dict[str, Any]] = []
    for line in filter(None, map(str.strip, lines)):
        digest, _, name = re.sub(r"[\t ]", " ", line, count=1).partition(" ")
        digest, name = digest.lower(), name.strip()
        if not re.fullmatch(r"[a-f0-9]{64}", digest):
            raise StepError(f"unexpected sha256 hash format for '{digest}'")
        if not name:
            raise StepError(f"expected subject name for hash '{digest}'")
        if any(subject["name"] == name for subject in subjects):
            raise StepError(f"duplicate subject: '{name}'")
        subjects.append({"name": name, "digest": {"sha256": digest}})
    if not subjects:
        raise StepError("expected at least one subject")
    return subjects


def provenance_path(name: str, subjects: list[dict[str, Any]]) -> Path:
    """Where the provenance goes: by default named after the one subject.

    Raises:
        StepError: Another suffix, or outside of the working folder.
    """
    if not name:
        only = PurePosixPath(subjects[0]["name"]).name
        name = f"{only}.intoto.jsonl" if len(subjects) == 1 else "multiple.intoto.jsonl"
    if not name.endswith("intoto.jsonl"):
        raise StepError(f"suffix of '{name}' must be .intoto.jsonl")
    path = Path(name).resolve()
    if not path.is_relative_to(Path.cwd().resolve()):
        raise StepError(f"invalid path: '{path}'")
    return path


def statement(
    subjects: list[dict[str, Any]],
    context: dict[str, Any],
    variables: dict[str, str] | None,
    claims: dict[str, Any],
) -> dict[str, Any]:
    """The in-toto v0.1 statement.

    Args:
        subjects: From `parse_subjects`.
        context: The `github` context.
        variables: The `vars` context.
        claims: Of the job's identity token.
    """
    source = {
        "uri": f"git+{context['server_url']}/{context['repository']}@{context['ref']}",
        "digest": {"sha1": context["sha"]},
    }
    workflow_path = claims["workflow_ref"].partition("@")[0].split("/", 2)[2]
    invocation = {
        "configSource": {**source, "entryPoint": workflow_path},
        # The generator leaves the parameters out when there are none of either kind.
        **_parameters(context["event"].get("inputs"), variables or None),
        "environment": {
            "github_actor": context["actor"],
            "github_actor_id": claims["actor_id"],
            "github_base_ref": context["base_ref"],
            "github_event_name": context["event_name"],
            "github_event_payload": context["event"],
            "github_head_ref": context["head_ref"],
            "github_ref": context["ref"],
            "github_ref_type": context["ref_type"],
            "github_repository_id": claims["repository_id"],
            "github_repository_owner": context["repository_owner"],
            "github_repository_owner_id": claims["repository_owner_id"],
            "github_run_attempt": context["run_attempt"],
            "github_run_id": context["run_id"],
            "github_run_number": context["run_number"],
            "github_sha1": context["sha"],
        },
    }
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": subjects,
        "predicate": {
            "builder": {"id": f"https://github.com/{claims['job_workflow_ref']}"},
            "buildType": BUILD_TYPE,
            "invocation": invocation,
            "metadata": {
                "buildInvocationID": f"{context['run_id']}-{context['run_attempt']}",
                "completeness": {"parameters": True, "environment": False, "materials": False},
                "reproducible": False,
            },
            "materials": [source],
        },
    }


def _parameters(
    inputs: dict[str, Any] | None, variables: dict[str, str] | None
) -> dict[str, dict[str, Any]]:
    if inputs is None and variables is None:
        return {}
    given = {} if inputs is None else {"event_inputs": inputs}
    return {"parameters": {**given, "vars": variables}}


if __name__ == "__main__":
    run(main)
