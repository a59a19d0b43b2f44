"""slsa-github-generator v2.1.0: the real provenance, and slsa-verifier's own options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slsa_for_models.cli import main
from tests.support.crafted import (
    GENERATOR,
    SOURCE,
    Json,
    Workshop,
    changed,
    envelope,
    generator_statement,
    new_key,
    refusals,
)

GENERATOR_ID = f"https://github.com/{GENERATOR}".partition("@")[0]
REAL_SOURCE = "github.com/slsa-framework/example-package"


def verify_real(
    real: tuple[Path, Path], capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, Json]:
    artifact, provenance = map(str, real)
    arguments = [
        "verify",
        artifact,
        "--provenance-path",
        provenance,
        "--offline",
        "--format",
        "json",
    ]
    code = main([*arguments, *options])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--source-tag", "v14.2"),
        ("--source-versioned-tag", "v14"),
        ("--source-versioned-tag", "v14.2"),
        ("--builder-id", GENERATOR_ID),
        ("--builder-id", f"{GENERATOR_ID}@v2.1.0"),
        ("--builder-id", f"{GENERATOR_ID}@refs/tags/v2.1.0"),
    ],
    ids=" ".join,
)
def test_real_provenance_with_the_public_root_offline(
    real: tuple[Path, Path], capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    code, verdict = verify_real(real, capsys, "--source-uri", REAL_SOURCE, *options)
    assert refusals(verdict) == []
    assert (code, verdict["slsaBuildLevel"]) == (0, 3)
    assert verdict["chain"]["source"].endswith("4d329c75e7ec1725f7c9ce917a8799d408d06be3")


@pytest.mark.parametrize(
    "uri", [f"https://{REAL_SOURCE}", f"git+https://{REAL_SOURCE}", REAL_SOURCE]
)
def test_forms_of_the_source(
    real: tuple[Path, Path], capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    assert verify_real(real, capsys, "--source-uri", uri)[0] == 0


@pytest.mark.parametrize(
    ("option", "value", "refusal"),
    [
        ("--source-uri", "github.com/slsa-framework/example-packag", "SignerError"),
        ("--source-uri", "github.com/slsa-framework/example-package2", "SignerError"),
        ("--source-uri", "github.com/slsa-framework/Example-Package", "SignerError"),
        ("--source-uri", "gitlab.com/slsa-framework/example-package", "SignerError"),
        ("--source-tag", "v14", "SourceError"),
        ("--source-tag", "v14.3", "SourceError"),
        ("--source-branch", "other", "SourceError"),
        ("--source-branch", "main", "SourceError"),  # as the event's payload says, uncertified
        ("--source-versioned-tag", "v13", "SourceError"),
        ("--source-versioned-tag", "v14.1", "SourceError"),
        ("--source-versioned-tag", "v14.2.1", "SourceError"),
        ("--source-commit", "4" * 40, "SourceError"),
        ("--builder-id", f"{GENERATOR_ID}@v2.0.0", "BuilderError"),
        ("--builder-id", f"{GENERATOR_ID}@v2", "BuilderError"),
        ("--builder-id", GENERATOR_ID.replace("generic", "container"), "BuilderError"),
        ("--build-workflow-input", "release=yes", "ParameterError"),
        ("--dataset-digest", "4" * 64, "DependencyMismatchError"),
    ],
)
def test_wrong_expectations_of_the_real_provenance(
    real: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    refusal: str,
) -> None:
    options = {"--source-uri": REAL_SOURCE, option: value}
    code, verdict = verify_real(real, capsys, *(word for pair in options.items() for word in pair))
    assert (code, refusals(verdict)[0]) == (1, refusal)
    assert verdict["refusal"]["expected"] != verdict["refusal"]["found"]


def test_another_artifact_than_the_real_one(
    real: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "binary"
    data = bytearray(real[0].read_bytes())
    data[1000] ^= 1
    copy.write_bytes(data)
    code, verdict = verify_real((copy, real[1]), capsys, "--source-uri", REAL_SOURCE)
    assert (code, refusals(verdict)) == (1, ["SubjectError"])


# The certificate against the predicate

WHERE = "predicate.invocation"
CERTIFIED = {
    "predicate.builder.id": f"{GENERATOR_ID}@refs/tags/v2.0.0",
    f"{WHERE}.configSource.digest.sha1": "e" * 40,
    f"{WHERE}.configSource.entryPoint": ".github/workflows/other.yml",
    f"{WHERE}.environment.github_run_id": "78",
    f"{WHERE}.environment.github_run_attempt": "2",
    f"{WHERE}.environment.github_event_name": "push",
    f"{WHERE}.environment.github_ref": "refs/heads/other",
    f"{WHERE}.environment.github_sha1": "e" * 40,
    f"{WHERE}.environment.github_repository_owner": "evil",
    f"{WHERE}.environment.github_repository_id": "9",
    f"{WHERE}.environment.github_repository_owner_id": "9",
    "predicate.metadata.buildInvocationID": "77-2",
    "predicate.materials.0.digest.sha1": "e" * 40,
}


@pytest.mark.parametrize("field", CERTIFIED, ids=lambda field: field.removeprefix("predicate."))
def test_predicate_against_certificate(workshop: Workshop, field: str) -> None:
    model = workshop.model()
    forged = changed(generator_statement(model), field, CERTIFIED[field])
    provenance = workshop.generator_provenance(model, forged)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert code == 1
    assert "CertificateClaimError" in refusals(verdict)


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        (f"{WHERE}.configSource.uri", f"git+https://{SOURCE}@refs/tags/v1",
         "CertificateClaimError"),
        (f"{WHERE}.configSource.uri", f"https://{SOURCE}@refs/tags/v1", "ProvenanceError"),
        ("predicate.materials.0.uri", f"git+https://{SOURCE}@refs/tags/v1",
         "CertificateClaimError"),
        ("predicate.materials", [], "ProvenanceError"),
        ("predicate.materials", None, "ProvenanceError"),
        (f"{WHERE}.parameters.extra", 1, "ParameterError"),
        (f"{WHERE}.parameters", ["x"], "ParameterError"),
        (f"{WHERE}.environment", None, "ProvenanceError"),
        (f"{WHERE}.environment.github_ref_type", None, "ProvenanceError"),
        ("predicate.buildType", "https://github.com/slsa-framework/slsa-github-generator/go@v1",
         "UnsupportedError"),
        ("predicateType", "https://slsa.dev/provenance/v1", "PredicateTypeError"),
        ("_type", "https://in-toto.io/Statement/v1", "PredicateTypeError"),
    ],
)  # fmt: skip
def test_malformed(workshop: Workshop, field: str, value: object, refusal: str) -> None:
    model = workshop.model()
    forged = changed(generator_statement(model), field, value)
    provenance = workshop.generator_provenance(model, forged)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert (code, refusals(verdict)[0]) == (1, refusal)


@pytest.mark.parametrize(
    "ref", ["refs/heads/main", "refs/tags/v2", "refs/tags/v2.1", "refs/tags/v2.1.0-rc.0", "v2.1.0"]
)
def test_generator_at_a_branch_or_short_tag(workshop: Workshop, ref: str) -> None:
    model = workshop.model()
    builder = f"{GENERATOR.partition('@')[0]}@{ref}"
    provenance = workshop.generator_provenance(model, job_workflow_ref=builder)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    for more in ((), ("--builder-id", f"https://github.com/{builder}")):
        code, verdict = workshop.verify(model, *options, *more)
        assert code == 1
        assert refusals(verdict)[0] == "BuilderError"


def test_two_signs_at(workshop: Workshop) -> None:
    model = workshop.model()
    builder = f"{GENERATOR}@refs/tags/v2.1.0"
    provenance = workshop.generator_provenance(model, job_workflow_ref=builder)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert (code, refusals(verdict)[0]) == (1, "BuilderError")


def test_others_do_not_make_the_generators_kind(workshop: Workshop) -> None:
    model = workshop.model()
    own = "octo-org/models/.github/workflows/release.yml@refs/tags/v1.0.0"
    provenance = workshop.generator_provenance(model, job_workflow_ref=own)
    code, verdict = workshop.verify(
        model,
        *("--provenance", provenance, "--source-uri", SOURCE),
        *("--builder-id", f"https://github.com/{own}"),
    )
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


# Branches, tags, versions and inputs


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--source-tag", "v1.2.3", 0),
        ("--source-tag", "v1.2", 1),
        ("--source-branch", "main", 1),  # the push event's base_ref, which nobody certifies
        ("--source-versioned-tag", "v1", 0),
        ("--source-versioned-tag", "v1.2", 0),
        ("--source-versioned-tag", "v1.2.3", 0),
        ("--source-versioned-tag", "v1.2.3+build", 0),
        ("--source-versioned-tag", "v1.2.4", 1),
        ("--source-versioned-tag", "v1.2.3-rc", 1),
        ("--source-versioned-tag", "v2", 1),
    ],
)
def test_built_from_a_tag(workshop: Workshop, option: str, value: str, code: int) -> None:
    model = workshop.model()
    on = {"ref": "refs/tags/v1.2.3", "event_name": "push"}
    provenance = workshop.generator_provenance(model, **on)
    options = ("--provenance", provenance, "--source-uri", SOURCE, option, value)
    assert workshop.verify(model, *options)[0] == code


def test_a_release_has_a_tag_and_no_branch(workshop: Workshop) -> None:
    model = workshop.model()
    on = {"ref": "refs/tags/v1.2.3", "event_name": "release", "job_workflow_ref": GENERATOR}
    statement = generator_statement(model, **on)
    event = statement["predicate"]["invocation"]["environment"]["github_event_payload"]
    event["release"] = {"target_commitish": "stable"}
    provenance = workshop.generator_provenance(model, statement, **on)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    assert workshop.verify(model, *options, "--source-tag", "v1.2.3")[0] == 0
    assert workshop.verify(model, *options, "--source-branch", "stable")[0] == 1


def test_a_tag_whose_branch_nobody_names(workshop: Workshop) -> None:
    model = workshop.model()
    on = {"ref": "refs/tags/v1.2.3", "event_name": "push", "job_workflow_ref": GENERATOR}
    statement = generator_statement(model, **on)
    statement["predicate"]["invocation"]["environment"]["github_event_payload"] = None
    provenance = workshop.generator_provenance(model, statement, **on)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    assert workshop.verify(model, *options)[0] == 0
    assert workshop.verify(model, *options, "--source-branch", "main")[0] == 1


def test_inputs_of_a_dispatched_workflow(workshop: Workshop) -> None:
    model = workshop.model()
    for event, name, value, code in (
        ("workflow_dispatch", "release", "yes", 0),
        ("workflow_dispatch", "release", "no", 1),
        ("workflow_dispatch", "other", "yes", 1),
        ("push", "release", "yes", 1),
    ):
        provenance = workshop.generator_provenance(model, event_name=event)
        options = ("--provenance", provenance, "--source-uri", SOURCE)
        found, _ = workshop.verify(model, *options, "--build-workflow-input", f"{name}={value}")
        assert found == code


def test_an_input_has_one_value(workshop: Workshop) -> None:
    model = workshop.model()
    options = ("--provenance", workshop.generator_provenance(model), "--source-uri", SOURCE)
    for values, code in ((("yes", "yes"), 0), (("no", "yes"), 2), (("yes", "no"), 2)):
        more = [text for value in values for text in ("--build-workflow-input", f"release={value}")]
        assert workshop.verify(model, *options, *more)[0] == code


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("v1.2.3", 0),
        ("v1.2.3-rc.1+build.01", 0),
        ("v1", 0),
        ("v01.2.3", 1),
        ("v1.02.3", 1),
        ("v1.2.03", 1),
        ("v1.2.3-01", 1),
        ("v1.2.3-rc..1", 1),
        ("v1.2.3-", 1),
        ("v1.2.3+", 1),
        ("v1.2.3-rc_1", 1),
        ("v1.2.3.4", 1),
        ("1.2.3", 1),
    ],
)
def test_a_version_is_a_semantic_version(workshop: Workshop, tag: str, code: int) -> None:
    """Semantic Versioning 2.0.0, items 2, 9 and 10."""
    model = workshop.model()
    provenance = workshop.generator_provenance(model, ref=f"refs/tags/{tag}", event_name="push")
    options = ("--provenance", provenance, "--source-uri", SOURCE, "--source-versioned-tag", "v1")
    assert workshop.verify(model, *options)[0] == code


def test_a_dispatch_without_inputs(workshop: Workshop) -> None:
    model = workshop.model()
    statement = generator_statement(model)
    event = statement["predicate"]["invocation"]["environment"]["github_event_payload"]
    event["inputs"] = None
    provenance = workshop.generator_provenance(model, statement)
    assert workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)[0] == 0


# Formats that cannot be verified from files alone


def test_bare_envelope_of_older_generators(workshop: Workshop) -> None:
    model = workshop.model()
    document = envelope(generator_statement(model), new_key())
    document["signatures"][0]["cert"] = "-----BEGIN CERTIFICATE-----\n..."
    provenance = workshop.write("old.intoto.jsonl", json.dumps(document).encode())
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert (code, refusals(verdict)) == (1, ["UnsupportedError"])
    assert "looked up" in verdict["refusal"]["message"]


def test_intoto_log_entries(workshop: Workshop) -> None:
    model = workshop.model()
    document = json.loads(workshop.generator_provenance(model).read_bytes())
    for entry in document["verificationMaterial"]["tlogEntries"]:
        entry["kindVersion"] = {"kind": "intoto", "version": "0.0.2"}
    provenance = workshop.write("byob.build.slsa", json.dumps(document).encode())
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert (code, refusals(verdict)) == (1, ["UnsupportedError"])
    assert "intoto" in verdict["refusal"]["message"]
