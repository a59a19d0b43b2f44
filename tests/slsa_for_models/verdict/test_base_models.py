"""Base models: verified recursively where their files are given; cycles refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle
from slsa_for_models.verdict import expectations, verification
from slsa_for_models.verdict.base_models import BaseModel
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Evidence, Verdict
from tests.support.crafted import SOURCE, TRAIN, Json, Workshop, refusals

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


def train(workshop: Workshop, model: Path, *bases: Path, **on: str) -> tuple[Path, Path]:
    """Signature and provenance beside the model, as our workflow names them."""
    signature = workshop.sign_model(model, **on)
    statement = workshop.train_statement(model, workshop.record(model), **on)
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    for base in bases:
        payload = bundle.parse(base.with_name(f"{base.name}.sig").read_bytes()).payload
        dependencies.append(
            {"name": "base-model", "digest": {"sha256": sha256(payload).hexdigest()}}
        )
    provenance = model.with_name(f"{model.name}.provenance.sigstore.json")
    provenance.write_bytes(workshop.sign(statement, workshop.token(**on)))
    return signature, provenance


def verify(workshop: Workshop, model: Path, *options: object) -> tuple[int, Json]:
    return workshop.verify(
        model,
        *("--signature", model.with_name(f"{model.name}.sig")),
        *("--provenance", model.with_name(f"{model.name}.provenance.sigstore.json")),
        *(options if "--policy" in options else (*EXPECTED, *options)),
    )


@pytest.mark.parametrize("digest", [{}, {"sha512": "e" * 128}])
@pytest.mark.parametrize("required", ["true", "false"])
def test_a_base_model_without_a_digest_to_compare(
    workshop: Workshop, digest: dict[str, str], required: str
) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    dependencies.append({"name": "base-model", "digest": digest})
    provenance = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    text = f'version = 1\n[[builder]]\nid = "{TRAIN}"\n[require]\nbase_models = {required}\n'
    options = ("--source-uri", SOURCE, "--policy", workshop.write("policy.toml", text.encode()))
    code, verdict = workshop.verify(model, "--provenance", provenance, *options)
    assert (code, refusals(verdict)) == (1, ["LineageError"])


@pytest.fixture
def chain(workshop: Workshop) -> list[Path]:
    """Three models, each trained from the one before."""
    models = [workshop.model(name.encode(), f"{name}.pth") for name in ("first", "second", "third")]
    train(workshop, models[0])
    train(workshop, models[1], models[0])
    train(workshop, models[2], models[1])
    return models


def test_three_generations(workshop: Workshop, chain: list[Path]) -> None:
    first, second, third = chain
    code, verdict = verify(workshop, third, "--base-model", second, "--base-model", first)
    assert (code, refusals(verdict)) == (0, [])
    subjects = {step["subject"].split(":")[0] for step in verdict["steps"]}
    assert {"second.pth", "first.pth"} <= subjects
    of_third = ("--resource-uri", "https://models.example/third")  # and of no base model
    _, verdict = verify(workshop, third, "--base-model", second, "--base-model", first, *of_third)
    assert refusals(verdict) == ["ChainError"]


def test_base_models_that_are_not_given_are_named(workshop: Workshop, chain: list[Path]) -> None:
    _, second, third = chain
    for options in ((), ("--base-model", second)):
        code, verdict = verify(workshop, third, *options)
        assert code == 0
        missing = [step for step in verdict["steps"] if step["check"] == "Base model"]
        assert [step["outcome"] for step in missing] == ["not checked"]


def test_base_models_that_a_policy_requires(workshop: Workshop, chain: list[Path]) -> None:
    first, second, third = chain
    policy = workshop.folder / "policy.toml"
    policy.write_text(
        f'version = 1\n[source]\nuri = "{SOURCE}"\n[[builder]]\nid = "{TRAIN}"\n'
        "[require]\nbase_models = true\n"
    )
    options = ("--policy", policy, "--base-model", second)
    code, verdict = verify(workshop, third, *options)
    assert (code, refusals(verdict)) == (1, ["LineageError"])
    assert verify(workshop, third, *options, "--base-model", first)[0] == 0


def test_a_changed_base_model(workshop: Workshop, chain: list[Path]) -> None:
    first, second, third = chain
    first.write_bytes(b"poisoned")
    code, verdict = verify(workshop, third, "--base-model", second, "--base-model", first)
    assert code == 1
    assert refusals(verdict)[0] == "MismatchError"


def test_a_base_model_with_its_own_policy(workshop: Workshop) -> None:
    base, model = workshop.model(b"base", "base.pth"), workshop.model()
    train(workshop, base, repository="other-org/base")
    train(workshop, model, base)
    code, verdict = verify(workshop, model, "--base-model", base)
    assert code == 1
    assert refusals(verdict)[0] == "SignerError"
    policy = workshop.folder / "base.toml"
    policy.write_text(
        f'version = 1\n[source]\nuri = "github.com/other-org/base"\n[[builder]]\nid = "{TRAIN}"\n'
    )
    code, verdict = verify(workshop, model, "--base-model", base, "--base-policy", policy)
    assert (code, refusals(verdict)) == (0, [])


def test_a_base_model_that_nobody_names(workshop: Workshop, chain: list[Path]) -> None:
    first, _, third = chain
    code, verdict = verify(workshop, third, "--base-model", first)
    assert (code, refusals(verdict)) == (1, ["LineageError"])


def test_a_base_model_that_is_given_twice(workshop: Workshop, chain: list[Path]) -> None:
    first, second, _ = chain
    code, error = verify(workshop, second, "--base-model", first, "--base-model", first)
    assert (code, error["error"]) == (1, "LineageError")


def test_a_base_model_that_two_name(workshop: Workshop, chain: list[Path]) -> None:
    first, second, _ = chain
    model = workshop.model(b"merged", "merged.pth")
    train(workshop, model, first, second)
    code, verdict = verify(workshop, model, "--base-model", second, "--base-model", first)
    assert (code, refusals(verdict)) == (0, [])
    verified = [step for step in verdict["steps"] if step["subject"] == "first.pth: first.pth.sig"]
    assert len(verified) == 2  # the two steps of one signature, once


def test_cycles(workshop: Workshop) -> None:
    """The digest of a signature does not cover provenance, so that a cycle can be made."""
    one, two = workshop.model(b"one", "one.pth"), workshop.model(b"two", "two.pth")
    train(workshop, one)
    train(workshop, two, one)
    train_again = workshop.train_statement(one, workshop.record(one))
    payload = bundle.parse(two.with_name("two.pth.sig").read_bytes()).payload
    dependencies = train_again["predicate"]["buildDefinition"]["resolvedDependencies"]
    dependencies.append({"name": "base-model", "digest": {"sha256": sha256(payload).hexdigest()}})
    one.with_name("one.pth.provenance.sigstore.json").write_bytes(
        workshop.sign(train_again, workshop.token())
    )
    code, verdict = verify(workshop, two, "--base-model", one)
    assert code == 1
    assert refusals(verdict) == ["LineageError"]
    assert "ancestor" in verdict["refusal"]["message"]


def test_a_model_that_is_its_own_base(workshop: Workshop) -> None:
    model = workshop.model()
    train(workshop, model)
    _, provenance = train(workshop, model, model)
    assert provenance.exists()
    payload = bundle.parse(model.with_name("model.pth.sig").read_bytes()).payload
    assert sha256(payload).hexdigest() in bundle.parse(provenance.read_bytes()).payload.decode()
    code, verdict = verify(workshop, model)
    assert (code, refusals(verdict)) == (1, ["LineageError"])


def test_a_base_models_signature_that_is_exchanged_meanwhile(
    workshop: Workshop, chain: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Provenance names the first model; between choosing and verifying it becomes another."""
    first, second, _ = chain
    (workshop.folder / "other").mkdir()
    other = workshop.model(b"other", "other/first.pth")
    train(workshop, other)
    verified = verification.verify_one

    def swap(evidence: Evidence, *others: Any) -> Verdict:
        if str(evidence.model) == str(first):
            for suffix in ("", ".sig", ".provenance.sigstore.json"):
                other.with_name(f"first.pth{suffix}").replace(f"{first}{suffix}")
        return verified(evidence, *others)

    monkeypatch.setattr(verification, "verify_one", swap)
    code, verdict = verify(workshop, second, "--base-model", first)
    assert (code, refusals(verdict)) == (1, ["LineageError"])
    assert "changed while" in verdict["refusal"]["message"]


def test_evidence_is_looked_for_beside_the_base_model(workshop: Workshop) -> None:
    model, base = workshop.model(), workshop.model(b"base", "base.pth")
    train(workshop, base)
    train(workshop, model, base)
    base.with_name("base.pth.provenance.sigstore.json").unlink()
    code, error = verify(workshop, model, "--base-model", base)
    assert (code, error["error"]) == (1, "LineageError")
    workshop.generator_provenance(base, name="base.pth.intoto.jsonl")
    code, verdict = verify(workshop, model, "--base-model", base)
    assert (code, refusals(verdict)) == (1, ["BuilderError"])  # the generator was not named


def test_a_base_model_that_several_have_signed(workshop: Workshop) -> None:
    """As in a registry: whoever may attach a signature does not make the model unusable."""
    model, base = workshop.model(), workshop.model(b"base", "base.pth")
    train(workshop, base)
    train(workshop, model, base)
    signature = base.with_name("base.pth.sig")
    other = workshop.sign_model(base, repository="somebody/else").read_bytes()
    train(workshop, base)
    assert signature.read_bytes() != other
    signature.write_bytes(other + b"\n" + signature.read_bytes())
    assert verify(workshop, model, "--base-model", base)[0] == 0
    signature.write_bytes(other)
    assert verify(workshop, model, "--base-model", base)[0] == 1


def test_levels_of_base_models_in_a_summary(workshop: Workshop, chain: list[Path]) -> None:
    expected = Expectations(
        source_uri=expectations.source_uri(SOURCE),
        builders=(expectations.builder_from_option(TRAIN),),
    )
    first, second, third = map(BaseModel.beside, chain)
    trust = SigstoreTrust(trust_config=workshop.trust_config, offline=True)
    for bases, levels in (((first, second), (3, 3)), ((second,), None), ((), None)):
        verdict = verification.verify(
            third.model,
            expected,
            signature=third.signature,
            provenance=third.provenance,
            base_models=bases,
            trust=trust,
        )
        assert verdict.require().base_levels == levels
        names = {base.model.name for base in verdict.base_models.values()}
        assert names == {base.model.name for base in bases}
