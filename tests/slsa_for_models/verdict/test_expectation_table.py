"""The table of expectations, and everything that lists them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from slsa_for_models import cli
from slsa_for_models.evidence import json_schema
from slsa_for_models.verdict.expectation_table import ROWS
from slsa_for_models.verdict.expectations import Expectations

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/policy.md"
STATED = [row for row in ROWS if row.parse is not None]


def test_every_expectation_has_one_row() -> None:
    """`compare=False` is what a policy says of itself."""
    fields = [field.name for field in dataclasses.fields(Expectations) if field.compare]
    assert sorted(row.field for row in STATED) == sorted(fields)


def test_the_schema_has_the_keys_of_the_table() -> None:
    tables = dict(json_schema.load("policy.v1.json")["properties"])
    del tables["version"]
    whole = {row.key for row in STATED if "." not in row.key}
    assert whole <= tables.keys()
    keys = {
        f"{table}.{name}" for table in tables.keys() - whole for name in tables[table]["properties"]
    }
    assert sorted(row.key for row in STATED) == sorted(keys | whole)
    for row in ROWS:
        table, _, name = row.key.partition(".")
        if row.parse is None:
            assert name in tables[table].get("items", tables[table])["properties"]


def test_the_document_has_a_line_for_each_row() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = [
        f"| `{row.key}` | {f'`{row.option}`' if row.option else ''} | {row.help} |" for row in ROWS
    ]
    assert re.findall(r"^\| `[a-z_.0-9]+` \|.*\|$", text, re.MULTILINE) == lines


def test_the_example_of_the_document_states_every_key() -> None:
    (example,) = re.findall(r"^## All of it\n```toml\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    named = set(re.findall(r"\b([a-z_0-9]+) = ", example)) | set(
        re.findall(r"\[([a-z._]+)\]", example)
    )
    assert {row.key.partition(".")[2] or row.key for row in ROWS} - {"verifier"} <= named
    assert "vsa.verifier" in named


def test_every_row_is_an_option_of_both_commands() -> None:
    commands = cli.build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    init = commands["policy"]._subparsers._group_actions[0].choices["init"]
    for parser in (commands["verify"], init):
        found = {option: action for action in parser._actions for option in action.option_strings}
        for row in ROWS:
            if row.option:
                assert found[row.option].help == row.help
