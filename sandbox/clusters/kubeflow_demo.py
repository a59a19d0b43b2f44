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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.checkout import ROOT, SetupError, programs_of
from sandbox.clusters.tekton_demo import IDENTITY, ISSUER, NAMESPACE, TRUST
from sandbox.sigstore import LocalSigstore


class KubeflowError(Exception):
    """A component failed; KFP's output says which."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: the artifacts of its components."""

    model: Path
    signature: Path
    metrics: dict[str, float]


def run(
    model_format: str,
    output: Path,
    *,
    sigstore: LocalSigstore,
    kubeflow: Path,
    programs: Path,
    training_options: Sequence[str] = (),
    **parameters: str | int,
) -> Outcome:
    """Runs the pipeline.

    Args:
        model_format: The format.
        output: Where the artifacts are left.
        sigstore: Signs and vouches.
        kubeflow: The folder of programs of the environment with KFP.
        programs: That of the environment with `slsa_for_models` and the framework.
        training_options: Of `slsa_for_models train`.
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
        "model_format": model_format,
        "training_options": list(training_options),
        "signing_options": [f"--identity-token-file={token.resolve()}", trust],
        "verifying_options": [trust],
        **parameters,
    }
    done = subprocess.run(
        [
            kubeflow / "python",
            "-m",
            "sandbox.clusters.kubeflow_local",
            output / "root",
            json.dumps(given),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        check=False,
        timeout=3600,
    )
    token.unlink()
    if done.returncode:
        raise KubeflowError(f"the pipeline failed with exit code {done.returncode}")
    (root,) = (output / "root").iterdir()
    report = json.loads((root / "train" / "executor_output.json").read_text())
    return Outcome(
        model=root / "train" / "model" / model_format,
        signature=root / "sign" / "signature",
        metrics=report["artifacts"]["metrics"]["artifacts"][0]["metadata"],
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the demonstration; 0 if everything verified."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.clusters.kubeflow_demo", description=__doc__
    )
    parser.add_argument("--model", default="pytorch_model.pth", help="the format")
    parser.add_argument("--epochs", type=int, default=3, metavar="N")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
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
                programs=programs_of(args.model.partition("_")[0]),
                dataset="synthetic",
                epochs=args.epochs,
                processes=args.processes,
            )
        except (KubeflowError, SetupError) as error:
            print(f"demo-kubeflow: {error}", file=sys.stderr)
            return 1
    print(f"\n{outcome.model}\n{outcome.signature}\n{json.dumps(outcome.metrics)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
