"""A verdict as one page for people: HTML with nothing from elsewhere, printable, light and dark.

Everything shown comes from files that a stranger may have written, so all of it is escaped; and the
page says of itself that it runs no script and loads nothing.
"""

from __future__ import annotations

from html import escape
from itertools import groupby

from model_signing.errors import printable
from slsa_for_models.report.basis import basis
from slsa_for_models.report.plain import (
    Chain,
    basis_rows,
    chain_of,
    details,
    headline,
    short,
)
from slsa_for_models.verdict.result import Verdict

_STYLE = """
:root { color-scheme: light dark; --line: #8888; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #ff7b72; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1 { border-left: .5rem solid var(--bad); padding-left: .75rem; }
h1.verified { border-color: var(--good); }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; table-layout: fixed; }
td { border-top: 1px solid var(--line); padding: .25rem .5rem; text-align: left;
  vertical-align: top; }
.steps td:nth-child(1) { width: 10%; } .steps td:nth-child(2) { width: 17%; }
.steps td:nth-child(4) { width: 21%; } .names td:nth-child(1) { width: 30%; }
.refused { color: var(--bad); } .passed td:first-child { color: var(--good); }
body > svg { width: 100%; height: auto; } svg rect { fill: none; stroke: currentColor; }
svg path { stroke: currentColor; fill: none; } svg text { fill: currentColor; font-size: 12px; }
svg .name { font-weight: bold; } svg .claim { stroke-dasharray: 5 5; }
svg .model { stroke: var(--good); stroke-width: 3; }
@media print {
  :root { color-scheme: light; --good: #1a7f37; --bad: #cf222e; }
  body { margin: 0; max-width: none; font-size: 10pt; }
  tr, svg { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""
# Left edge and top of each box, of a picture 1000 wide; and where its arrow ends.
_PLACES = {
    "dataset": (10, 10, "run"),
    "source": (10, 110, "run"),
    "run": (350, 60, "model"),
    "model": (690, 60, ""),
    "signature": (690, 170, "model"),
    "log": (350, 170, "signature"),
}
_TITLES = {"dataset": "Data set"}
_WIDE, _HIGH, _MOST = 300, 78, 36  # of a box; characters of a line


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
        parts.append("<ul>")
        parts += [f"<li>{_text(line)}</li>" for line in details(verdict.refusal)]
        parts.append("</ul>")
    elif verdict.verified:
        parts += _picture(chain_of(verdict))
    parts += ["<h2>What was checked</h2>", *_steps(verdict)]
    parts += ['<h2>What it rests on</h2><table class="names">']
    for name, value in basis_rows(verdict):
        parts.append(f"<tr><td>{name}</td><td>{_text(value)}</td></tr>")
    files = basis(verdict)["files"]
    parts += ["</table><h2>The model's files</h2><table class='names'>"]
    if isinstance(files, dict):
        parts += [f"<tr><td>{_text(f)}</td><td>{_text(d)}</td></tr>" for f, d in files.items()]
    return "\n".join([*parts, "</table></body></html>"]) + "\n"


def _steps(verdict: Verdict) -> list[str]:
    parts = []
    for subject, steps in groupby(verdict.steps, key=lambda step: step.subject):
        parts.append(f'<h3>{_text(subject)}</h3><table class="steps">')
        for step in steps:
            said = "<br>".join(map(_text, [step.found, *details(step.error)]))
            parts.append(
                f'<tr class="{step.outcome.split()[0]}"><td>{_text(step.outcome)}</td>'
                f"<td>{_text(step.title)}</td><td>{said}</td>"
                f"<td>{_text(step.clause)}</td></tr>"
            )
        parts.append("</table>")
    return parts


def _picture(chain: Chain) -> list[str]:
    """Boxes only for what the evidence says; dashed what only the training says."""
    said = {
        "dataset": f"{chain.dataset} {chain.dataset_sha256}".strip(),
        "source": short(chain.source),
        "run": short(chain.run),
        "model": f"{chain.model} {chain.sha256}",
        "signature": short(chain.signer),
        "log": chain.log,
    }
    shown = {name: text for name, text in said.items() if text}
    claimed = "dataset" in shown and not chain.dataset_expected
    parts = ['<svg viewBox="0 0 1000 260" role="img" aria-label="The chain of evidence">']
    for name, text in shown.items():
        left, top, end = _PLACES[name]
        kind = "claim" if name == "dataset" and claimed else name
        first = printable(text)
        rest = first[_MOST : 2 * _MOST - 1] + ("…" if len(first) >= 2 * _MOST else "")
        place = f'x="{left}" y="{top}" width="{_WIDE}" height="{_HIGH}"'
        parts += [
            f'<rect class="{kind}" {place} rx="6"/>',
            f"<svg {place}>",  # which cuts off what is wider
            f'<text class="name" x="10" y="22">{_TITLES.get(name, name.capitalize())}</text>',
            f'<text x="10" y="44">{escape(first[:_MOST])}</text>',
            f'<text x="10" y="64">{escape(rest)}</text></svg>',
        ]
        if end in shown:
            parts.append(f'<path d="{_arrow(name, end)}"/>')
    note = "Dashed: what the training job claims, and nothing was compared with." if claimed else ""
    return [*parts, "</svg>", *([f"<p>{note}</p>"] if note else [])]


def _arrow(start: str, end: str) -> str:
    """From one box to another: to its left side, or up to it from below."""
    (left, top, _), (x, y, _) = _PLACES[start], _PLACES[end]
    if left == x:
        x, y = x + _WIDE // 2, y + _HIGH
        return f"M{x} {top} L{x} {y} M{x - 5} {y + 9} L{x} {y} L{x + 5} {y + 9}"
    y += _HIGH // 2
    return (
        f"M{left + _WIDE} {top + _HIGH // 2} L{x - 9} {y} L{x} {y} "
        f"M{x - 9} {y - 5} L{x} {y} L{x - 9} {y + 5}"
    )


def _text(value: str) -> str:
    return escape(printable(value))
