"""sign.yml and verify.yml, run from a consumer's repository."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from sandbox.github import Run
from sandbox.github.repositories import snapshot
from sandbox.github.workflows import WorkflowError
from sandbox.sigstore import LocalSigstore
from tests.workflows.runs import CONSUMER, PRODUCT, ROOT, Sandbox

EXAMPLE = (ROOT / "examples/sign.yml").read_text(encoding="utf-8")
SIGNER = f"https://github.com/{PRODUCT}/.github/workflows/sign.yml@refs/tags/v1"
FILES = ("my-model/config.json", "my-model/weights.bin", "my-model")
OTHER_SUBJECTS = base64.b64encode(
    "".join(f"{'0' * 64}  {name}\n" for name in FILES).encode()
).decode()


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with every change made; one that finds nothing to change is a mistake here."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def said(run: Run) -> str:
    return run.log.read_text(encoding="utf-8")


def conclusions(run: Run) -> dict[str, str]:
    return {path: job.conclusion for path, job in run.jobs.items()}


def test_the_example(sandbox: Sandbox, tmp_path: Path) -> None:
    run = sandbox.consume(EXAMPLE)
    assert run.conclusion == "success", said(run)
    # 1. Outputs of both workflows.
    assert run.jobs["sign"].outputs == {
        "signature": "my-model.sig",
        "provenance": "my-model.intoto.jsonl",
        "identity": SIGNER,
        "builder-id": "",
        "verdict": "verified",
    }
    subjects = run.jobs["build"].outputs["subjects"]
    assert run.jobs["verify"].outputs == {"verdict": "verified", "subjects": subjects}
    assert run.jobs["deliver"].conclusion == "success"
    # 2. What was signed is what was built, by digests computed here.
    run.extract("my-model", tmp_path)
    lines = base64.b64decode(subjects).decode().splitlines()
    for file in ("config.json", "weights.bin"):
        digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        assert f"{digest}  my-model/{file}" in lines
    run.extract("my-model.sig", tmp_path)
    payload = json.loads((tmp_path / "my-model.sig").read_bytes())["dsseEnvelope"]["payload"]
    resources = json.loads(base64.b64decode(payload))["predicate"]["resources"]
    assert [resource["name"] for resource in resources] == ["config.json", "weights.bin"]
    # 3. Both verifications show their verdict on the run's page.
    for job in ("sign/verify", "verify/verify"):
        summary = run.summaries[job]
        assert "VERIFIED my-model" in summary and "```mermaid" in summary
    assert "this very run" in run.summaries["verify/verify"]
    # 4. The page for people lies beside the model.
    run.extract("my-model.verdict.html", tmp_path)
    page = (tmp_path / "my-model.verdict.html").read_text(encoding="utf-8")
    assert "<title>VERIFIED my-model" in page and "this very run" in page


def test_a_model_with_other_digests_is_not_signed(sandbox: Sandbox) -> None:
    workflow = replaced(EXAMPLE, ("${{ needs.build.outputs.subjects }}", OTHER_SUBJECTS))
    run = sandbox.consume(workflow)
    assert run.conclusion == "failure"
    assert run.jobs["sign/sign"].conclusion == "failure"
    assert run.artifact_names() == ["my-model"]
    refusal = said(run)[said(run).index("the model is not the one that was reported") :]
    assert f"expected: {'0' * 64}" in refusal
    assert {"sign/verify", "verify/verify", "deliver"} <= {
        job for job, conclusion in conclusions(run).items() if conclusion == "skipped"
    }


@pytest.mark.full
@pytest.mark.parametrize("reported", ["any", ""])
def test_digests_that_are_none(sandbox: Sandbox, reported: str) -> None:
    """What a job that runs other people's code reports never turns the comparison off."""
    workflow = replaced(EXAMPLE, ("${{ needs.build.outputs.subjects }}", json.dumps(reported)))
    run = sandbox.consume(workflow)
    assert run.jobs["sign/sign"].conclusion == "failure"
    assert run.artifact_names() == ["my-model"]


@pytest.mark.full
def test_a_long_list_of_files_and_hidden_ones(sandbox: Sandbox, tmp_path: Path) -> None:
    """An environment variable holds at most 128 KiB; above it no program starts at all."""
    more = (
        "mkdir my-model/.cache\n          touch my-model/.cache/{1..900}-of-a-long-list-of-files\n"
    )
    workflow = replaced(EXAMPLE, ("mkdir my-model\n", f"mkdir my-model\n          {more}"))
    run = sandbox.consume(workflow)
    assert run.conclusion == "success", said(run)
    assert run.jobs["deliver"].conclusion == "success"
    (line,) = base64.b64decode(run.jobs["build"].outputs["subjects"]).decode().splitlines()
    run.extract("my-model.sig", tmp_path)
    envelope = json.loads((tmp_path / "my-model.sig").read_bytes())["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    assert line == f"{hashlib.sha256(payload).hexdigest()}  my-model"
    assert len(json.loads(payload)["predicate"]["resources"]) == 902


IDENTITY = "identity: ${{ needs.sign.outputs.identity }}"
ATTESTER = SIGNER.replace("sign.yml", "attest.yml")
WITNESSED = replaced(
    EXAMPLE,
    (
        "      subjects: ${{ needs",
        "      provenance: github-attestation\n      subjects: ${{ needs",
    ),
)


@pytest.mark.full
def test_github_attests_to_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """In the name of a workflow that nobody can tell to send its token elsewhere."""
    run = sandbox.consume(WITNESSED)
    assert run.conclusion == "success", said(run)
    outputs = run.jobs["sign"].outputs
    assert outputs["provenance"] == "my-model.attestation.sigstore.json"
    assert (outputs["builder-id"], outputs["identity"]) == (ATTESTER, SIGNER)
    assert run.jobs["deliver"].conclusion == "success"
    assert run.jobs["sign/provenance"].conclusion == "skipped"
    for job in ("sign/verify", "verify/verify"):
        assert "VERIFIED my-model, SLSA Build L3" in run.summaries[job]
        assert f"--builder-id {ATTESTER}" in run.summaries[job]
    run.extract("my-model.attestation.sigstore.json", tmp_path)
    bundle = json.loads((tmp_path / "my-model.attestation.sigstore.json").read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    names = {subject["name"] for subject in statement["subject"]}
    assert names == {"my-model", "my-model/config.json", "my-model/weights.bin"}


@pytest.mark.full
def test_an_attestation_in_the_name_of_another_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    builder = ("${{ needs.sign.outputs.builder-id }}", SIGNER)
    run = sandbox.consume(replaced(WITNESSED, builder))
    assert run.jobs["sign/verify"].outputs == {"verdict": "verified"}
    assert run.jobs["verify/verify"].conclusion == "failure"
    assert "not a trusted builder" in said(run)
    run.extract("my-model.verdict.html", tmp_path)
    page = (tmp_path / "my-model.verdict.html").read_text(encoding="utf-8")
    assert "<title>REFUSED my-model: not a trusted builder" in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("provenance: none", "Sigstore's public logs would name this repository"),
        (
            "provenance: github-attestation\n      private-repository: true",
            "with a Sigstore of its own",
        ),
        pytest.param(
            "provenance: slsa-github-generator",
            "Sigstore's public logs would name this repository",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "provenance: github-attestation",
            "with a Sigstore of its own",
            marks=pytest.mark.full,
        ),
    ],
)
def test_what_cannot_be_signed_for_a_private_repository_is_refused_first(
    sandbox: Sandbox, more: str, message: str
) -> None:
    subjects = "      subjects: ${{ needs"
    asked = len(sandbox.sigstore.requests)
    workflow = replaced(EXAMPLE, (subjects, f"      {more}\n{subjects}"))
    run = sandbox.consume(workflow, visibility="private")
    assert run.jobs["sign/sign"].conclusion == "failure"
    (note,) = run.annotations
    assert (note.title, message in note.message) == ("Private repository", True)
    assert "Main Set up" not in said(run).partition("[sign/sign]")[2]
    assert sandbox.sigstore.requests[asked:] == []


@pytest.mark.full
@pytest.mark.parametrize("visibility", ["public", "internal"])
def test_a_schedule_that_does_not_say_how_public_it_is(sandbox: Sandbox, visibility: str) -> None:
    """It is no failure: the identity of the job that signs says it, too."""
    on = ("  push:\n    branches: [main]\n", "  schedule:\n    - cron: 0 0 * * 1\n")
    run = sandbox.consume(
        replaced(EXAMPLE, on),
        event_name="schedule",
        event={"repository": {}},
        visibility=visibility,
    )
    if visibility == "public":
        assert run.conclusion == "success", said(run)
    else:
        assert run.jobs["sign/sign"].conclusion == "failure"
        assert "the name of a repository that is not public" in said(run)


@pytest.mark.full
def test_the_name_of_a_private_repository_is_not_published(
    sandbox: Sandbox, sigstore: LocalSigstore
) -> None:
    signing = replaced(
        EXAMPLE, ("      subjects: ${{ needs", "      provenance: none\n      subjects: ${{ needs")
    ).partition("  verify:\n")[0]

    def run(*options: str) -> Run:
        lines = "".join(f"      {option}\n" for option in options)
        consumer = sandbox.consumer(
            replaced(signing, ("      provenance: n", f"{lines}      provenance: n"))
        )
        sigstore.write_trust_config(consumer.path / "sigstore.json")
        private = dataclasses.replace(consumer, visibility="private")
        return sandbox.run("consume.yml", private, others=[sandbox.product()], event_name="push")

    asked = len(sigstore.requests)
    refused = run()
    assert refused.jobs["sign/sign"].conclusion == "failure"
    assert "Sigstore's public logs would name this repository" in said(refused)
    assert sigstore.requests[asked:] == []
    for option in ("private-repository: true", "trust-config: sigstore.json"):
        assert run(option).conclusion == "success", option


@pytest.mark.full
@pytest.mark.parametrize("event", ["pull_request", "pull_request_target", "pull_request_review"])
def test_nothing_is_signed_for_a_pull_request(sandbox: Sandbox, event: str) -> None:
    on = ("  push:\n    branches: [main]\n", f"  {event}:\n")
    run = sandbox.consume(replaced(EXAMPLE, on), event_name=event)
    assert run.jobs["sign/sign"].conclusion == "failure"
    assert [annotation.title for annotation in run.annotations] == ["Pull request"]
    assert run.artifact_names() == ["my-model"]


def test_a_caller_that_grants_too_little_is_told_before_anything_runs(sandbox: Sandbox) -> None:
    workflow = replaced(
        EXAMPLE, ("      id-token: write # signature and provenance are signed", "      #")
    )
    with pytest.raises(WorkflowError, match="requesting 'id-token: write'"):
        sandbox.consume(workflow)


@pytest.mark.full
def test_called_by_commit_hash(sandbox: Sandbox, tmp_path: Path) -> None:
    commit = snapshot(ROOT, tmp_path / "product")
    run = sandbox.consume(replaced(EXAMPLE, ("@v1", f"@{commit}")))
    assert run.conclusion == "success", said(run)
    assert f"sign.yml@{commit}" in said(run)


@pytest.mark.full
def test_a_single_file_without_provenance(sandbox: Sandbox, tmp_path: Path) -> None:
    run = sandbox.consume(
        replaced(
            EXAMPLE,
            ("path: my-model\n", "path: my-model/weights.bin\n"),
            (
                "      subjects: ${{ needs",
                "      path: weights.bin\n      provenance: none\n      subjects: ${{ needs",
            ),
            (
                "      artifact: my-model\n      signature",
                "      path: weights.bin\n      artifact: my-model\n      signature",
            ),
            ("/weights.bin\n\n      - name: Refuse", "\n\n      - name: Refuse"),
        )
    )
    assert run.conclusion == "success", said(run)
    assert run.jobs["deliver"].conclusion == "success"
    outputs = run.jobs["sign"].outputs
    assert (outputs["verdict"], outputs["provenance"]) == ("verified", "none")
    assert "The run has succeeded" in run.summaries["verify/verify"]
    assert run.jobs["sign/provenance"].conclusion == "skipped"
    # The evidence is named after the model, not after the artifact that holds it.
    assert run.artifact_names() == ["my-model", "weights.bin.sig", "weights.bin.verdict.html"]
    run.extract("weights.bin.sig", tmp_path)
    assert (tmp_path / "weights.bin.sig").is_file()


@pytest.mark.full
def test_an_unknown_kind_of_provenance_is_refused(sandbox: Sandbox) -> None:
    subjects = "      subjects: ${{ needs"
    run = sandbox.consume(replaced(EXAMPLE, (subjects, f"      provenance: nothing\n{subjects}")))
    assert run.conclusion == "failure"
    assert [annotation.title for annotation in run.annotations] == ["Unknown provenance"]
    assert run.artifact_names() == ["my-model"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (((IDENTITY, f"identity: {SIGNER[:-1]}2"),), "signed by the workflow expected, at another"),
        (((IDENTITY, f"identity: {ATTESTER}"),), "signed by somebody else"),
        (
            (
                (
                    "      artifact: my-model\n      signature",
                    "      source-uri: github.com/octo-org/model\n"
                    "      artifact: my-model\n      signature",
                ),
            ),
            "github.com/octo-org/model",
        ),
        (
            (("provenance: ${{ needs.sign.outputs.provenance }}", "provenance: absent"),),
            "Artifact not found for name: absent",
        ),
        (
            (("signature: ${{ needs.sign.outputs.signature }}", "signature: absent"),),
            "Artifact not found for name: absent",
        ),
        (
            (
                (
                    "      artifact: my-model\n      signature",
                    "      policy: policy.toml\n      artifact: my-model\n      signature",
                ),
            ),
            "policy.toml",
        ),
    ],
    ids=["ref", "workflow", "repository", "no provenance", "no signature", "no policy"],
)
def test_the_gate_stays_closed(
    sandbox: Sandbox, changes: tuple[tuple[str, str], ...], message: str
) -> None:
    run = sandbox.consume(replaced(EXAMPLE, *changes))
    assert run.conclusion == "failure"
    assert run.jobs["sign/verify"].outputs == {"verdict": "verified"}
    assert run.jobs["verify/verify"].conclusion == "failure"
    assert run.jobs["deliver"].conclusion == "skipped"
    assert message in said(run)


@pytest.mark.full
def test_an_identity_has_to_be_named(sandbox: Sandbox) -> None:
    start = EXAMPLE.index("      identity:")
    with pytest.raises(WorkflowError, match="'identity' is required"):
        sandbox.consume(EXAMPLE[:start] + EXAMPLE[EXAMPLE.index("\n", start) + 1 :])


@pytest.mark.full
def test_a_private_sigstore_by_a_file_in_the_callers_repository(
    sandbox: Sandbox, sigstore: LocalSigstore
) -> None:
    """Proved by a Sigstore that does not know this run's identities: the file decides."""
    workflow = replaced(
        EXAMPLE,
        (
            "      subjects: ${{ needs",
            "      provenance: none\n      trust-config: sigstore.json\n      subjects: ${{ needs",
        ),
    ).partition("  verify:\n")[0]
    consumer = sandbox.consumer(workflow)
    product = [sandbox.product()]
    sigstore.write_trust_config(consumer.path / "sigstore.json")
    run = sandbox.run("consume.yml", consumer, others=product, event_name="push")
    assert run.conclusion == "success", said(run)
    assert run.jobs["sign"].outputs["verdict"] == "verified"
    with LocalSigstore() as foreign:
        foreign.write_trust_config(consumer.path / "sigstore.json")
        run = sandbox.run("consume.yml", consumer, others=product, event_name="push")
        assert foreign.requests
    assert run.jobs["sign/sign"].conclusion == "failure"
    (consumer.path / "sigstore.json").unlink()
    run = sandbox.run("consume.yml", consumer, others=product, event_name="push")
    assert run.jobs["sign/sign"].conclusion == "failure"
    assert "sigstore.json" in said(run)


def test_the_consumer_is_another_repository() -> None:
    """So that calls really cross repositories."""
    assert CONSUMER.partition("/")[0] != PRODUCT.partition("/")[0]
