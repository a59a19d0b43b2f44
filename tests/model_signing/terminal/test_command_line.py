"""The table of options: every form that a value may have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from model_signing.errors import UsageError
from model_signing.terminal import command_line

TABLE: dict[str, command_line.Row] = {
    "model": ("FILE+", "a path, one or more"),
    "--quiet": ("", "a flag"),
    "--git": ("yes", "a flag that holds unless it is denied"),
    "--links": ("no", "the other way round"),
    "--format": ("text|json", "a choice with a default"),
    "--level": ("|1|2", "one without"),
    "--output/--out": ("DIR = here", "a path with a default, under two names"),
    "--jobs": ("N", "a number"),
    "--ignore": ("FILE...", "repeatable"),
    "--name": ("NAME=VALUE", "a text"),
    "--digest": ("HEX!", "required, and read", str.upper),
}


def parsed(*given: str, names: str | None = None) -> argparse.Namespace:
    parser = command_line.Parser(prog="test")
    command_line.add_options(parser, TABLE, names)
    return parser.parse_args(given)


def test_what_is_not_given() -> None:
    assert vars(parsed("m", "--digest=a")) == {
        "model": [Path("m")],
        "quiet": False,
        "git": True,
        "links": False,
        "format": "text",
        "level": None,
        "output": Path("here"),
        "jobs": None,
        "ignore": [],
        "name": None,
        "digest": "A",
    }


def test_what_is_given() -> None:
    given = (
        "m n --quiet --no-git --links --format json --level 2 --out there --jobs 3 "
        "--ignore a --ignore b --name x=y --digest ab"
    )
    found = vars(parsed(*given.split()))
    assert found == {
        "model": [Path("m"), Path("n")],
        "quiet": True,
        "git": False,
        "links": True,
        "format": "json",
        "level": "2",
        "output": Path("there"),
        "jobs": 3,
        "ignore": [Path("a"), Path("b")],
        "name": "x=y",
        "digest": "AB",
    }
    assert {command_line.attribute(name) for name in TABLE} == found.keys()


@pytest.mark.parametrize(
    "given", ["m", "--digest=a", "m --digest=a --level 3", "m --digest=a --jobs x"]
)
def test_what_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        parsed(*given.split())


def test_some_options_one_of_them_required() -> None:
    assert vars(parsed("--jobs=2", names="--quiet --jobs!")) == {"quiet": False, "jobs": 2}
    with pytest.raises(UsageError, match="--jobs"):
        parsed(names="--quiet --jobs!")


def test_the_help_says_it() -> None:
    parser = command_line.Parser(prog="test")
    command_line.add_options(parser, TABLE)
    text = parser.format_help()
    for shown in (r"MODEL \[MODEL ...\]", r"--level \{1,2\}", "NAME=VALUE"):
        assert re.search(shown, text)
    assert re.search(r"--output( DIR)?, --out DIR", text)  # Python 3.13 names DIR once
    for row in TABLE.values():
        assert row[1] in text
