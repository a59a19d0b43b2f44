"""What every workflow and action of this repository has to keep to, beyond what linters know.

A rule is a function from a parsed file to what is wrong with it. `test_rules.py` holds the files
against them, and plants each fault to see the rule bite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.github.workflows import Document, load

ROOT = Path(__file__).resolve().parents[2]
REUSABLE = ("train.yml", "train-many.yml", "sign.yml", "attest.yml", "verify.yml")
GENERATOR = "slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml"


@dataclass(frozen=True)
class File:
    """A workflow or an action: its path from the root, its text, and what YAML makes of it."""

    path: str
    text: str
    document: Document

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def is_workflow(self) -> bool:
        return self.path.startswith(".github/workflows/")

    @property
    def jobs(self) -> dict[str, Any]:
        return self.document.get("jobs", {})

    @property
    def triggers(self) -> dict[str, Any]:
        on = self.document.get("on", {})
        return on if isinstance(on, dict) else {on: None}


def files(root: Path) -> list[File]:
    """Every workflow and every action under `root`."""
    paths = [*root.glob(".github/workflows/*.yml"), *root.glob("actions/*/action.yml")]
    return [
        File(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"), load(path))
        for path in sorted(paths)
    ]


def steps(file: File) -> Iterator[tuple[str, Document]]:
    """Every step with the job it is in; an action has one list of steps, of no job."""
    for job_id, job in file.jobs.items():
        for step in job.get("steps", []):
            yield job_id, step
    for step in file.document.get("runs", {}).get("steps", []):
        yield "", step


def may_sign(job: Document) -> bool:
    """Whether a job can get an identity token."""
    return (job.get("permissions") or {}).get("id-token") == "write"


def no_permission_by_default(file: File) -> Iterator[str]:
    """What a workflow grants to all its jobs, the job that trains gets, too."""
    if file.is_workflow and file.document.get("permissions") != {}:
        yield "the workflow does not say `permissions: {}`"


def every_grant_has_a_reason(file: File) -> Iterator[str]:
    """`scope: level # reason`."""
    if not file.is_workflow:
        return
    for line in file.text.splitlines():
        grant = re.fullmatch(r"\s+(?:[a-z]+(?:-[a-z]+)*): (?:read|write)\b(.*)", line)
        if grant and not re.fullmatch(r" # \S.*", grant[1]):
            yield f"no reason beside `{line.strip()}`"


def third_parties_are_pinned(file: File) -> Iterator[str]:
    """By commit hash with the version beside it; the generator by tag; ourselves by `$/`."""
    for line in file.text.splitlines():
        match = re.fullmatch(r"\s*(?:- )?uses: (\S+)(.*)", line)
        if match is None:
            continue
        uses, comment = match.groups()
        if uses.startswith("$/"):
            continue
        if uses.startswith(f"{GENERATOR}@"):
            if not re.fullmatch(r"v\d+\.\d+\.\d+", uses.partition("@")[2]):
                yield f"the generator is not called by a full version tag: {uses}"
        elif not re.fullmatch(r"[^@]+@[0-9a-f]{40}", uses):
            yield f"not pinned by a commit hash: {uses}"
        elif not re.fullmatch(r" # (?:v\d+\.\d+\.\d+|no release, \d{4}-\d\d-\d\d)", comment):
            yield f"no version beside the hash: {uses}"


def no_expression_in_a_shell(file: File) -> Iterator[str]:
    """Values reach commands through `env:` only, where they are never parsed as code."""
    for _, step in steps(file):
        if "${{" in str(step.get("run", "")):
            yield f"an expression in the command of step '{step.get('name')}'"


def no_secret(file: File) -> Iterator[str]:
    """Nothing here needs a stored secret, so nothing can leak one."""
    if re.search(r"\bsecrets\b", re.sub(r"#.*", "", file.text)):
        yield "it refers to secrets"


def no_credentials_stay_behind(file: File) -> Iterator[str]:
    """actions/checkout leaves its token in `.git/config` unless told otherwise."""
    for _, step in steps(file):
        checkout = str(step.get("uses", "")).startswith("actions/checkout@")
        if checkout and (step.get("with") or {}).get("persist-credentials") is not False:
            yield "a checkout without `persist-credentials: false`"


def training_cannot_sign(file: File) -> Iterator[str]:
    """The job that runs training code may read the caller's commit, and nothing else."""
    for job_id, job in file.jobs.items():
        trains = any(step.get("uses") == "$/actions/train" for step in job.get("steps", []))
        if trains and job.get("permissions") not in ({}, {"contents": "read"}):
            yield f"job '{job_id}' trains, but may do more than read the caller's commit"


def signing_checks_first(file: File) -> Iterator[str]:
    """Before an identity is used, the files are compared with the digests of the job before."""
    signers = ("$/actions/sign", "$/actions/provenance", "actions/attest@", "pypa/gh-action-pypi")
    for job_id, job in file.jobs.items():
        if not may_sign(job) or "steps" not in job:
            continue
        # Where nothing comes from elsewhere, digests alone are signed.
        fetches = ("actions/download-artifact@", "actions/checkout@")
        checked = not any(str(step.get("uses", "")).startswith(fetches) for step in job["steps"])
        for step in job["steps"]:
            uses = str(step.get("uses", ""))
            given = step.get("with") or {}
            if uses == "$/actions/subjects" and "list-only" not in given:
                expected = str(given.get("expected", ""))
                checked |= bool(re.search(r"\$\{\{ (?:needs|inputs)\.", expected))
            elif uses.startswith("actions/download-artifact@"):
                checked = False
            elif uses.startswith(signers) and not checked:
                yield f"job '{job_id}' uses {uses.split('@')[0]} on files it has not compared"


def downloads_have_a_folder(file: File) -> Iterator[str]:
    """What an artifact brings into the workspace itself lies where programs start."""
    if not file.is_workflow:
        return
    for job_id, step in steps(file):
        download = str(step.get("uses", "")).startswith("actions/download-artifact@")
        if download and (step.get("with") or {}).get("path") in (None, "", "."):
            yield f"job '{job_id}' downloads into the workspace itself"


def no_host_path(file: File) -> Iterator[str]:
    """In a container these are paths of the machine outside; the variables are not."""
    for context in re.findall(
        r"\bgithub\.action_path|\bgithub\.workspace|\brunner\.temp", file.text
    ):
        yield f"it uses `{context}`, not ${context.replace('.', '_').upper()}"


def signing_runs_no_foreign_code(file: File) -> Iterator[str]:
    """A job with an identity runs our actions and pinned ones; it never runs a build or a test."""
    for job_id, job in file.jobs.items():
        if may_sign(job):
            for step in job.get("steps", []):
                if re.search(r"\b(?:make|python3?|pip|npm|docker)\b", str(step.get("run", ""))):
                    yield f"job '{job_id}' holds id-token and runs `{step['run'].strip()}`"


def never_signs_for_a_pull_request(file: File) -> Iterator[str]:
    """Of any kind: the event's name starts with `pull_request`. Each job that could, says so."""
    if file.name not in REUSABLE:
        return
    if re.search(r"event_name\s*[!=]=\s*'pull_request", file.text):
        yield "it looks for one kind of pull request only"
    of_any = "startsWith(github.event_name, 'pull_request')"
    for job_id, job in file.jobs.items():
        first = next(iter(job.get("steps", [])), {})
        refuses = first.get("if") == of_any and "exit 1" in str(first.get("run", ""))
        calls_ours = str(job.get("uses", "")).startswith("$/")
        if may_sign(job) and not (refuses or calls_ours or f"!{of_any}" in str(job.get("if", ""))):
            yield f"job '{job_id}' may sign in a pull request"


def what_cannot_work_is_refused_first(file: File) -> Iterator[str]:
    """Before a model is trained or signed: who attests, and whether it may be published.

    What `default` means is written in the action `witness`, and nowhere else.
    """
    defaults = {
        trigger: ((on or {}).get("inputs") or {}).get("provenance", {}).get("default")
        for trigger, on in file.triggers.items()
        if isinstance(on, dict)
    }
    if not any(defaults.values()):  # `verify.yml` takes the name of an artifact
        return
    for trigger, default in defaults.items():
        if default != "default":
            yield f"{trigger}: it has a default of its own for `provenance`"
    first, *_ = file.jobs.values()
    work = [step.get("uses") for step in first.get("steps", []) if "uses" in step]
    if {"$/actions/train", "$/actions/sign"} & set(work) and work[0] != "$/actions/witness":
        yield f"its first job begins with {work[0]}, not with the action `witness`"


def a_witness_that_fails_names_the_other(file: File) -> Iterator[str]:
    """GitHub's own message when it refuses the generator names no way out."""
    others = {GENERATOR: "github-attestation", "/attest.yml": "slsa-github-generator"}
    callers = {
        job_id: other
        for job_id, job in file.jobs.items()
        for witness, other in others.items()
        if witness in str(job.get("uses"))
    }
    for caller, other in callers.items():
        told = [
            job
            for job in file.jobs.values()
            if f"needs.{caller}.result == 'failure'" in str(job.get("if"))
            and other in str(job)
            and "exit 1" in str(job)
        ]
        if not told:
            yield f"nothing says what else there is when job '{caller}' fails"


def no_cache(file: File) -> Iterator[str]:
    """A cache is written by whoever ran before, and would reach the jobs that sign.

    That no step uses one is not enough: whatever runs in a job can write to it.
    """
    if file.is_workflow:
        if file.document.get("cache-mode") != "none":
            yield "the workflow does not say `cache-mode: none`"
        for job_id, job in file.jobs.items():
            if job.get("cache-mode", "none") != "none":
                yield f"job '{job_id}' has a cache mode of its own"
    for _, step in steps(file):
        if str(step.get("uses", "")).startswith("actions/cache"):
            yield "it uses a cache"
        given = (step.get("with") or {}).items()
        if any(name.startswith("cache") and value is not False for name, value in given):
            yield f"step '{step.get('name')}' turns a cache on"


def only_training_chooses_its_runner(file: File) -> Iterator[str]:
    """A signature made on the caller's own machine says nothing."""
    if file.name not in REUSABLE:
        return
    for job_id, job in file.jobs.items():
        if "uses" not in job and job.get("runs-on") != "ubuntu-latest" and job_id != "train":
            yield f"job '{job_id}' runs on {job.get('runs-on')}"


def failures_stay_failures(file: File) -> Iterator[str]:
    """In what others call, nothing goes on after a failure and nothing hides one."""
    if file.is_workflow and file.name not in REUSABLE:
        return
    if "continue-on-error" in file.text:
        yield "it continues after an error"
    for _, step in steps(file):
        if re.search(r"\|\|\s*(?:true|:)(?:\s|$)|\bset \+e\b", str(step.get("run", ""))):
            yield f"step '{step.get('name')}' ignores the exit code of its command"
        if re.search(r"\b(?:always|failure)\(\)", str(step.get("if", ""))):
            yield f"step '{step.get('name')}' runs after a failure"
    for job_id, job in file.jobs.items():
        condition = str(job.get("if", ""))
        if re.search(r"\b(?:always|failure)\(\)", condition):
            yield f"job '{job_id}' runs after a failure"
        if "cancelled()" in condition and "result == 'success'" not in condition:
            fails = [str(step.get("run", "")).rstrip() for step in job.get("steps", [])]
            if "result == 'failure'" not in condition or not fails[-1].endswith("exit 1"):
                yield f"job '{job_id}' runs whatever the jobs before it did"


def no_privileged_trigger(file: File) -> Iterator[str]:
    """These run with a writing token on what a stranger sent."""
    for trigger in ("pull_request_target", "workflow_run", "issue_comment"):
        if trigger in file.triggers:
            yield f"it is triggered by {trigger}"


def actions_are_one_command(file: File) -> Iterator[str]:
    """What an action does is in Python, where it has types and tests."""
    if file.is_workflow:
        return
    for _, step in steps(file):
        if "run" in step and step.get("shell") != "bash":
            yield f"step '{step.get('name')}' does not name its shell"
        programs = re.findall(r'"\$(?:BIN|PYTHON)[/"]', str(step.get("run", "")))
        if len(programs) > 1:
            yield f"step '{step.get('name')}' runs {len(programs)} programs"


RULES: tuple[Callable[[File], Iterator[str]], ...] = (
    no_permission_by_default,
    every_grant_has_a_reason,
    third_parties_are_pinned,
    no_expression_in_a_shell,
    no_secret,
    no_credentials_stay_behind,
    training_cannot_sign,
    signing_checks_first,
    downloads_have_a_folder,
    no_host_path,
    signing_runs_no_foreign_code,
    never_signs_for_a_pull_request,
    what_cannot_work_is_refused_first,
    a_witness_that_fails_names_the_other,
    no_cache,
    only_training_chooses_its_runner,
    failures_stay_failures,
    no_privileged_trigger,
    actions_are_one_command,
)


def findings(root: Path) -> list[str]:
    """`file: rule: what is wrong`, for all files and rules."""
    return [
        f"{file.path}: {rule.__name__}: {finding}"
        for file in files(root)
        for rule in RULES
        for finding in rule(file)
    ]
