"""selftest.yml, as on a push and as in a pull request; and that it notices a missing refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflows.runs import Sandbox

pytestmark = pytest.mark.full


def test_on_a_push(sandbox: Sandbox) -> None:
    run = sandbox.run("selftest.yml", sandbox.product(), event_name="push")
    assert run.conclusion == "success", run.log.read_text(encoding="utf-8")
    assert {job.conclusion for path, job in run.jobs.items() if "/" not in path} == {"success"}
    for verified in ("verify", "verify-only", "verify-trained"):
        assert run.jobs[verified].outputs["verdict"] == "verified"


def test_in_a_pull_request(sandbox: Sandbox) -> None:
    run = sandbox.run("selftest.yml", sandbox.product(), event_name="pull_request")
    assert run.conclusion == "success", run.log.read_text(encoding="utf-8")
    assert run.jobs["verdict"].conclusion == "success"
    for job in ("build", "sign", "sign-only", "verify", "verify-only", "refusals"):
        assert run.jobs[job].conclusion == "skipped"


def test_it_notices_a_verifier_that_refuses_nothing(sandbox: Sandbox) -> None:
    def accept_everything(root: Path) -> None:
        action = root / "actions/verify/action.yml"
        text = action.read_text(encoding="utf-8")
        command = text[text.index("      run: >-") :]
        action.write_text(text.replace(command, "      run: echo VERIFIED\n"), encoding="utf-8")

    run = sandbox.run("selftest.yml", sandbox.product(accept_everything), event_name="push")
    assert run.jobs["refusals"].conclusion == "failure"
