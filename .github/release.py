"""A release, from its tag to the tag vX that moves to it.

usage: python .github/release.py tag vX.Y.Z
       python .github/release.py check|move vX.Y.Z COMMIT
       python .github/release.py publish vX.Y.Z COMMIT PACKAGES EVIDENCE

`tag` is for a maintainer: it tags the checkout's commit, which has to be what a release has to be.
The others are steps of release.yml, and may be run again whatever has failed. `check` refuses a tag
that is annotated or signed, is not the version in pyproject.toml, has no section in CHANGELOG.md,
or whose commit is not on main. `publish` makes the release with the files of two folders, or finds
it made. `move` lets the tag vX lead to the commit, unless a newer vX.Y.Z is out or GitHub does not
let a workflow do it: then it prints the command for a maintainer, and fails. GitHub is asked by
`gh`, which reads GH_TOKEN and GH_REPO.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "repos/{owner}/{repo}"
Version = tuple[int, ...]


def main(action: str, tag: str, commit: str = "", *folders: str) -> str | None:
    """What is wrong, if anything."""
    version = _version(f"refs/tags/{tag}")
    if version is None:
        return f"the tag is not vX.Y.Z: {tag}"
    if action == "tag":
        return _tag(tag)
    if action == "check":
        return _is_lightweight(tag, commit) or _is_release(tag, commit)
    if action == "publish":
        packages, evidence = (sorted(Path(folder).iterdir()) for folder in folders)
        return _publish(tag, packages, evidence)
    return _move(tag, version, commit)


def _tag(tag: str) -> str | None:
    """Tags HEAD, whatever `tag.gpgSign` says: `$/` does not work in a workflow by another tag."""
    commit = _run("git", "-C", str(ROOT), "rev-parse", "HEAD")
    problem = _is_release(tag, commit)
    if problem is None and not _run("git", "-C", str(ROOT), "tag", "--list", tag):
        _run("git", "-C", str(ROOT), "tag", "--no-sign", tag, commit)
    if problem is None:
        found = [
            _run("git", "-C", str(ROOT), *arguments, f"refs/tags/{tag}")
            for arguments in (("cat-file", "-t"), ("rev-parse",))
        ]
        if found != ["commit", commit]:
            problem = f"{tag} exists and is the {' '.join(found)}, not the commit {commit}"
    if problem is None:
        print(f"{tag} is commit {commit}; release it with: git push origin refs/tags/{tag}")
    return problem


def _is_lightweight(tag: str, commit: str) -> str | None:
    # A checkout on GitHub makes a lightweight tag of any: only the API knows.
    query = ("--jq", '.object | "\\(.type) \\(.sha)"')
    found = _gh("api", f"{REPOSITORY}/git/ref/tags/{tag}", *query)
    if found == f"commit {commit}":
        return None
    return (
        f"{tag} is not the commit {commit}, but the {found}: workflows by an annotated or signed "
        f"tag do not start. Delete it, and make it with: python .github/release.py tag {tag}"
    )


def _is_release(tag: str, commit: str) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if tag != f"v{project['version']}":
        return f"the tag is {tag}, but pyproject.toml has version {project['version']}"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(tag[1:])}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        return f"CHANGELOG.md has no section '## [{tag[1:]}] - YYYY-MM-DD'"
    status = _gh("api", f"{REPOSITORY}/compare/main...{commit}", "--jq", ".status")
    if status not in ("identical", "behind"):
        return f"the commit {commit} is not on main: GitHub says '{status}'"
    return None


def _publish(tag: str, packages: list[Path], evidence: list[Path]) -> str | None:
    """A draft first: a release never shows half of its files."""
    files = [str(path) for path in (*packages, *evidence)]
    fields = "{draft, assets: [.assets[] | [.name, .digest]]} | tojson"
    query = f'.[] | select(.tag_name == "{tag}") | {fields}'
    found = _gh("api", f"{REPOSITORY}/releases", "--paginate", "--jq", query)
    if not found:
        _gh("release", "create", tag, "--draft", "--verify-tag", "--generate-notes", *files)
    elif (release := json.loads(found.splitlines()[0]))["draft"]:
        _gh("release", "upload", tag, "--clobber", *files)
    else:
        # The packages are the same bytes whenever they are built. Evidence is signed anew each
        # time; that of the first time stays, as it is what people have.
        there = dict(release["assets"])
        wanted = {path.name: f"sha256:{_sha256(path)}" for path in packages}
        other = [name for name, digest in wanted.items() if there.get(name) != digest]
        other += [path.name for path in evidence if path.name not in there]
        print(f"{tag} is released already")
        return f"{tag} is released with another {', '.join(other)}" if other else None
    _gh("release", "edit", tag, "--draft=false", "--verify-tag")
    return None


def _move(tag: str, version: Version, commit: str) -> str | None:
    major = f"refs/tags/v{version[0]}"
    query = ("--paginate", "--jq", '.[] | "\\(.ref) \\(.object.sha)"')
    lines = _gh("api", f"{REPOSITORY}/git/matching-{major}", *query).splitlines()
    refs = dict(line.split() for line in lines)
    # The query is a prefix: v1 also finds v10.0.0.
    others = [other for other in map(_version, refs) if other and other[0] == version[0]]
    if max(others, default=version) > version:
        print(f"::notice::{major} stays: there is a newer release than {tag}")
        return None
    if refs.get(major) == commit:
        print(f"{major} is {tag} already")
        return None
    # A workflow's token may let no reference lead to workflow files that no branch has.
    same = _workflows(commit) == _workflows("main")
    reason: str | None = f"the workflow files of {tag} are no longer those of main"
    if same:
        reason = _update(major, commit, exists=major in refs)
    if reason is None:
        return None
    return (
        f"{tag} is released, but {major} is not moved: {reason}. A maintainer has to run:\n"
        f"git push --force origin {commit}:{major}"
    )


def _workflows(ref: str) -> str:
    """The digest of the folder with the workflow files."""
    query = ("--jq", '.[] | select(.name == "workflows") | .sha')
    return _gh("api", f"{REPOSITORY}/contents/.github?ref={ref}", *query)


def _update(ref: str, commit: str, *, exists: bool) -> str | None:
    if exists:
        where, fields = ref, ("--method", "PATCH", "-F", "force=true")
    else:
        where, fields = "refs", ("--method", "POST", "-f", f"ref={ref}")
    command = ("gh", "api", f"{REPOSITORY}/git/{where}", *fields, "-f", f"sha={commit}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or "GitHub says no"


def _version(ref: str) -> Version | None:
    match = re.fullmatch(r"refs/tags/v(\d+)\.(\d+)\.(\d+)", ref)
    return match and tuple(map(int, match.groups()))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _gh(*arguments: str) -> str:
    return _run("gh", *arguments)


def _run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
