"""train.yml with a command of the caller's own, from pins to verdict; and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.checkout import programs_of
from sandbox.github import Event, Repository, Run
from slsa_for_models import cli
from tests.support.crafted import REF, TRAIN, Workshop
from tests.workflows.runs import PRODUCT, ROOT, Sandbox

CALL = (ROOT / "examples/train.yml").read_text(encoding="utf-8")
DATA = b"x,y\n1,2\n2,4\n3,6\n"
SCRIPT = """
import csv, json, os, sys
os.mkdir("made")
rows = list(csv.DictReader(open("data/train.csv")))
slope = sum(int(row["y"]) for row in rows) / sum(int(row["x"]) for row in rows)
model = {"slope": slope, "rate": sys.argv[1:]}
if os.path.exists("start"):
    model["was"] = json.load(open("start/base.json"))["slope"]
json.dump(model, open("made/model.json", "w"))
json.dump({"error": {"test": 0.25}}, open("metrics.json", "w"))
"""
INPUTS = {
    "command": "python3 src/train.py {parameters}",
    "model": "made/model.json",
    "data": f"{hashlib.sha256(DATA).hexdigest()}  data/train.csv  artifact:table/train.csv\n",
    "parameters": '{"rate": 0.1}',
    "metrics": "metrics.json",
}
EARLIER = """
  data:
    runs-on: ubuntu-latest
    permissions: {}
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
      - uses: actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1
        with: {name: table, path: given/}

  model:
    needs: data
"""


BASE = b'{"slope": 1.5}'
FINE_TUNING = "start/base.json  source:base/base.json  base/base.json.sig  base/policy.toml"
BASE_POLICY = f"""
version = 1
[source]
uri = "github.com/octo-org/models"
[signer]
identity = "{TRAIN}@{REF}"
"""


def a_base(sandbox: Sandbox, folder: Path, content: bytes = BASE) -> Path:
    """A model that somebody signed by train.yml, and that the generator attested."""
    folder.mkdir()
    trust = sandbox.sigstore.write_trust_config(folder / "trust.json")
    workshop = Workshop(sandbox.sigstore, trust, folder)
    model = workshop.model(content, "base.json")
    workshop.sign_model(model, event_name="push")
    workshop.generator_provenance(model, name="base.json.intoto.jsonl", event_name="push")
    workshop.write("policy.toml", BASE_POLICY.encode())
    return model


def consume(
    sandbox: Sandbox,
    base: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    product: Repository | None = None,
    **inputs: str,
) -> Run:
    """A push to a repository with a script, whose data an earlier job hands over.

    Args:
        sandbox: Runs it.
        base: A model with its signature and policy, which the repository has, too.
        on_event: Called as jobs and steps start and end.
        product: Whose train.yml it is; by default this repository's.
        **inputs: Of train.yml, instead of or besides `INPUTS`.
    """
    given = "".join(
        f"      {name}: {json.dumps(value)}\n" for name, value in {**INPUTS, **inputs}.items()
    )
    workflow = CALL.replace("      model: pytorch_model.pth\n", given)
    consumer = sandbox.consumer(workflow.replace("\n  model:\n", EARLIER, 1))
    for name, content in (("src/train.py", SCRIPT.encode()), ("given/train.csv", DATA)):
        (consumer.path / name).parent.mkdir()
        (consumer.path / name).write_bytes(content)
    if base is not None:
        shutil.copytree(base.parent, consumer.path / "base")
    options = {"others": [product or sandbox.product()], "event_name": "push", "on_event": on_event}
    return sandbox.run("consume.yml", consumer, **options)


def said(run: Run) -> str:
    return run.log.read_text(encoding="utf-8")


def test_from_pins_to_verdict(
    sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = a_base(sandbox, tmp_path / "base")
    run = consume(sandbox, base, **{"base-model": FINE_TUNING})
    assert run.conclusion == "success", said(run)
    assert run.jobs["model"].outputs["verdict"] == "verified"
    for suffix in ("", ".sig", ".provenance.sigstore.json", ".intoto.jsonl"):
        run.extract(f"model.json{suffix}", tmp_path)
    model = {"slope": 2.0, "rate": ["--rate=0.1"], "was": 1.5}
    assert json.loads((tmp_path / "model.json").read_bytes()) == model
    trust = sandbox.sigstore.write_trust_config(tmp_path / "trust.json")

    def verify(*lines: str, base: Path | None = None) -> tuple[int, str]:
        (tmp_path / "policy.toml").write_text("\n".join(["version = 1", "[build]", *lines, ""]))
        code = cli.main(
            [
                *("verify", str(tmp_path / "model.json"), "--trust-config", str(trust)),
                *("--signature", str(tmp_path / "model.json.sig")),
                *("--provenance", str(tmp_path / "model.json.provenance.sigstore.json")),
                *("--provenance", str(tmp_path / "model.json.intoto.jsonl")),
                *("--training-record", str(tmp_path / "training.json")),
                *("--source-uri", "github.com/octo-org/models"),
                *(
                    "--identity",
                    f"https://github.com/{PRODUCT}/.github/workflows/train.yml@refs/tags/v1",
                ),
                *("--policy", str(tmp_path / "policy.toml")),
                *(("--base-model", str(base)) if base else ()),
            ]
        )
        return code, capsys.readouterr().out

    digest = hashlib.sha256(DATA).hexdigest()
    command = 'command = "python3 src/train.py {parameters}"'
    code, text = verify(
        f'inputs = {{ {command}, network = "none", runner = "ubuntu-latest" }}',
        f'data = {{ "data/train.csv" = "{digest}" }}',
        'metrics = { "error.test" = { maximum = 0.3 } }',
    )
    assert code == 0, text
    assert "python3 src/train.py {parameters}" in text
    assert "as expected, checked before the command started, says model-transparency/" in text
    for line, words in (
        ('inputs = { command = "python3 other.py" }', "another input"),
        (f'data = {{ "data/train.csv" = "{"0" * 64}" }}', "other data than those expected"),
        ('inputs = { network = "allowed" }', "another input"),
    ):
        code, text = verify(line)
        assert (code, words in text) == (1, True), text

    # The model that it starts from: the one named, and no other.
    (tmp_path / "base.toml").write_text(BASE_POLICY)
    wanted = '[[base_model]]\npolicy = "base.toml"'
    code, text = verify(wanted, base=base)
    assert code == 0, text
    assert "verified before the command started" in text
    for given in (a_base(sandbox, tmp_path / "other", b"{}"), None):
        code, text = verify(wanted, base=given)
        assert code == 1, text


@pytest.mark.full
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {"data": f"{'0' * 64}  data/train.csv  artifact:table/train.csv\n"},
            "not the one that was pinned",
        ),
        ({"command": "python3 src/train.py --token hf_" + "a" * 34}, "looks like a secret"),
        ({"command": "python3 none.py"}, "the training command failed"),
        ({"model": "src/train.py"}, "there before training"),
        ({"requirements": "none.txt"}, "the requirements cannot be read"),
        (
            {"base-model": FINE_TUNING.replace("base/base.json ", "src/train.py ")},
            "does not have the files",
        ),
    ],
)
def test_nothing_is_signed(
    sandbox: Sandbox, tmp_path: Path, inputs: dict[str, str], words: str
) -> None:
    base = a_base(sandbox, tmp_path / "base") if "base-model" in inputs else None
    run = consume(sandbox, base, **inputs)
    assert run.jobs["model/train"].conclusion == "failure"
    assert words in said(run)
    for job in ("provenance", "attest", "sign", "verify"):
        assert run.jobs[f"model/{job}"].conclusion == "skipped"
    assert run.artifact_names() == ["table"]


@pytest.mark.full
def test_a_training_that_reports_another_command(sandbox: Sandbox) -> None:
    """The job that signs takes the command from the inputs, and refuses a record of another."""

    def edit(root: Path) -> None:
        path = root / "slsa_for_models/training/run.py"
        text = path.read_text(encoding="utf-8")
        assert "command=plan.words," in text
        path.write_text(text.replace("command=plan.words,", 'command=("true",),'))

    given = sandbox.product
    sandbox.product = lambda _=None: given(edit)  # type: ignore[method-assign]
    try:
        run = consume(sandbox)
    finally:
        sandbox.product = given  # type: ignore[method-assign]
    assert run.jobs["model/sign"].conclusion == "failure"
    assert "something else than it was asked for" in said(run)


@pytest.mark.full
def test_the_example_of_the_documents(sandbox: Sandbox, tmp_path: Path) -> None:
    """A scikit-learn script with its lock, whose packages come from the package index."""
    workflow = (ROOT / "examples/train-your-own.yml").read_text(encoding="utf-8")
    consumer = sandbox.consumer(workflow)
    shutil.copytree(ROOT / "examples/scikit-learn", consumer.path, dirs_exist_ok=True)
    run = sandbox.run("consume.yml", consumer, others=[sandbox.product()], event_name="push")
    assert run.conclusion == "success", said(run)
    assert run.jobs["model"].outputs["verdict"] == "verified"
    assert "checked before the command started" in run.summaries["model/verify"]
    run.extract("model.skops", tmp_path)
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert record["metrics"]["accuracy.test"] > 0.8
    assert "scikit-learn" in record["environment"]["packages"]
    lock = (ROOT / "examples/scikit-learn/requirements.lock").read_bytes()
    assert record["environment"]["requirements_sha256"] == hashlib.sha256(lock).hexdigest()


@pytest.mark.full
def test_the_pytorch_example_of_the_documents(sandbox: Sandbox, tmp_path: Path) -> None:
    """With the packages that are here already: its lock is of a build of several gigabytes."""
    workflow = (ROOT / "examples/train-your-own-pytorch.yml").read_text(encoding="utf-8")
    for old, new in (
        ("command: python ", f"command: {programs_of('pytorch')}/python "),
        ("      requirements: requirements.lock\n", ""),
    ):
        assert old in workflow
        workflow = workflow.replace(old, new)
    consumer = sandbox.consumer(workflow)
    shutil.copytree(ROOT / "examples/pytorch", consumer.path, dirs_exist_ok=True)
    run = sandbox.run("consume.yml", consumer, others=[sandbox.product()], event_name="push")
    assert run.conclusion == "success", said(run)
    assert run.jobs["model"].outputs["verdict"] == "verified"
    run.extract("model.pt", tmp_path)
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert record["metrics"]["loss"] < 1
    assert record["parameters"] == {"seed": 0, "rate": 0.05, "steps": 300}
    assert "torch" in record["environment"]["packages"]
