"""The help: every option is described, every command has an example, and the example parses."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from slsa_for_models import cli


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*path, name))


COMMANDS = dict(commands(cli.build_parser()))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_described(path: tuple[str, ...]) -> None:
    undescribed = [
        action.option_strings or action.dest
        for action in COMMANDS[path]._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert undescribed == []


@pytest.mark.parametrize("path", [path for path in COMMANDS if len(path) == 1], ids=" ".join)
def test_every_command_has_a_sentence_and_an_example(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert COMMANDS[path].description
    assert cli.main([*path, "--help"]) == 0
    _, _, example = capsys.readouterr().out.rpartition("example")
    lines = example.split(":\n", 1)[1].replace("\\\n", "").strip().splitlines()
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "slsa_for_models"
        assert words[: len(path)] == list(path)
        if "--help" not in words:
            cli.build_parser().parse_args(words)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("slsa_for_models ")


def test_nothing_given_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: slsa_for_models") and "reproduce" in output.err
