"""What GitHub checks before anything runs: inputs, permissions, references."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.github.planner import Planner, Source
from sandbox.github.repositories import Repository, snapshot
from sandbox.github.runner import GENERATOR, STAND_INS, run
from sandbox.github.workflows import WorkflowError
from tests.support.repositories import STEP, TOOLS, git, make, workflow

ROOT = Path(__file__).resolve().parents[3]
DISPATCH = """on:
  workflow_dispatch:
    inputs:
      color: {type: choice, options: [red, green], required: true}
      loud: {type: boolean}
      count: {type: number}
"""


def call(
    what="reusable.yml@v1", permissions="id-token: write, contents: read", given="greeting: hi"
) -> str:
    uses = f"octo-org/tools/.github/workflows/{what}"
    return workflow(f"  c: {{permissions: {{{permissions}}}, uses: {uses}, with: {{{given}}}}}")


REFUSED = {
    "no trigger": (workflow(STEP, "on: push"), {}, "no 'workflow_dispatch' trigger"),
    "unknown input": (workflow(STEP), {"x": "1"}, "unexpected inputs provided: x"),
    "missing input": (workflow(STEP, DISPATCH), {}, "required input 'color' not provided"),
    "not an option": (
        workflow(STEP, DISPATCH),
        {"color": "blue"},
        "'blue' for input 'color' is not one of: red, green",
    ),
    "not a boolean": (
        workflow(STEP, DISPATCH),
        {"color": "red", "loud": "yes"},
        "'yes' for input 'loud' is not a boolean",
    ),
    "not a number": (
        workflow(STEP, DISPATCH),
        {"color": "red", "count": "many"},
        "'many' for input 'count' is not a number",
    ),
    "call without its permission": (
        call(permissions="contents: read"),
        {},
        "'c/inner' is requesting 'id-token: write', but is only allowed 'id-token: none'",
    ),
    "call with too little permission": (
        call(permissions="id-token: write, contents: none"),
        {},
        "'c/without' is requesting 'contents: read', but is only allowed 'contents: none'",
    ),
    "unknown permission": (
        workflow(STEP, permissions="{sing: write}"),
        {},
        "'sing: write' is not known",
    ),
    "call with an unknown input": (
        call(given="greeting: hi, volume: 3"),
        {},
        "input 'volume' is not defined",
    ),
    "call without a required input": (call(given="times: 2"), {}, "'greeting' is required"),
    "call with another type": (call(given="greeting: a, times: b"), {}, "is not a number"),
    "call of an unknown ref": (call("reusable.yml@v2"), {}, "no such repository at that ref"),
    "call of an unknown file": (call("other.yml@v1"), {}, "workflow was not found"),
    "unknown action": (
        workflow("  a: {runs-on: x, steps: [{uses: some/action@v1}]}"),
        {},
        "'some/action@v1': the sandbox has no stand-in",
    ),
    "missing action": (
        workflow("  a: {runs-on: x, steps: [{uses: $/actions/none}]}"),
        {},
        "there is no action in 'actions/none'",
    ),
    "generator at a branch": (
        workflow(
            "  a: {permissions: write-all, uses: slsa-framework/slsa-github-generator/"
            ".github/workflows/generator_generic_slsa3.yml@main}"
        ),
        {},
        "no such repository at that ref",
    ),
    "generator without its permissions": (
        workflow(
            "  a: {permissions: {id-token: write, actions: read}, uses: slsa-framework/"
            "slsa-github-generator/.github/workflows/generator_generic_slsa3.yml@v2.1.0}"
        ),
        {},
        "'contents: read', but is only allowed 'contents: none'",
    ),
    "container": (workflow("  a: {runs-on: x, container: debian, steps: []}"), {}, "no containers"),
    "not YAML": ("a: [", {}, "not YAML"),
    "unknown cache mode": (
        workflow("  a: {runs-on: x, cache-mode: all, steps: []}"),
        {},
        "cache-mode: 'all' is none of none, read, write-only, write",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_workflow_that_github_would_refuse_is_refused(sigstore, tools, tmp_path, case):
    text, inputs, message = REFUSED[case]
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": text})
    with pytest.raises(WorkflowError) as refusal:
        run(
            ".github/workflows/w.yml",
            Repository("acme/caller", folder),
            sigstore,
            tmp_path / "out",
            inputs=inputs,
            others=[tools],
        )
    assert message in str(refusal.value)
    assert not (tmp_path / "out/log.txt").exists()


@pytest.mark.parametrize("kind", ["annotated", "lightweight"])
@pytest.mark.parametrize(
    "nested", ["$/.github/workflows/plain.yml", "./.github/workflows/plain.yml", "$/actions/nested"]
)
def test_a_workflow_named_by_an_annotated_tag_cannot_name_its_own_repository(
    sigstore, tmp_path, nested, kind
):
    """GitHub looks for the tag object's digest as if it were a commit's, and starts nothing."""
    calls = f"steps: [{{uses: {nested}, with: {{word: x}}}}]" if "actions" in nested else ""
    files = {
        **TOOLS,
        ".github/workflows/plain.yml": workflow(STEP, "on: workflow_call"),
        ".github/workflows/nests.yml": workflow(
            f"  a: {{runs-on: x, {calls}}}" if calls else f"  a: {{uses: {nested}}}",
            "on: workflow_call",
        ),
    }
    folder = make(tmp_path / "tools", files)
    note = ["--annotate", "--message", "x"] if kind == "annotated" else []
    for command in (["init"], ["add", "."], ["commit", "--message", "x"], ["tag", *note, "v1"]):
        git(folder, *command)
    called = "octo-org/tools/.github/workflows/nests.yml"
    caller = make(
        tmp_path / "caller",
        {
            ".github/workflows/by-tag.yml": workflow(f"  c: {{uses: {called}@v1}}"),
            ".github/workflows/by-commit.yml": workflow(
                f"  c: {{uses: {called}@{snapshot(folder, tmp_path / 'copy')}}}"
            ),
        },
    )

    def start(name: str) -> str:
        try:
            return run(
                f".github/workflows/{name}.yml",
                Repository("acme/caller", caller),
                sigstore,
                tmp_path / name,
                others=[Repository("octo-org/tools", folder, "refs/tags/v1")],
            ).conclusion
        except WorkflowError as refusal:
            return str(refusal)

    assert start("by-commit") == "success"
    by_tag = start("by-tag")
    assert by_tag == "success" if kind == "lightweight" else "only lightweight tags" in by_tag


def test_in_train_yml_only_the_jobs_that_sign_have_an_identity(tmp_path):
    """The job that runs training code has none, and neither has the one that verifies."""
    shutil.copytree(ROOT / ".github", tmp_path / "copy/.github")
    shutil.copytree(ROOT / "actions", tmp_path / "copy/actions")
    product = Source("a/b", "refs/heads/main", "0" * 40, ROOT, tmp_path / "copy")
    planner = Planner(
        caller=product,
        others=[replace(GENERATOR, copy=tmp_path / "generator")],
        stand_ins=STAND_INS,
        event_name="workflow_dispatch",
        contexts={},
        job_environment=lambda job: {},
        reports=tmp_path,
    )
    jobs = planner.plan(".github/workflows/train.yml", {}).jobs
    assert {path for path, job in jobs.items() if job.may_have_identity} == {
        *("provenance/detect-env", "provenance/generator"),
        *("attest/attest", "sign"),
    }
    assert {"train", "verify"} <= set(jobs)
    assert jobs["train"].permissions == {"contents": "read"}  # the caller's commit


def test_a_called_workflow_gets_no_more_of_the_cache_than_its_caller_has(tmp_path):
    modes = ("none", "read", "write-only", "write")
    calls = "".join(
        f"  {mode}: {{cache-mode: {mode}, uses: ./.github/workflows/inner.yml}}\n" for mode in modes
    )
    inner = "".join(f"  {mode}: {{cache-mode: {mode}, runs-on: x, steps: []}}\n" for mode in modes)
    text = workflow(calls + STEP).replace("permissions", "cache-mode: read\npermissions")
    files = {
        ".github/workflows/w.yml": text,
        ".github/workflows/inner.yml": workflow(inner + STEP, "on: workflow_call"),
    }
    make(tmp_path / "original", files)
    caller = Source("a/b", "refs/heads/main", "0" * 40, tmp_path / "original", tmp_path / "copy")
    planner = Planner(
        caller=caller,
        others=[],
        stand_ins=STAND_INS,
        event_name="workflow_dispatch",
        contexts={},
        job_environment=lambda job: {},
        reports=tmp_path,
    )
    jobs = planner.plan(".github/workflows/w.yml", {}).jobs
    found = {path: job.cache_mode for path, job in jobs.items()}
    assert found.pop("a") == "read"
    expected = {
        "none": ("none", "none", "none", "none", "none"),
        "read": ("none", "read", "none", "read", "read"),
        "write-only": ("none", "none", "write-only", "write-only", "write-only"),
        "write": ("none", "read", "write-only", "write", "write"),
    }
    for mode, row in expected.items():
        assert tuple(found.pop(f"{mode}/{inner}") for inner in (*modes, "a")) == row
    assert found == {}
