"""The page of a run: what was trained, how to check it, and nothing that a stranger slipped in."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from slsa_for_models import cli, summary
from slsa_for_models.record import (
    Dataset,
    Environment,
    Epoch,
    Metrics,
    Model,
    TrainingRecord,
)
from slsa_for_models.report import Chain, Step, Verdict

RECORD = TrainingRecord(
    model=Model("pytorch_model.pth", "pytorch_model.pth", "pytorch", 10, "a" * 64),
    dataset=Dataset("cifar10", "b" * 64, "https://example.test/data", 50_000, 10_000),
    parameters={"epochs": 2, "seed": 7},
    metrics=Metrics(0.7861, 0.9, 0.5, (Epoch(1, 1.5, 0.42, 3.0, 9.0), Epoch(2, 1, 0.7, 3, 9))),
    environment=Environment("3.11", {}, "Linux", (), None, "c" * 64),
    started="2026-01-01T00:00:00Z",
    finished="2026-01-01T00:01:00Z",
)
HOSTILE = "x|y `z` [a](b) <img src=x> @everyone **b**\n# Heading\n```"


def verdict(outcome: str) -> Verdict:
    step = Step("model.sig", "Model signature", "OMS v1.0, 8", outcome, "found")  # type: ignore[arg-type]
    return Verdict((step,), Chain(model="model"))


def test_what_was_trained() -> None:
    text = summary.training(RECORD)
    for shown in ("pytorch_model.pth".replace("_", "&#95;"), "78.6%", "b" * 64, "seed 7"):
        assert shown in text
    assert "x-axis [1, 2]" in text and "bar [42.0, 70.0]" in text


def test_many_epochs_do_not_fill_the_page() -> None:
    epochs = tuple(Epoch(number, 1.0, 0.5, 1.0, 1.0) for number in range(1, 10_001))
    metrics = dataclasses.replace(RECORD.metrics, epochs=epochs)
    text = summary.training(dataclasses.replace(RECORD, metrics=metrics))
    assert len(text) < 2_000 and "10000]" in text


@pytest.mark.parametrize("field", ["format", "framework"])
def test_a_hostile_record_is_text(field: str) -> None:
    model = dataclasses.replace(RECORD.model, **{field: HOSTILE})
    hostile = dataclasses.replace(
        RECORD,
        model=model,
        dataset=dataclasses.replace(RECORD.dataset, name=HOSTILE),
        parameters={HOSTILE: HOSTILE},
    )
    text = summary.training(hostile)
    assert text.count("```") == 2 and text.count("\n#") == 1  # ours
    for row in re.findall(r"^\| .*$", text, re.MULTILINE):
        assert row.count("|") == 3
        assert not re.search(r"[`*@\[\]!]|<(?!/?code>)", row)


def test_a_refused_model_is_not_praised() -> None:
    options: dict[str, object] = {}
    assert "What was trained" in summary.page(verdict("passed"), RECORD, Path("m"), options)
    assert "What was trained" not in summary.page(verdict("refused"), RECORD, Path("m"), options)
    assert "What was trained" not in summary.page(verdict("passed"), None, Path("m"), options)


def test_the_command_is_the_one_that_was_run() -> None:
    given = (
        "verify out/my model --signature out/m.sig --provenance out/a.json --provenance out/b.json "
        "--source-uri github.com/o/r --identity https://github.com/o/r/w.yml@refs/heads/main "
        "--identity-provider https://token.actions.githubusercontent.com --minimum-level 2 "
        "--summary s.md --run-conclusion"
    ).replace("out/my model", "out/my_model")
    args = cli.build_parser().parse_args(given.split())
    args.model = Path("out/my model")
    text = summary.at_home(args.model, vars(args), ("o/r", "7"))
    command = text.partition("```shell\n")[2].partition("\n```")[0].replace("\\\n", "")
    install, get, command = command.split("\n")
    assert install == "pip install model-transparency"
    assert get.startswith("gh run download 7 --repo o/r --dir artifacts && ")
    again = cli.build_parser().parse_args(shlex.split(command)[1:])
    assert again.model == Path("my model")
    assert again.provenance == [Path("a.json"), Path("b.json")]
    for name in ("source_uri", "identity", "identity_provider", "minimum_level"):
        assert getattr(again, name) == getattr(args, name)
    assert again.summary is None


def test_a_hostile_file_name_stays_in_its_line() -> None:
    text = summary.at_home(Path("x\n```\n# Heading `$(id)`"), {"source_uri": "a\n```\nb"}, None)
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2
    assert not re.search(r"^# ", text, re.MULTILINE)
