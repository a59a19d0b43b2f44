"""One table of steps, and the three ways to show it: text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from model_signing.errors import Error, printable

T = TypeVar("T")
Outcome = Literal["passed", "refused", "not checked"]

SCHEMA = "https://model-transparency.dev/verdict/v1"
_MARKS: Mapping[str, str] = {"passed": "ok", "refused": "REFUSED", "not checked": "-"}
_SYMBOLS: Mapping[str, str] = {"passed": "✅", "refused": "❌", "not checked": "➖"}


@dataclass(frozen=True)
class Step:
    """One check and how it ended.

    Attributes:
        subject: What was looked at: a file's name, or "chain".
        title: The check, in a manager's words.
        clause: Where it is specified.
        outcome: passed, refused, or not checked.
        found: What was found, or why it was not checked.
        error: The refusal.
    """

    subject: str
    title: str
    clause: str
    outcome: Outcome
    found: str
    error: Error | None = None


@dataclass
class Table:
    """Collects steps in order; `step` turns an `Error` into a refused step and goes on."""

    steps: list[Step] = field(default_factory=list)

    def step(
        self,
        subject: str,
        title: str,
        clause: str,
        check: Callable[[], T],
        show: Callable[[T], str] = str,
    ) -> T | None:
        """Runs a check. Returns its result, or None if it refused."""
        try:
            result = check()
        except Error as error:
            self.refused(subject, title, clause, error)
            return None
        self.steps.append(Step(subject, title, clause, "passed", show(result)))
        return result

    def refused(self, subject: str, title: str, clause: str, error: Error) -> None:
        """Records a refusal."""
        self.steps.append(Step(subject, title, clause, "refused", error.message, error))

    def not_checked(self, subject: str, title: str, clause: str, why: str) -> None:
        """Says what was not checked; nothing is left out in silence."""
        self.steps.append(Step(subject, title, clause, "not checked", why))


@dataclass(frozen=True)
class Chain:
    """What the verified evidence says together, for the picture; empty where it says nothing."""

    model: str = ""
    sha256: str = ""
    dataset: str = ""
    dataset_sha256: str = ""
    source: str = ""
    run: str = ""
    builder: str = ""
    signer: str = ""
    log: str = ""
    metrics: str = ""
    level: int = 0


@dataclass(frozen=True)
class Verdict:
    """All steps, and what they amount to: accepted if none refused."""

    steps: tuple[Step, ...]
    chain: Chain

    @property
    def refusal(self) -> Error | None:
        """The first refusal, which decides the exit code."""
        return next((step.error for step in self.steps if step.error is not None), None)

    @property
    def exit_code(self) -> int:
        """0, or what the first refusal asks for."""
        if self.refusal is not None:
            return self.refusal.exit_code
        return 0 if self.accepted else 1

    @property
    def accepted(self) -> bool:
        """Whether at least one check passed and none refused."""
        outcomes = {step.outcome for step in self.steps}
        return "passed" in outcomes and "refused" not in outcomes


def text(verdict: Verdict) -> str:
    """The table for a terminal."""
    titles = max((len(step.title) for step in verdict.steps), default=0)
    lines: list[str] = []
    subject = None
    for step in verdict.steps:
        if step.subject != subject:
            subject = step.subject
            lines.append(printable(subject))
        lines.append(f"  {_MARKS[step.outcome]:<8} {step.title:<{titles}}  {printable(step.found)}")
        if step.error is not None:
            details = {
                key: value
                for key, value in step.error.as_dict().items()
                if key in ("where", "expected", "found", "fix")
            }
            lines += [
                f"  {'':<8} {'':<{titles}}    {name}: {printable(value)}"
                for name, value in details.items()
            ]
    lines.append(_headline(verdict))
    return "\n".join(lines) + "\n"


def as_json(verdict: Verdict) -> str:
    """The verdict for programs; schemas/verdict.v1.json describes it."""
    chain = verdict.chain
    document = {
        "schema": SCHEMA,
        "verdict": "accepted" if verdict.accepted else "refused",
        "model": {"name": chain.model, "sha256": chain.sha256},
        "slsaBuildLevel": chain.level if verdict.accepted else 0,
        "chain": {
            "dataset": {"name": chain.dataset, "sha256": chain.dataset_sha256},
            "source": chain.source,
            "run": chain.run,
            "builder": chain.builder,
            "signer": chain.signer,
            "log": chain.log,
            "claimedByTraining": chain.metrics,
        },
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


def markdown(verdict: Verdict, trained: str = "") -> str:
    """The verdict for a job summary: a headline, the chain as a mermaid graph, the table.

    Args:
        verdict: The verdict.
        trained: Markdown about the training, shown before the table.
    """
    symbol = _SYMBOLS["passed" if verdict.accepted else "refused"]
    lines = [f"## {symbol} {_cell(_headline(verdict))}", ""]
    if verdict.refusal is not None:
        details = verdict.refusal.as_dict()
        lines += [f"- {name}: {_cell(value)}" for name, value in details.items()]
        lines.append("")
    lines += ["```mermaid", *_graph(verdict), "```", trained]
    lines += ["### What was checked", ""] if trained else []
    lines += ["| | Evidence | Check | Found |", "|---|---|---|---|"]
    lines += [
        f"| {_SYMBOLS[step.outcome]} | {_cell(step.subject)} | {_cell(step.title)} "
        f"| {_cell(_found(step))} |"
        for step in verdict.steps
    ]
    return "\n".join(lines) + "\n"


def _headline(verdict: Verdict) -> str:
    name, chain = printable(verdict.chain.model), verdict.chain
    if verdict.accepted:
        level = f", SLSA Build L{chain.level}" if chain.level else ""
        return f"VERIFIED {name}{level}"
    refused = sum(step.outcome == "refused" for step in verdict.steps)
    return f"REFUSED {name}: {refused} of {len(verdict.steps)} checks"


def _found(step: Step) -> str:
    if step.error is None:
        return step.found
    details = step.error.as_dict()
    return " ".join(
        [
            step.found,
            *(f"{name}: {details[name]}" for name in ("expected", "found") if name in details),
        ]
    )


def _graph(verdict: Verdict) -> list[str]:
    """Boxes only for what the evidence says; refused verdicts are drawn in red."""
    chain = verdict.chain
    boxes = {
        "dataset": ("Data set", f"{chain.dataset} {chain.dataset_sha256[:12]}".strip()),
        "source": ("Source", chain.source),
        "run": ("Run", chain.run),
        "model": ("Model", f"{chain.model} {chain.sha256[:12]}"),
        "signature": ("Signature", chain.signer),
        "log": ("Log", chain.log),
    }
    edges = [
        ("dataset", "run"),
        ("source", "run"),
        ("run", "model"),
        ("signature", "model"),
        ("log", "signature"),
    ]
    shown = {name for name, (_, value) in boxes.items() if value}
    lines = ["graph LR"]
    lines += [
        f'  {name}["{title}<br/>{_label(value)}"]'
        for name, (title, value) in boxes.items()
        if name in shown
    ]
    lines += [f"  {start} --> {end}" for start, end in edges if {start, end} <= shown]
    colour = "#1a7f37" if verdict.accepted else "#cf222e"
    lines.append(f"  style model stroke:{colour},stroke-width:3px")
    return lines


def _cell(value: str) -> str:
    """Text that GitHub's Markdown shows as it is: no markup, links, mentions or table cells."""
    shown = printable(value)[:500]
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in shown)


def _label(value: str) -> str:
    """The same for a mermaid label, whose entities are written `#NUMBER;`."""
    shown = printable(value)[:200]
    return "".join(f"#{ord(char)};" if char in _MARKUP else char for char in shown)


_MARKUP = set("&<>|`*_[]()#@!\\~\"'$:{};")
