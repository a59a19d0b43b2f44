"""GitHub Actions on this machine: identities, permissions, inputs, artifacts, results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
import requests

from sandbox.github import Run, run
from sandbox.github.repositories import Repository, snapshot
from sandbox.github.supervise import marked_processes
from sandbox.sigstore.oidc import GITHUB_ISSUER
from tests.support.limits import limited, until
from tests.support.repositories import GET_TOKEN, STEP, make, workflow

ROOT = Path(__file__).resolve().parents[3]
CALLER = {
    ".github/workflows/main.yml": """
name: Main
on:
  workflow_dispatch:
    inputs:
      color: {type: choice, options: [red, green], default: red}
      loud: {type: boolean, default: true}
      count: {type: number, default: 3}
permissions: {}
jobs:
  plain:
    runs-on: ubuntu-latest
    outputs:
      color: ${{ inputs.color }}
      loud: ${{ inputs.loud && 'loud' || 'quiet' }}
      token: ${{ steps.look.outputs.token }}
      files: ${{ steps.look.outputs.files }}
      commit: ${{ steps.checkout.outputs.commit }}
      digest: ${{ steps.upload.outputs.artifact-digest }}
      home: ${{ steps.look.outputs.home }}
      secret: ${{ steps.look.outputs.secret }}
    steps:
      - id: checkout
        uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5
        with: {persist-credentials: false}
      - id: look
        env: {NAME: plain}
        run: |
          echo "token=${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-none}" >> "$GITHUB_OUTPUT"
          echo "files=$(ls | tr '\\n' ' ')" >> "$GITHUB_OUTPUT"
          echo "home=$HOME" >> "$GITHUB_OUTPUT"
          echo "secret=${SECRET_OF_THE_DEVELOPER:-none}" >> "$GITHUB_OUTPUT"
          echo "# Hello from $NAME" >> "$GITHUB_STEP_SUMMARY"
          echo "::notice title=Greeting::Good morning"
          mkdir -p out/sub; echo a > out/a.txt; echo b > out/sub/b.txt; echo h > out/.hidden
      - id: upload
        uses: actions/upload-artifact@v7
        with: {name: files, path: out/, if-no-files-found: error}

  get:
    needs: plain
    runs-on: ubuntu-latest
    outputs:
      found: ${{ steps.list.outputs.found }}
    steps:
      - uses: actions/download-artifact@v8
        with: {name: files, path: here}
      - id: list
        run: echo "found=$(cd here && find . -type f | sort | tr '\\n' ' ')" >> "$GITHUB_OUTPUT"

  signs:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps:
      - run: |
          GET_TOKEN
      - run: echo "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" > bearer
      - uses: actions/upload-artifact@v7
        with:
          name: token-of-signs
          path: |
            token
            bearer

  calls:
    permissions: {id-token: write, contents: read}
    uses: octo-org/tools/.github/workflows/reusable.yml@v1
    with: {greeting: "${{ inputs.color }}", times: 2}

  last:
    needs: calls
    runs-on: ubuntu-latest
    outputs:
      reply: ${{ needs.calls.outputs.reply }}
    steps: [{run: "true"}]
""".replace("GET_TOKEN", GET_TOKEN.replace("\n", "\n          ")),
    "README.md": "caller",
}


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> Repository:
    return Repository("acme/caller", make(tmp_path_factory.mktemp("caller"), CALLER))


@pytest.fixture(scope="module")
def finished(sigstore, caller, tools, tmp_path_factory) -> Run:
    """One run of `main.yml`, looked at by many tests."""
    os.environ["SECRET_OF_THE_DEVELOPER"] = "hunter2"
    try:
        return run(
            ".github/workflows/main.yml",
            caller,
            sigstore,
            tmp_path_factory.mktemp("run"),
            inputs={"color": "green", "loud": "false"},
            others=[tools],
        )
    finally:
        del os.environ["SECRET_OF_THE_DEVELOPER"]


def _token(finished: Run, artifact: str, folder: Path) -> dict:
    finished.extract(artifact, folder)
    return jwt.decode((folder / "token").read_text().strip(), options={"verify_signature": False})


def test_the_run_succeeds_with_every_job(finished):
    assert finished.conclusion == "success", finished.log.read_text()
    assert {path: job.conclusion for path, job in finished.jobs.items()} == dict.fromkeys(
        ["plain", "get", "signs", "calls", "calls/inner", "calls/without", "last"], "success"
    )


def test_inputs_reach_the_jobs(finished):
    outputs = finished.jobs["plain"].outputs
    assert (outputs["color"], outputs["loud"]) == ("green", "quiet")


def test_checkout_gets_the_callers_commit(finished, caller, tmp_path):
    assert finished.jobs["plain"].outputs["files"] == "README.md "
    assert finished.jobs["plain"].outputs["commit"] == finished.commit
    assert snapshot(caller.path, tmp_path / "again") == finished.commit  # the same at any time


def test_a_job_without_id_token_gets_no_token(finished):
    assert finished.jobs["plain"].outputs["token"] == "none"
    assert finished.jobs["calls/without"].outputs["token"] == "none"


def test_a_job_sees_nothing_of_the_developer(finished):
    outputs = finished.jobs["plain"].outputs
    assert outputs["secret"] == "none"
    assert outputs["home"] != str(Path.home())


def test_a_jobs_token_is_its_own(finished, tmp_path):
    claims = _token(finished, "token-of-signs", tmp_path)
    workflow = "acme/caller/.github/workflows/main.yml@refs/heads/main"
    expected = {
        "iss": GITHUB_ISSUER,
        "aud": "a-test",
        "sub": "repo:acme/caller:ref:refs/heads/main",
        "repository": "acme/caller",
        "sha": finished.commit,
        "run_id": finished.run_id,
        "event_name": "workflow_dispatch",
        "workflow": "Main",
        "workflow_ref": workflow,
        "job_workflow_ref": workflow,
        "job_workflow_sha": finished.commit,
    }
    assert {name: claims[name] for name in expected} == expected


def test_a_called_workflows_job_is_that_workflow_in_the_callers_repository(
    finished, tools, tmp_path
):
    claims = _token(finished, "token-of-inner", tmp_path)
    expected = {
        "repository": "acme/caller",
        "sha": finished.commit,
        "workflow_ref": "acme/caller/.github/workflows/main.yml@refs/heads/main",
        "job_workflow_ref": "octo-org/tools/.github/workflows/reusable.yml@refs/tags/v1",
        "job_workflow_sha": snapshot(tools.path, tmp_path / "tools"),
    }
    assert {name: claims[name] for name in expected} == expected


def test_contexts_are_those_of_github(finished, tools, tmp_path):
    caller = "acme/caller/.github/workflows/main.yml@refs/heads/main"
    called = "octo-org/tools/.github/workflows/reusable.yml@refs/tags/v1"
    commit = snapshot(tools.path, tmp_path / "tools")
    assert finished.jobs["calls/inner"].outputs["contexts"].split("|") == [
        *(caller, "Main", "acme/caller"),
        *(called, commit, "octo-org/tools"),
        *(caller, finished.commit),
    ]


def test_actions_of_a_called_workflow_come_from_its_own_repository(finished):
    reply = finished.jobs["last"].outputs["reply"].split()
    assert reply == ["green", "from", "octo-org/tools", "actions"]


def test_artifacts_go_from_job_to_job_without_hidden_files(finished):
    assert finished.jobs["get"].outputs["found"] == "./a.txt ./sub/b.txt "
    import hashlib

    archive = (finished.artifacts / "files.zip").read_bytes()
    assert finished.jobs["plain"].outputs["digest"] == hashlib.sha256(archive).hexdigest()
    assert finished.artifact_names() == ["files", "token-of-inner", "token-of-signs"]


def test_summaries_annotations_and_the_log_are_kept(finished):
    assert finished.summaries == {"plain": "# Hello from plain\n"}
    (notice,) = finished.annotations
    assert (notice.level, notice.title, notice.message, notice.job) == (
        *("notice", "Greeting", "Good morning"),
        "plain",
    )
    assert "[plain] " in finished.log.read_text()


def test_no_token_is_to_be_had_after_the_run(finished, sigstore, tmp_path):
    """What a job may have kept is worth nothing when the run is over."""
    finished.extract("token-of-signs", tmp_path)
    bearer = (tmp_path / "bearer").read_text().strip()
    reply = requests.get(
        sigstore.job_token_url, headers={"Authorization": f"bearer {bearer}"}, timeout=10
    )
    assert (len(bearer) > 20, reply.status_code) == (True, 401)


# Runs that fail, or read only


FAILING = workflow(
    """
  fails:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo "::error title=Broken::Something is wrong"
          exit 3
  after: {needs: fails, runs-on: ubuntu-latest, steps: [{run: "true"}]}
  always: {needs: fails, if: always(), runs-on: ubuntu-latest, steps: [{run: "true"}]}
  twice:
    runs-on: ubuntu-latest
    strategy: {matrix: {name: [same, same]}, max-parallel: 1}
    steps:
      - run: echo 1 > file
      - uses: actions/upload-artifact@v7
        with: {name: "${{ matrix.name }}", path: file}
      - uses: actions/upload-artifact@v7
        with: {name: "${{ matrix.name }}", path: file}
  badname:
    runs-on: ubuntu-latest
    steps:
      - run: echo 1 > file
      - uses: actions/upload-artifact@v7
        with: {name: "a/b", path: file}
  nofile:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/upload-artifact@v7
        with: {name: none, path: nothing, if-no-files-found: error}
  noartifact:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/download-artifact@v8
        with: {name: nowhere}
"""
)


def test_failures_show(sigstore, tmp_path):
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": FAILING})
    result = run(
        ".github/workflows/w.yml", Repository("acme/caller", folder), sigstore, tmp_path / "out"
    )
    assert result.conclusion == "failure"
    assert {path: job.conclusion for path, job in result.jobs.items()} == {
        "fails": "failure",
        "after": "skipped",
        "always": "success",
        "twice": "failure",
        "badname": "failure",
        "nofile": "failure",
        "noartifact": "failure",
    }
    errors = {(item.job, item.message) for item in result.annotations if item.level == "error"}
    for job, message in [
        ("fails", "Something is wrong"),
        ("twice", "already exists"),
        ("badname", "not valid"),
        ("nofile", "No files were found"),
        ("noartifact", "Artifact not found for name: nowhere"),
    ]:
        assert any(job == where and message in text for where, text in errors), errors


@pytest.mark.parametrize(
    ("event", "ref", "named"),
    [
        ("schedule", "refs/heads/main", "0 0 * * 1"),
        ("merge_group", f"refs/heads/gh-readonly-queue/main/pr-1-{'0' * 40}", "checks_requested"),
        ("pull_request_target", "refs/heads/main", "1"),
        ("push", "refs/heads/main", "false"),
    ],
)
def test_what_triggers_a_run_shows(sigstore, tmp_path, event, ref, named):
    """In reference, payload and identity; and these events have one."""
    text = workflow(
        """
  a:
    permissions: {id-token: write}
    runs-on: ubuntu-latest
    outputs:
      seen: ${{ steps.s.outputs.seen }}
    steps:
      - id: s
        env:
          EVENT: >-
            ${{ github.event.schedule || github.event.action || github.event.number
            || github.event.forced }}
          VISIBILITY: ${{ github.event.repository.visibility }}
        run: |
          GET_TOKEN
          echo "seen=$GITHUB_REF|$EVENT|$VISIBILITY" >> "$GITHUB_OUTPUT"
      - uses: actions/upload-artifact@v7
        with: {name: token, path: token}
""".replace("GET_TOKEN", GET_TOKEN.replace("\n", "\n          ")),
        f"on: {{{event}: }}" if event != "schedule" else "on: {schedule: [{cron: 0 0 * * 1}]}",
    )
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": text})
    result = run(
        ".github/workflows/w.yml",
        Repository("acme/caller", folder),
        sigstore,
        tmp_path / "out",
        event_name=event,
        event={"repository": {}} if event == "schedule" else None,
    )
    assert result.conclusion == "success", result.log.read_text()
    visibility = "" if event == "schedule" else "public"
    assert result.jobs["a"].outputs["seen"] == f"{ref}|{named}|{visibility}"
    claims = _token(result, "token", tmp_path)
    assert (claims["ref"], claims["event_name"]) == (ref, event)
    assert claims["repository_visibility"] == "public"


@pytest.mark.parametrize(
    "event", ["pull_request", "pull_request_review", "pull_request_review_comment"]
)
def test_a_pull_request_gets_no_identity(sigstore, tmp_path, event):
    text = workflow(
        """
  a:
    permissions: {id-token: write}
    runs-on: ubuntu-latest
    outputs:
      seen: ${{ steps.s.outputs.seen }}
    steps:
      - id: s
        env: {WORKFLOW: "${{ job.workflow_ref }}"}
        run: echo "seen=${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-none} $WORKFLOW" >> "$GITHUB_OUTPUT"
""",
        f"on: {event}",
    )
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": text})
    result = run(
        ".github/workflows/w.yml",
        Repository("acme/caller", folder),
        sigstore,
        tmp_path / "out",
        event_name=event,
    )
    assert result.jobs["a"].outputs["seen"].split() == [
        "none",
        "acme/caller/.github/workflows/w.yml@refs/pull/1/merge",
    ]


def test_a_run_that_does_not_end_is_ended(sigstore, tmp_path, monkeypatch):
    monkeypatch.setattr("sandbox.github.act.RUN_SECONDS", 3)
    text = workflow("\n  sleeps:\n    runs-on: ubuntu-latest\n    steps: [{run: sleep 600}]\n")
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": text})
    where = Repository("acme/caller", folder)
    with pytest.raises(TimeoutError, match="ended after 3 seconds"):
        run(".github/workflows/w.yml", where, sigstore, tmp_path / "out")
    assert (tmp_path / "out/log.txt").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_process_behind(tmp_path, how):
    text = workflow(
        """
  sleeps:
    runs-on: ubuntu-latest
    steps:
      - run: |
          setsid sleep 600 &
          echo "$SANDBOX_RUN" > "$MARK.new"; mv "$MARK.new" "$MARK"
          sleep 600
        env: {MARK: "MARK_FILE"}
""".replace("MARK_FILE", str(tmp_path / "mark"))
    )
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": text})
    command = [sys.executable, "-m", "sandbox", "run", ".github/workflows/w.yml"]
    process = subprocess.Popen(
        [*command, f"--repository={folder}", f"--output={tmp_path / 'out'}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with limited(process, 300):
        until(lambda: (tmp_path / "mark").exists() or None, "the step")
        scratch = Path((tmp_path / "mark").read_text().strip())
        assert marked_processes(str(scratch))
        process.send_signal(how)
        process.wait(60)
    until(lambda: marked_processes(str(scratch)) == [] or None, "the end of its processes")
    until(lambda: not scratch.exists() or None, "the end of its files")


def test_the_command_line_reports(tmp_path):
    folder = make(tmp_path / "caller", {".github/workflows/w.yml": workflow(STEP)})
    command = [sys.executable, "-m", "sandbox", "run", ".github/workflows/w.yml"]
    result = subprocess.run(
        [*command, f"--repository={folder}", f"--output={tmp_path / 'out'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "success  a" in result.stdout
    assert json.loads((tmp_path / "out/trust-config.json").read_text())
    refused = subprocess.run(
        [*command, f"--repository={folder}", "--input", "x=1", f"--output={tmp_path / 'out'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (refused.returncode, refused.stderr) == (1, "refused: unexpected inputs provided: x\n")
