"""A verdict as one page for people: HTML with nothing from elsewhere, printable, light and dark.

Everything shown comes from files that a stranger may have written, so all of it is escaped; and the
page says of itself that it runs no script and loads nothing.
"""

from __future__ import annotations

from html import escape
from itertools import groupby

from model_signing.errors import printable
from slsa_for_models.report.basis import basis
from slsa_for_models.report.plain import MARKS, Chain, basis_lines, chain_of, details, headline
from slsa_for_models.verdict.result import Verdict

_STYLE = """
:root { color-scheme: light dark; --line: #8888; --good: #1a7f37; --bad: #cf222e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { border-left: .5rem solid var(--bad); padding-left: .75rem; overflow-wrap: anywhere; }
h1.verified { border-color: var(--good); }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; } .refused { color: var(--bad); }
svg { width: 100%; height: auto; } svg rect { fill: none; stroke: currentColor; }
svg path { stroke: currentColor; fill: none; } svg text { fill: currentColor; font-size: 12px; }
svg .claim { stroke-dasharray: 5 5; } svg .model { stroke: var(--good); stroke-width: 3; }
@media print { body { margin: 0; max-width: none; } tr { break-inside: avoid; } }
"""
# Left edge and top of each box, of a picture 1000 wide; and where its arrow ends.
_PLACES = {
    "dataset": (10, 10, "run"),
    "source": (10, 110, "run"),
    "run": (350, 60, "model"),
    "model": (690, 60, ""),
    "signature": (690, 160, "model"),
    "log": (350, 160, "signature"),
}
_TITLES = {"dataset": "Data set"}
_WIDE, _HIGH, _MOST = 300, 60, 36


def page(verdict: Verdict) -> str:
    """The whole page."""
    title, state = _text(headline(verdict)), "verified" if verdict.verified else "refused"
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<h1 class="{state}">{title}</h1>',
    ]
    if verdict.refusal is not None:
        parts.append(f"<p class='refused'>{_text(verdict.refusal.message)}</p><ul>")
        parts += [f"<li>{_text(line)}</li>" for line in details(verdict.refusal)]
        parts.append("</ul>")
    elif verdict.verified:
        parts += _picture(chain_of(verdict))
    parts += ["<h2>What was checked</h2>", *_steps(verdict)]
    parts += ["<h2>What it rests on</h2><table>"]
    for line in basis_lines(verdict):
        name, _, value = line.partition(" " if "  " not in line else "  ")
        parts.append(f"<tr><td>{_text(name)}</td><td>{_text(value.strip())}</td></tr>")
    files = basis(verdict)["files"]
    parts += ["</table><h2>The model's files</h2><table>"]
    if isinstance(files, dict):
        parts += [f"<tr><td>{_text(f)}</td><td>{_text(d)}</td></tr>" for f, d in files.items()]
    return "\n".join([*parts, "</table></body></html>"]) + "\n"


def _steps(verdict: Verdict) -> list[str]:
    parts = []
    for subject, steps in groupby(verdict.steps, key=lambda step: step.subject):
        parts.append(f"<h3>{_text(subject)}</h3><table>")
        for step in steps:
            said = "<br>".join(map(_text, [step.found, *details(step.error)]))
            parts.append(
                f'<tr class="{step.outcome.split()[0]}"><td>{MARKS[step.outcome][1]} '
                f"{_text(step.outcome)}</td><td>{_text(step.title)}</td><td>{said}</td>"
                f"<td>{_text(step.clause)}</td></tr>"
            )
        parts.append("</table>")
    return parts


def _picture(chain: Chain) -> list[str]:
    """Boxes only for what the evidence says; dashed what only the training says."""
    said = {
        "dataset": f"{chain.dataset} {chain.dataset_sha256}".strip(),
        "source": chain.source.removeprefix("https://"),
        "run": chain.run.removeprefix("https://"),
        "model": f"{chain.model} {chain.sha256}",
        "signature": chain.signer.removeprefix("https://"),
        "log": chain.log,
    }
    shown = {name: text for name, text in said.items() if text}
    parts = ['<svg viewBox="0 0 1000 230" role="img" aria-label="The chain of evidence">']
    for name, text in shown.items():
        left, top, end = _PLACES[name]
        kind = "claim" if name == "dataset" and not chain.dataset_expected else name
        short = printable(text)
        short = short if len(short) <= _MOST else f"{short[: _MOST - 1]}…"
        parts += [
            f'<rect class="{kind}" x="{left}" y="{top}" width="{_WIDE}" height="{_HIGH}" rx="6"/>',
            f'<text x="{left + 10}" y="{top + 22}">{_TITLES.get(name, name.capitalize())}</text>',
            f'<text x="{left + 10}" y="{top + 44}">{_text(short)}</text>',
        ]
        if end in shown:
            x, y, _ = _PLACES[end]
            level = left == x  # one above the other
            beside = (left + _WIDE, top + 30, x, y + 30)
            ends = (left + 150, top, x + 150, y + _HIGH) if level else beside
            parts.append('<path d="M{} {} L{} {}"/>'.format(*ends))
    return [*parts, "</svg>"]


def _text(value: str) -> str:
    return escape(printable(value))
