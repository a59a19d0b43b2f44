"""release.yml up to the point where it leaves this machine."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandbox.github.repositories import snapshot
from sandbox.github.workflows import load
from tests.support.repositories import git
from tests.workflows.runs import ROOT, Sandbox

# What speaks to the package index.
PYPI = (
    "        uses: pypa/gh-action-pypi-publish@dc37677b2e1c63e2034f94d8a5b11f265b73ba33 # v1.14.2\n"
    "        with:\n          attestations: true\n"
)
VERSION = "1.0.0"
COMMIT = "c" * 40


FAKE = """#!{python}
# A `gh` that notes what it is asked, and answers from a file with the API's documents; jq is jq.
import json, pathlib, subprocess, sys
folder = pathlib.Path(__file__).parent
asked = sys.argv[1:]
with (folder / "asked").open("a") as file:
    file.write(" ".join(asked) + "\\n")
answers = json.loads((folder / "answers.json").read_text())
if asked[0] == "api":
    method = asked[asked.index("--method") + 1] if "--method" in asked else "GET"
    path = asked[1].removeprefix("repos/{{owner}}/{{repo}}/")
    answer = answers[f"{{method}} {{path}}"]
    if isinstance(answer, str):
        sys.exit(answer)
    if "--jq" in asked:
        jq = ["jq", "-r", asked[asked.index("--jq") + 1]]
        subprocess.run(jq, input=json.dumps(answer), text=True, check=True)
"""


class GitHub:
    """A `gh` in front of what GitHub's API would say."""

    def __init__(
        self,
        folder: Path,
        *refs: str,
        status: str = "behind",
        commit: str = COMMIT,
        tag: str = "commit",
        workflows: tuple[str, str] = ("a", "a"),
        releases: Sequence[dict[str, object]] = (),
        update: object = None,
    ) -> None:
        self._asked = folder / "asked"
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        tree = [{"name": "workflows", "sha": "%s"}, {"name": "zizmor.yml", "sha": "z"}]
        contents = [json.dumps(tree) % sha for sha in workflows]
        answers = {
            f"GET compare/main...{commit}": {"status": status},
            f"GET git/ref/tags/v{VERSION}": {"object": {"type": tag, "sha": commit}},
            "GET git/matching-refs/tags/v1": [
                {"ref": f"refs/tags/{name}", "object": {"sha": sha or "0" * 40}}
                for name, _, sha in (ref.partition("=") for ref in refs)
            ],
            "GET contents/.github?ref=main": json.loads(contents[0]),
            f"GET contents/.github?ref={commit}": json.loads(contents[1]),
            "GET releases": list(releases),
            "PATCH git/refs/tags/v1": update,
            "POST git/refs": update,
        }
        (folder / "answers.json").write_text(json.dumps(answers))
        program = folder / "gh"
        program.write_text(FAKE.format(python=sys.executable))
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []

    @property
    def changes(self) -> list[str]:
        return [line for line in self.asked if "--method" in line or line.startswith("release")]


def release(github: GitHub, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / ".github/release.py"), *arguments],
        env={**os.environ, "PATH": github.path, "GIT_CONFIG_GLOBAL": str(root / "gitconfig")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def checkout(folder: Path, changed: str = "") -> Path:
    """What a release is made of."""
    root = folder / "checkout"
    (root / ".github").mkdir(parents=True)
    for name in (".github/release.py", "pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root / name)
    if changed:
        changes = root / "CHANGELOG.md"
        changes.write_text(changes.read_text().replace(changed, "## [Unreleased]"))
    return root


@pytest.mark.parametrize(
    ("tag", "answers", "changed", "message"),
    [
        (f"v{VERSION}", {"status": "identical"}, "", ""),
        (f"v{VERSION}", {"status": "behind"}, "", ""),
        ("v9.9.9", {}, "", "the tag is v9.9.9, but pyproject.toml has version"),
        (f"v{VERSION}-rc1", {}, "", "the tag is not vX.Y.Z"),
        (f"v{VERSION}", {"status": "ahead"}, "", "is not on main: GitHub says 'ahead'"),
        (f"v{VERSION}", {"status": "diverged"}, "", "is not on main"),
        (f"v{VERSION}", {}, f"## [{VERSION}]", "CHANGELOG.md has no section"),
        (f"v{VERSION}", {"tag": "tag"}, "", "annotated or signed tag do not start"),
    ],
)
def test_what_a_release_has_to_be(
    tmp_path: Path, tag: str, answers: dict[str, str], changed: str, message: str
) -> None:
    root = checkout(tmp_path, changed)
    github = GitHub(tmp_path, **answers)  # type: ignore[arg-type]
    if tag == "v9.9.9":
        answered = json.loads((tmp_path / "answers.json").read_text())
        answered["GET git/ref/tags/v9.9.9"] = answered[f"GET git/ref/tags/v{VERSION}"]
        (tmp_path / "answers.json").write_text(json.dumps(answered))
    done = release(github, "check", tag, COMMIT, root=root)
    assert (done.returncode, message in done.stderr) == (1 if message else 0, True), done.stderr


@pytest.mark.parametrize("before", ["", "lightweight", "annotated", "another commit"])
def test_a_maintainer_makes_a_lightweight_tag(tmp_path: Path, before: str) -> None:
    """Also where `git tag` signs by default; and nothing else is taken for one."""
    root = checkout(tmp_path)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    tag = f"v{VERSION}"
    if before == "annotated":
        git(root, "tag", "--annotate", "--message", "x", tag)
    elif before:
        git(root, "tag", tag)
    if before == "another commit":
        git(root, "commit", "--quiet", "--allow-empty", "--message", "second")
    (root / "gitconfig").write_text("[tag]\n\tgpgSign = true\n\tforceSignAnnotated = true\n")
    commit = git(root, "rev-parse", "HEAD")
    done = release(GitHub(tmp_path, commit=commit), "tag", tag, root=root)
    if before in ("", "lightweight"):
        assert done.returncode == 0, done.stderr
        assert f"git push origin refs/tags/{tag}" in done.stdout
        assert git(root, "cat-file", "-t", tag) == "commit"
        assert git(root, "rev-parse", tag) == commit
    else:
        assert done.returncode == 1
        assert f"not the commit {commit}" in done.stderr
    not_on_main = GitHub(tmp_path, commit=commit, status="ahead")
    assert release(not_on_main, "tag", tag, root=root).returncode == 1


@pytest.mark.parametrize(
    ("refs", "asked"),
    [
        (["v1", "v1.2.2", "v1.2.3"], "/git/refs/tags/v1 --method PATCH"),
        (["v1", "v1.2.3", "v10.0.0", "v1.3.0-rc1"], "/git/refs/tags/v1 --method PATCH"),
        (["v1.2.3"], "/git/refs --method POST"),
        (["v1", "v1.2.3", "v1.10.0"], ""),
        ([f"v1={COMMIT}", "v1.2.3"], ""),
    ],
    ids=["newest", "newest but for others", "first", "patch of an older one", "done before"],
)
def test_the_major_tag_moves_to_the_newest_only(
    tmp_path: Path, refs: list[str], asked: str
) -> None:
    github = GitHub(tmp_path, *refs)
    done = release(github, "move", "v1.2.3", COMMIT)
    assert done.returncode == 0, done.stderr
    assert len(github.changes) == bool(asked)
    assert all(asked in line and f"sha={COMMIT}" in line for line in github.changes)
    assert bool(asked) != ("refs/tags/v1 " in done.stdout)


@pytest.mark.parametrize(
    ("github", "reason"),
    [
        ({"workflows": ("a", "b")}, "the workflow files of v1.2.3 are no longer those of main"),
        ({"update": "HTTP 403: Resource not accessible by integration"}, "HTTP 403: Resource"),
    ],
    ids=["known before", "told by GitHub"],
)
def test_where_a_workflow_may_not_move_it_a_maintainer_is_told_how(
    tmp_path: Path, github: dict[str, object], reason: str
) -> None:
    """And the run ends red, with everything else done."""
    asked = GitHub(tmp_path, "v1", **github)  # type: ignore[arg-type]
    done = release(asked, "move", "v1.2.3", COMMIT)
    assert done.returncode == 1
    assert reason in done.stderr
    assert f"git push --force origin {COMMIT}:refs/tags/v1" in done.stderr
    assert len(asked.changes) == ("update" in github)


def test_a_release_is_published_whole_and_found_when_run_again(tmp_path: Path) -> None:
    """A draft until all files are there; then only the same packages are taken for it."""
    for folder, names in (("dist", ["a.whl", "b.tar.gz"]), ("evidence", ["dist.sig"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(name)
    files = [f"{tmp_path}/{name}" for name in ("dist/a.whl", "dist/b.tar.gz", "evidence/dist.sig")]
    tag = f"v{VERSION}"

    def publish(*releases: dict[str, object]) -> tuple[int, list[str], str]:
        (tmp_path / "asked").unlink(missing_ok=True)
        github = GitHub(tmp_path, releases=releases)
        folders = (str(tmp_path / "dist"), str(tmp_path / "evidence"))
        done = release(github, "publish", tag, COMMIT, *folders)
        return done.returncode, github.changes, done.stderr

    def made(draft: bool, **assets: str) -> dict[str, object]:
        listed = [{"name": name, "digest": digest} for name, digest in assets.items()]
        return {"tag_name": tag, "draft": draft, "assets": listed}

    public = f"release edit {tag} --draft=false --verify-tag"
    create = f"release create {tag} --draft --verify-tag --generate-notes {' '.join(files)}"
    assert publish() == (0, [create, public], "")
    assert publish({"tag_name": "v0.9.0", "draft": False, "assets": []}) == (
        0,
        [create, public],
        "",
    )
    upload = f"release upload {tag} --clobber {' '.join(files)}"
    assert publish(made(True)) == (0, [upload, public], "")
    same = {
        name: "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        for name in ("a.whl", "b.tar.gz")
    }
    signed_before = {"dist.sig": "sha256:" + "0" * 64}
    assert publish(made(False, **same, **signed_before)) == (0, [], "")
    for other, named in (
        ({**same, **signed_before, "a.whl": "sha256:" + "0" * 64}, "another a.whl"),
        (same, "another dist.sig"),
        ({**signed_before, "a.whl": same["a.whl"]}, "another b.tar.gz"),
    ):
        code, changes, message = publish(made(False, **other))
        assert (code, changes) == (1, [])
        assert named in message


@pytest.mark.full
def test_a_release(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_pypi(root: Path) -> None:
        path = root / ".github/workflows/release.yml"
        text = path.read_text(encoding="utf-8")
        assert PYPI in text, "release.yml has changed: the test is out of date"
        path.write_text(text.replace(PYPI, "        run: ls dist\n"), encoding="utf-8")

    (tmp_path / "bin").mkdir()
    product = dataclasses.replace(sandbox.product(without_pypi), ref=f"refs/tags/v{VERSION}")
    commit = snapshot(product.path, tmp_path / "copy")
    github = GitHub(tmp_path / "bin", "v1", f"v{VERSION}", commit=commit)
    monkeypatch.setenv("PATH", github.path)
    run = sandbox.run("release.yml", product, event_name="push")
    assert run.conclusion == "success", run.log.read_text(encoding="utf-8")
    assert run.jobs["sign"].outputs["verdict"] == "verified"
    assert run.jobs["publish"].conclusion == run.jobs["github-release"].conclusion == "success"
    created = next(line for line in github.asked if line.startswith("release create"))
    assert {"evidence/dist.sig", "evidence/dist.intoto.jsonl"} <= set(created.split())
    assert f"sha={run.commit}" in github.asked[-1]
    target = tmp_path / "dist"
    run.extract("dist", target)
    files = sorted(path.name for path in target.iterdir())
    assert [name.rpartition(".")[2] for name in files] == ["whl", "gz"]
    lines = base64.b64decode(run.jobs["build"].outputs["subjects"]).decode()
    for name in files:
        digest = hashlib.sha256((target / name).read_bytes()).hexdigest()
        assert f"{digest}  dist/{name}\n" in lines


def test_of_its_own_jobs_only_publish_holds_an_identity() -> None:
    jobs = load(Path(__file__).resolve().parents[2] / ".github/workflows/release.yml")["jobs"]
    own = {name: job for name, job in jobs.items() if "uses" not in job}
    holders = [name for name, job in own.items() if "id-token" in job["permissions"]]
    assert holders == ["publish"]
    assert jobs["publish"]["environment"] == {"name": "pypi"}
