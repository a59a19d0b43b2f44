"""Signs and verifies a model with a Sigstore that lives for this call only.

Pull requests may not have an identity, so there a workflow can only rehearse: the same commands,
with keys that are thrown away. What comes out proves nothing, and is thrown away, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sandbox.sigstore import LocalSigstore
from sandbox.sigstore.oidc import GITHUB_ISSUER, job_claims
from slsa_for_models.errors import RecordError
from slsa_for_models.evidence.training_record import parse
from slsa_for_models.report import job_page as pages

# A claim of the job's identity, and the variable from which it comes.
CLAIMS = {
    "repository": "GITHUB_REPOSITORY",
    "ref": "GITHUB_REF",
    "sha": "GITHUB_SHA",
    "event_name": "GITHUB_EVENT_NAME",
    "workflow_ref": "GITHUB_WORKFLOW_REF",
    "run_id": "GITHUB_RUN_ID",
    "run_attempt": "GITHUB_RUN_ATTEMPT",
}
NOTICE = """
This run belongs to a pull request, which may not sign. The chain was tried out with a Sigstore that
lived on this runner for a moment; what it signed is deleted.
"""


def rehearse(
    model: Path,
    training_record: Path,
    workflow_inputs: str,
    summary: Path,
    environ: Mapping[str, str],
    source: Path | None = None,
) -> int:
    """Provenance, signature and verdict of `model`; appends the job summary to `summary`.

    Args:
        model: The trained model, a file or a folder.
        training_record: Its `training.json`.
        workflow_inputs: The reusable workflow's inputs, as JSON.
        summary: The job summary's file.
        source: A checkout of the commit, where the files that the inputs name are hashed.
        environ: The job's environment, which says what run this is (`GITHUB_REPOSITORY`, ...).

    Returns:
        The exit code of the first command that fails, else 0.
    """
    claims = {name: environ[key] for name, key in CLAIMS.items() if environ.get(key)}
    with LocalSigstore() as sigstore, tempfile.TemporaryDirectory() as folder:
        trust_config = sigstore.write_trust_config(Path(folder) / "trust-config.json")
        token = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": sigstore.job_token_url,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": sigstore.oidc.request_token_for(claims),
        }
        commands = _commands(
            model, training_record, workflow_inputs, job_claims(**claims), trust_config, source
        )
        steps: list[str] = []
        for step, command in commands.items():
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env={**os.environ, **token},
                check=False,
                stderr=subprocess.PIPE,
                text=True,
                timeout=3600,
            )
            sys.stderr.write(done.stderr)
            steps.append(f"- {'❌' if done.returncode else '✅'} {step}")
            if done.returncode:
                steps += ["", "```text", done.stderr.replace("`", "'").strip(), "```"]
                break
    with summary.open("a", encoding="utf-8") as output:
        output.write(page(model, training_record, steps, works=done.returncode == 0))
    return done.returncode


def _commands(
    model: Path,
    training_record: Path,
    workflow_inputs: str,
    claims: Mapping[str, str],
    trust_config: Path,
    source: Path | None,
) -> dict[str, tuple[str, ...]]:
    """What the jobs of train.yml run, by the name of the step; files go beside the trust config."""
    trust = ("--trust-config", str(trust_config))
    record = ("--training-record", str(training_record))
    signature = ("--signature", str(trust_config.with_name("model.sig")))
    provenance = str(trust_config.with_name("provenance.json"))
    # Events that others cause are refused unless a policy names them: here it is this very one.
    policy = trust_config.with_name("policy.toml")
    events = json.dumps([claims["event_name"]])
    policy.write_text(f"version = 1\n[build]\nevents = {events}\n", encoding="utf-8")
    expected = (
        *("--policy", str(policy)),
        *("--source-uri", f"github.com/{claims['repository']}"),
        *("--identity", f"https://github.com/{claims['job_workflow_ref']}"),
        *("--identity-provider", GITHUB_ISSUER),
    )
    return {
        "Provenance": (
            *("slsa_for_models", "provenance", str(model), *record, "--output", provenance),
            *("--workflow-inputs", workflow_inputs, *trust),
            *(("--source", str(source)) if source else ()),
        ),
        "Signature": (
            *("model_signing", "sign", "sigstore", str(model), *signature),
            *("--use-ambient-credentials", *trust),
        ),
        "Verdict": (
            *("slsa_for_models", "verify", str(model), *signature, "--provenance", provenance),
            *(*record, *expected, *trust),
        ),
    }


def page(model: Path, training_record: Path, steps: list[str], *, works: bool) -> str:
    """The job summary, in Markdown: no verdict, no level, nothing to verify at home."""
    symbol, said = ("🧪", "the chain works") if works else ("❌", "the chain does not work")
    name = pages.plain(model.name)
    lines = [f"## {symbol} REHEARSED {name}: {said}; this proves nothing about the model", NOTICE]
    try:
        trained = pages.training(parse(training_record.read_bytes()))
    except (OSError, RecordError):  # one of the steps has said so
        trained = ""
    return "\n".join([*lines, *steps, trained, ""])
