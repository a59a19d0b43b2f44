"""release.yml up to the point where it leaves this machine."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from sandbox.workflows import load
from tests.workflows.runs import Sandbox

# What speaks to the package index or to GitHub, and what stands in for it here.
OUTSIDE = {
    "        uses: pypa/gh-action-pypi-publish@dc37677b2e1c63e2034f94d8a5b11f265b73ba33 # v1.14.2\n"
    "        with:\n          attestations: true\n": "        run: ls dist\n",
    '        run: gh release create "$TAG" --verify-tag --generate-notes dist/* dist.sig '
    "dist.intoto.jsonl\n": "        run: ls dist/* dist.sig dist.intoto.jsonl\n",
}


def without_the_outside(root: Path) -> None:
    """A copy of release.yml that publishes nothing."""
    path = root / ".github/workflows/release.yml"
    text = path.read_text(encoding="utf-8")
    for old, new in OUTSIDE.items():
        assert old in text, "release.yml has changed: the test is out of date"
        text = text.replace(old, new)
    start = text.index("      - name: Move the tag")
    path.write_text(text[:start], encoding="utf-8")


@pytest.mark.full
def test_a_release(sandbox: Sandbox, tmp_path: Path) -> None:
    run = sandbox.run("release.yml", sandbox.product(without_the_outside), event_name="push")
    assert run.conclusion == "success", run.log.read_text(encoding="utf-8")
    assert run.jobs["sign"].outputs["verdict"] == "verified"
    assert run.jobs["publish"].conclusion == run.jobs["github-release"].conclusion == "success"
    run.extract("dist", tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert [name.rpartition(".")[2] for name in files] == ["whl", "gz"]
    lines = base64.b64decode(run.jobs["build"].outputs["subjects"]).decode()
    for name in files:
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert f"{digest}  dist/{name}\n" in lines


def test_of_its_own_jobs_only_publish_holds_an_identity() -> None:
    jobs = load(Path(__file__).resolve().parents[2] / ".github/workflows/release.yml")["jobs"]
    own = {name: job for name, job in jobs.items() if "uses" not in job}
    holders = [name for name, job in own.items() if "id-token" in job["permissions"]]
    assert holders == ["publish"]
    assert jobs["publish"]["environment"] == {"name": "pypi"}
