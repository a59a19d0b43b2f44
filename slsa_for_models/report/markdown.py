"""A verdict as Markdown for a job summary: tables, a picture of the chain, and every escape.

Everything shown comes from files that a stranger may have written, so all of it is escaped.
"""

from __future__ import annotations

import re
from itertools import groupby

from model_signing.errors import printable
from slsa_for_models.report.plain import (
    MARKS,
    Chain,
    basis_rows,
    chain_of,
    details,
    headline,
    short,
)
from slsa_for_models.verdict.result import Verdict
from slsa_for_models.verdict.table import counted


def markdown(verdict: Verdict, trained: str = "") -> str:
    """The verdict for a job summary: a headline, the refusal or the picture, a list for each file.

    Args:
        verdict: The verdict.
        trained: Markdown about the training, shown before the checks.
    """
    _, symbol = MARKS["passed" if verdict.verified else "refused"]
    lines = [f"## {symbol} {_cell(headline(verdict))}", ""]
    if verdict.refusal is not None:
        lines += [f"**{_cell(verdict.refusal.message)}**", ""]
        lines += [f"- {_cell(detail)}" for detail in details(verdict.refusal)]
    elif verdict.verified:
        chain = chain_of(verdict)
        lines += [*_links(chain), "```mermaid", *_graph(chain), "```", trained]
    lines += ["", "### What was checked", ""]
    for subject, group in groupby(verdict.steps, key=lambda step: step.subject):
        steps = list(group)
        outcomes = [step.outcome for step in steps]
        worst = next((word for word in ("refused", "passed") if word in outcomes), "not checked")
        count, refused = counted(len(steps), "check"), outcomes.count("refused")
        count = f"{refused} of {count} refused" if refused else count
        lines += [
            f"<details{' open' if refused else ''}><summary>{MARKS[worst][1]} "
            f"<b>{_cell(subject)}</b> {count}</summary>",
            *("", "| | Check | Found |", "|---|---|---|"),
            *(
                f"| {MARKS[step.outcome][1]} | {_cell(step.title)} | "
                f"{'<br>'.join(map(_cell, [short(step.found), *details(step.error)]))} |"
                for step in steps
            ),
            *("", "</details>", ""),
        ]
    lines += ["<details><summary>What it rests on</summary>", "", "| | |", "|---|---|"]
    for name, value in basis_rows(verdict):
        lines.append(f"| {name} | {_cell(value, whole=True)} |")
    lines += ["", "</details>", ""]
    return "\n".join(lines) + "\n"


def run_on_github(chain: Chain) -> tuple[str, str] | None:
    """The repository (`ORG/REPO`) and the number of the run on GitHub, if it was one."""
    match = re.match(r"https://github\.com/([\w.-]+/[\w.-]+)/actions/runs/(\d+)\b", chain.run, re.A)
    return (match[1], match[2]) if match else None


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
    if "dataset" in shown and not chain.dataset_expected:  # the training's own word
        lines.append("  style dataset stroke-dasharray:5 5")
    return [*lines, "  style model stroke:#1a7f37,stroke-width:3px"]


def _cell(value: str, *, whole: bool = False) -> str:
    """Text that GitHub's Markdown shows as it is: no markup, links, mentions or table cells.

    Digests are shortened, unless it is to be `whole`.
    """
    shown = printable(value)[:2000] if whole else printable(_SHA.sub(r"\1…", value))[:500]
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in shown)


def _label(value: str) -> str:
    """The same for a mermaid label, whose entities are written `#NUMBER;`."""
    shown = printable(_SHA.sub(r"\1…", short(value)))[:200]
    return "".join(f"#{ord(char)};" if char in _MARKUP else char for char in shown)


_SHA = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_MARKUP = set("&<>|`*_[]()#@!\\~\"'$:{};")
