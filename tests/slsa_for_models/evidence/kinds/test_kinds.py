"""The registry of kinds, and everything that lists them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import slsa_for_models
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence.kinds import KINDS

PACKAGE = Path(slsa_for_models.__file__).parent
DOCUMENT = PACKAGE.parent / "docs/policy.md"
NAMES = [kind.name for kind in KINDS]
EVIDENCE = ["signature", *NAMES, "vsa"]


def test_a_policy_may_require_every_kind() -> None:
    schema = json_schema.load("policy.v1.json")
    assert schema["properties"]["require"]["properties"]["evidence"]["items"]["enum"] == EVIDENCE


def test_the_document_lists_every_kind() -> None:
    (line,) = re.findall(r"^- \*\*Kinds of evidence\*\*: (.*?)\.\s", DOCUMENT.read_text(), re.M)
    assert re.findall(r"`([^`]+)`", line) == EVIDENCE


def test_a_name_and_a_build_type_are_of_one_kind() -> None:
    types = [name for kind in KINDS for name in kind.build_types]
    assert len({*NAMES}) == len(NAMES) and len({*types}) == len(types)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_name_of_a_kind_is_compared(path: Path) -> None:
    """What is true of a kind is a trait of it: a fifth kind must not be forgotten anywhere."""
    compared = [
        constant.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant)
    ]
    assert set(NAMES) & {value for value in compared if isinstance(value, str)} == set()
