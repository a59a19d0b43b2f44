"""ci.yml, with a `make` that only notes what it was asked for; the other tests run the targets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workflows.runs import Sandbox


def here(root: Path) -> None:
    """A copy of ci.yml for one Python, and without the suite's runner, which is somebody else's."""
    path = root / ".github/workflows/ci.yml"
    text = path.read_text(encoding="utf-8")
    start, end = text.index("  # The suite's own runner"), text.index("  full:\n")
    pythons = 'python: ["3.10", "3.11", "3.12", "3.13", "3.14"]'
    assert pythons in text
    path.write_text((text[:start] + text[end:]).replace(pythons, 'python: ["3.11"]'))


@pytest.mark.full
@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("pull_request", ["dist", "lint", "test", *["test-base PYTHON=python"] * 3]),
        ("push", ["dist", "lint", "test", *["test-base PYTHON=python"] * 3, "test-full"]),
    ],
)
def test_ci_makes_its_targets(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    event: str,
    expected: list[str],
) -> None:
    asked = tmp_path / "asked"
    make = tmp_path / "bin/make"
    make.parent.mkdir()
    make.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n', encoding="utf-8")
    make.chmod(0o755)
    monkeypatch.setenv("PATH", f"{make.parent}{os.pathsep}{os.environ['PATH']}")
    run = sandbox.run("ci.yml", sandbox.product(here), event_name=event)
    assert run.conclusion == "success", run.log.read_text(encoding="utf-8")
    assert sorted(asked.read_text(encoding="utf-8").splitlines()) == expected
