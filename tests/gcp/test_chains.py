"""What Tekton Chains attests, verified by `slsa_for_models verify`; and what must not pass."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from model_signing.methods.sigstore import sigstore_signer
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.checkout import ROOT
from sandbox.clusters import chains, tekton_demo
from slsa_for_models.cli import main
from slsa_for_models.models.formats import FORMATS
from tests.gcp.conftest import PLAN
from tests.support.commands import Block, blocks

TINY = {"dataset": "synthetic", "epochs": 1, "train-images": 320, "test-images": 100}
OTHER_BUILDER = "https://tekton.example.test/chains"
CHAINS = "https://kubernetes.io/namespaces/tekton-chains/serviceaccounts/tekton-chains-controller"


@pytest.fixture
def statement(outcome) -> dict[str, Any]:
    return copy.deepcopy(chains.statement(outcome.run))


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def resign(outcome, tmp_path) -> Callable[..., tekton_demo.Outcome]:
    """The run's files with another statement, validly signed with another key that is trusted."""

    def make(document: dict[str, Any]) -> tekton_demo.Outcome:
        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "provenance.json").write_bytes(chains.envelope(document, key))
        (tmp_path / "chains.pub").write_bytes(public_pem(key))
        return replace(
            outcome,
            provenance=tmp_path / "provenance.json",
            public_key=tmp_path / "chains.pub",
        )

    return make


@pytest.fixture
def verify(capsys) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the guide's command; returns its exit code and the verdict."""

    def run(outcome: tekton_demo.Outcome, *more: str) -> tuple[int, dict[str, Any]]:
        code = main([*tekton_demo.verify_command(outcome)[1:], *more, "--format=json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def refusals(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["check"]: step for step in verdict["steps"] if step["outcome"] == "refused"}


@pytest.mark.services
def test_the_run_verifies(outcome, verify):
    code, verdict = verify(outcome)
    assert (code, refusals(verdict)) == (0, {})
    found = {step["check"]: step["found"] for step in verdict["steps"]}
    assert found["Builder"] == "https://tekton.dev/chains/v2, Build L1"
    assert found["Source"].startswith("https://github.com/octo-org/models at ")
    # What only the Task says is shown as that, and nothing was checked by whoever signs.
    assert found["Command"] == "python train.py --rate=0.1, claimed by the training job"
    assert found["Network"] == "allowed, claimed by the training job"
    assert "checked before the command" not in found["Data set"]
    assert json.loads(outcome.model.read_bytes()) == {"slope": 2.0, "options": ["--rate=0.1"]}


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [name for name, row in FORMATS.items() if not row.directory],
)
def test_every_format_verifies(name, sigstore, image, verify, tmp_path):
    made = tekton_demo.run(
        name,
        tmp_path,
        sigstore=sigstore,
        programs={role: image(role) for role in ("gcp", name.partition("_")[0])},
        say=[].append,  # the verdict stays alone on stdout
        PLAN=json.dumps({**TINY, "minimum-accuracy": 0}),
    )
    code, verdict = verify(made)
    assert (code, refusals(verdict)) == (0, {})


def test_the_statement_has_the_fields_of_the_build_type(outcome, statement):
    """tektoncd/chains docs/predicate/slsa/v2.md, and its test data for formatter v2alpha4."""
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    digest = hashlib.sha256(outcome.model.read_bytes()).hexdigest()
    ((subject),) = statement["subject"]
    assert subject["name"].startswith("gs://")
    assert subject["digest"] == {"sha256": digest}
    definition = statement["predicate"]["buildDefinition"]
    assert definition["buildType"] == "https://tekton.dev/chains/v2/slsa"
    commit = outcome.run.reference.commit
    assert definition["externalParameters"]["buildConfigSource"] == {
        "ref": f"sha1:{commit}",
        "repository": "git+https://github.com/octo-org/models",
        "path": "slsa_for_models/gcp/pipeline.yaml",
    }
    assert definition["externalParameters"]["runSpec"]["pipelineRef"]["resolver"] == "git"
    names = [entry.get("name", entry["uri"][:6]) for entry in definition["resolvedDependencies"]]
    # The Tasks have the URI and digest of the Pipeline, so Chains lists them once.
    assert names == ["pipeline", "oci://", "inputs/result", "inputs/result"]
    by_products = statement["predicate"]["runDetails"]["byproducts"]
    assert {entry["name"].rpartition("/")[2] for entry in by_products} == {
        *("source_ARTIFACT_INPUTS", "dataset_ARTIFACT_INPUTS"),
        *("signature_ARTIFACT_OUTPUTS", "record_ARTIFACT_OUTPUTS"),
    }


def test_the_annotation_that_tkn_prints_verifies(outcome, verify):
    text = outcome.annotation.read_text()
    assert base64.b64decode(text) == outcome.provenance.read_bytes()
    code, verdict = verify(replace(outcome, provenance=outcome.annotation))
    assert (code, refusals(verdict)) == (0, {})


def test_expectations_that_hold(outcome, verify):
    commit = outcome.run.reference.commit
    code, verdict = verify(
        outcome,
        *("--source-commit", commit, "--build-workflow-input", "model=model.json"),
        *("--build-workflow-input", f"plan={json.dumps(PLAN)}"),
        *("--dataset-digest", PLAN["data"].partition(" ")[0]),
    )
    assert (code, refusals(verdict)) == (0, {})


@pytest.mark.parametrize(
    ("option", "value", "title"),
    [
        ("--source-uri", "github.com/octo-org/model", "Source"),
        ("--source-uri", "github.com/octo-org/models2", "Source"),
        ("--source-commit", "0" * 40, "Source"),
        ("--source-branch", "main", "Branch or tag"),
        ("--build-workflow-input", "model=other.json", "Inputs"),
        ("--build-workflow-input", 'plan={"command": "python other.py"}', "Inputs"),
        ("--build-workflow-input", "nothing=1", "Inputs"),
        ("--dataset-digest", "0" * 64, "Data set"),
        ("--minimum-level", "2", "Required evidence"),
    ],
)
def test_expectations_that_do_not_hold(outcome, verify, option, value, title):
    code, verdict = verify(outcome, option, value)
    assert code == 1
    assert title in refusals(verdict)


def test_another_key(outcome, verify, tmp_path):
    (tmp_path / "other.pub").write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    code, verdict = verify(replace(outcome, public_key=tmp_path / "other.pub"))
    assert code == 1
    assert "does not match" in refusals(verdict)["Signature and log"]["found"]


def test_an_altered_payload(outcome, statement, verify, tmp_path):
    envelope = json.loads(outcome.provenance.read_bytes())
    statement["predicate"]["runDetails"]["metadata"]["invocationId"] = "another"
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(envelope))
    code, verdict = verify(replace(outcome, provenance=path))
    assert code == 1
    assert "Signature and log" in refusals(verdict)


def edit_subject(statement: dict[str, Any]) -> None:
    """The digest of another run's model."""
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(b"another run").hexdigest()


def edit_builder(statement: dict[str, Any]) -> None:
    statement["predicate"]["runDetails"]["builder"]["id"] = OTHER_BUILDER


def remove_dependency(name: str) -> Callable[[dict[str, Any]], None]:
    def edit(statement: dict[str, Any]) -> None:
        definition = statement["predicate"]["buildDefinition"]
        definition["resolvedDependencies"] = [
            entry
            for entry in definition["resolvedDependencies"]
            if entry.get("name") != name or "sha1" not in entry["digest"]
        ]

    return edit


def edit_digest_away(statement: dict[str, Any]) -> None:
    """The Pipeline is named, but by no digest."""
    statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] = {}


def edit_inline(statement: dict[str, Any]) -> None:
    """A Pipeline inside the run, with a Task by its name in the cluster."""
    definition = statement["predicate"]["buildDefinition"]
    spec = definition["externalParameters"]["runSpec"]
    del spec["pipelineRef"]
    spec["pipelineSpec"] = {"tasks": [{"name": "train", "taskRef": {"name": "train"}}]}


def edit_source(statement: dict[str, Any]) -> None:
    for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if entry.get("name") == "inputs/result" and "sha1" in entry["digest"]:
            entry["uri"] = "git+https://github.com/somebody/models.git"


def edit_second_source(statement: dict[str, Any]) -> None:
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(
        {"name": "inputs/result", "uri": "git+https://a.test/b/c", "digest": {"sha1": "1" * 40}}
    )


def edit_build_type(statement: dict[str, Any]) -> None:
    statement["predicate"]["buildDefinition"]["buildType"] = "https://tekton.dev/chains/v1/slsa"


def edit_unknown_parameter(statement: dict[str, Any]) -> None:
    statement["predicate"]["buildDefinition"]["externalParameters"]["extra"] = {}


def edit_predicate_type(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://slsa.dev/verification_summary/v1"


def edit_dataset(statement: dict[str, Any]) -> None:
    for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if "sha256" in entry["digest"] and entry.get("name") == "inputs/result":
            entry["digest"]["sha256"] = "0" * 64


def edit_record(statement: dict[str, Any]) -> None:
    """The record of another run."""
    for entry in statement["predicate"]["runDetails"]["byproducts"]:
        if entry["name"].endswith("/record_ARTIFACT_OUTPUTS"):
            other = {"uri": "gs://b/training.json", "digest": f"sha256:{'0' * 64}"}
            entry["content"] = base64.b64encode(json.dumps(other).encode()).decode()


@pytest.mark.parametrize(
    ("edit", "title", "words"),
    [
        (edit_subject, "Subject is this model", "other bytes"),
        (edit_builder, "Builder", OTHER_BUILDER),
        (remove_dependency("pipeline"), "Kind of provenance", "not resolved to a digest"),
        (edit_digest_away, "Kind of provenance", "not resolved to a digest"),
        (edit_inline, "Kind of provenance", "not resolved to a digest"),
        (remove_dependency("inputs/result"), "Kind of provenance", "one git source"),
        (edit_second_source, "Kind of provenance", "one git source"),
        (edit_source, "Source", "another repository"),
        (edit_build_type, "Kind of provenance", "not known here"),
        (edit_unknown_parameter, "Kind of provenance", "does not define"),
        (edit_predicate_type, "Kind of provenance", "another type"),
        (edit_dataset, "Data set", "0" * 64),
        (edit_record, "Training record", "names this training record"),
    ],
)
def test_crafted_attestations_with_a_valid_signature(statement, resign, verify, edit, title, words):
    edit(statement)
    code, verdict = verify(resign(statement))
    assert code == 1
    refused = refusals(verdict)[title]
    assert words in json.dumps(refused)


def test_two_signatures(outcome, verify, tmp_path):
    envelope = json.loads(outcome.provenance.read_bytes())
    envelope["signatures"] *= 2
    (tmp_path / "two.json").write_text(json.dumps(envelope))
    code, verdict = verify(replace(outcome, provenance=tmp_path / "two.json"))
    assert code == 1
    assert "Signature and log" in refusals(verdict)


# Keyless: Chains with `storage.oci.encoding-format: sigstore-bundle` and Fulcio


@pytest.fixture
def keyless(outcome, sigstore, tmp_path, capsys) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Verifies a bundle by some service account against a policy that names Chains' own."""

    def run(account: str, issuer: str = tekton_demo.ISSUER) -> tuple[int, dict[str, Any]]:
        token = sigstore.oidc.service_account_token(issuer, "tekton-chains", account)
        signer = sigstore_signer(SigstoreTrust(outcome.trust_config), identity_token=token)
        bundle = tmp_path / "bundle.json"
        bundle.write_bytes(signer(json.dumps(chains.statement(outcome.run)).encode()))
        policy = write_policy(tmp_path)
        code = main(
            [
                *("verify", str(outcome.model), "--signature", str(outcome.signature)),
                *("--provenance", str(bundle), "--policy", str(policy), "--format=json"),
                *("--trust-config", str(outcome.trust_config)),
            ]
        )
        return code, json.loads(capsys.readouterr().out)

    return run


def write_policy(folder: Path) -> Path:
    path = folder / "policy.toml"
    path.write_text(
        f"""
version = 1

[source]
uri = "github.com/octo-org/models"

[signer]
identity = "{tekton_demo.IDENTITY}"
issuer = "{tekton_demo.ISSUER}"

[[builder]]
id = "{chains.BUILDER_ID}"
identity = "{CHAINS}"
issuer = "{tekton_demo.ISSUER}"
level = 2
"""
    )
    return path


@pytest.mark.services
def test_keyless_chains_by_its_service_account(keyless):
    code, verdict = keyless("tekton-chains-controller")
    assert (code, refusals(verdict)) == (0, {})
    found = {step["check"]: step["found"] for step in verdict["steps"]}
    assert found["Builder"].endswith("Build L2")


@pytest.mark.services
def test_keyless_by_another_service_account(keyless):
    code, verdict = keyless("model-signer")
    assert code == 1
    assert "Signer" in refusals(verdict)


@pytest.mark.services
def test_keyless_by_another_cluster(keyless):
    code, verdict = keyless("tekton-chains-controller", tekton_demo.ISSUER + "2")
    assert code == 1
    assert "Signer" in refusals(verdict)


# The guide's own commands, on the files that it fetches

GUIDE = ROOT / "slsa_for_models/gcp/README.md"


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
def shell(consumer, image, outcome):
    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=consumer,
            env={
                "PATH": f"{image('gcp')}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(consumer),
                "MODEL": outcome.model.name,
                "PLAN": json.dumps(PLAN),
                "NAMESPACE": tekton_demo.NAMESPACE,
                "CLUSTER_ISSUER": tekton_demo.ISSUER,
                "REPOSITORY": tekton_demo.REPOSITORY,
                "REVISION": outcome.run.reference.commit,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_the_command_verifies_the_run(shell):
    done = shell(block("slsa_for_models verify").text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED model.json, SLSA Build L1" in done.stdout


def test_it_verifies_the_annotation(shell, consumer, outcome):
    shutil.copy(outcome.annotation, consumer / "provenance.json")
    assert shell(block("slsa_for_models verify").text).returncode == 0


def test_it_refuses_a_flipped_byte(shell, consumer, outcome):
    model = consumer / outcome.model.name
    data = bytearray(model.read_bytes())
    data[10] ^= 1
    model.write_bytes(data)
    done = shell(block("slsa_for_models verify").text)
    assert done.returncode == 1
    assert "REFUSED" in done.stdout


@pytest.mark.parametrize(("commit", "level"), [(None, "SLSA Build L2"), ("0" * 40, "REFUSED")])
def test_the_policy_in_the_guide_verifies_the_run(shell, consumer, outcome, commit, level):
    text = GUIDE.read_text()
    policy = text[text.index("```toml\n") + 8 :].partition("```")[0]
    for example, here in (
        ("github.com/ORG/REPO", tekton_demo.REPOSITORY.removeprefix("https://")),
        (policy.partition('issuer = "')[2].partition('"')[0], tekton_demo.ISSUER),
        ("COMMIT", commit or outcome.run.reference.commit),
    ):
        policy = policy.replace(example, here)
    (consumer / "policy.toml").write_text(policy)
    done = shell(
        'slsa_for_models verify "$MODEL" --signature "$MODEL.sig" --provenance provenance.json '
        "--training-record training.json --policy policy.toml --trust-config trust-config.json"
    )
    assert done.returncode == (1 if commit else 0), done.stdout + done.stderr
    assert level in done.stdout


def test_the_variables_of_the_run_are_those_that_the_guide_sets():
    text = (ROOT / "slsa_for_models/gcp/pipelinerun.yaml").read_text()
    guide = GUIDE.read_text()
    for name in set(re.findall(r"\$\{(\w+)\}", text)):
        assert f" {name}=" in guide, name


def test_the_file_that_the_guide_fetches_is_the_one_that_chains_writes(outcome):
    run, signed = outcome.run, outcome.provenance.read_bytes()
    name = f"pipelinerun-{run.namespace}-{run.name}/pipelinerun-{run.uid}.signature"
    assert chains.bucket_objects(run, signed)[name] == signed
    assert "pipelinerun-$NAMESPACE-$RUN/pipelinerun-$UID_.signature" in GUIDE.read_text()
