"""Take the commands out of a Markdown document.

A fenced block marked `shell` is run. The line before it may say otherwise, in a comment that
readers of the page do not see but readers of the source do:

    <!-- not run: REASON -->     cannot run without a network, a cloud or an account
    <!-- exit: N -->             the block's last command ends with exit code N
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:^[ \t]*<!--[ ]*(?P<mark>not run|exit):[ ]*(?P<value>[^\n]*?)[ ]*-->[ \t]*\n)?"
    r"^(?P<indent>[ \t]*)```(?P<language>shell|sh|bash|console)[^\n]*\n"
    r"(?P<text>.*?)^[ \t]*```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block: its line, commands, and how it should end."""

    line: int
    text: str
    language: str
    not_run: str | None
    exit_code: int


def blocks(document: Path) -> list[Block]:
    """The document's blocks of commands, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        mark, value = match["mark"], match["value"]
        found.append(
            Block(
                line=text.count("\n", 0, match.start("text")) + 1,
                text=re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
                language=match["language"],
                not_run=value if mark == "not run" else None,
                exit_code=int(value) if mark == "exit" else 0,
            )
        )
    return found
