"""The guide's verification, on the files of a run here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from sandbox import chains, gcp
from tests.docs.commands import Block, blocks

GUIDE = gcp.ROOT / "slsa_for_models/gcp/README.md"


def block(words: str) -> Block:
    (found,) = (item for item in blocks(GUIDE) if words in item.text)
    return found


@pytest.fixture
def consumer(outcome, tmp_path):
    """A folder with the files that the guide fetches, by the names it gives them."""
    names = {
        outcome.model: outcome.model.name,
        outcome.signature: outcome.signature.name,
        outcome.record: "training.json",
        outcome.provenance: "provenance.json",
        outcome.public_key: "chains.pub",
        outcome.trust_config: "trust-config.json",
    }
    for path, name in names.items():
        shutil.copy(path, tmp_path / name)
    return tmp_path


@pytest.fixture
def run(consumer, programs, outcome):
    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=consumer,
            env={
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(consumer),
                "MODEL": outcome.model.name,
                "NAMESPACE": gcp.NAMESPACE,
                "CLUSTER_ISSUER": gcp.ISSUER,
                "REPOSITORY": gcp.REPOSITORY,
                "REVISION": outcome.run.reference.commit,
            },
            capture_output=True,
            text=True,
        )

    return run


def test_the_command_verifies_the_run(run):
    done = run(block("slsa_for_models verify").text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED pytorch_model.pth, SLSA Build L1" in done.stdout


def test_it_verifies_the_annotation(run, consumer, outcome):
    shutil.copy(outcome.annotation, consumer / "provenance.json")
    assert run(block("slsa_for_models verify").text).returncode == 0


def test_it_refuses_a_flipped_byte(run, consumer, outcome):
    model = consumer / outcome.model.name
    data = bytearray(model.read_bytes())
    data[1000] ^= 1
    model.write_bytes(data)
    done = run(block("slsa_for_models verify").text)
    assert done.returncode == 1
    assert "REFUSED" in done.stdout


def test_the_policy_in_the_guide_verifies_the_run(run, consumer):
    text = GUIDE.read_text()
    policy = text[text.index("```toml\n") + 8 :].partition("```")[0]
    for example, here in (
        ("github.com/ORG/REPO", gcp.REPOSITORY.removeprefix("https://")),
        (policy.partition('issuer = "')[2].partition('"')[0], gcp.ISSUER),
    ):
        policy = policy.replace(example, here)
    (consumer / "policy.toml").write_text(policy)
    done = run(
        'slsa_for_models verify "$MODEL" --signature "$MODEL.sig" --provenance provenance.json '
        "--training-record training.json --policy policy.toml --trust-config trust-config.json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SLSA Build L2" in done.stdout


def test_the_variables_of_the_run_are_those_that_the_guide_sets():
    text = (gcp.ROOT / "slsa_for_models/gcp/pipelinerun.yaml").read_text()
    guide = GUIDE.read_text()
    for name in set(re.findall(r"\$\{(\w+)\}", text)):
        assert f" {name}=" in guide, name


def test_the_file_that_the_guide_fetches_is_the_one_that_chains_writes(outcome):
    run, signed = outcome.run, outcome.provenance.read_bytes()
    name = f"pipelinerun-{run.namespace}-{run.name}/pipelinerun-{run.uid}.signature"
    assert chains.bucket_objects(run, signed)[name] == signed
    assert "pipelinerun-$NAMESPACE-$RUN/pipelinerun-$UID_.signature" in GUIDE.read_text()
