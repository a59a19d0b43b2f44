"""What pieces of evidence hold one by one, but not together."""

from __future__ import annotations

import dataclasses

import pytest

from model_signing import api
from model_signing.methods.key import key_signer
from slsa_for_models import Expectations, Signer, verify
from slsa_for_models.errors import ChainError
from slsa_for_models.evidence.kinds import slsa_generator
from slsa_for_models.verdict import together
from tests.support.crafted import (
    REF,
    SOURCE,
    TRAIN,
    Workshop,
    generator_statement,
    github_statement,
    new_key,
    private_pem,
    public_pem,
    refusals,
)

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


def test_provenance_of_another_model(workshop: Workshop) -> None:
    model, other = workshop.model(), workshop.model(b"other", "other.pth")
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(other), *EXPECTED),
    )
    assert (code, refusals(verdict)) == (1, ["SubjectError"])


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


def test_a_key_says_nothing_about_the_source_or_the_resource(workshop: Workshop) -> None:
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
    for option in (("--source-uri", SOURCE), ("--resource-uri", "https://models.example/m")):
        code, verdict = workshop.verify(model, *evidence, *option)
        assert (code, refusals(verdict)) == (1, ["ChainError"])
    # A policy says what a summary has to be if there is one; an option asks for one.
    policy = b'version = 1\n[vsa]\nresource_uri = "https://models.example/m"\n'
    both = (*evidence, "--policy", workshop.write("policy.toml", policy))
    assert workshop.verify(model, *both)[0] == 0
    assert workshop.verify(model, *both, *option)[0] == 1


ONLY_PROVENANCE = {
    "source_uri": SOURCE,
    "source_commit": "c" * 40,
    "branch": "main",
    "tag": "v1",
    "versioned_tag": "v1",
    "inputs": {"model": "pytorch_model.pth"},
    "repository_id": "1001",
    "owner_id": "2002",
    "visibility": "public",
    "events": ("push",),
    "environment": "release",
}


@pytest.mark.parametrize("field", ONLY_PROVENANCE)
def test_what_only_provenance_says_is_not_met_by_a_signature_alone(
    workshop: Workshop, field: str
) -> None:
    key = new_key()
    model = workshop.model()
    api.sign(model, workshop.folder / "m.sig", key_signer(private_pem(key)))
    expected = Expectations(signer=Signer(public_key=public_pem(key)))
    alone = verify(model, expected, signature=workshop.folder / "m.sig")
    assert alone.verified
    more = expected.stating(**{field: ONLY_PROVENANCE[field]})
    verdict = verify(model, more, signature=workshop.folder / "m.sig")
    assert isinstance(verdict.refusal, ChainError)
    assert verdict.refusal.expected == field.replace("_", " ")


def test_an_expectation_is_said_by_provenance_unless_it_is_known_not_to_be() -> None:
    """So a new one is refused where there is no provenance, and not passed over."""
    fields = {field.name for field in dataclasses.fields(Expectations) if field.compare}
    assert fields - together.COMPARED_ELSEWHERE == set(ONLY_PROVENANCE)
    assert fields > together.COMPARED_ELSEWHERE


# Inputs: of the workflow that trained, called by another one

BUILDERS = ("--builder-id", f"{TRAIN}@{REF}", "--builder-id", slsa_generator.BUILDER_ID)


@pytest.mark.parametrize(
    ("event", "inputs", "code"),
    [
        ("push", ["runner=ubuntu-latest", "model=pytorch_model.pth"], 0),
        ("push", ["runner=mine"], 1),
        ("push", ["release=yes"], 1),
        ("workflow_dispatch", ["runner=ubuntu-latest"], 0),
        # The generator says epochs=6 and release=yes of the workflow that calls.
        ("workflow_dispatch", ["runner=ubuntu-latest", "release=yes"], 0),
        ("workflow_dispatch", ["release=no"], 1),
        ("workflow_dispatch", ["runner=mine"], 1),
        ("workflow_dispatch", ["unknown=1"], 1),
    ],
)
def test_inputs_are_compared_with_the_provenance_that_states_them(
    workshop: Workshop, event: str, inputs: list[str], code: int
) -> None:
    model = workshop.model()
    options = [word for item in inputs for word in ("--build-workflow-input", item)]
    found, verdict = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model, event_name=event)),
        *("--provenance", workshop.generator_provenance(model, event_name=event)),
        *("--source-uri", SOURCE, *BUILDERS, *options),
    )
    assert (found, refusals(verdict)) == (code, ["ParameterError"][:code])


def test_the_caller_has_an_input_of_the_same_name(workshop: Workshop) -> None:
    """What the event gave the calling workflow is not what that gave the one that trained."""
    model = workshop.model()
    statement = generator_statement(model)
    payload = statement["predicate"]["invocation"]["environment"]["github_event_payload"]
    payload["inputs"] = {"runner": "mine"}
    options = (
        *("--provenance", workshop.generator_provenance(model, statement)),
        *("--source-uri", SOURCE, *BUILDERS),
    )
    train = ("--provenance", workshop.train_provenance(model))
    for wanted, code in (("runner=ubuntu-latest", 0), ("runner=mine", 1)):
        found, _ = workshop.verify(model, *options, *train, "--build-workflow-input", wanted)
        assert found == code
    # Dispatched itself, it has no other inputs than those of the event.
    own = {
        "repository": "builders/mt",
        "workflow": ".github/workflows/train.yml",
    }
    statement = generator_statement(model, **own)
    payload = statement["predicate"]["invocation"]["environment"]["github_event_payload"]
    payload["inputs"] = {"runner": "mine"}
    options = (
        *("--provenance", workshop.generator_provenance(model, statement, **own)),
        *("--provenance", workshop.train_provenance(model, **own)),
        *("--source-uri", "github.com/builders/mt", *BUILDERS),
    )
    code, verdict = workshop.verify(
        model, *options, "--build-workflow-input", "runner=ubuntu-latest"
    )
    assert (code, refusals(verdict)) == (1, ["ParameterError"])


def test_no_provenance_states_inputs(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.generator_provenance(model, event_name="push")
    code, verdict = workshop.verify(
        model,
        *("--provenance", provenance, "--source-uri", SOURCE),
        *("--build-workflow-input", "runner=ubuntu-latest"),
    )
    assert (code, refusals(verdict)) == (1, ["ParameterError"])
    assert verdict["refusal"]["found"] == "no inputs"
    assert "another" not in verdict["refusal"]["message"]
