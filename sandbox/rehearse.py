"""Signs and verifies a model with a Sigstore that lives for this call only.

Pull requests may not have an identity, so there a workflow can only rehearse: the same commands,
with keys that are thrown away. What comes out proves nothing, and is thrown away, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .oidc import GITHUB_ISSUER, job_claims
from .sigstore import LocalSigstore

NOTICE = """\
## Rehearsal

This run belongs to a pull request, which may not sign. The chain was tried out with a Sigstore that
lived on this runner for a moment: **the verdict below proves nothing about the model.**

"""


def rehearse(
    model: Path,
    training_record: Path,
    workflow_inputs: str,
    summary: Path,
    environ: Mapping[str, str],
) -> int:
    """Provenance, signature and verdict of `model`; appends the job summary to `summary`.

    Args:
        model: The trained model, a file or a folder.
        training_record: Its `training.json`.
        workflow_inputs: The reusable workflow's inputs, as JSON.
        summary: The job summary's file.
        environ: The job's environment, which says what run this is (`GITHUB_REPOSITORY`, ...).

    Returns:
        The exit code of the first command that fails, else 0.
    """
    claims = {
        claim: environ[variable]
        for claim, variable in {
            "repository": "GITHUB_REPOSITORY",
            "ref": "GITHUB_REF",
            "sha": "GITHUB_SHA",
            "event_name": "GITHUB_EVENT_NAME",
            "workflow_ref": "GITHUB_WORKFLOW_REF",
            "run_id": "GITHUB_RUN_ID",
            "run_attempt": "GITHUB_RUN_ATTEMPT",
        }.items()
        if environ.get(variable)
    }
    identity = "https://github.com/" + job_claims(**claims)["job_workflow_ref"]
    with LocalSigstore() as sigstore, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trust = ("--trust-config", str(sigstore.write_trust_config(folder / "trust-config.json")))
        token = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": sigstore.job_token_url,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": sigstore.oidc.request_token_for(claims),
        }
        record = ("--training-record", str(training_record))
        signature = ("--signature", str(folder / "model.sig"))
        provenance = str(folder / "provenance.json")
        repository = job_claims(**claims)["repository"]
        expected = (
            *("--source-uri", f"github.com/{repository}"),
            *("--identity", identity, "--identity-provider", GITHUB_ISSUER),
        )
        commands = (
            (
                *("slsa_for_models", "provenance", str(model), *record, "--output", provenance),
                *("--workflow-inputs", workflow_inputs, *trust),
            ),
            (
                *("model_signing", "sign", "sigstore", str(model), *signature),
                *("--use-ambient-credentials", *trust),
            ),
            (
                *("slsa_for_models", "verify", str(model), *signature, "--provenance", provenance),
                *(*record, *expected, *trust, "--summary", str(folder / "summary.md")),
            ),
        )
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", *command], env={**os.environ, **token}, check=False
            )
            if done.returncode:
                return done.returncode
        with summary.open("a", encoding="utf-8") as output:
            output.write(NOTICE + (folder / "summary.md").read_text(encoding="utf-8"))
    return 0
