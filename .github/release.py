"""What a release has to be, checked before it is built; and the tag vX, moved when it is out.

usage: python release.py check|move vX.Y.Z COMMIT

`check` refuses a tag that is not the version in pyproject.toml, has no section in CHANGELOG.md, or
whose commit is not on main. `move` lets the tag vX point to the commit, unless a newer vX.Y.Z is
out. GitHub is asked by `gh`, which reads GH_TOKEN and GH_REPO.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
Version = tuple[int, ...]


def main(action: str, tag: str, commit: str) -> str | None:
    """What is wrong, if anything."""
    version = _version(f"refs/tags/{tag}")
    if version is None:
        return f"the tag is not vX.Y.Z: {tag}"
    if action == "move":
        _move(tag, version, commit)
        return None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if tag != f"v{project['version']}":
        return f"the tag is {tag}, but pyproject.toml has version {project['version']}"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(tag[1:])}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        return f"CHANGELOG.md has no section '## [{tag[1:]}] - YYYY-MM-DD'"
    status = _gh(f"repos/{{owner}}/{{repo}}/compare/main...{commit}", "--jq", ".status").strip()
    if status not in ("identical", "behind"):
        return f"the commit {commit} is not on main: GitHub says '{status}'"
    return None


def _move(tag: str, version: Version, commit: str) -> None:
    major = f"refs/tags/v{version[0]}"
    query = f"repos/{{owner}}/{{repo}}/git/matching-{major}"
    refs = _gh(query, "--paginate", "--jq", ".[].ref").split()
    # The query is a prefix: v1 also finds v10.0.0.
    others = [other for other in map(_version, refs) if other and other[0] == version[0]]
    if max(others, default=version) > version:
        print(f"::notice::{major} stays: there is a newer release than {tag}")
    elif major in refs:
        update = ["--method", "PATCH", "-f", f"sha={commit}", "-F", "force=true"]
        _gh(f"repos/{{owner}}/{{repo}}/git/{major}", *update)
    else:
        create = ["--method", "POST", "-f", f"sha={commit}", "-f", f"ref={major}"]
        _gh("repos/{owner}/{repo}/git/refs", *create)


def _version(ref: str) -> Version | None:
    match = re.fullmatch(r"refs/tags/v(\d+)\.(\d+)\.(\d+)", ref)
    return match and tuple(map(int, match.groups()))


def _gh(*arguments: str) -> str:
    command = ["gh", "api", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
