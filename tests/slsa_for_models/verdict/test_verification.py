"""`slsa_for_models verify` on our own provenance and signatures: accepted, and each way refused."""

from __future__ import annotations

import argparse
import base64
import json
from hashlib import sha256
from pathlib import Path

import jsonschema
import pytest

from model_signing import api
from model_signing.errors import Error, UsageError
from model_signing.methods.key import key_signer
from model_signing.methods.sigstore import SigstoreSigning, sigstore_signer
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from slsa_for_models import cli
from slsa_for_models.cli import main
from slsa_for_models.errors import SignerError
from slsa_for_models.evidence import json_schema, subjects
from slsa_for_models.evidence.kinds import slsa_generator
from slsa_for_models.verdict import expectations
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Verdict
from slsa_for_models.verdict.table import Step
from slsa_for_models.verdict.verification import verify
from tests.support.crafted import (
    COMMIT,
    DATASET,
    REF,
    SOURCE,
    TRAIN,
    Json,
    Workshop,
    changed,
    generator_statement,
    github_statement,
    new_key,
    private_pem,
    public_pem,
    refusals,
)

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)
SELF = "builders/mt/.github/workflows/train.yml"


def test_signature_two_provenances_and_record_together(workshop: Workshop) -> None:
    model = workshop.model()
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(model)),
        *("--provenance", workshop.generator_provenance(model)),
        *("--training-record", workshop.record_file(model), "--dataset-digest", DATASET),
        *("--source-uri", SOURCE, "--identity", f"{TRAIN}@{REF}", "--source-branch", "main"),
        *("--source-commit", COMMIT, "--minimum-level", "3"),
    )
    assert refusals(verdict) == []
    assert (code, verdict["verdict"], verdict["slsaBuildLevel"]) == (0, "verified", 3)
    assert verdict["slsaBuildLevels"] == {"slsa-github-generator": 3, "train.yml": 3}
    outcomes = {step["check"]: step["outcome"] for step in verdict["steps"]}
    assert outcomes.pop("Inputs") == "info"
    assert set(outcomes.values()) == {"passed"}
    assert verdict["chain"]["run"] == f"https://{SOURCE}/actions/runs/77/attempts/1"
    assert verdict["chain"]["dataset"] == {"name": "synthetic", "sha256": DATASET}
    jsonschema.validate(verdict, json_schema.load("verdict.v1.json"))


def test_a_provenance_alone_says_what_was_not_checked(workshop: Workshop) -> None:
    model = workshop.model()
    code, verdict = workshop.verify(
        model, "--provenance", workshop.train_provenance(model), *EXPECTED
    )
    assert code == 0
    not_checked = {step["check"] for step in verdict["steps"] if step["outcome"] == "not checked"}
    assert not_checked == {"Model signature", "Same run", "Same commit"}
    shown = {step["check"]: step["found"] for step in verdict["steps"] if step["outcome"] == "info"}
    assert shown.keys() == {"Branch or tag", "Inputs", "Required evidence", "Data set"}
    assert shown["Branch or tag"] == "branch main"
    assert shown["Required evidence"] == "none was required; accepted: train"
    assert shown["Data set"] == (
        f"synthetic {DATASET} as the training says; expect it with --dataset-digest"
    )
    expected = ("--dataset-digest", DATASET, "--minimum-level", "3", "--source-branch", "main")
    expected = (*expected, "--build-workflow-input", "epochs=6")
    code, verdict = workshop.verify(
        model, "--provenance", workshop.train_provenance(model), *EXPECTED, *expected
    )
    assert code == 0
    assert {step["outcome"] for step in verdict["steps"]} == {"passed", "not checked"}


def test_one_cause_is_refused_once(workshop: Workshop) -> None:
    model = workshop.model()
    code, verdict = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model), *EXPECTED, "--source-branch", "other"),
        *("--training-record", workshop.record_file(model), "--dataset-digest", DATASET),
        *("--minimum-level", "3", "--base-model", based(workshop), "--run-conclusion"),
    )
    assert (code, refusals(verdict)) == (1, ["SourceError"])
    found = {step["check"]: step["found"] for step in verdict["steps"]}
    for check in ("Training record", "Data set", "Base model", "The run has succeeded"):
        assert found[check] == "not checked: no provenance was accepted"
    assert found["Required evidence"] == "not checked: evidence was refused"
    assert found["Same run"] == "nothing to compare: no accepted evidence names a run"


def based(workshop: Workshop) -> Path:
    base = workshop.model(b"base", "base.pth")
    workshop.sign_model(base)
    workshop.train_provenance(base, "base.pth.provenance.sigstore.json")
    return base


def test_a_record_whose_provenance_was_not_accepted(workshop: Workshop) -> None:
    """The generator's provenance is trusted without being named, ours is not."""
    model = workshop.model()
    generator, record = workshop.generator_provenance(model), workshop.record_file(model)
    options = ("--provenance", generator, "--source-uri", SOURCE, "--training-record", record)
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (1, ["RecordError"])
    assert verdict["refusal"]["expected"] == "a record that a provenance names"
    assert verdict["refusal"]["found"] == sha256(record.read_bytes()).hexdigest()
    assert "model.pth.provenance.sigstore.json" in verdict["refusal"]["fix"]
    train = ("--provenance", workshop.train_provenance(model), "--dataset-digest", DATASET)
    code, verdict = workshop.verify(model, *options, *train)
    assert (code, refusals(verdict)) == (1, ["BuilderError"])
    found = {step["check"]: step["found"] for step in verdict["steps"]}
    for check in ("Training record", "Data set"):
        assert found[check] == "not checked: not every provenance was accepted"


# The certificate against the predicate, field by field

CERTIFIED = {
    "predicate.runDetails.builder.id": f"{TRAIN}@refs/tags/v9.9.9",
    "predicate.runDetails.metadata.invocationId": f"https://{SOURCE}/actions/runs/78/attempts/1",
    "predicate.buildDefinition.externalParameters.workflow.repository": "https://github.com/a/b",
    "predicate.buildDefinition.externalParameters.workflow.ref": "refs/heads/other",
    "predicate.buildDefinition.externalParameters.workflow.path": ".github/workflows/x.yml",
    "predicate.buildDefinition.internalParameters.github.event_name": "push",
    "predicate.buildDefinition.internalParameters.github.repository_id": "1",
    "predicate.buildDefinition.internalParameters.github.repository_owner_id": "1",
    "predicate.buildDefinition.internalParameters.github.runner_environment": "self-hosted",
    "predicate.buildDefinition.resolvedDependencies.0.uri": f"git+https://{SOURCE}@refs/tags/v1",
    "predicate.buildDefinition.resolvedDependencies.0.digest.gitCommit": "e" * 40,
    "predicate.buildDefinition.resolvedDependencies.1.uri": "git+https://github.com/a/b@main",
    "predicate.buildDefinition.resolvedDependencies.1.digest.gitCommit": "e" * 40,
}


@pytest.mark.parametrize("field", CERTIFIED, ids=lambda field: field.removeprefix("predicate."))
def test_predicate_says_something_else_than_the_certificate(workshop: Workshop, field: str) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    forged = changed(statement, field, CERTIFIED[field])
    provenance = workshop.write("p.json", workshop.sign(forged, workshop.token()))
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert code == 1
    assert "CertificateClaimError" in refusals(verdict)


# Extensions 9, 10, 12, 13, 14, 18, 20, 21 and the two identifiers change with these claims.
@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("job_workflow_ref", f"{SELF}@refs/tags/v1.2.4"),
        ("job_workflow_sha", "e" * 40),
        ("sha", "e" * 40),
        ("ref", "refs/heads/other"),
        ("workflow_ref", "octo-org/models/.github/workflows/other.yml@refs/heads/main"),
        ("workflow_ref", "octo-org/other/.github/workflows/release.yml@refs/heads/main"),
        ("event_name", "push"),
        ("run_id", "78"),
        ("run_attempt", "2"),
        ("repository_id", "9"),
        ("repository_owner_id", "9"),
    ],
)
def test_certificate_says_something_else_than_the_predicate(
    workshop: Workshop, claim: str, value: str
) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    provenance = workshop.write(
        "p.json", workshop.sign(statement, workshop.token(**{claim: value}))
    )
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert code == 1
    assert refusals(verdict)[0] == "CertificateClaimError"


# The signer, the builder and the source


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"job_workflow_ref": f"{SELF}@refs/heads/main"}, "BuilderError"),
        ({"job_workflow_ref": f"{SELF}@refs/tags/v1"}, "BuilderError"),
        ({"job_workflow_ref": f"{SELF}@refs/tags/v1.2.3-rc.1"}, "BuilderError"),
        ({"job_workflow_ref": f"evil/mt/.github/workflows/train.yml@{REF}"}, "BuilderError"),
        ({"job_workflow_ref": f"builders/mt/.github/workflows/train.yml.x@{REF}"}, "BuilderError"),
        ({"job_workflow_ref": f"Builders/mt/.github/workflows/train.yml@{REF}"}, "BuilderError"),
        ({"repository": "octo-org/other"}, "SignerError"),
        ({"repository": "octo-org/models2"}, "SignerError"),
        ({"repository": "octo-org/model"}, "SignerError"),
        ({"repository": "Octo-Org/models"}, "SignerError"),
        ({"repository": "evil/models"}, "SignerError"),
        ({"runner_environment": "self-hosted"}, "SignerError"),
    ],
)
def test_another_builder_caller_or_runner(
    workshop: Workshop, changes: dict[str, str], refusal: str
) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model, **changes)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert code == 1
    assert refusals(verdict)[0] == refusal


def test_an_exact_reference_is_accepted_if_named(workshop: Workshop) -> None:
    model = workshop.model()
    pinned = f"{SELF}@{'b' * 40}"
    provenance = workshop.train_provenance(model, job_workflow_ref=pinned)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    assert workshop.verify(model, *options, "--builder-id", f"{TRAIN}@{'b' * 40}")[0] == 0
    code, verdict = workshop.verify(model, *options, "--builder-id", f"{TRAIN}@{'d' * 40}")
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


def test_our_builder_is_not_trusted_unless_named(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


def test_a_workflow_never_suffices_without_its_caller(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--builder-id", TRAIN)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
    assert "--source-uri" in verdict["refusal"]["expected"]


def test_sign_yml_makes_no_training_provenance(workshop: Workshop) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    signing = f"builders/mt/.github/workflows/sign.yml@{REF}"
    builder = f"https://github.com/{signing}"
    statement = changed(statement, "predicate.runDetails.builder.id", builder)
    data = workshop.sign(statement, workshop.token(job_workflow_ref=signing))
    code, verdict = workshop.verify(
        model,
        *("--provenance", workshop.write("p.json", data), "--source-uri", SOURCE),
        *("--builder-id", builder.split("@")[0]),
    )
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


@pytest.mark.parametrize("repository", ["octo-org/models", "Octo-Org/Models"])
def test_level_of_a_builder_that_the_source_can_change(workshop: Workshop, repository: str) -> None:
    model = workshop.model()
    own = f"{repository}/.github/workflows/train.yml@{REF}"
    provenance = workshop.train_provenance(model, job_workflow_ref=own)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    builder = ("--builder-id", f"https://github.com/{own}")
    code, verdict = workshop.verify(model, *options, *builder)
    assert (code, verdict["slsaBuildLevel"]) == (0, 2)
    code, verdict = workshop.verify(model, *options, *builder, "--minimum-level", "3")
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


@pytest.mark.parametrize(
    ("runner", "level"),
    [
        ("ubuntu-24.04-arm", 3),
        ("own-machine", 1),
        ("ubuntu-latest-8-cores", 1),
        ("self-hosted", 1),
        ("Ubuntu-latest", 1),
        (None, 1),
    ],
)
def test_level_of_a_runner_of_ones_own(workshop: Workshop, runner: str | None, level: int) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    field = "predicate.buildDefinition.externalParameters.inputs.runner"
    data = workshop.sign(changed(statement, field, runner), workshop.token())
    train = ("--provenance", workshop.write("p.json", data))
    trusting = f'version = 1\n[[builder]]\nid = "{TRAIN}"\nlevel = 3\n'
    policy_file = workshop.write("policy.toml", trusting.encode())
    second = ("--provenance", workshop.generator_provenance(model))
    for options in (
        (*train, *EXPECTED),
        (*train, "--source-uri", SOURCE, "--policy", policy_file),
        # The generator does not know where the training ran.
        (*train, *second, *EXPECTED, "--builder-id", slsa_generator.BUILDER_ID),
    ):
        code, verdict = workshop.verify(model, *options)
        assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], level)
    code, verdict = workshop.verify(model, *train, *EXPECTED, "--minimum-level", "3")
    assert (code, refusals(verdict)) == (0 if level == 3 else 1, ["BuilderError"][: 3 - level])


@pytest.mark.parametrize(
    ("option", "value", "refusal"),
    [
        ("--source-uri", "github.com/octo-org/other", "SignerError"),
        ("--source-branch", "other", "SourceError"),
        ("--source-branch", "mai", "SourceError"),
        ("--source-branch", "refs/heads/main", "SourceError"),
        ("--source-branch", ".*", "SourceError"),
        ("--source-tag", "v1.2.3", "SourceError"),
        ("--source-versioned-tag", "v1", "SourceError"),
        ("--source-commit", "e" * 40, "SourceError"),
        ("--build-workflow-input", "epochs=7", "ParameterError"),
        ("--build-workflow-input", "unknown=1", "ParameterError"),
        ("--dataset-digest", "e" * 64, "DependencyMismatchError"),
    ],
)
def test_another_expectation(workshop: Workshop, option: str, value: str, refusal: str) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    options = {"--source-uri": SOURCE, "--builder-id": TRAIN, option: value}
    arguments = [word for pair in options.items() for word in pair]
    code, verdict = workshop.verify(model, "--provenance", provenance, *arguments)
    assert (code, refusals(verdict)[0]) == (1, refusal)


@pytest.mark.parametrize(
    "inputs",
    [["epochs=6"], ["self_test=true"], ["model=pytorch_model.pth", "epochs=6"]],
)
def test_inputs_compare_as_text(workshop: Workshop, inputs: list[str]) -> None:
    model = workshop.model()
    options = [word for item in inputs for word in ("--build-workflow-input", item)]
    code, _ = workshop.verify(
        model, "--provenance", workshop.train_provenance(model), *EXPECTED, *options
    )
    assert code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--source-uri", "octo-org"),
        ("--source-uri", f"{SOURCE}/"),
        ("--source-uri", f"{SOURCE}.git"),
        ("--source-uri", f"{SOURCE}@main"),
        ("--source-uri", "octo-org/models"),
        ("--source-uri", f"https://{SOURCE}/tree"),
        ("--source-commit", COMMIT[:12]),
        ("--source-commit", "main"),
        ("--dataset-digest", DATASET.upper()),
        ("--dataset-digest", f"sha256:{DATASET}"),
        ("--source-tag", "v1.2.3", "--source-versioned-tag", "v1"),
        ("--source-versioned-tag", "v\u0661.2.3"),
        ("--source-versioned-tag", f"v{'9' * 5000}.0.0"),
        ("--builder-id", "train.yml"),
        ("--builder-id", f"{TRAIN}@a@b"),
        ("--builder-id", f"{TRAIN}@"),
        ("--build-workflow-input", "novalue"),
        ("--build-workflow-input", "=novalue"),
        ("--source-versioned-tag", "1.2.3"),
        ("--identity-provider", "https://accounts.example"),
        ("--identity", "a@b.example", "--public-key", __file__),
        ("--base-policy", "x.toml"),
        ("--attest-verdict", "vsa.json"),
        ("--builder-id", TRAIN, "--builder-key", __file__),
        ("--minimum-level", "4"),
    ],
)
def test_usage_errors(workshop: Workshop, arguments: tuple[str, ...]) -> None:
    code, verdict = workshop.verify(workshop.model(), "--provenance", "p.json", *arguments)
    assert (code, verdict["error"]) == (2, "UsageError")


def verify_parser() -> argparse.ArgumentParser:
    (commands,) = [item for item in cli.build_parser()._actions if item.nargs == argparse.PARSER]
    return commands.choices["verify"]  # type: ignore[index, no-any-return, call-overload]


OPTIONS = [
    action.option_strings[0]
    for action in verify_parser()._actions
    if action.option_strings and action.nargs is None and not action.choices
]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("form", ["{} ", "{}="])
def test_an_empty_value_is_an_unset_variable(workshop: Workshop, option: str, form: str) -> None:
    model = workshop.model()
    evidence = ("--provenance", workshop.train_provenance(model), *EXPECTED)
    name, *value = form.format(option).split(" ")
    code, error = workshop.verify(model, *evidence, name, *value)
    assert (code, error["error"]) == (2, "UsageError")
    assert error["message"].startswith(option) and error["message"].endswith(" is empty")
    assert "unset" in error["fix"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "", "--provenance", "p.json"),
        ("subjects", ""),
        ("subjects", "model", "--expected", ""),
        ("provenance", "model", "--training-record", "", "--output", "p.json"),
        ("train", "pytorch_model.pth", "--output-dir", ""),
        ("policy", "init", "model", "--output", ""),
        ("load", ""),
    ],
)
def test_an_empty_value_of_any_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert "is empty" in capsys.readouterr().err


def test_a_key_of_the_model_is_not_that_of_a_workflow(workshop: Workshop) -> None:
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(key)))
    evidence = ("--signature", signature, "--provenance", workshop.train_provenance(model))
    public = ("--public-key", workshop.write("key.pub", public_pem(key)))
    for builder in (TRAIN, f"{TRAIN}@{REF}"):
        options = (*public, "--source-uri", SOURCE, "--builder-id", builder)
        code, verdict = workshop.verify(model, *evidence, *options)
        assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 3)


def test_a_branch_that_was_written_like_a_tag(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model, job_workflow_ref=f"{SELF}@refs/heads/main")
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--builder-id", f"{TRAIN}@main")
    assert (code, refusals(verdict)) == (1, ["BuilderError"])
    assert verdict["refusal"]["fix"] == "for a branch write @refs/heads/main"


@pytest.mark.parametrize("tag", ["v\u0661.2.3", f"v{'9' * 5000}.0.0"])
def test_a_tag_of_strange_digits_is_no_version(workshop: Workshop, tag: str) -> None:
    model = workshop.model()
    provenance = workshop.generator_provenance(model, ref=f"refs/tags/{tag}")
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--source-versioned-tag", "v1")
    assert (code, refusals(verdict)) == (1, ["SourceError"])


def test_nothing_to_verify_against(workshop: Workshop) -> None:
    code, error = workshop.verify(workshop.model(), *EXPECTED)
    assert (code, error["error"]) == (2, "UsageError")


# The statement


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("predicateType", "https://slsa.dev/provenance/v0.1", "PredicateTypeError"),
        ("predicateType", "https://slsa.dev/verification_summary/v1", "PredicateTypeError"),
        ("predicateType", "https://slsa.dev/provenance/v0.2", "PredicateTypeError"),
        ("predicateType", 1, "ProvenanceError"),
        ("_type", "https://in-toto.io/Statement/v0.1", "PredicateTypeError"),
        ("_type", None, "PredicateTypeError"),
        ("subject", [], "ProvenanceError"),
        ("subject", {}, "ProvenanceError"),
        ("subject", ["x"], "ProvenanceError"),
        ("subject.0.digest.sha256", "e" * 64, "SubjectError"),
        ("subject.0.digest.sha256", "E" * 64, "ProvenanceError"),
        ("subject.0.digest.sha256", 7, "ProvenanceError"),
        ("subject.0.digest", {"sha512": "e" * 128}, "SubjectError"),
        ("subject.0.digest", "e" * 64, "ProvenanceError"),
        ("subject.0.name", 7, "ProvenanceError"),
        ("predicate", [], "ProvenanceError"),
        ("predicate.buildDefinition.buildType", "https://example.com/bt", "UnsupportedError"),
        ("predicate.buildDefinition.externalParameters.extra", "x", "ParameterError"),
        ("predicate.buildDefinition.externalParameters.workflow.extra", "x", "ParameterError"),
        ("predicate.buildDefinition.externalParameters.inputs", None, "ProvenanceError"),
        ("predicate.buildDefinition.externalParameters.workflow", None, "ProvenanceError"),
        ("predicate.buildDefinition.resolvedDependencies", [], "ProvenanceError"),
        ("predicate.buildDefinition.resolvedDependencies", None, "ProvenanceError"),
        ("predicate.buildDefinition.resolvedDependencies.0.uri", "http://x", "ProvenanceError"),
        ("predicate.buildDefinition.resolvedDependencies.1", None, "ProvenanceError"),
        ("predicate.buildDefinition.resolvedDependencies.0.digest", {}, "ProvenanceError"),
        ("predicate.buildDefinition", [], "ProvenanceError"),
        ("predicate.runDetails.byproducts.0.content", "no base64!", "ProvenanceError"),
        ("predicate.runDetails.byproducts.0.content", "AAAA", "RecordError"),
        ("predicate.runDetails.byproducts.0.digest.sha256", "e" * 64, "RecordError"),
        ("predicate.buildDefinition.resolvedDependencies.2.digest.sha256", "e" * 64,
         "DependencyMismatchError"),
    ],
)  # fmt: skip
def test_malformed_or_other_statements(
    workshop: Workshop, field: str, value: object, refusal: str
) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    data = workshop.sign(changed(statement, field, value), workshop.token())
    code, verdict = workshop.verify(
        model, "--provenance", workshop.write("p.json", data), *EXPECTED
    )
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_payload_that_is_no_statement(workshop: Workshop) -> None:
    model = workshop.model()
    for payload in (b"[]", b'{"a":1,"a":2}', b"nonsense"):
        data = workshop.sign(payload, workshop.token())
        code, verdict = workshop.verify(
            model, "--provenance", workshop.write("p.json", data), *EXPECTED
        )
        assert (code, refusals(verdict)) == (1, ["ProvenanceError"])


def test_an_oms_signature_is_no_provenance(workshop: Workshop) -> None:
    model = workshop.model()
    code, verdict = workshop.verify(model, "--provenance", workshop.sign_model(model), *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["PredicateTypeError"])


# The envelope


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", "BundleError"),
        (b"{}", "BundleError"),
        (b"[]", "BundleError"),
        (b"\x00\xff", "BundleError"),
        (b"{" * 100_000, "BundleError"),
        (b'{"a":1,"a":1}', "BundleError"),
        (b"{}\n" * 1_001, "BundleError"),
    ],
    ids=["empty", "object", "list", "binary", "nested", "duplicate", "lines"],
)
def test_files_that_are_no_attestation(workshop: Workshop, content: bytes, refusal: str) -> None:
    provenance = workshop.write("p.json", content)
    code, verdict = workshop.verify(workshop.model(), "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, refusal)


@pytest.mark.parametrize("name", ["missing", "folder"])
@pytest.mark.parametrize(
    "option", ["--provenance", "--signature", "--training-record", "--vsa", "--policy"]
)
def test_what_cannot_be_read_is_no_verdict(workshop: Workshop, option: str, name: str) -> None:
    model = workshop.model()
    (workshop.folder / "folder").mkdir()
    options = ("--provenance", workshop.train_provenance(model), *EXPECTED)
    code, error = workshop.verify(model, *options, option, workshop.folder / name)
    assert (code, error["error"]) == (1, "FileError")
    assert error["where"].endswith(name)


def test_without_a_trust_root_there_is_no_verdict(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = workshop.model()
    options = ["--provenance", str(workshop.train_provenance(model)), *EXPECTED]
    broken = workshop.write("trust.json", b"{}")
    for config, message in (
        ("none.json", "there is no such file"),
        (str(broken), "not a Sigstore client trust configuration"),
    ):
        assert main(["verify", str(model), *options, "--trust-config", config]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert message in output.err
    # No network: the public trust root cannot be refreshed.
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert main(["verify", str(model), *options]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "--offline" in output.err


@pytest.mark.parametrize("option", ["--summary", "--attest-verdict"])
def test_an_output_that_cannot_be_written_is_refused_first(
    workshop: Workshop, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--policy": "p.toml", "--resource-uri": "r", "--verifier-id": "v"}
    options = [word for pair in given.items() for word in pair] if "attest" in option else []
    for place in (workshop.folder / "none" / "x.md", workshop.folder):
        assert main(["verify", "m", "--vsa", "v", *options, option, str(place)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert "the output cannot be written" in output.err


def test_pretty_printed_and_base64_bundles_are_read(workshop: Workshop) -> None:
    model = workshop.model()
    data = workshop.train_provenance(model).read_bytes()
    for form in (json.dumps(json.loads(data), indent=2).encode(), base64.b64encode(data) + b"\n"):
        provenance = workshop.write("p.json", form)
        assert workshop.verify(model, "--provenance", provenance, *EXPECTED)[0] == 0


def test_flipped_payload(workshop: Workshop) -> None:
    model = workshop.model()
    document = json.loads(workshop.train_provenance(model).read_bytes())
    payload = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
    payload[-20] ^= 1
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    provenance = workshop.write("p.json", json.dumps(document).encode())
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SignatureError")


def test_foreign_sigstore(workshop: Workshop) -> None:
    model = workshop.model()
    with LocalSigstore() as foreign:
        config = foreign.write_trust_config(workshop.folder / "foreign.json")
        other = Workshop(foreign, config, workshop.folder)
        provenance = other.train_provenance(model)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert code == 1
    assert refusals(verdict)[0] in ("CertificateError", "LogError", "SignatureError")


def test_a_certificate_chain_of_ones_own_is_not_provenance(workshop: Workshop) -> None:
    model = workshop.model()
    document = json.loads(workshop.train_provenance(model).read_bytes())
    material = document["verificationMaterial"]
    material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    provenance = workshop.write("p.json", json.dumps(document).encode())
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["UnsupportedError"])


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_keyless_bundle_of_an_older_version_has_a_chain(workshop: Workshop, version: str) -> None:
    model = workshop.model()
    for path in (workshop.train_provenance(model), workshop.sign_model(model)):
        document = json.loads(path.read_bytes())
        document["mediaType"] = f"application/vnd.dev.sigstore.bundle+json;version=0.{version}"
        material = document["verificationMaterial"]
        chain = [material.pop("certificate")] * 2  # others in the chain are not relied on
        material["x509CertificateChain"] = {"certificates": chain}
        path.write_text(json.dumps(document))
    evidence = ("--provenance", workshop.folder / "p.json", "--signature", path)
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (0, [])
    material["tlogEntries"] = []
    path.write_text(json.dumps(document))
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["UnsupportedError"])


# The signature, and everything together


def test_flipped_byte_of_the_model(workshop: Workshop) -> None:
    model = workshop.model()
    signature, provenance = workshop.sign_model(model), workshop.train_provenance(model)
    model.write_bytes(b"Weights")
    code, verdict = workshop.verify(
        model, "--signature", signature, "--provenance", provenance, *EXPECTED
    )
    assert (code, refusals(verdict)) == (1, ["MismatchError", "SubjectError"])
    found = {step["check"]: step["found"] for step in verdict["steps"]}
    assert found["Who signed the model"] == "not looked at: the signature was not accepted"
    assert verdict["refusal"]["where"].endswith("model.pth")
    assert {"expected", "found"} <= verdict["refusal"].keys()


def test_provenance_of_another_model(workshop: Workshop) -> None:
    model, other = workshop.model(), workshop.model(b"other", "other.pth")
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(other), *EXPECTED),
    )
    assert (code, refusals(verdict)) == (1, ["SubjectError"])


@pytest.mark.parametrize(
    ("options", "changes", "refusal"),
    [
        ((), {"repository": "octo-org/other"}, "SignerError"),
        ((), {"job_workflow_ref": f"evil/mt/.github/workflows/train.yml@{REF}"}, "SignerError"),
        (("--identity", f"{TRAIN}@refs/tags/v1.2.4"), {}, "SignerError"),
        (("--identity", f"{TRAIN}@refs/tags/.*"), {}, "SignerError"),
        (("--identity", f"{TRAIN}@{REF}/"), {}, "SignerError"),
        (
            ("--identity", f"{TRAIN}@{REF}", "--identity-provider", "https://issuer.example"),
            {},
            "SignerError",
        ),
    ],
)
def test_model_signed_by_somebody_else(
    workshop: Workshop, options: tuple[str, ...], changes: dict[str, str], refusal: str
) -> None:
    model = workshop.model()
    signature = workshop.sign_model(model, **changes)
    provenance = workshop.train_provenance(model)
    code, verdict = workshop.verify(
        model, "--signature", signature, "--provenance", provenance, *EXPECTED, *options
    )
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_model_signed_by_a_person(workshop: Workshop) -> None:
    model = workshop.model()
    signature = workshop.folder / "model.sig"
    token = workshop.sigstore.oidc.token("dev@octo.example")
    options = SigstoreSigning(trust_config=workshop.trust_config, identity_token=token)
    api.sign(model, signature, sigstore_signer(options))
    evidence = ("--signature", signature, "--provenance", workshop.train_provenance(model))
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
    person = ("--identity", "dev@octo.example", "--identity-provider", workshop.sigstore.url)
    code, verdict = workshop.verify(model, *evidence, *EXPECTED, *person)
    assert (code, refusals(verdict)) == (0, [])
    same_run = next(step for step in verdict["steps"] if step["check"] == "Same run")
    assert same_run["outcome"] == "not checked"


def test_model_signed_with_a_key(workshop: Workshop) -> None:
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(key)))
    public = workshop.write("key.pub", public_pem(key))
    evidence = ("--signature", signature, "--provenance", workshop.train_provenance(model))
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["SignatureError"])  # no key was named
    identity = ("--source-uri", SOURCE, "--identity", f"{TRAIN}@{REF}", "--public-key", public)
    assert workshop.verify(model, *evidence, *identity)[0] == 2
    policy_file = workshop.write(
        "policy.toml",
        f'version = 1\n[[builder]]\nid = "{TRAIN}"\n[signer]\npublic_key = "key.pub"\n'.encode(),
    )
    options = ("--source-uri", SOURCE, "--policy", policy_file)
    code, verdict = workshop.verify(model, *evidence, *options)
    assert (code, refusals(verdict)) == (0, [])
    workshop.write("key.pub", public_pem(new_key()))
    code, verdict = workshop.verify(model, *evidence, *options)
    assert (code, refusals(verdict)) == (1, ["SignatureError"])
    # A keyless signature does not do where a key is expected, nor a bare envelope for a bundle.
    keyless = ("--signature", workshop.sign_model(model), *evidence[2:])
    code, verdict = workshop.verify(model, *keyless, *options)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
    bare = json.loads(signature.read_bytes())["dsseEnvelope"]
    signature.write_text(json.dumps(bare))
    code, verdict = workshop.verify(model, *evidence, *options)
    assert (code, refusals(verdict)) == (1, ["BundleError"])


def test_signature_and_provenance_of_different_runs(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    for changes, refused in (
        ({"run_id": "78"}, ["ChainError"]),
        ({"sha": "e" * 40}, ["ChainError"]),
        ({"run_attempt": "2"}, []),  # a re-run of failed jobs
    ):
        signature = workshop.sign_model(model, **changes)
        _, verdict = workshop.verify(
            model, "--signature", signature, "--provenance", provenance, *EXPECTED
        )
        assert refusals(verdict) == refused
    assert verdict["chain"]["run"].count("/attempts/") == 2


@pytest.mark.parametrize("names", [("1.json", "2.json"), ("1/p.json", "2/p.json")])
def test_two_provenances_of_different_runs(workshop: Workshop, names: tuple[str, str]) -> None:
    model = workshop.model()
    for number in "12":
        (workshop.folder / number).mkdir()
    first = workshop.train_provenance(model, names[0])
    second = workshop.generator_provenance(model, name=names[1], run_id="78")
    both = (
        "--provenance",
        first,
        "--provenance",
        second,
        "--builder-id",
        slsa_generator.BUILDER_ID,
    )
    code, verdict = workshop.verify(model, *both, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["ChainError"])


@pytest.mark.parametrize("copy", ["as it is", "signed again"])
def test_a_provenance_given_twice_is_one(workshop: Workshop, copy: str) -> None:
    model = workshop.model()
    first = workshop.train_provenance(model)
    if copy == "as it is":
        second = workshop.write("model.intoto.jsonl", first.read_bytes())
    else:
        second = workshop.train_provenance(model, "2.json", run_attempt="2")
    code, verdict = workshop.verify(model, "--provenance", first, "--provenance", second, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["ChainError"])
    assert "one builder and kind" in verdict["refusal"]["message"]


def test_one_builder_may_attest_in_two_kinds(workshop: Workshop) -> None:
    model = workshop.model()
    github = workshop.write("a.json", workshop.sign(github_statement(model), workshop.token()))
    both = ("--provenance", workshop.train_provenance(model), "--provenance", github)
    code, verdict = workshop.verify(model, *both, *EXPECTED)
    assert (code, refusals(verdict)) == (0, [])


# The training record and the data set


def test_records_that_nobody_attested_or_of_another_model(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    unattested = workshop.record_file(model, train_images=101)
    options = ("--provenance", provenance, *EXPECTED, "--training-record", unattested)
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (1, ["RecordError"])

    other = workshop.model(b"other", "other.pth")
    record = workshop.record(other)
    statement = workshop.train_statement(model, record)
    data = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    code, verdict = workshop.verify(model, "--provenance", data, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["RecordError"])


def test_a_record_that_is_a_subject_of_the_generators_provenance(workshop: Workshop) -> None:
    model = workshop.model()
    record = workshop.record_file(model)
    statement = generator_statement(model)
    digest = {"sha256": sha256(record.read_bytes()).hexdigest()}
    statement["subject"].append({"name": "training.json", "digest": digest})
    provenance = workshop.generator_provenance(model, statement)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    options = (*options, "--training-record", record)
    for dataset, refused in ((DATASET, []), ("e" * 64, ["DependencyMismatchError"])):
        _, verdict = workshop.verify(model, *options, "--dataset-digest", dataset)
        assert refusals(verdict) == refused


@pytest.mark.parametrize(
    ("others", "code"),
    [
        ([], 0),
        ([{"sha256": DATASET}], 0),
        ([{"sha256": "e" * 64}], 1),
        ([{"sha512": "e" * 128}], 1),
        ([{}], 1),
    ],
)
@pytest.mark.parametrize("with_record", [True, False])
def test_a_data_set_besides_the_expected_one(
    workshop: Workshop, others: list[Json], code: int, *, with_record: bool
) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    if not with_record:
        statement["predicate"]["runDetails"]["byproducts"] = []
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] += [
        {"name": "dataset", "digest": digest} for digest in others
    ]
    provenance = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    options = ("--provenance", provenance, *EXPECTED, "--dataset-digest", DATASET)
    found, verdict = workshop.verify(model, *options)
    assert (found, refusals(verdict)) == (code, ["DependencyMismatchError"][:code])


def test_cifar10_is_pinned(workshop: Workshop) -> None:
    from slsa_for_models.cifar10 import archive as cifar10

    assert expectations.CIFAR10_SHA256 == cifar10.SHA256
    model = workshop.model()
    for digest, code in ((DATASET, 1), (cifar10.SHA256, 0)):
        record = workshop.record(model, name="cifar10", sha256=digest)
        statement = workshop.train_statement(model, record)
        data = workshop.write("p.json", workshop.sign(statement, workshop.token()))
        assert workshop.verify(model, "--provenance", data, *EXPECTED)[0] == code


def test_data_set_expected_where_no_provenance_names_one(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.generator_provenance(model)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--dataset-digest", DATASET)
    assert (code, refusals(verdict)) == (1, ["DependencyMismatchError"])


# Directories


def test_directory_by_name_and_digest(workshop: Workshop) -> None:
    model = workshop.directory()
    provenance = workshop.train_provenance(model)
    signature = workshop.sign_model(model)
    options = ("--provenance", provenance, *EXPECTED)
    assert workshop.verify(model, *options)[0] == 0
    assert workshop.verify(model, *options, "--signature", signature)[0] == 0
    moved = model.rename(model.with_name("renamed"))
    assert workshop.verify(moved, *options)[0] == 0


def damage(kind: str, model: Path) -> None:
    first, second = model / "variables" / "0000", model / "variables" / "0001"
    if kind == "flipped":
        first.write_bytes(b"x")
    elif kind == "added":
        (model / "extra").write_bytes(b"")
    elif kind == "removed":
        first.unlink()
    elif kind == "renamed":
        first.rename(model / "variables" / "0000x")
    elif kind == "swapped":
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
    else:
        first.rename(model / "variables" / "0002x")


@pytest.mark.parametrize("kind", ["flipped", "added", "removed", "renamed", "swapped", "moved"])
def test_changed_directory(workshop: Workshop, kind: str) -> None:
    model = workshop.directory()
    provenance = workshop.train_provenance(model)
    damage(kind, model)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_the_root_digest_never_stands_alone(workshop: Workshop) -> None:
    model = workshop.directory()
    statement = workshop.train_statement(model, workshop.record(model))
    statement["subject"] = statement["subject"][-1:]
    assert statement["subject"][0]["name"] == "saved_model"
    data = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    code, verdict = workshop.verify(model, "--provenance", data, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_one_of_many_subjects_is_ambiguous_or_missing(workshop: Workshop) -> None:
    model = workshop.directory()
    statement = workshop.train_statement(model, workshop.record(model))
    first = statement["subject"][0]
    for listed in (
        [*statement["subject"], {**first, "digest": {"sha256": "e" * 64}}],
        statement["subject"][1:],
    ):
        forged: Json = {**statement, "subject": listed}
        data = workshop.write("p.json", workshop.sign(forged, workshop.token()))
        code, verdict = workshop.verify(model, "--provenance", data, *EXPECTED)
        assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_files_listed_without_a_root_have_to_be_all(workshop: Workshop) -> None:
    """As actions/attest lists the files of a folder."""
    model = workshop.directory()
    statement = workshop.train_statement(model, workshop.record(model))
    named = [
        {**subject, "name": subject["name"].removeprefix("saved_model/")}
        for subject in statement["subject"][:-1]
    ]
    for listed, code in ((named, 0), (named[1:], 1), ([*named, named[0]], 1)):
        forged: Json = {**statement, "subject": listed}
        data = workshop.write("p.json", workshop.sign(forged, workshop.token()))
        assert workshop.verify(model, "--provenance", data, *EXPECTED)[0] == code


def test_above_a_thousand_files_the_signed_list_is_the_subject(workshop: Workshop) -> None:
    model = workshop.directory(files=1_001)
    about = subjects.of_model(subjects.measure(model))
    assert [subject.name for subject in about] == ["saved_model"]
    small = workshop.model()
    statement = workshop.train_statement(small, workshop.record(model))
    statement["subject"] = [
        {"name": item.name, "digest": {"sha256": item.sha256}} for item in about
    ]
    provenance = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    signature = workshop.sign_model(model)
    options = ("--provenance", provenance, *EXPECTED)
    assert workshop.verify(model, *options, "--signature", signature)[0] == 0
    assert workshop.verify(model, *options)[0] == 0  # the list that signing would make
    (model / "variables" / "1000").rename(model / "variables" / "1000x")
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_signatures_with_other_digests_are_compared_all_the_same(workshop: Workshop) -> None:
    model = workshop.directory()
    signature = workshop.folder / "blake.sig"
    options = SigstoreSigning(trust_config=workshop.trust_config, identity_token=workshop.token())
    api.sign(model, signature, sigstore_signer(options), api.HashOptions(algorithm="blake2b"))
    code, verdict = workshop.verify(
        model,
        *("--signature", signature, "--provenance", workshop.train_provenance(model), *EXPECTED),
    )
    assert (code, refusals(verdict)) == (0, [])


@pytest.mark.parametrize(
    "option",
    [
        ("--source-branch", "other"),
        ("--source-tag", "v1"),
        ("--source-versioned-tag", "v1"),
        ("--source-commit", "e" * 40),
        ("--build-workflow-input", "epochs=6"),
    ],
)
def test_what_a_signature_alone_cannot_show_is_not_taken_for_shown(
    workshop: Workshop, option: tuple[str, str]
) -> None:
    model = workshop.model()
    signer = ("--identity", f"{TRAIN}@{REF}", "--source-uri", SOURCE)
    evidence = ("--signature", workshop.sign_model(model), *signer)
    assert workshop.verify(model, *evidence)[0] == 0
    code, verdict = workshop.verify(model, *evidence, *option)
    assert (code, refusals(verdict)) == (1, ["ChainError"])


def test_a_key_says_nothing_about_the_source(workshop: Workshop) -> None:
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(key)))
    evidence = (
        "--signature",
        signature,
        "--public-key",
        workshop.write("key.pub", public_pem(key)),
    )
    assert workshop.verify(model, *evidence)[0] == 0
    code, verdict = workshop.verify(model, *evidence, "--source-uri", SOURCE)
    assert (code, refusals(verdict)) == (1, ["ChainError"])


# Programs


def test_a_program_that_asks_if_deploys_no_refused_model(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = [workshop.train_provenance(model)]
    trust = SigstoreTrust(trust_config=workshop.trust_config, offline=True)
    source, trusted = expectations.source_uri(SOURCE), (expectations.builder_from_option(TRAIN),)
    for expected, refusal in (
        (Expectations(source_uri=source, builders=trusted), None),
        (Expectations(source_uri=f"{source}2", builders=trusted), SignerError),
        (Expectations(), SignerError),
    ):
        verdict = verify(str(model), expected, provenance=provenance, trust=trust)
        assert bool(verdict) is verdict.verified is (refusal is None)
        assert verdict.level == (3 if refusal is None else 0)
        if refusal is None:
            assert verdict.require() is verdict
            assert (verdict.refusal, verdict.exit_code) == (None, 0)
        else:
            with pytest.raises(refusal) as raised:
                verdict.require()
            assert (verdict.refusal, verdict.exit_code) == (raised.value, 1)


def test_nothing_passed_is_no_reason_to_deploy_either(workshop: Workshop) -> None:
    model = workshop.model()
    with pytest.raises(UsageError, match="nothing to verify against"):
        verify(model, Expectations())
    with pytest.raises(UsageError, match="nothing to verify against"):
        verify(model, Expectations(), signature=workshop.sign_model(model))
    unchecked = Step("s", "t", "c", "not checked", "why")
    verdict = Verdict(subjects.measure(model), (unchecked,))
    assert verdict.refusal is None and not verdict and verdict.exit_code == 1
    with pytest.raises(Error, match="nothing could be checked"):
        verdict.require()


def test_hashing_tells_how_far_it_is(workshop: Workshop) -> None:
    model, said = workshop.model(), list[tuple[int, int]]()
    trust = SigstoreTrust(trust_config=workshop.trust_config, offline=True)
    options = {"provenance": [workshop.train_provenance(model)], "trust": trust}
    for signature in (None, workshop.sign_model(model)):
        verify(
            model,
            Expectations(),
            signature=signature,
            progress=lambda done, size: said.append((done, size)),
            **options,
        )
        assert said.pop() == (7, 7)
        said.clear()
