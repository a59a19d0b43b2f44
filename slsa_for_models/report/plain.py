"""A verdict as text and as JSON, its headline and its cause, and the picture that it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from model_signing.errors import Error, printable
from slsa_for_models.report.basis import basis, expectations
from slsa_for_models.verdict.result import Verdict, claimed, inputs_of, logged
from slsa_for_models.verdict.table import counted

SCHEMA = "https://model-transparency.dev/verdict/v1"
MARKS: Mapping[str, tuple[str, str]] = {
    "passed": ("ok", "✅"),
    "refused": ("REFUSED", "❌"),
    "info": ("info", "ℹ️"),
    "not checked": ("-", "➖"),
}
"""Outcome of a step -> its mark in text, in Markdown."""


@dataclass(frozen=True)
class Chain:
    """The picture: what the accepted evidence says, in the words of its first piece; else empty."""

    model: str
    sha256: str
    dataset: str
    dataset_sha256: str
    dataset_expected: bool
    source: str
    run: str
    builder: str
    signer: str
    log: str
    metrics: str


def chain_of(verdict: Verdict) -> Chain:
    """The picture that a verdict makes."""
    model, record, signer = verdict.model, verdict.record, verdict.signer
    pieces = [*([signer] if signer else []), *(item.signed for item in verdict.accepted)]
    first = verdict.accepted[0].provenance if verdict.accepted else None
    runs = [run for item in pieces if (run := item.facts.get("invocation"))]
    entries = [entry for item in pieces if (entry := logged(item.authenticated))]
    source = f"{first.source_uri.removeprefix('git+')}@{first.source_commit}" if first else ""
    return Chain(
        model=model.name,
        sha256=model.sha256,
        dataset=inputs_of(record) if record else "",
        dataset_sha256=verdict.dataset,
        dataset_expected=any(
            step.title == "Data set" and step.outcome == "passed" for step in verdict.steps
        ),
        source=source,
        run=", ".join(sorted(set(runs))) or (first.invocation if first else ""),
        builder=first.builder_id if first else "",
        signer=str(signer) if signer else "",
        log=entries[0] if entries else "",
        metrics=claimed(record) if record else "",
    )


def text(verdict: Verdict) -> str:
    """The table for a terminal."""
    titles = max((len(step.title) for step in verdict.steps), default=0)
    lines: list[str] = []
    subject = None
    for step in verdict.steps:
        if step.subject != subject:
            subject = step.subject
            lines.append(printable(subject))
        mark, _ = MARKS[step.outcome]
        lines.append(f"  {mark:<8} {step.title:<{titles}}  {printable(step.found)}")
        lines += [f"  {'':<8} {'':<{titles}}    {detail}" for detail in details(step.error)]
    lines += ["what it rests on", *(f"  {name:<14}{said}" for name, said in basis_rows(verdict))]
    lines.append(headline(verdict))
    return "\n".join(lines) + "\n"


def basis_rows(verdict: Verdict) -> list[tuple[str, str]]:
    """What it rests on, by name; of the model's files only how many."""
    said = basis(verdict)
    model = verdict.model
    files = counted(len(model.files), "file")
    rows = [
        ("model", f"{model.name}, {files}, SHA-256 {model.sha256 or model.root}"),
        ("trust root", f"{said['trustRoot'] or 'none was needed'}"),
        ("verifier", f"{said['verifier']}"),
        ("policy", f"{said['policySha256'] and 'SHA-256 '}{said['policySha256'] or 'none'}"),
    ]
    for name, value in expectations(verdict.expected).items():
        rows.append(("expected", f"{name.replace('_', ' ')}: {value}"))
    pieces = [*([verdict.signer] if verdict.signer else []), *(i.signed for i in verdict.accepted)]
    for piece in pieces:
        who = piece.authenticated
        when = (
            f"{who.signed_at:%Y-%m-%d %H:%M:%SZ} by the {who.time_source}" if who.signed_at else ""
        )
        rows.append(("signed", f"{piece.label}: {when or 'no trusted clock says when'}"))
    rows += [("read", f"{name}, SHA-256 {digest}") for name, digest in verdict.evidence]
    return [(name, printable(text)) for name, text in rows]


def cause(verdict: Verdict) -> str:
    """The last line of `text` and, for a refusal, its details: a message for stderr."""
    refusal = verdict.refusal
    return headline(verdict) + (str(refusal).removeprefix(refusal.message) if refusal else "")


def annotation(verdict: Verdict) -> str:
    """`cause` in one line, as GitHub shows it on a run's page (workflow command `error`)."""
    escapes = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
    text = cause(verdict)
    for char, escaped in escapes:
        text = text.replace(char, escaped)
    return f"::error title=The model is refused::{text}"


def as_json(verdict: Verdict) -> str:
    """The verdict for programs; schemas/verdict.v1.json describes it."""
    chain = chain_of(verdict)
    document = {
        "schema": SCHEMA,
        "verdict": "verified" if verdict.verified else "refused",
        "model": {"name": chain.model, "sha256": chain.sha256},
        "slsaBuildLevel": verdict.level,
        "slsaBuildLevels": dict(verdict.levels) if verdict.verified else {},
        "chain": {
            "dataset": {"name": chain.dataset, "sha256": chain.dataset_sha256},
            "source": chain.source,
            "run": chain.run,
            "builder": chain.builder,
            "signer": chain.signer,
            "log": chain.log,
            "claimedByTraining": chain.metrics,
        },
        "basis": basis(verdict),
        "refusal": None if verdict.refusal is None else verdict.refusal.as_dict(),
        "steps": [
            {
                "subject": step.subject,
                "check": step.title,
                "clause": step.clause,
                "outcome": step.outcome,
                "found": step.found,
                "refusal": None if step.error is None else step.error.as_dict(),
            }
            for step in verdict.steps
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def headline(verdict: Verdict) -> str:
    """One line: verified, and by whom at which level; or refused, and the first cause."""
    name, levels = printable(verdict.model.name), verdict.levels
    if not verdict.verified:
        found = verdict.refusal.message if verdict.refusal else "nothing could be checked"
        # Its first words are the subject that the line has already.
        found = re.sub(r"^the model\b", "it", re.sub(r" \(OMS [\d.]+\)$", "", found))
        return f"REFUSED {name}: {found}"
    if len(set(levels.values())) > 1:
        highest_first = sorted(levels.items(), key=lambda item: -item[1])
        said = ", ".join(f"L{level} by {printable(builder)}" for builder, level in highest_first)
        said = f": SLSA Build {said}"
    else:
        said = f", SLSA Build L{verdict.level}" if verdict.level else ""
    if levels and verdict.signer is None:
        said += " (no signature was given)"
    elif verdict.signer is not None and not levels:
        said += " (signature only: no provenance)"
    return f"VERIFIED {name}{said}"


def details(error: Error | None) -> list[str]:
    """Where, expected, found and fix, as far as a refusal has them."""
    fields = {} if error is None else error.as_dict()
    names = ("where", "expected", "found", "fix")
    return [f"{name}: {printable(fields[name])}" for name in names if name in fields]


def short(value: str) -> str:
    """Addresses on GitHub as people say them."""
    for long, short in (
        ("https://github.com/", ""),
        ("/.github/workflows/", " "),
        ("/actions/runs/", " run "),
        ("/attempts/", " attempt "),
    ):
        value = value.replace(long, short)
    return value
