"""Fine-tuning: a base model is verified by its own policy before training, and after it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import model_signing
from model_signing.oms import bundle
from slsa_for_models import cli
from slsa_for_models.evidence import training_record as record
from tests.slsa_for_models.verdict.test_own_training import attest, told, verify
from tests.support.crafted import Workshop, new_key, private_pem, public_pem

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")
BASE = "start/base.bin  source:models/base.bin  models/base.bin.sig  models/policy.toml"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with a signed model and the policy for it."""
    models = tmp_path / "source" / "models"
    models.mkdir(parents=True)
    key = new_key()
    (models / "base.bin").write_bytes(b"weights")
    signer = model_signing.key_signer(private_pem(key))
    model_signing.sign(models / "base.bin", models / "base.bin.sig", signer)
    (models / "key.pub").write_bytes(public_pem(key))
    (models / "policy.toml").write_text('version = 1\n[signer]\npublic_key = "key.pub"\n')
    return tmp_path / "source"


def train(source: Path, script: str, base: str = BASE) -> int:
    out = source.parent / "out"
    return cli.main(
        [
            *("train", "--model", "m", "--source", str(source), "--output-dir", str(out)),
            *("--base-model", base, "--offline", "--", "sh", "-ec", script),
        ]
    )


def test_it_is_there_when_the_command_starts(source: Path) -> None:
    assert train(source, "cat start/base.bin > m; echo tuned >> m") == 0
    assert (source.parent / "out" / "m").read_bytes() == b"weightstuned\n"


def test_a_folder(source: Path) -> None:
    key = new_key()
    models = source / "models"
    (models / "key.pub").write_bytes(public_pem(key))
    folder = models / "whole"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "w").write_bytes(b"weights")
    signer = model_signing.key_signer(private_pem(key))
    model_signing.sign(folder, models / "whole.sig", signer)
    base = "start  source:models/whole  models/whole.sig  models/policy.toml"
    assert train(source, "cat start/a/w > m", base) == 0
    assert train(source, "echo x > start/new; touch m", base) == 1


@pytest.mark.parametrize("what", ["bit", "key", "policy", "signature", "place"])
def test_one_that_is_not_accepted(
    source: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    models = source / "models"
    if what == "bit":
        (models / "base.bin").write_bytes(b"weightz")
    elif what == "key":
        (models / "key.pub").write_bytes(public_pem(new_key()))
    elif what == "place":
        (source / "start").mkdir()
        (source / "start" / "base.bin").touch()
    else:
        (models / {"policy": "policy.toml", "signature": "base.bin.sig"}[what]).unlink()
    started = source.parent / "started"
    assert train(source, f"echo x > {started}; touch m") == 1
    assert "error:" in capsys.readouterr().err
    out = source.parent / "out"
    assert not started.exists() and (not out.exists() or list(out.iterdir()) == [])


@pytest.mark.parametrize(
    "script",
    ["echo x >> start/base.bin; touch m", "rm -f start/base.bin; echo x > start/base.bin; touch m"],
)
def test_it_cannot_be_written(source: Path, script: str) -> None:
    assert train(source, script) == 1


@pytest.mark.parametrize(
    "base", ["start", "a b:c d", "../a  b:c  d  e", "a  b:c  ../d  e", "m  b:c  d  e"]
)
def test_lines_that_are_none(source: Path, base: str) -> None:
    assert train(source, "true", base) == 2


def test_the_provenance_names_it_in_the_workflows_own_words(workshop: Workshop) -> None:
    """And the verdict descends to it: as given, with a bit flipped, and not given."""
    base = workshop.model(b"base", "base.pth")
    signature = workshop.sign_model(base, event_name="push")
    workshop.generator_provenance(base, name="base.pth.intoto.jsonl", event_name="push")
    source = workshop.folder / "source"
    source.mkdir()
    (source / "base.sig").write_bytes(signature.read_bytes())
    inputs = {
        "command": "python tune.py",
        "model": "model.pth",
        "base-model": "start/base.pth  hf://org/base  base.sig  policy.toml",
        "runner": "ubuntu-latest",
    }
    model = workshop.model()
    code, made = attest(workshop, model, inputs)
    assert code == 0
    predicate = json.loads(bundle.parse(made.read_bytes()).payload)["predicate"]
    (named,) = (
        one
        for one in predicate["buildDefinition"]["resolvedDependencies"]
        if one["name"] == "base-model"
    )
    assert "annotations" not in named and named["uri"] == "hf://org/base"
    (workshop.folder / "base.toml").write_text(
        'version = 1\n[source]\nuri = "github.com/octo-org/models"\n'
    )
    policy = workshop.write("policy.toml", b'version = 1\n[[base_model]]\npolicy = "base.toml"\n')
    options = ("--policy", policy)
    code, verdict = verify(workshop, model, made, *options, "--base-model", base)
    rows = {step["check"]: step["found"] for step in verdict["steps"]}
    assert ", verified before the command started, says builders/mt/" in rows["Named"]
    assert verify(workshop, model, made, *options)[0] == 1  # it is not given
    base.write_bytes(b"bose")
    assert verify(workshop, model, made, *options, "--base-model", base)[0] == 1
    assert record.encode(told(model, inputs))
