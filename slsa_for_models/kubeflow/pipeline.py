"""The pipeline in the KFP SDK, and the command that compiles it.

usage: python -m slsa_for_models.kubeflow.pipeline [--image IMAGE] [--accelerator TYPE:COUNT] OUTPUT

A component is one call of our command line. Its body is what KFP copies into the compiled YAML and
runs in the image with KFP's own Python; `slsa_for_models` and `model_signing` are programs there,
in an environment of their own, since their locked versions and KFP's exclude each other.
"""

# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,type-arg"
# KFP has no types, and is not installed where types are checked. It reads annotations itself: they
# have to be types, not text, so there is no `from __future__ import annotations` here.

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

# `set_container_image` names the real image; the decorator wants one, too.
_component = dsl.component(base_image="python", install_kfp_package=False)


@_component
def train(
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    model_name: str,
    plan: str,
    repository: str,
    revision: str,
    options: list,
) -> None:
    """Trains; the artifact is a folder that holds the model and its training record."""
    import json
    import pathlib
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "source")
        source.mkdir()
        if repository:
            command = ["slsa_for_models", "gcp", "clone", repository, f"--revision={revision}"]
            command += [f"--output-dir={source}", f"--source-result={folder}/source.json"]
            subprocess.run(command, check=True)
            model.metadata["source"] = json.loads(pathlib.Path(folder, "source.json").read_text())
        # The pod is what confines it: nobody may make namespaces in one.
        command = ["slsa_for_models", "train", f"--workflow-inputs={plan}", "--unconfined"]
        command += [f"--model={model_name}", f"--source={source}", f"--output-dir={model.path}"]
        subprocess.run([*command, *options], check=True)

    record = json.loads((pathlib.Path(model.path) / "training.json").read_text())
    model.metadata.update(name=model_name, sha256=record["model"]["sha256"])
    for name, value in record["metrics"].items():
        metrics.log_metric(name, value)


@_component
def sign(
    model: dsl.Input[dsl.Model],
    signature: dsl.Output[dsl.Artifact],
    model_name: str,
    options: list,
) -> None:
    """Signs with the identity of the service account that the pod runs as."""
    import subprocess

    command = ["model_signing", "sign", "sigstore", f"{model.path}/{model_name}"]
    subprocess.run([*command, f"--signature={signature.path}", *options], check=True)


@_component
def verify(
    model: dsl.Input[dsl.Model],
    signature: dsl.Input[dsl.Artifact],
    model_name: str,
    identity: str,
    identity_provider: str,
    options: list,
) -> None:
    """Verifies the artifacts as they were stored."""
    import subprocess

    command = ["model_signing", "verify", "sigstore", f"{model.path}/{model_name}"]
    command += [f"--identity={identity}", f"--identity-provider={identity_provider}"]
    subprocess.run([*command, f"--signature={signature.path}", *options], check=True)


def build(image: str | None = None, accelerator: tuple[str, int] | None = None) -> Any:  # noqa: ANN401
    """The pipeline.

    Args:
        image: Of every step, by digest. Without it, the image is a parameter of the pipeline, which
            Kubeflow resolves at run time.
        accelerator: Type and number for the training step, 0 for none. Without it, both are
            parameters, which Kubeflow resolves at run time. What is fixed here ignores its
            parameter.
    """
    fixed_image, fixed_accelerator = image, accelerator

    @dsl.pipeline(name="train-and-sign", description="Train a model, sign it, verify both.")
    def pipeline(
        identity: str,
        identity_provider: str,
        image: str = fixed_image or "",
        model_name: str = "pytorch_model.pth",
        plan: str = "{}",
        repository: str = "",
        revision: str = "",
        accelerator_type: str = "nvidia.com/gpu",
        accelerator_count: str = "0",
        training_options: list = [],  # noqa: B006 - KFP writes the default down
        signing_options: list = ["--use-ambient-credentials"],  # noqa: B006
        verifying_options: list = [],  # noqa: B006
    ) -> None:
        trained = train(
            model_name=model_name,
            plan=plan,
            repository=repository,
            revision=revision,
            options=training_options,
        )
        model = trained.outputs["model"]
        signed = sign(model=model, model_name=model_name, options=signing_options)
        verified = verify(
            model=model,
            signature=signed.outputs["signature"],
            model_name=model_name,
            identity=identity,
            identity_provider=identity_provider,
            options=verifying_options,
        )
        for task in (trained, signed, verified):
            task.set_container_image(fixed_image or image)
            # A run signs anew, and verifies what is there now.
            task.set_caching_options(enable_caching=False)
        kind, count = fixed_accelerator or (accelerator_type, accelerator_count)
        if fixed_accelerator is None or count:
            trained.set_accelerator_type(kind).set_accelerator_limit(count)

    return pipeline


def _accelerator(text: str) -> tuple[str, int]:
    kind, colon, count = text.rpartition(":")
    if text == "none":
        return ("", 0)
    if not colon or not count.isdecimal():
        raise argparse.ArgumentTypeError("expected TYPE:COUNT or none")
    return kind, int(count)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the compiled pipeline."""
    parser = argparse.ArgumentParser(prog="python -m slsa_for_models.kubeflow.pipeline")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a .yaml file")
    parser.add_argument("--image", help="by digest; otherwise a parameter of the pipeline")
    parser.add_argument(
        "--accelerator",
        type=_accelerator,
        metavar="TYPE:COUNT",
        help="of the training step, or `none`; otherwise two parameters of the pipeline",
    )
    args = parser.parse_args(argv)
    compiler.Compiler().compile(build(args.image, args.accelerator), str(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
