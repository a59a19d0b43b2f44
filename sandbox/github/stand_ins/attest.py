"""What actions/attest v4 does: a predicate of one's own, or SLSA provenance of the running job.

For demonstrations and tests only. Source: its src/detect.ts and src/main.ts, and provenance.ts of
@actions/attest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt

from sandbox.github.stand_ins.artifacts import find_files
from sandbox.github.stand_ins.commands import StepError, run, set_output, value
from sandbox.github.stand_ins.signing import identity_token, sign

MAX_SUBJECTS = 1024


def main() -> None:
    """Signs a statement about the subjects, with the given predicate."""
    given = [name for name in ("PATH", "DIGEST", "CHECKSUMS") if value(f"SUBJECT_{name}")]
    if len(given) != 1:
        raise StepError(
            "One of subject-path, subject-digest, or subject-checksums must be provided"
        )
    subjects = list({json.dumps(subject): subject for subject in _subjects()}.values())
    if not 0 < len(subjects) <= MAX_SUBJECTS:
        raise StepError(f"Between 1 and {MAX_SUBJECTS} subjects are possible, not {len(subjects)}")
    predicate_type, predicate = _predicate()
    bundle = sign(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": predicate_type,
            "predicate": predicate,
        },
        _sigstore(),
    )
    folder = tempfile.mkdtemp(dir=os.environ["RUNNER_TEMP"])
    path = Path(folder) / "attestation.json"
    path.write_text(bundle + "\n", encoding="utf-8")
    number = str(zlib.crc32(bundle.encode()))
    set_output("bundle-path", str(path))
    set_output("attestation-id", number)
    repository = f"{value('GITHUB_SERVER_URL')}/{value('GITHUB_REPOSITORY')}"
    set_output("attestation-url", f"{repository}/attestations/{number}")


def _predicate() -> tuple[str, Any]:
    given = [name for name in ("TYPE", "", "PATH") if value(f"PREDICATE_{name}".strip("_"))]
    if not given:
        return "https://slsa.dev/provenance/v1", _provenance()
    if given not in (["TYPE", ""], ["TYPE", "PATH"]):
        raise StepError("predicate-type comes with one of predicate and predicate-path")
    text = value("PREDICATE") or Path(value("PREDICATE_PATH")).read_text(encoding="utf-8")
    return value("PREDICATE_TYPE"), json.loads(text)


def _provenance() -> dict[str, Any]:
    claims = jwt.decode(identity_token("nobody"), options={"verify_signature": False})
    server = value("GITHUB_SERVER_URL")
    repository = f"{server}/{claims['repository']}"
    path, _, _ = claims["workflow_ref"].removeprefix(f"{claims['repository']}/").partition("@")
    names = ("event_name", "repository_id", "repository_owner_id", "runner_environment")
    return {
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {
                "workflow": {"ref": claims["ref"], "repository": repository, "path": path}
            },
            "internalParameters": {"github": {name: claims[name] for name in names}},
            "resolvedDependencies": [
                {"uri": f"git+{repository}@{claims['ref']}", "digest": {"gitCommit": claims["sha"]}}
            ],
        },
        "runDetails": {
            "builder": {"id": f"{server}/{claims['job_workflow_ref']}"},
            "metadata": {
                "invocationId": f"{repository}/actions/runs/{claims['run_id']}/attempts/"
                f"{claims['run_attempt']}"
            },
        },
    }


def _sigstore() -> str:
    """GitHub's own unless the event says that the repository is public (its src/main.ts)."""
    event = json.loads(Path(value("GITHUB_EVENT_PATH")).read_text(encoding="utf-8"))
    public = (event.get("repository") or {}).get("visibility") == "public"
    return "MODEL_TRANSPARENCY_TRUST_CONFIG" if public else "SANDBOX_SIGSTORE_OF_GITHUB"


def _subjects() -> Iterator[dict[str, Any]]:
    if value("SUBJECT_PATH"):
        files, _ = find_files(value("SUBJECT_PATH").splitlines(), hidden=True)
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            yield {"name": value("SUBJECT_NAME") or file.name, "digest": {"sha256": digest}}
    elif value("SUBJECT_DIGEST"):
        algorithm, _, digest = value("SUBJECT_DIGEST").partition(":")
        if algorithm != "sha256" or not value("SUBJECT_NAME"):
            raise StepError("subject-digest takes sha256:HEX, and needs subject-name")
        yield {"name": value("SUBJECT_NAME"), "digest": {"sha256": digest}}
    else:
        checksums = value("SUBJECT_CHECKSUMS")
        if "\n" not in checksums and Path(checksums).is_file():
            checksums = Path(checksums).read_text(encoding="utf-8")
        for line in filter(None, map(str.strip, checksums.splitlines())):
            digest, _, name = line.partition(" ")
            yield {"name": name.lstrip(" *"), "digest": {"sha256": digest}}


if __name__ == "__main__":
    run(main)
