"""Workflows made ready for `act`: what GitHub does before a run starts, and act does not.

For demonstrations and tests only. It resolves references (`$/`, called workflows, actions) and
writes for every call of a workflow its own copy, in which each job carries its own identity. The
only files that it writes are those of the copies of repositories that it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sandbox.github.workflows import (
    DEFAULT_PERMISSIONS,
    FROM_FORKS,
    LEVELS,
    Document,
    Permissions,
    WorkflowError,
    check_call,
    check_event,
    dump,
    least_cache_mode,
    load,
    permissions_of,
    read_only,
    replace_contexts,
    substitute,
    workflow_name,
)

REPORT_JOB = "sandbox-report"
# Marks the part of a job's displayed name that says where in the tree of calls it is.
PATH_MARK = "@"


@dataclass(frozen=True)
class Source:
    """A repository at one commit, as `uses:` may name it.

    Attributes:
        name: `OWNER/NAME`.
        ref: In full: `refs/heads/main`, `refs/tags/v1.0.0`.
        commit: 40 hexadecimal digits.
        original: Its files as they are.
        copy: Its files as act gets them; workflows and actions are rewritten here.
        visibility: `public`, `private` or `internal`.
        tag_object: What `ref` leads to, if it is an annotated or signed tag, and not to a commit.
    """

    name: str
    ref: str
    commit: str
    original: Path
    copy: Path
    visibility: str = "public"
    tag_object: str | None = None

    def is_named(self, name: str, ref: str) -> bool:
        """Whether `uses: NAME...@REF` means this source: by branch, tag or full commit."""
        short = self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return name == self.name and ref in (self.ref, short, self.commit)


@dataclass(frozen=True)
class Job:
    """What one job of the run may do and who it is.

    Attributes:
        path: The ids of the calling jobs and of the job itself: `train/provenance/generator`.
        permissions: Granted to its token; a scope that is absent is `none`.
        workflow_ref: `OWNER/NAME/PATH@REF` of the workflow that defines it.
        workflow_sha: What the reference to that workflow leads to: its commit, or a tag object.
        cache_mode: What it may do to the Actions cache: a key of `CACHE_MODES`.
    """

    path: str
    permissions: Permissions
    workflow_ref: str
    workflow_sha: str
    cache_mode: str = "write"

    @property
    def may_have_identity(self) -> bool:
        """Whether it may ask for OIDC tokens."""
        return self.permissions.get("id-token") == "write"


@dataclass(frozen=True)
class Plan:
    """A run that may start.

    Attributes:
        file: The rewritten workflow, for act.
        inputs: Of the workflow, with defaults, as the event's payload has them.
        jobs: Every job that may run, by path.
        local: `OWNER/NAME@REF` to folder, for act's `--local-repository`.
    """

    file: Path
    inputs: Mapping[str, str]
    jobs: Mapping[str, Job]
    local: Mapping[str, Path]


@dataclass
class Planner:
    """Makes a `Plan` of a workflow.

    Attributes:
        caller: The repository whose workflow runs.
        others: Further repositories that `uses:` may name, stand-ins with workflows among them.
        stand_ins: A folder with `OWNER/NAME/action.yml` for every action of somebody else.
        event_name: What triggered the run.
        contexts: Values of expressions that act leaves empty, the same for the whole run:
            `github.workflow_ref` to `...`.
        job_environment: Gives a job's further environment variables.
        reports: A folder into which each workflow of the run reports its jobs' results.
    """

    caller: Source
    others: Sequence[Source]
    stand_ins: Path
    event_name: str
    contexts: Mapping[str, str]
    job_environment: Callable[[Job], Mapping[str, str]]
    reports: Path
    _jobs: dict[str, Job] = field(default_factory=dict)
    _local: dict[str, Path] = field(default_factory=dict)
    _actions_done: set[Path] = field(default_factory=set)

    def plan(self, workflow: str, inputs: Mapping[str, str]) -> Plan:
        """Prepares the run of one workflow.

        Args:
            workflow: Its path in the caller's repository.
            inputs: Of a `workflow_dispatch` event.

        Raises:
            WorkflowError: GitHub would refuse it, or the sandbox lacks something it uses.
        """
        document = load(self.caller.original / workflow)
        checked = check_event(document, self.event_name, inputs)
        workflow_ref = f"{self.caller.name}/{workflow}@{self.caller.ref}"
        target = self._workflow(
            self.caller, workflow, workflow_ref, path="", calling=None, name=None
        )
        return Plan(target, checked, self._jobs, self._local)

    def _workflow(
        self,
        source: Source,
        file: str,
        workflow_ref: str,
        *,
        path: str,
        calling: Job | None,
        name: str | None,
    ) -> Path:
        """Writes one call's copy of a workflow; `calling` and `name` are the caller's, if any."""
        document = load(source.original / file)
        name = name or workflow_name(source.original / file)
        document["name"] = name  # on GitHub a called workflow runs under its caller's name
        inherited = DEFAULT_PERMISSIONS if calling is None else calling.permissions
        default = permissions_of(document.pop("permissions", None), inherited)
        granted_cache = "write" if calling is None else calling.cache_mode
        default_cache = document.pop("cache-mode", "write")
        jobs: dict[str, Document] = document["jobs"]
        for job_id, job in jobs.items():
            requested = permissions_of(job.pop("permissions", None), default)
            cache_mode = least_cache_mode(granted_cache, job.pop("cache-mode", default_cache))
            planned = Job(f"{path}{job_id}", requested, workflow_ref, source.commit, cache_mode)
            if calling is not None:
                _check_granted(planned, requested, calling.permissions)
            if "uses" in job:
                self._call(source, workflow_ref, job, planned, name)
            else:
                # In a pull request (GitHub: from a fork) a token can read, and nothing else. That
                # cuts it down at run time; calls are compared as the files declare them
                # (actions/runner, WorkflowParser/Conversion/PermissionsHelper.cs).
                if self.event_name in FROM_FORKS:
                    planned = replace(planned, permissions=read_only(requested))
                self._job(source, job, planned)
            job["name"] = f"{PATH_MARK}{planned.path}"
            jobs[job_id] = substitute(job, self._literals(planned))
        report = f"{path.replace('/', '.') or '.'}json"
        jobs[REPORT_JOB] = _report_job(list(jobs), self.reports / report)
        target = source.copy / ".github/workflows" / f"sandbox.{path.replace('/', '.')}yml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dump(document), encoding="utf-8")
        return target

    def _job(self, source: Source, job: Document, planned: Job) -> None:
        """Gives an ordinary job its identity, and its steps actions that act finds."""
        if "container" in job or "services" in job:
            raise WorkflowError(f"job '{planned.path}': the sandbox has no containers")
        self._jobs[planned.path] = planned
        job["runs-on"] = "ubuntu-latest"  # the one runner there is: this machine
        environment = dict(job.get("env") or {})
        for name, value in self._literals(planned).items():
            if name.startswith("job."):
                environment[_variable(name)] = value
        job["env"] = {**environment, **self.job_environment(planned)}
        for step in job.get("steps") or []:
            self._step(source, step)

    def _literals(self, job: Job) -> dict[str, str]:
        """The contexts that act leaves empty, for one job."""
        repository, _, rest = job.workflow_ref.partition("/.github/")
        return {
            **self.contexts,
            "job.workflow_ref": job.workflow_ref,
            "job.workflow_sha": job.workflow_sha,
            "job.workflow_repository": repository,
            "job.workflow_file_path": f".github/{rest.partition('@')[0]}",
        }

    def _call(
        self, source: Source, workflow_ref: str, job: Document, planned: Job, name: str
    ) -> None:
        """Points a job that calls a workflow to that call's own copy."""
        uses = str(job["uses"])
        local = re.fullmatch(r"(?:\./|\$/)(\.github/workflows/[^@]+)", uses)
        remote = re.fullmatch(r"([^/@]+/[^/@]+)/(\.github/workflows/[^@]+)@(.+)", uses)
        if local:
            _check_is_commit(source, uses)
            callee, file, ref = source, local[1], workflow_ref.partition("@")[2]
        elif remote:
            callee, file, ref = self._source(remote[1], remote[3], uses), remote[2], remote[3]
            ref = ref if ref == callee.commit else callee.ref
        else:
            raise WorkflowError(f"job '{planned.path}': '{uses}' is not a reusable workflow")
        try:
            called = load(callee.original / file)
        except FileNotFoundError:
            raise WorkflowError(f"job '{planned.path}': {uses}: workflow was not found") from None
        check_call(called, job.get("with") or {}, uses)
        target = self._workflow(
            callee,
            file,
            f"{callee.name}/{file}@{ref}",
            path=f"{planned.path}/",
            calling=planned,
            name=name,
        )
        self._local[f"{callee.name}@{callee.commit}"] = callee.copy
        job["uses"] = f"{callee.name}/.github/workflows/{target.name}@{callee.commit}"

    def _source(self, name: str, ref: str, uses: str) -> Source:
        for source in (self.caller, *self.others):
            if source.is_named(name, ref):
                # GitHub takes what the reference leads to for a commit, also where it is none.
                found = source.commit if ref == source.commit else source.tag_object
                return replace(source, commit=found or source.commit)
        known = ", ".join(f"{source.name}@{source.ref}" for source in (self.caller, *self.others))
        raise WorkflowError(
            f"'{uses}': the sandbox has no such repository at that ref; has {known}"
        )

    def _step(self, source: Source, step: Document) -> None:
        """Points a step to an action that act finds: in a copy, or a stand-in."""
        uses = str(step.get("uses", ""))
        if not uses or uses.startswith("./"):  # `./`: an action of the job's own checkout
            return
        if uses.startswith("$/"):
            _check_is_commit(source, uses)
            folder = uses.removeprefix("$/")
            step["uses"] = f"{source.name}/{folder}@{source.commit}"
            self._local[f"{source.name}@{source.commit}"] = source.copy
            self._action(source, folder)
            return
        match = re.fullmatch(r"([^/@]+/[^/@]+)(/[^@]+)?@(.+)", uses)
        if not match:
            raise WorkflowError(f"'{uses}': the sandbox runs actions of repositories only")
        name, folder, ref = match[1], (match[2] or "").strip("/"), match[3]
        if (self.stand_ins / name / folder / "action.yml").is_file():
            self._local[f"{name}@{ref}"] = self.stand_ins / name
            return
        if any(other.name == name for other in (self.caller, *self.others)):
            found = self._source(name, ref, uses)
            step["uses"] = "/".join(filter(None, (name, folder))) + f"@{found.commit}"
            self._local[f"{name}@{found.commit}"] = found.copy
            self._action(found, folder)
            return
        raise WorkflowError(f"'{uses}': the sandbox has no stand-in for this action")

    def _action(self, source: Source, folder: str) -> None:
        """Rewrites a composite action's copy, and those of the actions that it uses."""
        for name in ("action.yml", "action.yaml"):
            if (source.original / folder / name).is_file():
                break
        else:
            raise WorkflowError(f"{source.name}: there is no action in '{folder}'")
        target = source.copy / folder / name
        if target in self._actions_done:
            return
        self._actions_done.add(target)
        document = load(source.original / folder / name)
        for step in document.get("runs", {}).get("steps") or []:
            self._step(source, step)
        # An action belongs to many jobs, so what differs between jobs is read from the
        # environment.
        job_contexts = [name for name in self._literals(_NOBODY) if name.startswith("job.")]
        expressions = {name: f"env.{_variable(name)}" for name in job_contexts}
        document = substitute(document, self.contexts)
        target.write_text(dump(replace_contexts(document, expressions)), encoding="utf-8")


_NOBODY = Job("", {}, "", "")


def _check_is_commit(source: Source, uses: str) -> None:
    """Refuses a reference to the same repository from a workflow that was named by a tag object."""
    if source.commit == source.tag_object:
        raise WorkflowError(
            f"'{uses}': {source.name} has no commit {source.commit}: that is the digest of the "
            f"annotated or signed tag {source.ref}; only lightweight tags will do"
        )


def _variable(context: str) -> str:
    return "SANDBOX_" + context.upper().replace(".", "_")


def _report_job(needs: list[str], report: Path) -> Document:
    """A last job that writes the `needs` context: every job's result and outputs."""
    return {
        "name": f"{PATH_MARK}{REPORT_JOB}",
        "needs": needs,
        "if": "always()",
        "runs-on": "ubuntu-latest",
        "steps": [
            {
                "name": "Report",
                "env": {"NEEDS": "${{ toJSON(needs) }}", "REPORT": str(report)},
                "run": 'printf "%s\\n" "$NEEDS" >> "$REPORT"',
            }
        ],
    }


def _check_granted(job: Job, requested: Permissions, granted: Permissions) -> None:
    """Refuses a called workflow's job that wants more than the calling job has."""
    excess = [
        scope
        for scope, level in requested.items()
        if LEVELS.index(level) > LEVELS.index(granted.get(scope, "none"))
    ]
    if excess:
        wants = ", ".join(f"{scope}: {requested[scope]}" for scope in excess)
        allowed = ", ".join(f"{scope}: {granted.get(scope, 'none')}" for scope in excess)
        raise WorkflowError(
            f"{job.workflow_ref}: the nested job '{job.path}' is requesting '{wants}', "
            f"but is only allowed '{allowed}'"
        )


def parse_reports(folder: Path) -> Iterator[tuple[str, Document]]:
    """Every reported job: its path, and its `result` and `outputs`."""
    decoder = json.JSONDecoder()
    for report in sorted(folder.iterdir()):
        prefix = report.name.removesuffix("json").replace(".", "/").lstrip("/")
        text = report.read_text(encoding="utf-8").strip()
        while text:
            needs, end = decoder.raw_decode(text)
            text = text[end:].strip()
            for job_id, job in needs.items():
                yield f"{prefix}{job_id}", job
