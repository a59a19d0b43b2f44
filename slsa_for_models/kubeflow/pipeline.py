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
    model_format: str,
    dataset: str,
    epochs: int,
    seed: int,
    processes: int,
    options: list,
) -> None:
    """Trains; the artifact is a folder that holds the model and its training record."""
    import json
    import pathlib
    import subprocess

    # The pod is what confines it: nobody may make namespaces in one.
    command = ["slsa_for_models", "train", model_format, "--unconfined"]
    if processes > 1:
        command += [f"--processes={processes}"]
    command += [f"--output-dir={model.path}", f"--dataset={dataset}"]
    command += [f"--epochs={epochs}", f"--seed={seed}", *options]
    subprocess.run(command, check=True)

    record = json.loads((pathlib.Path(model.path) / "training.json").read_text())
    model.metadata.update(format=model_format, sha256=record["model"]["sha256"])
    for name in ("test_accuracy", "test_loss"):
        metrics.log_metric(name, record["metrics"][name])


@_component
def sign(
    model: dsl.Input[dsl.Model],
    signature: dsl.Output[dsl.Artifact],
    model_format: str,
    options: list,
) -> None:
    """Signs with the identity of the service account that the pod runs as."""
    import subprocess

    command = ["model_signing", "sign", "sigstore", f"{model.path}/{model_format}"]
    subprocess.run([*command, f"--signature={signature.path}", *options], check=True)


@_component
def verify(
    model: dsl.Input[dsl.Model],
    signature: dsl.Input[dsl.Artifact],
    model_format: str,
    identity: str,
    identity_provider: str,
    options: list,
) -> None:
    """Verifies the artifacts as they were stored."""
    import subprocess

    command = ["model_signing", "verify", "sigstore", f"{model.path}/{model_format}"]
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
        model_format: str = "pytorch_model.pth",
        dataset: str = "cifar10",
        epochs: int = 6,
        seed: int = 0,
        processes: int = 1,
        accelerator_type: str = "nvidia.com/gpu",
        accelerator_count: str = "0",
        training_options: list = [],  # noqa: B006 - KFP writes the default down
        signing_options: list = ["--use-ambient-credentials"],  # noqa: B006
        verifying_options: list = [],  # noqa: B006
    ) -> None:
        trained = train(
            model_format=model_format,
            dataset=dataset,
            epochs=epochs,
            seed=seed,
            processes=processes,
            options=training_options,
        )
        model = trained.outputs["model"]
        signed = sign(model=model, model_format=model_format, options=signing_options)
        verified = verify(
            model=model,
            signature=signed.outputs["signature"],
            model_format=model_format,
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
