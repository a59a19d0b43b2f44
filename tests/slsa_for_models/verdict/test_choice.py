"""Which attestations count where files hold several: decided over all evidence together."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from tests.support.crafted import (
    SOURCE,
    TRAIN,
    Json,
    Workshop,
    github_statement,
    refusals,
)

OWN = {"job_workflow_ref": "octo-org/models/.github/workflows/release.yml@refs/heads/main"}
IDENTITY = ("--identity", f"https://github.com/{OWN['job_workflow_ref']}", "--source-uri", SOURCE)


NOT_NEEDED = "not relied on: nothing more is needed; its signature was not looked at"


def attested(workshop: Workshop, model: Path, **on: str) -> bytes:
    on = {**OWN, **on}
    return workshop.sign(github_statement(model, **on), workshop.token(**on))


def lines(workshop: Workshop, name: str, *items: bytes) -> Path:
    return workshop.write(name, b"\n".join(items) + b"\n")


def shown(verdict: Json, title: str) -> list[str]:
    return [step["found"] for step in verdict["steps"] if step["check"] == title]


def test_the_line_of_the_run_that_signed_whatever_the_order(workshop: Workshop) -> None:
    model = workshop.model()
    runs = [attested(workshop, model, run_id=number) for number in "123"]
    signature = workshop.sign_model(model, **OWN, run_id="2")
    for order in itertools.permutations(runs):
        provenance = lines(workshop, "a.jsonl", *order)
        options = ("--provenance", provenance, "--signature", signature, *IDENTITY)
        code, verdict = workshop.verify(model, *options)
        assert (code, refusals(verdict)) == (0, [])
        assert verdict["chain"]["run"].endswith("/runs/2/attempts/1")
        assert shown(verdict, "Other attestation") == [NOT_NEEDED] * 2
    signature = workshop.sign_model(model, **OWN, run_id="4")
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (1, ["ChainError"])


def test_files_whose_common_run_is_in_another_line_of_each(workshop: Workshop) -> None:
    model = workshop.model()
    first = [attested(workshop, model, run_id=number) for number in "12"]
    by_train = [
        workshop.sign(github_statement(model, run_id=number), workshop.token(run_id=number))
        for number in "23"
    ]
    builders = ("--builder-id", IDENTITY[1], "--builder-id", TRAIN, "--source-uri", SOURCE)
    for one, two in itertools.product(
        itertools.permutations(first), itertools.permutations(by_train)
    ):
        files = lines(workshop, "1.jsonl", *one), lines(workshop, "2.jsonl", *two)
        for order in (files, files[::-1]):
            options = [word for path in order for word in ("--provenance", path)]
            code, verdict = workshop.verify(model, *options, *builders)
            assert (code, refusals(verdict)) == (0, [])
            assert verdict["chain"]["run"].endswith("/runs/2/attempts/1")


def test_what_is_required_may_stand_in_one_file(workshop: Workshop) -> None:
    """And the dependency expected decides between attempts of one run."""
    model = workshop.model()

    def trained(attempt: str, lock: str) -> bytes:
        statement = workshop.train_statement(model, workshop.record(model), run_attempt=attempt)
        made = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        made.append({"name": "lock", "digest": {"sha256": lock * 64}})
        return workshop.sign(statement, workshop.token(run_attempt=attempt))

    by_generator = workshop.generator_provenance(model).read_bytes()
    policy = workshop.write(
        "policy.toml",
        f"""
version = 1
[source]
uri = "{SOURCE}"
[[builder]]
id = "{TRAIN}"
[[builder]]
id = "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml"
[build]
dependencies = {{ lock = "{"d" * 64}" }}
[require]
evidence = ["train", "slsa-github-generator"]
""".encode(),
    )
    items = [trained("1", "e"), trained("2", "d"), trained("3", "f"), by_generator]
    for order in list(itertools.permutations(items))[::5]:
        provenance = lines(workshop, "a.jsonl", *order)
        code, verdict = workshop.verify(model, "--provenance", provenance, "--policy", policy)
        assert (code, refusals(verdict)) == (0, [])
    provenance = lines(workshop, "a.jsonl", items[0], items[2], by_generator)
    code, verdict = workshop.verify(model, "--provenance", provenance, "--policy", policy)
    assert (code, refusals(verdict)) == (1, ["DependencyMismatchError"])


def test_what_only_claims_to_fit_is_left_out(workshop: Workshop) -> None:
    """Lines that say all that is expected, and that nobody signed, come first."""
    model = workshop.model()
    signature = workshop.sign_model(model, **OWN, run_id="2")
    right, other = (attested(workshop, model, run_id=number) for number in "21")
    forged = json.loads(right)
    fake = json.loads(other)["dsseEnvelope"]["signatures"]
    forged["dsseEnvelope"]["signatures"] = fake
    lies = [json.dumps({**forged, "number": None}).encode(), *[json.dumps(forged).encode()] * 30]
    options = ("--signature", signature, *IDENTITY)
    provenance = lines(workshop, "a.jsonl", *lies, right)
    code, verdict = workshop.verify(model, "--provenance", provenance, *options)
    assert (code, refusals(verdict)) == (0, [])
    provenance = lines(workshop, "a.jsonl", *lies[1:])
    code, verdict = workshop.verify(model, "--provenance", provenance, *options)
    assert (code, refusals(verdict)[:1]) == (1, ["LogError"])  # logged another signature


def test_a_file_and_its_copy_are_still_one_witness(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = lines(workshop, "a.jsonl", attested(workshop, model))
    copy = lines(workshop, "b.jsonl", provenance.read_bytes())
    options = ("--provenance", provenance, "--provenance", copy, *IDENTITY)
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (1, ["ChainError"])


def test_claims_of_a_models_life_are_signature_and_provenance(workshop: Workshop) -> None:
    model, other = workshop.model(), workshop.model(b"older", "older.pth")
    items = {
        "older model": workshop.sign_model(other, **OWN).read_bytes().strip(),
        "first run": workshop.sign_model(model, **OWN, run_id="1").read_bytes().strip(),
        "second run": workshop.sign_model(model, **OWN, run_id="2").read_bytes().strip(),
        "stranger": workshop.sign_model(model, repository="evil/models").read_bytes().strip(),
        "provenance": attested(workshop, model, run_id="1"),
    }
    for order in list(itertools.permutations(items.values()))[::23]:
        claims = lines(workshop, "claims.jsonl", *order)
        options = ("--signature", claims, "--provenance", claims, *IDENTITY)
        code, verdict = workshop.verify(model, *options)
        assert (code, refusals(verdict)) == (0, [])
        assert verdict["chain"]["run"].endswith("/runs/1/attempts/1")
        assert shown(verdict, "Other signature") == ["not relied on: it holds, too"]
    for names, refused in (
        (("second run", "provenance"), "ChainError"),  # of two runs
        (("stranger", "provenance"), "SignerError"),
        (("older model", "provenance"), "MismatchError"),
        (("provenance", "provenance"), "BundleError"),  # no signature
    ):
        claims = lines(workshop, "claims.jsonl", *(items[name] for name in names))
        code, verdict = workshop.verify(model, *options)
        assert (code, refusals(verdict)) == (1, [refused]), names


def test_a_thousand_attestations_at_most_of_one_model(workshop: Workshop) -> None:
    model = workshop.model()
    right = attested(workshop, model)
    wrong = json.dumps({**json.loads(right), "dsseEnvelope": None}).encode()
    first, second = lines(workshop, "1.jsonl", *[wrong] * 600), lines(workshop, "2.jsonl", right)
    options = ("--provenance", second, *IDENTITY)
    assert workshop.verify(model, *options)[0] == 0
    third = lines(workshop, "3.jsonl", *[wrong] * 400)
    code, verdict = workshop.verify(model, "--provenance", first, "--provenance", third, *options)
    assert "BundleError" in refusals(verdict)
    assert (code, verdict["refusal"]["error"]) == (1, "BundleError")


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 100])
def test_no_blow_up_of_combinations(workshop: Workshop, runs: int) -> None:
    """Every one holds, and none is of the run that signed, or of the dependency expected."""
    model = workshop.model()
    items = []
    for number in range(100):
        on = {**OWN, "run_id": str(number % runs), "run_attempt": str(number)}
        statement = github_statement(model, **on)
        made = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        made.append({"name": "lock", "digest": {"sha256": f"{number:064x}"}})
        items.append(workshop.sign(statement, workshop.token(**on)))
    policy = workshop.write(
        "policy.toml", f'version = 1\n[build]\ndependencies = {{ lock = "{"e" * 64}" }}\n'.encode()
    )
    provenance = lines(workshop, "a.jsonl", *items)
    started = time.process_time()
    options = ("--provenance", provenance, "--policy", policy, *IDENTITY)
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (1, ["DependencyMismatchError"])
    assert time.process_time() - started < 20
