"""Writes what the READMEs of workflows and actions say about inputs, outputs and permissions.

usage: python .github/tables.py

A README has a pair of comments, and what stands between them is made from the YAML:

    <!-- made from the YAML: inputs train.yml -->
    <!-- end -->

The words after the colon are `inputs`, `outputs` or `permissions` and a workflow of ours or an
action's folder; or `example` and a file in `examples/`, followed by `#ACTION` to show only the step
that uses it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandbox.github.workflows import Document, load  # noqa: E402 - after the path to it

BLOCK = re.compile(
    r"(<!-- made from the YAML: (?P<kind>\w+) (?P<what>\S+) -->\n).*?(<!-- end -->)", re.DOTALL
)


def readmes(root: Path = ROOT) -> list[Path]:
    """The READMEs that may have such blocks."""
    return sorted([*root.glob(".github/workflows/*.md"), *root.glob("actions/**/*.md")])


def filled(text: str, root: Path = ROOT) -> str:
    """A README's text with every block made anew."""
    return BLOCK.sub(
        lambda match: match[1] + _block(root, match["kind"], match["what"]) + match[4], text
    )


def _block(root: Path, kind: str, what: str) -> str:
    if kind == "example":
        return _example(root, *what.partition("#")[::2])
    is_workflow = what.endswith(".yml")
    path = root / ".github/workflows" / what if is_workflow else root / f"actions/{what}/action.yml"
    document = load(path)
    if kind == "permissions":
        return _workflow_permissions(path) if is_workflow else _action_permissions(path)
    interface = document["on"]["workflow_call"] if is_workflow else document
    entries: dict[str, Document] = interface.get(kind) or {}
    if not entries:
        return f"No {kind}.\n"
    return _inputs(entries) if kind == "inputs" else _outputs(entries)


def _inputs(entries: dict[str, Document]) -> str:
    rows = [
        (f"`{name}`", _default(entry), entry.get("type", "string"), entry["description"])
        for name, entry in entries.items()
    ]
    return _table(("Input", "Default", "Type", "What"), rows)


def _default(entry: Document) -> str:
    if entry.get("required") is True:
        return "**required**"
    default = entry.get("default", "")
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`" if text else "(empty)"


def _outputs(entries: dict[str, Document]) -> str:
    rows = [(f"`{name}`", entry["description"]) for name, entry in entries.items()]
    return _table(("Output", "What"), rows)


def _workflow_permissions(path: Path) -> str:
    """From the text, as the reasons are comments."""
    rows, job, listing = [], "", False
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"  ([\w-]+):", line):
            job = match[1]
        listing = line == "    permissions:" or (listing and line.startswith("      "))
        if listing and (grant := re.fullmatch(r"      ([\w-]+: \w+) # (.+)", line)):
            rows.append((f"`{grant[1]}`", f"`{job}`", grant[2]))
    return _table(("Permission", "Job", "Why"), sorted(rows))


def _action_permissions(path: Path) -> str:
    """From the comments `# permission: SCOPE: LEVEL # WHY` of an action."""
    text = path.read_text(encoding="utf-8")
    rows = [
        (f"`{grant}`", why)
        for grant, why in re.findall(r"^# permission: ([\w-]+: \w+) # (.+)$", text, re.MULTILINE)
    ]
    return _table(("Permission", "Why"), rows) if rows else "No permissions.\n"


def _example(root: Path, name: str, action: str) -> str:
    text = (root / "examples" / name).read_text(encoding="utf-8")
    if action:
        steps = re.findall(r"^ +- (?:(?!^ +- |^$).*\n)+", text, re.MULTILINE)
        text = textwrap.dedent(next(step for step in steps if f"/actions/{action}@" in step))
    return f"```yaml\n{text}```\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = (" | ".join(str(cell).replace("|", "\\|").strip() for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


def main() -> int:
    """Fills the blocks of every README."""
    for path in readmes():
        text = path.read_text(encoding="utf-8")
        if (made := filled(text)) != text:
            path.write_text(made, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
