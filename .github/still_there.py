"""Whether what others keep for us is still there, and still what it was. For still-there.yml.

usage: python .github/still_there.py pins|trust-root

`pins` asks GitHub, by `gh`, for the commit of every action that a workflow, action or example
names: a tag that has moved, or a commit that is gone, is told. `trust-root` refreshes Sigstore's;
it needs our package. Both say all that is wrong, and end with exit code 1 if anything is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The one that is called by its tag, which therefore says nothing of the commit.
TAGS = {"slsa-framework/slsa-github-generator": "f7dd8c54c2067bafc12ca7a55595d5ee9b75204a"}


def pins(root: Path = ROOT) -> set[tuple[str, str, str]]:
    """Repository, tag (or commit, without a release) and commit of everything that is pinned."""
    found = set()
    for path in (
        file for name in (".github", "actions", "examples") for file in _yaml(root / name)
    ):
        text = path.read_text(encoding="utf-8")
        for name, commit, tag in re.findall(
            r"uses: ([\w.-]+/[\w.-]+)[\w./-]*@([0-9a-f]{40}) # (v\S+|no release)", text
        ):
            found.add((name, commit if tag == "no release" else tag, commit))
        for name, tag in re.findall(r"uses: ([\w.-]+/[\w.-]+)[\w./-]*@(v\S+)", text):
            if name in TAGS:
                found.add((name, tag, TAGS[name]))
    return found


def moved(found: set[tuple[str, str, str]]) -> Iterator[str]:
    """What is not there, or another commit."""
    for name, ref, commit in sorted(found):
        command = ("gh", "api", f"repos/{name}/commits/{ref}", "--jq", ".sha")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        now = done.stdout.strip()
        if done.returncode != 0:
            yield f"{name}@{ref} is not there: {done.stderr.strip()}"
        elif now != commit:
            yield f"{name}@{ref} is commit {now}, and we have pinned {commit}"
        else:
            print(f"{name}@{ref} is {commit}")


def trust_root() -> Iterator[str]:
    """Why Sigstore's trust root cannot be had, if so."""
    from model_signing.errors import Error
    from model_signing.methods.sigstore_trust import SigstoreTrust, load

    try:
        load(SigstoreTrust())
    except Error as error:
        yield str(error)


def _yaml(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.yml")


if __name__ == "__main__":
    problems = list(moved(pins()) if sys.argv[1:] == ["pins"] else trust_root())
    sys.exit("\n".join(problems) or None)
