"""train.yml and train-many.yml, dispatched and called by a consumer; and what they refuse."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sandbox.github import Run
from sandbox.github.repositories import Repository
from sandbox.github.workflows import WorkflowError
from sandbox.local_server import Serving
from slsa_for_models.cifar10.archive import SHA256 as CIFAR10_SHA256
from slsa_for_models.models.formats import FORMATS
from tests.workflows.runs import ROOT, Sandbox

EXAMPLES = ROOT / "examples"
QUICK = {"dataset": "synthetic", "epochs": "1", "model": "pytorch_model.pth"}
CALL = (EXAMPLES / "train.yml").read_text(encoding="utf-8")
QUICK_CALL = CALL.replace(
    "      model: pytorch_model.pth\n",
    "      model: pytorch_model.pth\n      dataset: synthetic\n      epochs: 1\n",
)
SIGNED_LATER = ("provenance", "attest", "sign", "verify")


def said(run: Run) -> str:
    return run.log.read_text(encoding="utf-8")


def call(**inputs: str) -> str:
    """A consumer's workflow that calls train.yml with these inputs."""
    given = "".join(f"      {name}: {json.dumps(value)}\n" for name, value in inputs.items())
    return CALL.replace("      model: pytorch_model.pth\n", given)


def edit_workflow(name: str, old: str, new: str) -> Callable[[Path], None]:
    """An edit of a copy of this repository."""

    def edit(root: Path) -> None:
        path = root / ".github/workflows" / name
        text = path.read_text(encoding="utf-8")
        assert old in text, "the edit has nothing to replace: the test is out of date"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def statement(bundle: Path) -> dict[str, object]:
    """What a Sigstore bundle signs."""
    document = json.loads(bundle.read_bytes())
    decoded: dict[str, object] = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    return decoded


# What is refused before anything is installed ----------------------------------------------------


def assert_refused_first(run: Run, title: str, message: str) -> None:
    assert run.conclusion == "failure"
    assert [(note.level, note.title) for note in run.annotations] == [("error", title)], said(run)
    assert message in run.annotations[0].message
    for job in SIGNED_LATER:
        assert run.jobs[f"model/{job}"].conclusion == "skipped"
    assert run.jobs["use"].conclusion == "skipped"
    assert "Main Set up the framework" not in said(run)
    assert run.artifact_names() == []


@pytest.mark.parametrize(
    ("inputs", "title", "message"),
    [
        ({"model": "pytorch_model"}, "Unknown model format", "pytorch_model.safetensors"),
        ({"provenance": "none"}, "Unknown provenance", "slsa-github-generator"),
        pytest.param(
            *({"model": ""}, "Unknown model format", "tensorflow_model.keras"),
            marks=pytest.mark.full,
        ),
        pytest.param(
            *({"model": "PyTorch_model.pth"}, "Unknown model format", "pytorch_model.pth"),
            marks=pytest.mark.full,
        ),
        pytest.param(
            *({"model": "pytorch_model.pth\n::notice::x"}, "Unknown model format", "_model.pth"),
            marks=pytest.mark.full,
        ),
    ],
    ids=["unknown", "provenance", "empty", "other case", "two lines"],
)
def test_a_bad_choice(sandbox: Sandbox, inputs: dict[str, str], title: str, message: str) -> None:
    run = sandbox.consume(call(**{"model": "pytorch_model.pth", **inputs}))
    assert_refused_first(run, title, message)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Sigstore's public logs would name this repository"),
        pytest.param(
            {"provenance": "github-attestation"},
            "with a Sigstore of its own",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"provenance": "github-attestation", "private-repository": True},
            "slsa-github-generator, and 'private-repository' to true",
            marks=pytest.mark.full,
        ),
    ],
    ids=["name", "attestation", "attestation, although the name may be known"],
)
def test_a_private_repository_is_told_before_training(
    sandbox: Sandbox, inputs: dict[str, object], message: str
) -> None:
    """And nothing is asked of Sigstore."""
    asked = len(sandbox.sigstore.requests)
    workflow = call(model="pytorch_model.pth", **inputs)
    run = sandbox.consume(workflow, visibility="private")
    assert_refused_first(run, "Private repository", message)
    assert sandbox.sigstore.requests[asked:] == []


@pytest.mark.full
def test_data_that_no_mirror_has_is_told_once_for_all_formats(sandbox: Sandbox) -> None:
    example = (EXAMPLES / "train-many.yml").read_text(encoding="utf-8")
    nowhere = "      dataset-url: http://127.0.0.1:9/cifar\n"
    workflow = example.replace("      dataset: synthetic\n", nowhere)
    assert nowhere in workflow
    run = sandbox.consume(workflow, event_name="workflow_dispatch")
    assert run.jobs["models/data"].conclusion == "failure"
    assert "CIFAR-10 cannot be downloaded" in said(run)
    assert "--data-dir" in said(run)
    assert run.artifact_names() == []


@pytest.mark.parametrize(
    "models",
    [
        '["pytorch_model.pth", "pytorch_model.pth"]',
        "x",
        pytest.param("[]", marks=pytest.mark.full),
        pytest.param("{}", marks=pytest.mark.full),
    ],
)
def test_a_bad_list_of_formats(sandbox: Sandbox, models: str) -> None:
    example = (EXAMPLES / "train-many.yml").read_text(encoding="utf-8")
    listed = '["pytorch_model.pth", "pytorch_model.safetensors"]'
    assert listed in example
    run = sandbox.consume(example.replace(listed, models), event_name="workflow_dispatch")
    assert run.conclusion == "failure"
    assert [note.title for note in run.annotations] == ["Not a list of formats"], said(run)
    assert run.artifact_names() == []


def test_a_dispatch_offers_only_what_there_is(sandbox: Sandbox) -> None:
    with pytest.raises(WorkflowError, match="not one of"):
        sandbox.run("train.yml", sandbox.product(), inputs={"model": "model.pkl"})


# A run that succeeds -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(sandbox: Sandbox) -> Run:
    """The example, from a consumer's repository, on a small data set."""
    return sandbox.consume(QUICK_CALL)


@pytest.mark.full
class TestTrained:
    """The example's run."""

    def test_outputs(self, trained: Run, tmp_path: Path) -> None:
        assert trained.conclusion == "success", said(trained)
        outputs = trained.jobs["model"].outputs
        assert outputs["verdict"] == "verified"
        assert outputs["identity"].endswith("/.github/workflows/train.yml@refs/tags/v1")
        for name, artifact in {
            "model": "pytorch_model.pth",
            "signature": "pytorch_model.pth.sig",
            "provenance": "pytorch_model.pth.provenance.sigstore.json",
            "second-provenance": "pytorch_model.pth.intoto.jsonl",
            "the verdict": "pytorch_model.pth.verdict.html",
        }.items():
            assert outputs.get(name, artifact) == artifact
            assert artifact in trained.artifact_names()
            trained.extract(artifact, tmp_path)
        digest = hashlib.sha256((tmp_path / "pytorch_model.pth").read_bytes()).hexdigest()
        lines = base64.b64decode(outputs["subjects"]).decode()
        assert lines == f"{digest}  pytorch_model.pth\n"
        archive = (trained.artifacts / "pytorch_model.pth.zip").read_bytes()
        assert outputs["artifact-digest"] == hashlib.sha256(archive).hexdigest()
        # Every piece of evidence is about this digest.
        for name in (
            "pytorch_model.pth.provenance.sigstore.json",
            "pytorch_model.pth.intoto.jsonl",
        ):
            assert digest in json.dumps(statement(tmp_path / name)["subject"])
        assert digest in json.dumps(statement(tmp_path / "pytorch_model.pth.sig")["predicate"])
        page = (tmp_path / "pytorch_model.pth.verdict.html").read_text(encoding="utf-8")
        assert "<title>VERIFIED pytorch_model.pth" in page and digest in page

    def test_summary(self, trained: Run) -> None:
        summary = html.unescape(trained.summaries["model/verify"])
        assert "VERIFIED pytorch_model.pth" in summary
        assert "Accuracy on held-out images" in summary and "xychart-beta" in summary
        assert "```mermaid" in summary
        assert "slsa_for_models verify" in summary

    def test_who_said_what(self, trained: Run, tmp_path: Path) -> None:
        trained.extract("pytorch_model.pth.provenance.sigstore.json", tmp_path)
        predicate = json.dumps(statement(tmp_path / "pytorch_model.pth.provenance.sigstore.json"))
        assert "/.github/workflows/train.yml@refs/tags/v1" in predicate
        assert "https://github.com/octo-org/models/actions/runs/" + trained.run_id in predicate

    def test_the_generators_provenance_is_kept_as_long_as_the_model(self, trained: Run) -> None:
        """The generator's own upload expires after five days; the verified file replaces it."""
        assert "[model/verify] Artifact pytorch_model.pth.intoto.jsonl has 1 files" in said(trained)


# Deploying it later: verify.yml asks how the run ended -------------------------------------------

DEPLOY = (EXAMPLES / "verify.yml").read_text(encoding="utf-8")


def deploy(sandbox: Sandbox, earlier: Run, workflow: str = DEPLOY) -> Run:
    return sandbox.consume(
        workflow,
        event_name="workflow_dispatch",
        inputs={"run-id": earlier.run_id},
        earlier=[earlier],
    )


@pytest.mark.full
class TestEarlierRun:
    """The example that deploys a model of an earlier run."""

    def test_that_succeeded(self, sandbox: Sandbox, trained: Run) -> None:
        run = deploy(sandbox, trained)
        assert run.conclusion == "success", said(run)
        subjects = trained.jobs["model"].outputs["subjects"]
        assert run.jobs["verify"].outputs == {"verdict": "verified", "subjects": subjects}
        assert run.jobs["deploy"].conclusion == "success"
        assert "completed, success" in run.summaries["verify/verify"]
        assert f"pytorch_model.pth.{trained.run_id}.verdict.html" in run.artifact_names()

    def test_that_failed_afterwards(self, sandbox: Sandbox, trained: Run) -> None:
        run = deploy(sandbox, replace(trained, conclusion="failure"))
        assert run.jobs["verify/verify"].conclusion == "failure"
        assert run.jobs["deploy"].conclusion == "skipped"
        assert "the run that made the model has not succeeded" in said(run)

    def test_of_which_github_knows_another_commit(self, sandbox: Sandbox, trained: Run) -> None:
        run = deploy(sandbox, replace(trained, commit="0" * 40))
        assert run.jobs["verify/verify"].conclusion == "failure"
        assert "GitHub answers about another run" in said(run)

    def test_of_another_repository(self, sandbox: Sandbox, trained: Run) -> None:
        workflow = DEPLOY.replace(
            "      artifact:", "      source-uri: github.com/octo-org/other\n      artifact:"
        )
        run = deploy(sandbox, trained, workflow)
        assert run.jobs["verify/verify"].conclusion == "failure"
        assert "the signing workflow ran for another repository" in said(run)

    def test_that_does_not_exist(self, sandbox: Sandbox, trained: Run) -> None:
        run = deploy(sandbox, replace(trained, run_id="1"))
        assert run.jobs["verify/verify"].conclusion == "failure"


# Every format, every input -----------------------------------------------------------------------


# One of each framework meets the real services, too: they never see a model.
ON_SERVICES = ("pytorch_model.pth", "tensorflow_model.keras")


@pytest.mark.full
@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=[pytest.mark.services] * (name in ON_SERVICES)) for name in FORMATS],
)
def test_every_format(sandbox: Sandbox, model: str, tmp_path: Path) -> None:
    run = sandbox.run("train.yml", sandbox.product(), inputs={**QUICK, "model": model})
    assert run.conclusion == "success", said(run)
    assert run.jobs["verify"].outputs == {"verdict": "verified"}
    for suffix in ("", ".sig", ".intoto.jsonl", ".provenance.sigstore.json"):
        run.extract(model + suffix, tmp_path)
        assert (tmp_path / (model + suffix)).exists()
    assert json.loads((tmp_path / "training.json").read_bytes())["model"]["name"] == model


@pytest.mark.full
def test_dispatch_with_every_input(sandbox: Sandbox, tmp_path: Path) -> None:
    inputs = {
        "model": "pytorch_model.safetensors",
        "dataset": "synthetic",
        "data-dir": "",
        "dataset-url": "",
        "epochs": "2",
        "seed": "7",
        "runner": "ubuntu-latest",
        "provenance": "github-attestation",
        "private-repository": "true",
    }
    run = sandbox.run("train.yml", sandbox.product(), inputs=inputs)
    assert run.conclusion == "success", said(run)
    assert run.jobs["verify"].outputs == {"verdict": "verified"}
    assert run.jobs["attest/attest"].conclusion == "success"
    assert run.jobs["provenance"].conclusion == "skipped"
    run.extract("pytorch_model.safetensors", tmp_path)
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert (record["parameters"]["epochs"], record["parameters"]["seed"]) == (2, 7)
    run.extract("pytorch_model.safetensors.attestation.sigstore.json", tmp_path)
    attested = statement(tmp_path / "pytorch_model.safetensors.attestation.sigstore.json")
    build = attested["predicate"]["buildDefinition"]  # type: ignore[index]
    assert build["buildType"] == "https://actions.github.io/buildtypes/workflow/v1"


@pytest.mark.full
def test_a_schedule_that_does_not_say_how_public_the_repository_is(sandbox: Sandbox) -> None:
    """No failure where it is public; where it is not, the jobs that sign find out."""
    workflow = QUICK_CALL.replace(
        "  push:\n    branches: [main]\n", "  schedule:\n    - cron: 0 0 * * 1\n"
    )
    for visibility, conclusion in (("public", "success"), ("private", "failure")):
        run = sandbox.consume(
            workflow, event_name="schedule", event={"repository": {}}, visibility=visibility
        )
        assert run.conclusion == conclusion, said(run)
    assert "is not public" in said(run)
    assert "pytorch_model.pth.sig" not in run.artifact_names()


@pytest.mark.full
def test_data_of_an_earlier_job(sandbox: Sandbox, tmp_path: Path) -> None:
    """For a data set of one's own in CIFAR-10's layout; the archive would be held to its digest."""
    from slsa_for_models.cifar10 import synthetic

    data = """
  data:
    runs-on: ubuntu-latest
    permissions: {}
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
      - uses: actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1
        with: {name: images, path: images/}

  model:
    needs: data
"""
    inputs = {"model": "pytorch_model.pth", "epochs": 1, "data-artifact": "images"}
    consumer = sandbox.consumer(call(**inputs).replace("\n  model:\n", data, 1))
    (consumer.path / "images").mkdir()
    for name, content in synthetic.batches(2000, 200, seed=0).items():
        (consumer.path / "images" / name).write_bytes(content)
    run = sandbox.run("consume.yml", consumer, others=[sandbox.product()], event_name="push")
    assert run.conclusion == "success", said(run)
    run.extract("pytorch_model.pth", tmp_path)
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert len(record["dataset"]["files"]) == 6


@pytest.mark.full
def test_several_formats_in_one_call(sandbox: Sandbox) -> None:
    run = sandbox.consume(
        (EXAMPLES / "train-many.yml").read_text(encoding="utf-8"), event_name="workflow_dispatch"
    )
    assert run.conclusion == "success", said(run)
    identity = run.jobs["models"].outputs["identity"]
    expected = {"verdict": "verified", "identity": identity, "builder-id": ""}
    assert run.jobs["models"].outputs == expected
    assert identity.endswith("/.github/workflows/train.yml@refs/tags/v1")
    assert run.jobs["models/data"].conclusion == "skipped"  # made-up images need none
    for model in ("pytorch_model.pth", "pytorch_model.safetensors"):
        assert {model, f"{model}.sig", f"{model}.intoto.jsonl"} <= set(run.artifact_names())


@pytest.mark.full
def test_cifar10_is_fetched_once_for_all_formats(
    sandbox: Sandbox, mirror: tuple[str, bytes, list[str]], tmp_path: Path
) -> None:
    """By a copy of the product that has a smaller archive pinned."""
    url, content, asked = mirror
    pinned = {CIFAR10_SHA256: hashlib.sha256(content).hexdigest(), "170_052_171": str(len(content))}

    def edit(root: Path) -> None:
        path = root / "slsa_for_models" / "cifar10/archive.py"
        text = path.read_text(encoding="utf-8")
        for old, new in pinned.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")

    example = (EXAMPLES / "train-many.yml").read_text(encoding="utf-8")
    workflow = example.replace(
        "      dataset: synthetic\n", f"      dataset-url: http://127.0.0.1:9/gone {url}\n"
    )
    run = sandbox.consume(workflow, event_name="workflow_dispatch", product=sandbox.product(edit))
    assert run.conclusion == "success", said(run)
    assert asked == ["/cifar"]
    for model in ("pytorch_model.pth", "pytorch_model.safetensors"):
        run.extract(model, tmp_path)
        record = json.loads((tmp_path / "training.json").read_bytes())
        assert record["dataset"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.fixture
def mirror() -> Iterator[tuple[str, bytes, list[str]]]:
    """A server with an archive laid out as CIFAR-10's; its content, and the paths asked for."""
    from slsa_for_models.cifar10 import synthetic

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in synthetic.batches(2000, 200, seed=0).items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    content, asked = buffer.getvalue(), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with Serving(Handler) as server:
        yield f"{server.url}/cifar", content, asked


@pytest.mark.full
def test_the_same_chain_from_single_actions(sandbox: Sandbox) -> None:
    run = sandbox.consume((EXAMPLES / "actions.yml").read_text(encoding="utf-8"))
    assert run.conclusion == "success", said(run)
    assert "REHEARSED" in run.summaries["rehearse"]
    assert "VERIFIED pytorch_model.pth" in html.unescape(run.summaries["verify"])


@pytest.mark.full
@pytest.mark.parametrize("event", ["pull_request", "pull_request_target"])
def test_a_pull_request_rehearses(sandbox: Sandbox, event: str) -> None:
    """No job of it signs anything, also where it could get an identity, and the run says so."""
    asked = len(sandbox.sigstore.requests)
    workflow = QUICK_CALL.replace("  push:\n    branches: [main]\n", f"  {event}:\n")
    run = sandbox.consume(workflow, event_name=event)
    assert run.conclusion == "success", said(run)
    assert run.jobs["model"].outputs["verdict"] == "rehearsed"
    for job in ("provenance", "attest", "sign"):
        assert run.jobs[f"model/{job}"].conclusion == "skipped"
    assert run.jobs["use"].conclusion == "skipped"
    assert run.artifact_names() == ["pytorch_model.pth"]
    assert "proves nothing about the model" in run.summaries["model/verify"]
    assert sandbox.sigstore.requests[asked:] == []


# What goes wrong ---------------------------------------------------------------------------------


@pytest.mark.full
def test_training_fails(sandbox: Sandbox) -> None:
    run = sandbox.run("train.yml", sandbox.product(), inputs={**QUICK, "epochs": "0"})
    assert run.conclusion == "failure"
    assert run.jobs["train"].conclusion == "failure"
    for job in SIGNED_LATER:
        assert run.jobs[job].conclusion == "skipped"
    assert run.artifact_names() == []


def swap(what: str) -> Callable[[Path], None]:
    """A job between training and signing replaces the artifact, as a caller's own job could."""
    job = f"""  swap:
    name: Swap
    needs: train
    runs-on: ubuntu-latest
    permissions: {{}}
    steps:
      - uses: actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1
        with:
          name: ${{{{ inputs.model }}}}
          path: out
      - run: {what}
      - uses: actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1
        with:
          name: ${{{{ inputs.model }}}}
          path: out/
          overwrite: true

"""

    def edit(root: Path) -> None:
        for old, new in (
            ("  sign:\n    name: Sign\n", f"{job}  sign:\n    name: Sign\n"),
            ("needs: [train, provenance, attest]", "needs: [train, provenance, attest, swap]"),
        ):
            edit_workflow("train.yml", old, new)(root)

    return edit


@pytest.mark.full
@pytest.mark.parametrize(
    ("what", "step"),
    [
        ("printf x >> out/pytorch_model.pth", "Refuse another model than the one trained"),
        (
            "sed -i s/0.1/0.9/ out/training.json",
            "Refuse another training record than the one written",
        ),
    ],
    ids=["model", "training record"],
)
def test_the_artifact_is_swapped_between_jobs(sandbox: Sandbox, what: str, step: str) -> None:
    run = sandbox.run("train.yml", sandbox.product(swap(what)), inputs=QUICK)
    assert run.jobs["swap"].conclusion == "success", said(run)
    assert run.jobs["sign"].conclusion == "failure"
    assert run.jobs["verify"].conclusion == "skipped"
    assert re.search(rf"\[sign\] .*Failure - Main {step}", said(run))
    assert "pytorch_model.pth.sig" not in run.artifact_names()


def broken_generator(folder: Path, steps: str) -> Repository:
    """A slsa-github-generator whose only job does `steps`."""
    target = folder / ".github/workflows/generator_generic_slsa3.yml"
    target.parent.mkdir(parents=True)
    target.write_text(
        "name: broken\non:\n  workflow_call:\n    inputs:\n"
        "      base64-subjects: {required: true, type: string}\n"
        "      provenance-name: {required: false, type: string}\n"
        "      private-repository: {required: false, type: boolean}\n"
        "jobs:\n  generator:\n    runs-on: ubuntu-latest\n    steps:\n"
        f"      - run: {steps}\n",
        encoding="utf-8",
    )
    return Repository("slsa-framework/slsa-github-generator", folder, "refs/tags/v2.1.0")


@pytest.mark.full
def test_the_generator_is_not_available(sandbox: Sandbox, tmp_path: Path) -> None:
    run = sandbox.consume(QUICK_CALL, others=[broken_generator(tmp_path, "exit 1")])
    assert run.conclusion == "failure"
    assert run.jobs["model/provenance/generator"].conclusion == "failure"
    for job in ("sign", "verify"):
        assert run.jobs[f"model/{job}"].conclusion == "skipped"
    assert run.artifact_names() == ["pytorch_model.pth"]


@pytest.mark.full
def test_the_generator_leaves_no_provenance(sandbox: Sandbox, tmp_path: Path) -> None:
    run = sandbox.consume(QUICK_CALL, others=[broken_generator(tmp_path, "'true'")])
    assert run.conclusion == "failure"
    assert run.jobs["model/verify"].conclusion == "failure"
    assert run.jobs["use"].conclusion == "skipped"
    assert "Artifact not found for name: pytorch_model.pth.intoto.jsonl" in said(run)


@pytest.mark.full
def test_the_wrong_identity_is_expected(sandbox: Sandbox) -> None:
    expected = "training.json\n          identity: https://github.com/${{ %s.workflow_ref }}"
    edit = edit_workflow("train.yml", expected % "job", expected % "github")
    run = sandbox.consume(QUICK_CALL, product=sandbox.product(edit))
    assert run.jobs["model/sign"].conclusion == "success", said(run)
    assert run.jobs["model/verify"].conclusion == "failure"
    assert all(job.outputs.get("verdict") != "verified" for job in run.jobs.values())
    assert "REFUSED pytorch_model.pth" in html.unescape(run.summaries["model/verify"])
