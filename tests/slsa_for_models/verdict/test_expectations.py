"""Expectations as programs state them: in one step, or more on top of a policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_signing.errors import UsageError
from slsa_for_models.verdict import policy_file
from slsa_for_models.verdict.expectations import (
    GENERATOR,
    Expectations,
    Pattern,
    Signer,
    shown,
    workflow,
)
from tests.support.crafted import REF, SOURCE, TRAIN

IDENTITY = f"{TRAIN}@{REF}"


@pytest.mark.parametrize("form", [SOURCE, f"https://{SOURCE}", f"git+https://{SOURCE}"])
def test_a_repository_in_any_form_is_the_same(form: str) -> None:
    assert Expectations(source_uri=form) == Expectations(source_uri=f"git+https://{SOURCE}")
    assert Expectations().stating(source_uri=form) == Expectations(source_uri=form)


@pytest.mark.parametrize("form", ["octo-org/models", f"{SOURCE}.git", f"{SOURCE}@main", "x"])
def test_what_is_no_repository_is_no_expectation(form: str) -> None:
    with pytest.raises(UsageError, match="not a repository"):
        Expectations(source_uri=form)


def test_a_pattern_of_repositories_stays_one() -> None:
    assert Expectations(source_uri=Pattern("x")).source_uri == Pattern("x")


def test_more_is_stated_of_what_is_open() -> None:
    first = Expectations(branch="main")
    second = first.stating(source_commit="a" * 40, minimum_level=2, inputs={}, tag=None)
    assert second == Expectations(branch="main", source_commit="a" * 40, minimum_level=2)
    assert second.stating(branch="main", minimum_level=2) == second


def test_what_is_stated_already_cannot_become_something_else(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'version = 1\n[source]\nbranch = "main"\n[build]\nrunners=["github-hosted"]\n'
    )
    stated = policy_file.load_policy(policy)
    assert stated.stating(branch="main", runners=("github-hosted",)) == stated
    for more in ({"branch": "other"}, {"branch": Pattern("main")}, {"runners": ("self-hosted",)}):
        for expected in (stated, Expectations(branch="main").stating(runners=("a",))):
            with pytest.raises(UsageError, match="contradicts") as raised:
                expected.stating(**more)
            assert raised.value.where == next(iter(more))


def test_a_misspelt_expectation_is_none() -> None:
    for name in ("source", "stated", "policy_sha256"):
        with pytest.raises(UsageError, match="not an expectation") as raised:
            Expectations().stating(**{name: "x"})
        assert raised.value.found == name


def test_a_workflow_that_signs_speaks_for_itself_too() -> None:
    signer = Signer(identity=IDENTITY)
    assert Expectations().stating(signer=signer).builders == (GENERATOR, workflow(IDENTITY))
    trusted = (workflow(f"{TRAIN}@refs/heads/main"),)
    for expected in (
        Expectations(builders=trusted).stating(signer=signer),
        Expectations().stating(signer=signer, builders=trusted),
    ):
        assert expected.builders == trusted
    person = Signer(identity="dev@octo.example", issuer="https://accounts.example")
    assert Expectations().stating(signer=person).builders == (GENERATOR,)


@pytest.mark.parametrize(
    "identity", [TRAIN, f"{TRAIN}@", f"{TRAIN}@a@b", SOURCE, "dev@octo.example", ""]
)
def test_what_is_no_workflow_at_a_reference(identity: str) -> None:
    with pytest.raises(UsageError, match="not a workflow at a git reference"):
        workflow(identity)


def test_every_expectation_is_shown_in_the_words_of_policies(tmp_path: Path) -> None:
    """Never as Python writes its own values."""
    (tmp_path / "base.toml").write_text('version = 1\n[source]\nbranch = {pattern = "r.*"}\n')
    (tmp_path / "policy.toml").write_text(
        """version = 1
[require]
base_models = true
[[base_model]]
policy = "base.toml"
[build]
inputs = {a = {pattern = "b"}}
metrics = {test_accuracy = {minimum = 0.5}}
[vsa]
max_age = "30d"
[[vsa.verifier]]
id = "x"
identity = {pattern = "a.*"}
issuer = "https://x.example"
"""
    )
    applied = policy_file.load_policy(tmp_path / "policy.toml").applied()
    said = {name: shown(value) for name, value in applied.items()}
    assert said["base_models"] == "true"
    assert said["summary_age"] == "30d"
    assert said["inputs"] == "a=pattern b"
    assert "branch: pattern r.*" in said["base_policies"]
    assert not [text for text in said.values() if re.search(r"\w\(\w+=|None|frozenset", text)]
