"""The Kubeflow pipeline: its compiled form, and a run by KFP's own local runner."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from model_signing.cli import main
from sandbox.checkout import ROOT, programs_of
from sandbox.clusters import kubeflow_demo, tekton_demo
from slsa_for_models import cli

FOLDER = ROOT / "slsa_for_models" / "kubeflow"
IMAGE = f"europe-west4-docker.pkg.dev/octo/models/kubeflow-pytorch@sha256:{'1' * 64}"


@pytest.fixture(scope="session")
def kfp() -> Path:
    """The programs of the locked environment with KFP."""
    return programs_of("kubeflow")


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """A folder of programs that stands for the image: PyTorch's Python, and our code of here."""
    folder, python = tmp_path_factory.mktemp("image"), programs_of("pytorch") / "python"
    for name in ("slsa_for_models", "model_signing"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{python}" -m {name} "$@"\n')
        path.chmod(0o755)
    return folder


def compile_pipeline(kfp: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [kfp / "python", "-m", "slsa_for_models.kubeflow.pipeline", *options, output],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )


def executors(path: Path) -> dict:
    document = next(yaml.safe_load_all(path.read_text()))
    return {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in document["deploymentSpec"]["executors"].items()
    }


def test_the_compiled_pipeline_is_that_of_the_source(kfp, tmp_path):
    done = compile_pipeline(kfp, tmp_path / "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pipeline.yaml").read_text() == (FOLDER / "pipeline.yaml").read_text()


def test_what_can_be_chosen_is_a_parameter():
    document = next(yaml.safe_load_all((FOLDER / "pipeline.yaml").read_text()))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert {"plan", "model_name", "accelerator_type", "accelerator_count"} <= set(parameters)


def test_for_vertex_image_and_accelerator_are_fixed(kfp, tmp_path):
    """Vertex AI Pipelines takes them as plain values of the step."""
    options = (f"--image={IMAGE}", "--accelerator=NVIDIA_TESLA_T4:1")
    done = compile_pipeline(kfp, tmp_path / "vertex.yaml", *options)
    assert done.returncode == 0, done.stderr
    found = executors(tmp_path / "vertex.yaml")
    assert {container["image"] for container in found.values()} == {IMAGE}
    accelerator = found["train"]["resources"]["accelerator"]
    assert accelerator["resourceType"] == "NVIDIA_TESLA_T4"
    assert accelerator["resourceCount"] == "1"
    assert "resources" not in found["sign"]


@pytest.mark.full
def test_without_accelerator_none_is_asked_for(kfp, tmp_path):
    done = compile_pipeline(kfp, tmp_path / "p.yaml", f"--image={IMAGE}", "--accelerator=none")
    assert done.returncode == 0, done.stderr
    assert "resources" not in executors(tmp_path / "p.yaml")["train"]


@pytest.mark.full
def test_a_wrong_accelerator_is_a_usage_error(kfp, tmp_path):
    done = compile_pipeline(kfp, tmp_path / "p.yaml", "--accelerator=GPU")
    assert done.returncode == 2
    assert "TYPE:COUNT" in done.stderr
    assert not (tmp_path / "p.yaml").exists()


def test_no_component_installs_anything_when_it_starts():
    assert "pip install" not in (FOLDER / "pipeline.yaml").read_text()


TINY = {"dataset": "synthetic", "epochs": 1, "train-images": 320, "test-images": 100}
SCRIPT = """
import json, os
rate = json.load(open(os.environ["TRAINING_PARAMETERS"]))["rate"]
json.dump({"rate": rate, "data": open("data.csv").read()}, open("model.json", "w"))
json.dump({"error": {"test": 0.25}}, open("metrics.json", "w"))
"""
DATA = b"x,y\n1,2\n"
PLAN = {
    "command": "python3 train.py",
    "data": f"{hashlib.sha256(DATA).hexdigest()}  data.csv  source:",
    "parameters": '{"rate": 0.1}',
    "metrics": "metrics.json",
}


@pytest.fixture
def run(kfp, programs, sigstore, tmp_path) -> Callable[..., kubeflow_demo.Outcome]:
    return partial(
        kubeflow_demo.run,
        output=tmp_path / "run",
        sigstore=sigstore,
        kubeflow=kfp,
        programs=programs,
    )


def test_a_command_of_ones_own_from_its_commit_to_a_verdict(run, trust_config, tmp_path, capsys):
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(SCRIPT)
    (project / "data.csv").write_bytes(DATA)
    outcome = run("model.json", project=project, plan=json.dumps(PLAN))
    assert outcome.metrics["error.test"] == 0.25
    assert json.loads(outcome.model.read_bytes()) == {"rate": 0.1, "data": DATA.decode()}
    command = [
        *("verify", str(outcome.model), "--signature", str(outcome.signature)),
        *("--identity", tekton_demo.IDENTITY, "--identity-provider", tekton_demo.ISSUER),
        *("--trust-config", str(trust_config)),
    ]
    assert cli.main(command) == 0
    assert "VERIFIED model.json" in capsys.readouterr().out
    outcome.model.write_bytes(outcome.model.read_bytes() + b" ")
    assert cli.main(command) == 1


@pytest.mark.full
def test_a_recipe(run, trust_config):
    outcome = run("pytorch_model.pth", plan=json.dumps({**TINY, "minimum-accuracy": 0}))
    assert 0 <= outcome.metrics["test_accuracy"] <= 1
    command = [
        *("verify", "sigstore", str(outcome.model), "--signature", str(outcome.signature)),
        *("--identity", tekton_demo.IDENTITY, "--identity-provider", tekton_demo.ISSUER),
        *("--trust-config", str(trust_config)),
    ]
    assert main(command) == 0


def test_a_component_that_fails_ends_the_run(run, tmp_path, capfd):
    with pytest.raises(kubeflow_demo.KubeflowError, match="exit code 1"):
        run("pytorch_model.onyx", plan=json.dumps({"dataset": "synthetic"}))
    output = "".join(capfd.readouterr())
    assert "unknown model format" in output
    assert "'train'" in output
    assert not list(tmp_path.rglob("signature"))
