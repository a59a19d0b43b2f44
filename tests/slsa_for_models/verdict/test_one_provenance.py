"""One provenance: every step for it, and each way it is refused."""

from __future__ import annotations

import pytest

from slsa_for_models.evidence.kinds import slsa_generator
from tests.support.crafted import GENERATOR, REF, SOURCE, TRAIN, Workshop, changed, refusals

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)
SELF = "builders/mt/.github/workflows/train.yml"


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


# The signer, the builder, the source and the inputs


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


def test_a_branch_that_was_written_like_a_tag(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model, job_workflow_ref=f"{SELF}@refs/heads/main")
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--builder-id", f"{TRAIN}@main")
    assert (code, refusals(verdict)) == (1, ["BuilderError"])
    assert verdict["refusal"]["fix"] == "for a branch write @refs/heads/main"


HASH = "0123456789abcdef0123456789abcdef01234567"
POLICY = """version = 1
[source]
uri = "{source}"
[[builder]]
id = "{builder}"
{refs}
"""


@pytest.mark.parametrize(
    ("called", "refs", "named"),
    [
        # What a policy accepts, as .github/workflows/README.md has it.
        ("refs/tags/v1.2.3", "", None),
        ("refs/tags/v1", 'refs = ["refs/tags/v1"]', None),
        (HASH, 'refs = [{ pattern = "[0-9a-f]{40}" }]', None),
        ("refs/heads/main", 'refs = ["refs/heads/main"]', None),
        # What it refuses, and what it says then.
        ("refs/tags/v1", "", "refs/tags/vX.Y.Z"),
        (HASH, "", "refs/tags/vX.Y.Z"),
        ("refs/heads/main", "", "refs/tags/vX.Y.Z"),
        ("refs/tags/v1", 'refs = ["refs/tags/v1.2.3"]', "refs/tags/v1.2.3"),
        ("refs/tags/v1.2.3", 'refs = ["refs/tags/v1"]', "refs/tags/v1"),
        ("refs/tags/v1.2.3", 'refs = ["v1.2.3"]', "v1.2.3"),
    ],
)
def test_the_first_cause_of_a_refusal_by_reference_names_it(
    workshop: Workshop, called: str, refs: str, named: str | None
) -> None:
    model = workshop.model()
    on = {"job_workflow_ref": f"{SELF}@{called}"}
    evidence = ("--provenance", workshop.train_provenance(model, **on))
    evidence += ("--signature", workshop.sign_model(model, **on))
    text = POLICY.format(source=SOURCE, builder=TRAIN, refs=refs)
    policy = ("--policy", workshop.write("policy.toml", text.encode()))
    code, verdict = workshop.verify(model, *evidence, *policy)
    if named is None:
        assert (code, refusals(verdict)) == (0, [])
        return
    assert code == 1
    for refusal in (step["refusal"] for step in verdict["steps"] if step["refusal"]):
        if refusal["error"] in ("SignerError", "BuilderError"):
            assert (refusal["expected"], refusal["found"]) == (named, called)
            assert "reference" in refusal["message"]
            assert f"{TRAIN}@{called}" in refusal["fix"]
    assert verdict["refusal"]["message"].endswith("at another reference")
    # The same of an option.
    identity = ("--identity", f"{TRAIN}@refs/tags/v9", "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *evidence, *identity)
    assert (code, verdict["refusal"]["found"]) == (1, called)
    assert verdict["refusal"]["expected"] == "refs/tags/v9"


def test_the_generator_is_held_to_full_version_tags(workshop: Workshop) -> None:
    model = workshop.model()
    on = {"job_workflow_ref": GENERATOR.replace("v2.1.0", "v2")}
    provenance = workshop.generator_provenance(model, **on)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--source-uri", SOURCE)
    assert (code, refusals(verdict)) == (1, ["BuilderError"])
    assert verdict["refusal"]["found"] == "refs/tags/v2"
    assert "call the SLSA generator at a full version tag" in verdict["refusal"]["fix"]


@pytest.mark.parametrize("tag", ["v\u0661.2.3", f"v{'9' * 5000}.0.0"])
def test_a_tag_of_strange_digits_is_no_version(workshop: Workshop, tag: str) -> None:
    model = workshop.model()
    provenance = workshop.generator_provenance(model, ref=f"refs/tags/{tag}")
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--source-versioned-tag", "v1")
    assert (code, refusals(verdict)) == (1, ["SourceError"])


# The statement


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("predicateType", "https://slsa.dev/provenance/v0.1", "PredicateTypeError"),
        ("predicateType", "https://slsa.dev/verification_summary/v1", "PredicateTypeError"),
        ("predicateType", "https://slsa.dev/provenance/v0.2", "PredicateTypeError"),
        ("predicateType", 1, "ProvenanceError"),
        ("_type", "https://in-toto.io/Statement/v0.2", "PredicateTypeError"),
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


def test_a_statement_v0_1_around_any_predicate_as_cosign_writes_it(workshop: Workshop) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    older = changed(statement, "_type", "https://in-toto.io/Statement/v0.1")
    data = workshop.sign(older, workshop.token())
    options = ("--provenance", workshop.write("p.json", data), *EXPECTED)
    code, verdict = workshop.verify(model, *options)
    said = [step["found"] for step in verdict["steps"] if step["check"] == "Statement"]
    assert (code, len(said)) == (0, 1)
    assert "v0.1" in said[0]


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
