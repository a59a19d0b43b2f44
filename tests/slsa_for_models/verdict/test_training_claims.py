"""What training says of itself: the record and the data set."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from tests.support.crafted import (
    DATASET,
    SOURCE,
    TRAIN,
    Json,
    Workshop,
    generator_statement,
    refusals,
)

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


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


def test_records_that_nobody_attested_or_of_another_model(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    unattested = workshop.record_file(model, size=18)
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


def test_data_set_expected_where_no_provenance_names_one(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.generator_provenance(model)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--dataset-digest", DATASET)
    assert (code, refusals(verdict)) == (1, ["DependencyMismatchError"])
    refusal = verdict["refusal"]
    assert refusal["message"] == "no evidence names a data set, and one is expected"
    assert (refusal["expected"], refusal["found"]) == (DATASET, "no data set")


def test_what_training_merely_claims_is_shown_as_that(workshop: Workshop) -> None:
    model = workshop.model()
    base = workshop.sign_model(workshop.model(b"base", "base.pth"))
    lock = workshop.write("lock.txt", b"numpy==2.4.6 --hash=sha256:00\n")
    digest = sha256(lock.read_bytes()).hexdigest()
    record = json.loads(workshop.record(model))
    record["environment"]["requirements_sha256"] = digest
    workshop.write("training.json", json.dumps(record).encode())
    made = workshop.folder / "p.json"
    code, _ = workshop.run(
        *("provenance", model, "--training-record", workshop.folder / "training.json"),
        *("--output", made, "--requirements", lock, "--base-model", base),
        *("--identity-token", workshop.token()),
    )
    assert code == 0
    policy = workshop.write(
        "policy.toml",
        f'version = 1\n[build]\ndataset_sha256 = "{DATASET}"\n'
        f'dependencies = {{ requirements = "{digest}" }}\n'.encode(),
    )
    code, verdict = workshop.verify(model, "--provenance", made, *EXPECTED, "--policy", policy)
    assert code == 0
    said = {step["check"]: step["found"] for step in verdict["steps"]}
    assert said["Data set"] == f"data.csv {DATASET} as expected, claimed by the training job"
    assert said["Dependencies"] == f"requirements {digest[:12]}, claimed by the training job"
    assert said["Base model"] == "its files were not given, claimed by the caller"


def test_a_lock_is_not_put_into_a_repository_that_may_not_have_it(workshop: Workshop) -> None:
    """A workflow of one's own that uses the actions: its repository has no lock of ours."""
    model, lock = workshop.model(), workshop.write("pytorch.txt", b"torch==2.13.0\n")
    record = json.loads(workshop.record(model))
    record["environment"]["requirements_sha256"] = sha256(lock.read_bytes()).hexdigest()
    workshop.write("training.json", json.dumps(record).encode())
    own = "octo-org/models/.github/workflows/release.yml@refs/heads/main"
    made = workshop.folder / "predicate.json"
    code, _ = workshop.run(
        *("provenance", model, "--training-record", workshop.folder / "training.json"),
        *("--output", made, "--requirements", lock, "--predicate-only"),
        *("--identity-token", workshop.token(job_workflow_ref=own)),
    )
    assert code == 0
    named = json.loads(made.read_bytes())["buildDefinition"]["resolvedDependencies"]
    (requirements,) = (one for one in named if one["name"] == "requirements")
    assert requirements["annotations"]["claimedBy"] == "training job"
    assert "uri" not in requirements
