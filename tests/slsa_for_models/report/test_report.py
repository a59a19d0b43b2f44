"""How a verdict is shown: text for people, Markdown for a job summary, both safe to print."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from model_signing.methods import Authenticated
from slsa_for_models import Expectations, verify
from slsa_for_models.cli import main
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.report import markdown, plain
from slsa_for_models.verdict.result import Signed, Verdict
from slsa_for_models.verdict.table import Outcome, Step, Table, counted
from tests.support.crafted import COMMIT, DATASET, SOURCE, TRAIN, Workshop, changed, refusals

HOSTILE = '<img src=x onerror=alert(1)>|`[a](http://evil.example)` @octocat \x1b[31m**x** "]; end'


def test_text_is_a_table_that_ends_with_the_verdict(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workshop.model()
    arguments = ["verify", str(model), "--provenance", str(workshop.train_provenance(model))]
    options = ["--source-uri", SOURCE, "--trust-config", str(workshop.trust_config)]
    assert main([*arguments, *options, "--builder-id", TRAIN]) == 0
    accepted, error = capsys.readouterr()
    assert accepted.splitlines()[-1] == (
        "VERIFIED model.pth, SLSA Build L3 (no signature was given)"
    )
    assert error == ""
    assert re.search(r"^  info     Branch or tag +branch main$", accepted, re.MULTILINE)
    assert "claimed by the training job: roc_auc 0.93, test_accuracy 0.78" in accepted

    assert main([*arguments, *options, "--builder-id", TRAIN, "--source-branch", "other"]) == 1
    refused, error = capsys.readouterr()
    assert refused.splitlines()[-1] == "REFUSED model.pth: built from another branch"
    assert error.splitlines() == [
        "slsa_for_models: REFUSED model.pth: built from another branch",
        "  where:    source reference",
        "  expected: other",
        "  found:    main",
    ]
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
    assert text.startswith("what came before\n## ✅ VERIFIED model.pth, SLSA Build L3\n")
    assert (
        f"Source [octo-org/models@{COMMIT[:12]}](https://{SOURCE}/tree/{COMMIT}), "
        f"run [77](https://{SOURCE}/actions/runs/77)\n"
    ) in text.replace("&#45;", "-")
    graph = text.split("```mermaid\n")[1].split("```")[0]
    for box in ("dataset", "source", "run", "model", "signature", "log"):
        assert f'\n  {box}["' in graph
    assert "dataset --> run" in graph
    assert DATASET[:12] in graph
    rows = [line for line in text.splitlines() if line.startswith(("| ✅", "| ℹ️", "| ➖"))]
    assert len(rows) == len(verdict["steps"])
    assert text.count("<details><summary>✅") == 3  # the signature, the provenance, together
    assert not re.search(r"[0-9a-f]{13}", "".join(rows))
    assert "\n| trust root | NOT the public Sigstore" in text
    assert "gh run download 77 --repo octo-org/models" in text
    assert "pip install model-transparency" in text


def test_a_refusal_is_shown_first_and_open(workshop: Workshop) -> None:
    model, summary = workshop.model(), workshop.folder / "summary.md"
    code, _ = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model), "--summary", summary),
        *("--source-uri", SOURCE, "--builder-id", TRAIN, "--source-tag", "v1.0.0"),
    )
    text = summary.read_text()
    assert code == 1
    assert text.startswith("## ❌ REFUSED")
    assert "\n**the provenance names no tag**\n\n- where" in text
    for word in ("expected&#58; v1.0.0", "found&#58; no tag"):
        assert text.count(word) == 2  # at the top and in its row
    assert text.count("<details open><summary>❌") == 1
    for word in ("mermaid", "Verify it yourself"):
        assert word not in text


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
    for forbidden in ("<img", "](http:", "@octocat", "\x1b", "**x**", "`[a]"):
        assert forbidden not in text
    row = next(line for line in text.splitlines() if "octocat" in line)
    assert row.count("|") == 4  # still one row of three cells
    assert HOSTILE.replace("\x1b", "\\x1b") in html.unescape(row)

    trust = ["--trust-config", str(workshop.trust_config)]
    main(["verify", str(model), *map(str, options), *trust])
    assert "\x1b" not in capsys.readouterr().out


def shown(outcome: Outcome, **said: Any) -> Verdict:
    """A verdict on a model `m` after one step."""
    model = ModelDigests(said.pop("name", "m"), True, {"m": "a" * 64}, "b" * 64, "")
    return Verdict(model, (Step("s", "t", "c", outcome, "f"),), **said)


SIGNED = Signed("m.sig", Authenticated(b"", "", "key", identity="k"), {})


def test_labels_of_the_graph_are_escaped_for_mermaid() -> None:
    text = markdown.markdown(shown("passed", name=HOSTILE, levels={"b": 3}))
    line = next(line for line in text.splitlines() if line.startswith("  model["))
    label = re.fullmatch(r'  model\["Model<br/>(.*)"\]', line)
    assert label is not None
    assert not set('"<>`[]|') & set(label[1])
    assert "octocat" in label[1]
    assert "<img" not in text.splitlines()[0]


def test_nothing_checked_is_nothing_accepted() -> None:
    verdict = shown("not checked")
    assert (verdict.verified, verdict.exit_code) == (False, 1)
    assert plain.text(verdict).splitlines()[-1] == "REFUSED m: nothing could be checked"


@pytest.mark.parametrize(
    ("said", "headline"),
    [
        ({"signer": SIGNED, "levels": {"b": 3}}, "VERIFIED m, SLSA Build L3"),
        ({"signer": SIGNED, "levels": {"a": 2, "b": 2}}, "VERIFIED m, SLSA Build L2"),
        (
            {"signer": SIGNED, "levels": {"train.yml": 2, "slsa-github-generator": 3}},
            "VERIFIED m: SLSA Build L3 by slsa-github-generator, L2 by train.yml",
        ),
        ({"levels": {"b": 1}}, "VERIFIED m, SLSA Build L1 (no signature was given)"),
        ({"signer": SIGNED}, "VERIFIED m (signature only: no provenance)"),
    ],
)
def test_the_headline_says_who_earns_which_level(said: dict[str, Any], headline: str) -> None:
    assert plain.headline(shown("passed", **said)) == headline


def test_a_refused_model_has_no_level() -> None:
    refused = shown("refused", signer=SIGNED, levels={"b": 3})
    assert (refused.level, bool(refused)) == (0, False)
    document = json.loads(plain.as_json(refused))
    assert (document["slsaBuildLevel"], document["slsaBuildLevels"]) == (0, {})


def test_what_was_compared_with_nothing_accepts_nothing() -> None:
    table = Table()
    table.step("s", "t", "c", lambda: "found", compared=False)
    assert not replace(shown("passed"), steps=tuple(table.steps))


def test_one_is_no_plural() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_level_zero_is_not_shown() -> None:
    assert plain.text(shown("passed")).endswith("VERIFIED m\n")


def test_what_the_verdict_rests_on_is_in_every_report(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    model, summary = workshop.directory(), workshop.folder / "summary.md"
    provenance, signature = workshop.train_provenance(model), workshop.sign_model(model)
    policy = workshop.write(
        "policy.toml", f'version = 1\n[source]\nuri = "{SOURCE}"\nbranch = "main"\n'.encode()
    )
    evidence = ("--provenance", provenance, "--signature", signature, "--policy", policy)
    evidence += ("--builder-id", TRAIN, "--summary", summary)
    code, verdict = workshop.verify(model, *evidence)
    basis = verdict["basis"]
    assert (code, refusals(verdict)) == (0, [])
    digests = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in (provenance, signature, policy, workshop.trust_config)
    }
    assert basis["trustRoot"].startswith("NOT the public Sigstore")
    assert basis["trustRoot"].endswith(digests.pop(workshop.trust_config.name))
    assert basis["policySha256"] == digests.pop("policy.toml")
    assert {item["name"]: item["sha256"] for item in basis["evidence"]} == digests
    assert basis["expectations"]["branch"] == "main"
    assert TRAIN in basis["expectations"]["builders"]
    assert basis["expectations"]["runners"] == "github-hosted"
    assert [item["clock"] for item in basis["signed"]] == ["timestamp authority"] * 2
    assert len(basis["files"]) == 3
    capsys.readouterr()
    command = [*map(str, ("verify", model, *evidence, "--trust-config", workshop.trust_config))]
    assert main(command) == 0
    text, page = capsys.readouterr().out, summary.read_text().replace("&#45;", "-")
    for said in (*digests.values(), basis["policySha256"], "branch: main", basis["verifier"]):
        assert said in text
        assert said.replace(":", "&#58;") in page
    assert "NOT the public Sigstore" in text
    assert "stroke-dasharray" in page  # nobody expected the data set


def test_the_public_trust_root_is_named(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = [workshop.train_provenance(model)]
    assert "the public Sigstore" in plain.text(verify(model, Expectations(), provenance=provenance))


def test_what_lies_in_a_folder_and_is_no_part_of_the_model(workshop: Workshop) -> None:
    model = workshop.directory()
    (model / ".git").mkdir()
    evidence = ("--provenance", workshop.train_provenance(model))
    for more in ((), ("--signature", workshop.sign_model(model))):
        options = (*evidence, *more, "--source-uri", SOURCE, "--builder-id", TRAIN)
        code, verdict = workshop.verify(model, *options)
        said = [step for step in verdict["steps"] if step["check"] == "Not part of it"]
        assert (code, [step["outcome"] for step in said]) == (0, ["info"])
        assert ".git" in said[0]["found"]


@pytest.mark.parametrize("on_github", [True, False])
def test_a_refusal_is_an_annotation_on_github(
    workshop: Workshop,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    on_github: bool,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true" if on_github else "")
    model = workshop.model(name="100%")
    provenance = workshop.train_provenance(workshop.model(b"other"))
    options = ("--provenance", provenance, "--source-uri", SOURCE, "--builder-id", TRAIN)
    assert workshop.verify(model, *options)[0] == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("::")]
    assert len(lines) == on_github
    for line in lines:
        assert line.startswith("::error title=")
        assert "REFUSED 100%25" in line
        assert "about other bytes" in line
