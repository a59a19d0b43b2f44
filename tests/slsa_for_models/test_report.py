"""How a verdict is shown: text for people, Markdown for a job summary, both safe to print."""

from __future__ import annotations

import html
import re

import pytest
from crafted import DATASET, SOURCE, TRAIN, Workshop, changed, refusals

from slsa_for_models import report
from slsa_for_models.cli import main

HOSTILE = '<img src=x onerror=alert(1)>|`[a](http://evil.example)` @octocat \x1b[31m**x** "]; end'


def test_text_is_a_table_that_ends_with_the_verdict(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workshop.model()
    arguments = ["verify", str(model), "--provenance", str(workshop.train_provenance(model))]
    options = ["--source-uri", SOURCE, "--trust-config", str(workshop.trust_config)]
    assert main([*arguments, *options, "--builder-id", TRAIN]) == 0
    accepted = capsys.readouterr().out
    assert accepted.splitlines()[-1] == "VERIFIED model.pth, SLSA Build L3"
    assert "claimed by the training job: test accuracy 78.0%" in accepted

    assert main([*arguments, *options, "--builder-id", TRAIN, "--source-branch", "other"]) == 1
    refused = capsys.readouterr().out
    assert refused.splitlines()[-1].startswith("REFUSED model.pth: 1 of ")
    for word in ("REFUSED  Branch or tag", "expected: other", "found: main"):
        assert word in refused


def test_markdown_has_the_chain_and_every_step(workshop: Workshop) -> None:
    model, summary = workshop.model(), workshop.folder / "summary.md"
    summary.write_text("what came before\n")
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(model), "--summary", summary),
        *("--source-uri", SOURCE, "--builder-id", TRAIN),
    )
    assert code == 0
    text = summary.read_text()
    assert text.startswith("what came before\n## ✅ VERIFIED model.pth, SLSA Build L3")
    graph = text.split("```mermaid\n")[1].split("```")[0]
    for box in ("dataset", "source", "run", "model", "signature", "log"):
        assert f'\n  {box}["' in graph
    assert "dataset --> run" in graph
    assert DATASET[:12] in graph
    rows = [line for line in text.splitlines() if line.startswith(("| ✅", "| ❌", "| ➖"))]
    assert len(rows) == len(verdict["steps"])


def test_a_refusal_is_shown_first_and_in_red(workshop: Workshop) -> None:
    model, summary = workshop.model(), workshop.folder / "summary.md"
    code, _ = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model), "--summary", summary),
        *("--source-uri", SOURCE, "--builder-id", TRAIN, "--source-tag", "v1.0.0"),
    )
    text = summary.read_text()
    assert code == 1
    assert text.startswith("## ❌ REFUSED")
    assert text.index("another tag") < text.index("mermaid")
    assert "#cf222e" in text
    assert "dataset --> run" not in text  # nothing unaccepted is drawn


def test_hostile_texts_are_shown_and_not_obeyed(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    model, summary = workshop.model(), workshop.folder / "summary.md"
    statement = workshop.train_statement(model, workshop.record(model))
    field = "predicate.buildDefinition.externalParameters.inputs.model"
    data = workshop.sign(changed(statement, field, HOSTILE), workshop.token())
    provenance = workshop.write("p.json", data)
    options = ("--provenance", provenance, "--source-uri", SOURCE, "--builder-id", TRAIN)
    code, verdict = workshop.verify(model, *options, "--summary", summary)
    assert (code, refusals(verdict)) == (0, [])
    text = summary.read_text()
    assert "octocat" in text
    for forbidden in ("<img", "](http", "@octocat", "\x1b", "**x**", "`[a]"):
        assert forbidden not in text
    row = next(line for line in text.splitlines() if "octocat" in line)
    assert row.count("|") == 5  # still one row of four cells
    assert HOSTILE.replace("\x1b", "\\x1b") in html.unescape(row)

    trust = ["--trust-config", str(workshop.trust_config)]
    main(["verify", str(model), *map(str, options), *trust])
    assert "\x1b" not in capsys.readouterr().out


def test_labels_of_the_graph_are_escaped_for_mermaid() -> None:
    chain = report.Chain(model=HOSTILE, sha256="a" * 64, run="r", level=3)
    step = report.Step("s", "t", "c", "passed", "f")
    text = report.markdown(report.Verdict((step,), chain))
    line = next(line for line in text.splitlines() if line.startswith("  model["))
    label = re.fullmatch(r'  model\["Model<br/>(.*)"\]', line)
    assert label is not None
    assert not set('"<>`[]|') & set(label[1])
    assert "octocat" in label[1]
    assert "<img" not in text.splitlines()[0]


def test_nothing_checked_is_nothing_accepted() -> None:
    step = report.Step("s", "t", "c", "not checked", "why")
    verdict = report.Verdict((step,), report.Chain(model="m"))
    assert (verdict.accepted, verdict.exit_code) == (False, 1)
    assert report.text(verdict).splitlines()[-1] == "REFUSED m: 0 of 1 checks"


def test_level_zero_is_not_shown() -> None:
    step = report.Step("s", "t", "c", "passed", "f")
    assert report.text(report.Verdict((step,), report.Chain(model="m"))).endswith("VERIFIED m\n")
