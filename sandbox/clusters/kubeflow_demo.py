"""`make demo-kubeflow`: the pipeline of slsa_for_models/kubeflow, run here by KFP itself.

KFP's local runner starts each component as a process; the image's programs are those of a locked
environment, and Sigstore is the sandbox's. For demonstrations and tests only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sandbox.checkout import ROOT, SetupError, programs_of
from sandbox.clusters.tekton_demo import (
    IDENTITY,
    ISSUER,
    NAMESPACE,
    REPOSITORY,
    TRUST,
    add_choices,
    plan_of,
    redirect_git,
    training_role,
)
from sandbox.github import repositories
from sandbox.sigstore import LocalSigstore


class KubeflowError(Exception):
    """A component failed; KFP's output says which."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: the artifacts of its components."""

    model: Path
    record: Path
    signature: Path
    metrics: dict[str, float]


def run(
    model: str,
    output: Path,
    *,
    sigstore: LocalSigstore,
    kubeflow: Path,
    programs: Path,
    project: Path | None = None,
    **parameters: str,
) -> Outcome:
    """Runs the pipeline.

    Args:
        model: Its file name; of a recipe, its format.
        output: Where the artifacts are left.
        sigstore: Signs and vouches.
        kubeflow: The folder of programs of the environment with KFP.
        programs: That of the environment with `slsa_for_models` and the framework.
        project: Files of a repository that the pipeline clones.
        **parameters: Of the pipeline.

    Raises:
        KubeflowError: A component failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    trust = f"--trust-config={sigstore.write_trust_config(output / TRUST).resolve()}"
    token = output / "token"
    token.write_text(sigstore.oidc.service_account_token(ISSUER, NAMESPACE, "model-signer"))
    given = {
        "identity": IDENTITY,
        "identity_provider": ISSUER,
        # KFP's runner takes no other image than one that says it has a Python.
        "image": "python",
        "model_name": model,
        "training_options": [trust],
        "signing_options": [f"--identity-token-file={token.resolve()}", trust],
        "verifying_options": [trust],
        **parameters,
    }
    variables = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    if project is not None:
        commit = repositories.snapshot(project, output / "repository")
        given |= {"repository": REPOSITORY, "revision": commit}
        variables |= redirect_git(REPOSITORY, (output / "repository").resolve())
    done = subprocess.run(
        [
            kubeflow / "python",
            "-m",
            "sandbox.clusters.kubeflow_local",
            output / "root",
            json.dumps(given),
        ],
        cwd=ROOT,
        env=variables,
        check=False,
        timeout=3600,
    )
    token.unlink()
    if done.returncode:
        raise KubeflowError(f"the pipeline failed with exit code {done.returncode}")
    (root,) = (output / "root").iterdir()
    report = json.loads((root / "train" / "executor_output.json").read_text())
    return Outcome(
        model=root / "train" / "model" / model,
        record=root / "train" / "model" / "training.json",
        signature=root / "sign" / "signature",
        metrics=report["artifacts"]["metrics"]["artifacts"][0]["metadata"],
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the demonstration; 0 if everything verified."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.clusters.kubeflow_demo", description=__doc__
    )
    add_choices(parser)
    parser.add_argument("--processes", type=int, metavar="N", help="of a recipe")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "kubeflow", metavar="DIR")
    args = parser.parse_args(argv)
    shutil.rmtree(args.output, ignore_errors=True)
    with LocalSigstore() as sigstore:
        try:
            outcome = run(
                args.model,
                args.output,
                sigstore=sigstore,
                kubeflow=programs_of("kubeflow"),
                programs=programs_of(training_role(args.model)),
                project=args.project,
                plan=plan_of(args, **({"processes": args.processes} if args.processes else {})),
            )
        except (KubeflowError, SetupError) as error:
            print(f"demo-kubeflow: {error}", file=sys.stderr)
            return 1
    print(f"\n{outcome.model}\n{outcome.signature}\n{json.dumps(outcome.metrics)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
