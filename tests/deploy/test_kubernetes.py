"""What is deployed: the command lines in the manifests as they stand there; and the operator's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import model_signing
from model_signing import SigstoreSigning, sigstore_signer
from model_signing.cli import main
from sandbox.sigstore import LocalSigstore
from slsa_for_models.evidence import statement_names
from tests.support.crafted import claims
from tests.support.material import (
    ROOT,
    authority,
    leaf,
    new_key,
    pem,
    private_pem,
    public_pem,
)

DEPLOY = ROOT / "deploy"
KEY = new_key()
FILES = {"config.json": b"{}", "layers/0.onnx": b"weights"}


def manifest(name: str) -> Any:
    return next(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system as a container sees it: source, policy, and the place of the copy."""
    model = tmp_path / "source" / "my-model"
    for name, data in FILES.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(data)
    model_signing.sign(model, model / "model.sig", model_signing.key_signer(private_pem(KEY)))
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "signer.pub").write_bytes(public_pem(KEY))
    (tmp_path / "policy" / "policy.toml").write_text(
        'version = 1\n[signer]\npublic_key = "signer.pub"\n[load]\ncode = "refused"\n'
    )
    (tmp_path / "verified").mkdir()
    (tmp_path / "bin").mkdir()
    for program in ("slsa_for_models", "model_signing"):
        path = tmp_path / "bin" / program
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {program} "$@"\n')
        path.chmod(0o755)
    return tmp_path


def contained(root: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command line with the paths of the container."""
    places = {"/usr/local/bin": "bin", "/source": "source", "/policy": "policy"}
    places["/verified"] = "verified"
    for inside, outside in places.items():
        words = [re.sub(rf"(?<![\w.-]){inside}\b", str(root / outside), word) for word in words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def command_of(name: str, root: Path) -> list[str]:
    if name == "pod.yaml":
        (container,) = manifest(name)["spec"]["initContainers"]
        return [*container["command"], *container["args"]]
    container = manifest(name)["spec"]["container"]
    # KServe adds the model's address and the place where the server looks for it.
    return [*container["command"], str(root / "source" / "my-model"), str(root / "verified")]


@pytest.mark.skipif(os.name != "posix", reason="not tested: containers run Linux")
@pytest.mark.parametrize("name", ["pod.yaml", "kserve.yaml"])
def test_the_server_sees_the_model_that_was_verified_or_none(root: Path, name: str) -> None:
    model = root / "source" / "my-model"
    command = command_of(name, root)
    (model / "layers" / "0.onnx").write_bytes(b"weightz")
    refused = contained(root, command)
    assert refused.returncode == 1, refused.stderr
    assert "REFUSED my-model" in refused.stderr
    assert contents(root / "verified") == {}
    (model / "layers" / "0.onnx").write_bytes(FILES["layers/0.onnx"])
    done = contained(root, command)
    assert done.returncode == 0, done.stderr
    assert contents(root / "verified") == FILES
    again = contained(root, command)  # init containers are: when a node is started again
    assert again.returncode == 0, again.stderr
    assert contents(root / "verified") == FILES
    (model / "config.json").write_bytes(b"[]")
    assert contained(root, command).returncode == 1
    assert contents(root / "verified") == {}


def test_the_pod_gives_nobody_more_than_it_needs() -> None:
    spec = manifest("pod.yaml")["spec"]
    (verify,), (server,) = spec["initContainers"], spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert verify["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {one["name"]: one for one in verify["volumeMounts"]}
    assert {name for name, one in mounts.items() if not one.get("readOnly")} == {"verified", "tmp"}
    assert [(one["name"], one["readOnly"]) for one in server["volumeMounts"]] == [
        ("verified", True)
    ]
    assert {one["name"] for one in spec["volumes"]} == set(mounts)


def test_the_names_that_others_look_for() -> None:
    container = manifest("kserve.yaml")["spec"]["container"]
    assert container["name"] == "storage-initializer"  # or KServe would not know it
    policy = manifest("kyverno.yaml")["spec"]
    assert policy["attestations"][0]["intoto"]["type"] == statement_names.VSA
    kinds = [one["kind"] for one in yaml.safe_load_all((DEPLOY / "kubernetes/volumes.yaml").open())]
    assert kinds == ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]


def test_the_image_is_pinned_runs_as_nobody_and_has_the_programs() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    froms = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(froms) == 2 and len(set(froms)) == 1
    assert re.fullmatch(r"python:[\d.]+-slim-\w+@sha256:[0-9a-f]{64}", froms[0])
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
    assert "/usr/local/bin/model_signing " in text  # where the operator starts it
    for copied in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in copied.split()[:-1])


# The command lines of sigstore's model-validation operator, as it writes them


@pytest.mark.parametrize("method", ["key", "certificate", "sigstore"])
@pytest.mark.parametrize("changed", [False, True])
def test_the_operator_s_command_lines(
    root: Path, sigstore: LocalSigstore, trust_config: Path, method: str, changed: bool
) -> None:
    model, signature = root / "source" / "my-model", root / "operator.sig"
    (model / "model.sig").unlink()
    token = sigstore.oidc.github_token(**claims())
    if method == "key":
        signer = model_signing.key_signer(private_pem(KEY))
        options = ["--public_key", str(root / "policy" / "signer.pub")]
    elif method == "certificate":
        issuer = authority()
        holder = leaf(issuer)
        (root / "chain.pem").write_bytes(pem(issuer.certificate))
        signer = model_signing.certificate_signer(
            private_pem(holder.key), pem(holder.certificate), [pem(issuer.certificate)]
        )
        options = ["--certificate_chain", str(root / "chain.pem")]
    else:
        settings = SigstoreSigning(trust_config=trust_config, identity_token=token)
        signer = sigstore_signer(settings)
        identity = f"https://github.com/{claims()['job_workflow_ref']}"
        provider = "https://token.actions.githubusercontent.com"
        options = ["--identity", identity, "--identity_provider", provider]
        # In a cluster it is the public one.
        options += ["--source-repository", "octo-org/models", "--trust-config", str(trust_config)]
    model_signing.sign(model, signature, signer)
    if changed:
        (model / "config.json").write_bytes(b"[]")
    command = ["verify", method, f"--signature={signature}", *options, str(model)]
    assert main(command) == (1 if changed else 0)
