"""Whole verdicts: over everything together, shown step by step, and as programs ask for them."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from model_signing.errors import Error, UsageError
from model_signing.methods.sigstore_trust import SigstoreTrust
from slsa_for_models.errors import SignerError
from slsa_for_models.evidence import json_schema, subjects
from slsa_for_models.verdict import expectations
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Verdict
from slsa_for_models.verdict.table import Step
from slsa_for_models.verdict.verification import verify
from tests.support.crafted import COMMIT, DATASET, REF, SOURCE, TRAIN, Workshop, refusals

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


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
    for shown in ("Inputs", "Code in it", "Command", "Network", "Requirements"):
        assert outcomes.pop(shown) == "info"
    assert set(outcomes.values()) == {"passed"}
    assert verdict["chain"]["run"] == f"https://{SOURCE}/actions/runs/77/attempts/1"
    assert verdict["chain"]["dataset"] == {"name": "data.csv", "sha256": DATASET}
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
    what_ran = {"Command", "Network", "Requirements"}
    more = {"Data set", "Code in it", *what_ran}
    assert shown.keys() == {"Branch or tag", "Inputs", "Required evidence", *more}
    assert shown["Branch or tag"] == "branch main"
    assert shown["Required evidence"] == "none was required; accepted: train"
    assert shown["Data set"] == (
        f"data.csv {DATASET} claimed by the training job; expect it with --dataset-digest"
    )
    expected = ("--dataset-digest", DATASET, "--minimum-level", "3", "--source-branch", "main")
    expected = (*expected, "--build-workflow-input", "epochs=6", "--code", "allowed")
    code, verdict = workshop.verify(
        model, "--provenance", workshop.train_provenance(model), *EXPECTED, *expected
    )
    assert code == 0
    rest = [step for step in verdict["steps"] if step["check"] not in what_ran]
    assert {step["outcome"] for step in rest} == {"passed", "not checked"}


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
