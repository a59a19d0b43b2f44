"""Whatever a signed statement holds, reading it gives a provenance or a named refusal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_signing.errors import Error
from model_signing.methods import Authenticated
from slsa_for_models.attesting.train_statement import encode
from slsa_for_models.evidence import claims, kinds, subjects
from slsa_for_models.verdict import checks, expectations, together
from slsa_for_models.verdict.result import Accepted, Signed
from tests.support.crafted import (
    Json,
    Workshop,
    generator_statement,
    github_statement,
    tekton_statement,
)

pytestmark = pytest.mark.slow

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2**63),
    st.text(max_size=8),
    st.sampled_from(["", "a" * 64, "git+https://h.test/o/r@x", "refs/tags/v1.0.0", "v1.0.0@x@y"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def paths(node: Any, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [prefix] if prefix else []
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for name, child in items:
        found += paths(child, (*prefix, name))
    return found


def mutate(statement: Json, data: st.DataObject) -> Json:
    changed = copy.deepcopy(statement)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(paths(changed)))
        node: Any = changed
        for name in parents:
            node = node[name]
        if data.draw(st.booleans()):
            node[last] = data.draw(VALUES)
        else:
            del node[last]
        if not changed:
            break
    return changed


@pytest.mark.parametrize("kind", ["generator", "github", "tekton", "train"])
@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_mutated_statements(kind: str, workshop: Workshop, data: st.DataObject) -> None:
    model = workshop.model()
    statement = made(kind, workshop, model)
    payload = encode(mutate(statement, data))
    try:
        read = kinds.read(payload)
    except Error as refusal:
        assert refusal.message
        return
    measured = subjects.measure(model)
    expected = expectations.Expectations(
        source_uri="git+https://h.test/o/r", branch="main", tag="v1", versioned_tag="v1"
    )
    signed = Signed("x", Authenticated(b"", "", "key"), {})
    every = [
        lambda: subjects.check(read.subjects, measured),
        lambda: claims.check_claims(signed.facts, read),
        lambda: checks.check_builder(expected, read, expected.builders),
        lambda: checks.check_source(expected, read),
        lambda: checks.check_ref(expected, read),
        lambda: together.check_inputs({"a": "b"}, [Accepted(signed, read, 1)]),
    ]
    for check in every:
        refused_or_not(check)


def refused_or_not(check: Callable[[], object]) -> None:
    try:
        check()
    except Error as refusal:
        assert refusal.message


_MADE: dict[str, Json] = {}


def made(kind: str, workshop: Workshop, model: Path) -> Json:
    if kind not in _MADE:
        _MADE[kind] = {
            "generator": lambda: generator_statement(model),
            "github": lambda: github_statement(model),
            "tekton": lambda: tekton_statement(model),
            "train": lambda: workshop.train_statement(model, workshop.record(model)),
        }[kind]()
    return _MADE[kind]
