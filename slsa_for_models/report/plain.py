"""One table of steps, and the three ways to show it: text, JSON and Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, TypeVar

from model_signing.errors import Error, FileError, printable

T = TypeVar("T")
Outcome = Literal["passed", "refused", "info", "not checked"]

SCHEMA = "https://model-transparency.dev/verdict/v1"
# Outcome -> its mark in text, in Markdown.
_MARKS: Mapping[str, tuple[str, str]] = {
    "passed": ("ok", "✅"),
    "refused": ("REFUSED", "❌"),
    "info": ("info", "ℹ️"),
    "not checked": ("-", "➖"),
}


@dataclass(frozen=True)
class Step:
    """One check and how it ended.

    Attributes:
        subject: What was looked at: a file's name, or "chain".
        title: The check, in a manager's words.
        clause: Where it is specified.
        outcome: passed; refused; info, which was compared with nothing; or not checked.
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
    """Collects steps in order; `step` turns an `Error` into a refused step and goes on.

    What cannot be read (`FileError`) says nothing about the model: it is raised, not a refusal.
    """

    steps: list[Step] = field(default_factory=list)

    def step(
        self,
        subject: str,
        title: str,
        clause: str,
        check: Callable[[], T],
        show: Callable[[T], str] = str,
        *,
        compared: bool = True,
        unless: str = "",
    ) -> T | None:
        """Runs a check. Returns its result, or None if it refused or was not run.

        Args:
            subject: See `Step`, as `title` and `clause`.
            title: As there.
            clause: As there.
            check: Returns what it found, or raises.
            show: The result in words.
            compared: Whether there is anything to compare with; if not, a pass is only `info`.
            unless: Why it cannot be run, if it cannot: the evidence it rests on was refused.
        """
        if unless:
            self.not_checked(subject, title, clause, f"not checked: {unless}")
            return None
        try:
            result = check()
        except FileError:
            raise
        except Error as error:
            self.refused(subject, title, clause, error)
            return None
        outcome: Outcome = "passed" if compared else "info"
        self.steps.append(Step(subject, title, clause, outcome, show(result)))
        return result

    def refused(self, subject: str, title: str, clause: str, error: Error) -> None:
        """Records a refusal."""
        self.steps.append(Step(subject, title, clause, "refused", error.message, error))

    def not_checked(self, subject: str, title: str, clause: str, why: str) -> None:
        """Says what was not checked; nothing is left out in silence."""
        self.steps.append(Step(subject, title, clause, "not checked", why))


@dataclass(frozen=True)
class Chain:
    """What the verified evidence says together, for the picture; empty where it says nothing.

    `level` is the highest SLSA Build level of all evidence; `levels` is that of each builder.
    """

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
    levels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """All steps, and what they amount to: accepted if none refused. False unless accepted."""

    steps: tuple[Step, ...]
    chain: Chain

    def __bool__(self) -> bool:
        return self.accepted

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
        mark, _ = _MARKS[step.outcome]
        lines.append(f"  {mark:<8} {step.title:<{titles}}  {printable(step.found)}")
        lines += [f"  {'':<8} {'':<{titles}}    {detail}" for detail in _details(step.error)]
    lines.append(headline(verdict))
    return "\n".join(lines) + "\n"


def cause(verdict: Verdict) -> str:
    """The last line of `text` and, for a refusal, its details: a message for stderr."""
    return "\n  ".join([headline(verdict), *_details(verdict.refusal)])


def as_json(verdict: Verdict) -> str:
    """The verdict for programs; schemas/verdict.v1.json describes it."""
    chain = verdict.chain
    document = {
        "schema": SCHEMA,
        "verdict": "verified" if verdict.accepted else "refused",
        "model": {"name": chain.model, "sha256": chain.sha256},
        "slsaBuildLevel": chain.level if verdict.accepted else 0,
        "slsaBuildLevels": dict(chain.levels) if verdict.accepted else {},
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
    """The verdict for a job summary: a headline, the refusal or the picture, a list for each file.

    Args:
        verdict: The verdict.
        trained: Markdown about the training, shown before the checks.
    """
    _, symbol = _MARKS["passed" if verdict.accepted else "refused"]
    lines = [f"## {symbol} {_cell(headline(verdict))}", ""]
    if verdict.refusal is not None:
        lines += [f"**{_cell(verdict.refusal.message)}**", ""]
        lines += [f"- {_cell(detail)}" for detail in _details(verdict.refusal)]
    elif verdict.accepted:
        lines += [*_links(verdict.chain), "```mermaid", *_graph(verdict.chain), "```", trained]
    lines += ["", "### What was checked", ""]
    for subject, group in groupby(verdict.steps, key=lambda step: step.subject):
        steps = list(group)
        outcomes = [step.outcome for step in steps]
        worst = next((word for word in ("refused", "passed") if word in outcomes), "not checked")
        count, refused = counted(len(steps), "check"), outcomes.count("refused")
        count = f"{refused} of {count} refused" if refused else count
        lines += [
            f"<details{' open' if refused else ''}><summary>{_MARKS[worst][1]} "
            f"<b>{_cell(subject)}</b> {count}</summary>",
            *("", "| | Check | Found |", "|---|---|---|"),
            *(
                f"| {_MARKS[step.outcome][1]} | {_cell(step.title)} | "
                f"{'<br>'.join(map(_cell, [_short(step.found), *_details(step.error)]))} |"
                for step in steps
            ),
            *("", "</details>", ""),
        ]
    return "\n".join(lines) + "\n"


def headline(verdict: Verdict) -> str:
    """One line: verified, and by whom at which level; or refused, and the first cause."""
    name, chain = printable(verdict.chain.model), verdict.chain
    if not verdict.accepted:
        found = verdict.refusal.message if verdict.refusal else "nothing could be checked"
        # Its first words are the subject that the line has already.
        found = re.sub(r"^the model\b", "it", re.sub(r" \(OMS [\d.]+\)$", "", found))
        return f"REFUSED {name}: {found}"
    levels = chain.levels
    if len(set(levels.values())) > 1:
        highest_first = sorted(levels.items(), key=lambda item: -item[1])
        said = ", ".join(f"L{level} by {printable(builder)}" for builder, level in highest_first)
        said = f": SLSA Build {said}"
    else:
        said = f", SLSA Build L{chain.level}" if chain.level else ""
    if levels and not chain.signer:
        said += " (no signature was given)"
    elif chain.signer and not levels:
        said += " (signature only: no provenance)"
    return f"VERIFIED {name}{said}"


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def run_on_github(chain: Chain) -> tuple[str, str] | None:
    """The repository (`ORG/REPO`) and the number of the run on GitHub, if it was one."""
    match = re.match(r"https://github\.com/([\w.-]+/[\w.-]+)/actions/runs/(\d+)\b", chain.run, re.A)
    return (match[1], match[2]) if match else None


def _details(error: Error | None) -> list[str]:
    """Where, expected, found and fix, as far as a refusal has them."""
    fields = {} if error is None else error.as_dict()
    names = ("where", "expected", "found", "fix")
    return [f"{name}: {printable(fields[name])}" for name in names if name in fields]


def _links(chain: Chain) -> list[str]:
    """A line with links to the source and the run, where both are GitHub's and nothing else."""
    source = re.fullmatch(
        r"https://github\.com/([\w.-]+/[\w.-]+)@([0-9a-f]{40})", chain.source, re.A
    )
    run = run_on_github(chain)
    if source is None or run is None:
        return []
    repository, commit = source.groups()
    url = f"https://github.com/{repository}/tree/{commit}"
    return [
        f"Source [{_cell(repository)}@{commit[:12]}]({url}), "
        f"run [{run[1]}](https://github.com/{run[0]}/actions/runs/{run[1]})",
        "",
    ]


def _graph(chain: Chain) -> list[str]:
    """Boxes only for what the evidence says."""
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
    return [*lines, "  style model stroke:#1a7f37,stroke-width:3px"]


def _cell(value: str) -> str:
    """Text that GitHub's Markdown shows as it is: no markup, links, mentions or table cells."""
    shown = printable(_SHA.sub(r"\1…", value))[:500]
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in shown)


def _label(value: str) -> str:
    """The same for a mermaid label, whose entities are written `#NUMBER;`."""
    shown = printable(_SHA.sub(r"\1…", _short(value)))[:200]
    return "".join(f"#{ord(char)};" if char in _MARKUP else char for char in shown)


def _short(value: str) -> str:
    """Addresses on GitHub as people say them."""
    for long, short in (
        ("https://github.com/", ""),
        ("/.github/workflows/", " "),
        ("/actions/runs/", " run "),
        ("/attempts/", " attempt "),
    ):
        value = value.replace(long, short)
    return value


_SHA = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_MARKUP = set("&<>|`*_[]()#@!\\~\"'$:{};")
