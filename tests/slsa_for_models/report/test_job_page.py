"""The page of a run: what was trained, how to check it, and nothing that a stranger slipped in."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from slsa_for_models import cli
from slsa_for_models.commands import verify
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.evidence.training_record import TrainingRecord
from slsa_for_models.report import job_page
from slsa_for_models.verdict.result import Verdict
from slsa_for_models.verdict.table import Outcome, Step
from tests.support.records import RECORD

HOSTILE = "x|y `z` [a](b) <img src=x> @everyone **b**\n# Heading\n```"


def verdict(outcome: Outcome, record: TrainingRecord | None = RECORD) -> Verdict:
    step = Step("model.sig", "Model signature", "OMS v1.0, 8", outcome, "found")
    model = ModelDigests("model", True, {"model": "a" * 64}, "b" * 64, "")
    return Verdict(model, (step,), record=record)


def test_what_was_trained() -> None:
    text = job_page.training(RECORD)
    for shown in ("train.py", "0.78", "b" * 64, "seed 7", "data.csv", "none"):
        assert shown in text


def test_many_metrics_do_not_fill_the_page() -> None:
    metrics = {f"fold{number}": 0.5 for number in range(10_000)}
    text = job_page.training(dataclasses.replace(RECORD, metrics=metrics))
    assert len(text) < 4_000 and "fold49" in text and "fold50" not in text


def test_a_hostile_record_is_text() -> None:
    files = (dataclasses.replace(RECORD.dataset.files[0], name=HOSTILE),)
    hostile = dataclasses.replace(
        RECORD,
        command=(HOSTILE, HOSTILE),
        dataset=dataclasses.replace(RECORD.dataset, files=files),
        parameters={HOSTILE: HOSTILE},
        metrics={HOSTILE: 1.0},
    )
    text = job_page.training(hostile)
    assert "```" not in text and text.count("\n#") == 1  # ours
    for row in re.findall(r"^\| .*$", text, re.MULTILINE):
        assert row.count("|") == 3
        assert not re.search(r"[`*@\[\]!]|<(?!/?code>)", row)


def test_a_refused_model_is_not_praised() -> None:
    given = {"--training-record": Path("training.json")}
    for found, options, praised in (
        (verdict("passed"), given, True),
        (verdict("refused"), given, False),
        (verdict("passed", None), given, False),
        (verdict("passed"), {"--training-record": None}, False),
    ):
        assert ("What was trained" in job_page.page(found, Path("m"), dict(options))) is praised


def command_of(page: str) -> list[str]:
    """The words after the program's name in the last command of a page."""
    command = page.partition("```shell\n")[2].partition("\n```")[0].replace("\\\n", "")
    return shlex.split(command.split("\n")[-1])[1:]


def repeated(*given: str) -> argparse.Namespace:
    """What the page of `verify GIVEN...` asks for."""
    args = cli.build_parser().parse_args(["verify", *given])
    page = job_page.at_home(args.model[0], verify.repeated(args), None)
    return cli.build_parser().parse_args(command_of(page))


def options_of_verify() -> list[argparse.Action]:
    parser = cli.build_parser()
    commands = next(one for one in parser._actions if isinstance(one.choices, dict))
    verify = commands.choices["verify"]
    (output,) = (group for group in verify._action_groups if group.title == "output")
    kept = (one for one in verify._actions if one not in output._group_actions)
    return [one for one in kept if one.option_strings and one.dest != "help"]


VALUES = {
    "source_uri": "github.com/o/r",
    "source_versioned_tag": "v1",
    "source_commit": "a" * 40,
    "builder_id": "https://example.com/b",
    "dataset_digest": "a" * 64,
    "minimum_level": "2",
    "code": "refused",
}


@pytest.mark.parametrize("action", options_of_verify(), ids=lambda action: action.dest)
def test_every_option_that_can_change_the_verdict_is_repeated(action: argparse.Action) -> None:
    value = VALUES.get(action.dest, "-x=y")
    given = (
        [action.option_strings[0]] if action.nargs == 0 else [f"{action.option_strings[0]}={value}"]
    )
    if action.metavar in ("FILE", "MODEL", "PEM"):
        given = [f"{action.option_strings[0]}=folder/{value}"]
    given *= 2 if isinstance(action.default, list) else 1
    wanted = vars(cli.build_parser().parse_args(["verify", "m", *given]))[action.dest]
    assert wanted != action.default
    found = vars(repeated("m", *given))[action.dest]
    assert found == _here(wanted)


def _here(value: object) -> object:
    if isinstance(value, list):
        return [_here(item) for item in value]
    return Path(value.name) if isinstance(value, Path) else value


def test_what_becomes_of_the_verdict_is_not_repeated_least_of_all_a_secret() -> None:
    given = (
        "--format=json --summary=s.md --attest-verdict=v.json --verifier-id=https://example.com/v "
        "--private-key=signing.pem --identity-token=ey.secret"
    )
    assert repeated("m", *given.split()) == cli.build_parser().parse_args(["verify", "m"])


def test_files_of_one_name_are_told_apart() -> None:
    again = repeated(
        *("out/m", "--base-model", "base/m", "--base-model", "base/n"),
        *("--provenance", "a/p.json", "--provenance", "b/p.json", "--signature", "out/m.sig"),
    )
    assert again.model == [Path("out/m")]
    assert again.base_model == [Path("base/m"), Path("n")]
    assert again.provenance == [Path("a/p.json"), Path("b/p.json")]
    assert again.signature == Path("m.sig")


@pytest.mark.parametrize(
    ("model", "shown"), [(".", "."), ("a/-m", "-m"), ("a/my model", "my model")]
)
def test_the_model_is_named(model: str, shown: str) -> None:
    assert repeated(model).model == [Path(shown)]


@pytest.mark.parametrize("kind", ["file", "folder in its artifact", "folder"])
@pytest.mark.parametrize("name", ["m", "my $(model)'s"])
def test_the_files_come_from_the_run(tmp_path: Path, kind: str, name: str) -> None:
    """The commands run as they stand; gh makes a folder of each artifact, as it does."""
    model = tmp_path / "job" / name
    model.parent.mkdir()
    if kind == "file":
        model.write_bytes(b"1")
    else:
        model.mkdir()
        (model / "config.json").write_bytes(b"1")
        (model / ".hidden").write_bytes(b"1")
    options = {"--signature": Path(f"evidence/{name}.sig")}
    page = job_page.at_home(model, options, ("o/r", "7"))
    made = tmp_path / "stands in for the run"
    whole = made / name if kind == "folder" else made / name / name
    (made / f"{name}.sig").mkdir(parents=True)
    (made / f"{name}.sig" / f"{name}.sig").write_bytes(b"2")
    whole.parent.mkdir(exist_ok=True)
    (shutil.copyfile if kind == "file" else shutil.copytree)(model, whole)
    programs, home = tmp_path / "bin", tmp_path / "home"
    for folder in (programs, home):
        folder.mkdir()
    for program, script in {
        "gh": f'[ "$*" = "run download 7 --repo o/r --dir artifacts" ] && cp -r "{made}" artifacts',
        "pip": '[ "$*" = "install model-transparency" ]',
        "slsa_for_models": 'printf "%s\\n" "$@"; cat "$4"; ls -A "$2"',
    }.items():
        (programs / program).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (programs / program).chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", page.partition("```shell\n")[2].partition("\n```")[0]],
        cwd=home,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = name if kind == "file" else ".hidden\nconfig.json"
    assert done.stdout == f"verify\n{name}\n--signature\n{name}.sig\n2{listed}\n"


def test_a_hostile_file_name_stays_in_its_line() -> None:
    text = job_page.at_home(Path("x\n```\n# Heading `$(id)`"), {"source_uri": "a\n```\nb"}, None)
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2
    assert not re.search(r"^# ", text, re.MULTILINE)
