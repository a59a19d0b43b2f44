"""The package's names: one list, which types, `dir` and attribute access follow; used as told."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import slsa_for_models
from model_signing import key_signer, sign
from model_signing.errors import MismatchError, UsageError
from slsa_for_models import (
    BaseModel,
    Expectations,
    GitHubApi,
    Signer,
    SigstoreTrust,
    load_model,
    load_policy,
    policy_from,
    verify,
    workflow,
)
from slsa_for_models.errors import PolicyError, RunError, SourceError, UnsafeModelError
from tests.support.crafted import COMMIT, DATASET, REF, SOURCE, TRAIN, Workshop
from tests.support.material import ROOT, new_key, private_pem, public_pem

EXPORTED = (
    "Accepted BaseModel Builder Error Expectations FORMATS GitHubApi Pattern Signed Signer "
    "SigstoreTrust Step SummaryVerifier Verdict load_model load_policy policy_from verified "
    "verify workflow"
)
EXPECTED = Expectations(source_uri=SOURCE).stating(signer=Signer(identity=f"{TRAIN}@{REF}"))


def test_the_names_promised_are_the_names_there() -> None:
    assert slsa_for_models.__all__ == dir(slsa_for_models)
    assert " ".join(slsa_for_models.__all__) == EXPORTED
    for name in EXPORTED.split():
        assert getattr(slsa_for_models, name) is not None


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(slsa_for_models.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname  # what is exported again, to a type checker
    }
    assert typed == slsa_for_models._HOME


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"'slsa_for_models' has no attribute 'Result'"):
        _ = slsa_for_models.Result


@pytest.mark.parametrize(
    ("used", "others"),
    [
        ("", {"model_signing", "cryptography"}),
        ("Error Step FORMATS", {"cryptography", "sigstore", "numpy"}),
        ("Expectations load_policy Verdict BaseModel GitHubApi", {"sigstore", "requests", "numpy"}),
        ("verify load_model", {"sigstore", "requests", "numpy"}),
    ],
)
def test_a_name_is_loaded_when_it_is_used(used: str, others: set[str]) -> None:
    script = (
        "import sys, slsa_for_models\n"
        f"for name in {used!r}.split(): getattr(slsa_for_models, name)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not others & set(done.stdout.split())


def test_a_model_that_our_workflow_made(workshop: Workshop) -> None:
    model = workshop.model()
    signature, provenance = workshop.sign_model(model), workshop.train_provenance(model)
    record = workshop.record_file(model)
    verdict = verify(
        str(model),
        EXPECTED.stating(dataset_sha256=DATASET, minimum_level=3),
        signature=str(signature),
        provenance=[str(provenance)],
        training_record=str(record),
        trust=SigstoreTrust(trust_config=workshop.trust_config, offline=True),
    ).require()
    assert (verdict.level, verdict.levels, verdict.exit_code) == (3, {"train.yml": 3}, 0)
    assert (verdict.model.name, verdict.dataset) == ("model.pth", DATASET)
    assert verdict.signer is not None and verdict.signer.facts["commit"] == COMMIT
    assert [item.provenance.source_commit for item in verdict.accepted] == [COMMIT]
    assert verdict.record is not None and verdict.record.dataset.files[0].name == "data.csv"
    assert [name for name, _ in verdict.evidence] == ["p.json", "model.pth.sig"]
    assert (verdict.base_models, verdict.base_levels) == ({}, ())
    assert {step.outcome for step in verdict.steps} == {"passed", "info"}


def test_a_policy_is_made_of_a_verdict_and_read_again(workshop: Workshop) -> None:
    model = workshop.model()
    evidence = {
        "signature": workshop.sign_model(model),
        "trust": SigstoreTrust(trust_config=workshop.trust_config, offline=True),
    }
    unproven = verify(model, EXPECTED, **evidence).require()
    with pytest.raises(PolicyError, match="accepted provenance"):
        policy_from(unproven, EXPECTED)
    evidence["provenance"] = [workshop.train_provenance(model)]
    made = workshop.folder / "made.toml"
    made.write_text(policy_from(verify(model, EXPECTED, **evidence), EXPECTED))
    assert verify(model, load_policy(str(made)), **evidence)
    other = EXPECTED.stating(branch="other")
    refused = verify(model, other, **evidence)
    assert not refused
    with pytest.raises(SourceError, match="another branch"):
        policy_from(refused, other)


def test_a_policy_names_the_key_that_signed(workshop: Workshop) -> None:
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    sign(model, signature, key_signer(private_pem(key)))
    public = public_pem(key)
    workshop.write("signer.pub", public)
    trusted = (workflow(f"{TRAIN}@{REF}"),)
    by_key = Expectations(source_uri=SOURCE, builders=trusted, signer=Signer(public_key=public))
    evidence = {
        "signature": signature,
        "provenance": [workshop.train_provenance(model)],
        "trust": SigstoreTrust(trust_config=workshop.trust_config, offline=True),
    }
    verdict = verify(model, by_key, **evidence).require()
    with pytest.raises(UsageError, match="name the file of the key"):
        policy_from(verdict, by_key)
    made = workshop.write("made.toml", policy_from(verdict, by_key, "signer.pub").encode())
    assert verify(model, load_policy(made), **evidence)


def test_a_base_model_with_the_files_beside_it(workshop: Workshop) -> None:
    base = workshop.model(b"base", "base.pth")
    signature = workshop.sign_model(base)
    provenance = workshop.train_provenance(base, "base.pth.provenance.sigstore.json")
    assert BaseModel.beside(str(base)) == BaseModel(base, signature, (provenance,))
    assert BaseModel.beside(base, EXPECTED).expected == EXPECTED


def test_a_run_is_asked_about_only_where_that_is_wanted(workshop: Workshop) -> None:
    model = workshop.model()
    options = {
        "provenance": [workshop.train_provenance(model)],
        "trust": SigstoreTrust(trust_config=workshop.trust_config, offline=True),
    }
    assert verify(model, EXPECTED, **options)
    nobody = GitHubApi("http://127.0.0.1:1")
    with pytest.raises(RunError, match="cannot be asked"):
        verify(model, EXPECTED, **options, run_conclusion=nobody).require()


def test_a_builder_is_named_as_certificates_do() -> None:
    assert workflow(f"{TRAIN}@{REF}").accepts(f"{TRAIN}@{REF}")
    assert not workflow(f"{TRAIN}@{REF}").accepts(f"{TRAIN}@refs/tags/v1.2.4")


def test_a_pickle_is_not_loaded_by_accident(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="pickle"):
        load_model(str(tmp_path / "pytorch_full_model.pth"), "m.sig", lambda data: data)


@pytest.mark.parametrize("document", ["README.md", "slsa_for_models/README.md"])
def test_the_lines_of_a_document(
    document: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand there; but that the repository and its Sigstore are the sandbox's."""
    text = (ROOT / document).read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = lines.replace("https://github.com/ORG/REPO/.github/workflows/FILE.yml@", f"{TRAIN}@")
    lines = lines.replace("github.com/ORG/REPO", SOURCE)
    trust = SigstoreTrust(trust_config=workshop.trust_config, offline=True)
    monkeypatch.setitem(verify.__kwdefaults__, "trust", trust)
    model = workshop.model(name="model.keras")
    evidence = {
        "signature": workshop.sign_model(model),
        "provenance": [workshop.generator_provenance(model, name="model.keras.intoto.jsonl")],
    }
    verdict = verify(model, EXPECTED, **evidence)
    workshop.write("policy.toml", policy_from(verdict, EXPECTED).encode())
    monkeypatch.chdir(workshop.folder)
    exec(lines, {})
    model.write_bytes(b"Weights")
    with pytest.raises(MismatchError, match="not what was signed"):
        exec(lines, {})
