"""One run of one workflow: what GitHub does around `act`. For demonstrations and tests only."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandbox.checkout import ROOT
from sandbox.github.act import Observed, run_act
from sandbox.github.planner import Job, Plan, Planner, Source, parse_reports
from sandbox.github.repositories import Repository, snapshot, tag_object
from sandbox.github.rest_api import github_api, workflow_run
from sandbox.github.result import Event, JobResult, Run
from sandbox.github.run_context import Context, ref_of
from sandbox.github.workflows import workflow_name
from sandbox.sigstore import LocalSigstore

STAND_INS = Path(__file__).resolve().parent / "stand_ins"
GENERATOR = Source(
    name="slsa-framework/slsa-github-generator",
    ref="refs/tags/v2.1.0",
    commit="f7dd8c54c2067bafc12ca7a55595d5ee9b75204a",
    original=STAND_INS / "slsa-framework/slsa-github-generator",
    copy=Path(),
)
# act copies all of a repository for every step that uses an action of it.
NOT_FOR_ACT = shutil.ignore_patterns(".git", "tests", "docs", "bench", "sandbox")
WORST_FIRST = ("failure", "cancelled", "success", "skipped")


def run(
    workflow: str,
    repository: Repository,
    sigstore: LocalSigstore,
    output: Path,
    *,
    event_name: str = "workflow_dispatch",
    event: Mapping[str, Any] | None = None,
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
        event: What its payload has instead of the usual, by its topmost names.
        inputs: Of a `workflow_dispatch`.
        others: Further repositories that `uses:` in the workflow may name.
        earlier: Runs whose artifacts jobs may download, and of which GitHub's API tells.
        run_id: `github.run_id`; by default a new one.
        run_attempt: `github.run_attempt`.
        on_event: Called as jobs and steps start and end.

    Raises:
        WorkflowError: GitHub would not start the run, or the sandbox lacks something it uses.
    """
    repository = replace(repository, ref=ref_of(event_name, repository.ref))
    with _scratch() as scratch, github_api(_api_answers(earlier)) as api_url:
        caller, *sources = _sources([repository, *others], scratch)
        context = Context(
            caller,
            workflow,
            workflow_name(caller.original / workflow),
            event_name,
            run_id or str(10**10 + secrets.randbelow(10**10)),
            run_attempt,
            event or {},
        )
        with (
            _job_tokens(sigstore, context) as job_environment,
            _sigstore_of_github(sigstore, scratch) as attesting_environment,
        ):
            planner = Planner(
                caller=caller,
                others=[*sources, _generator(scratch)],
                stand_ins=STAND_INS,
                event_name=event_name,
                contexts=context.expressions(),
                job_environment=job_environment,
                reports=scratch / "reports",
            )
            plan = planner.plan(workflow, inputs or {})
            shutil.rmtree(output / "artifacts", ignore_errors=True)
            (output / "artifacts").mkdir(parents=True)
            variables = {
                **context.environment(),
                **_stand_in_environment(output / "artifacts", earlier),
                **_product_environment(scratch, sigstore),
                **attesting_environment,
                "GITHUB_API_URL": api_url,
            }
            _describe_repositories(scratch, [caller, *sources])
            (scratch / "event.json").write_text(json.dumps(context.payload(plan.inputs)))
            with (output / "log.txt").open("w", encoding="utf-8") as log:
                observed = run_act(scratch, plan, context, variables, log, on_event)
        return _outcome(context, plan, observed, scratch / "reports", output)


def _outcome(context: Context, plan: Plan, observed: Observed, reports: Path, output: Path) -> Run:
    return Run(
        "success" if observed.exit_code == 0 else "failure",
        _job_results(plan, observed.results, reports),
        observed.summaries,
        observed.annotations,
        output / "log.txt",
        output / "artifacts",
        context.run_id,
        context.run_attempt,
        context.caller.name,
        context.caller.commit,
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


@contextmanager
def _sigstore_of_github(sigstore: LocalSigstore, scratch: Path) -> Iterator[Mapping[str, str]]:
    """Where `actions/attest` signs what is not known to be of a public repository.

    It takes the same identities, and what it signs never verifies against the public one's root.
    """
    with LocalSigstore(sigstore.oidc) as private:
        path = private.write_trust_config(scratch / "trust-config-of-github.json")
        yield {"SANDBOX_SIGSTORE_OF_GITHUB": str(path)}


def _stand_in_environment(artifacts: Path, earlier: Sequence[Run]) -> dict[str, str]:
    """What the stand-ins of actions need to know."""
    runs = {f"{item.repository} {item.run_id}": str(item.artifacts.resolve()) for item in earlier}
    return {
        "SANDBOX_ARTIFACTS": str(artifacts.resolve()),
        "SANDBOX_EARLIER_RUNS": json.dumps(runs),
        "SANDBOX_PYTHON": sys.executable,
        "SANDBOX_ROOT": str(ROOT),
    }


def _product_environment(scratch: Path, sigstore: LocalSigstore) -> dict[str, str]:
    """What our own programs need: the Sigstore, and what earlier runs have built or fetched."""
    cache = Path(os.environ.get("MODEL_TRANSPARENCY_CACHE") or "~/.cache/model-transparency")
    return {
        # Jobs have no home to find it in.
        "MODEL_TRANSPARENCY_CACHE": str(cache.expanduser().resolve()),
        "MODEL_TRANSPARENCY_TRUST_CONFIG": str(
            sigstore.write_trust_config(scratch / "trust-config.json")
        ),
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
    """A folder for one run; removed afterwards. act splits the names of scripts at spaces."""
    usual = Path(tempfile.gettempdir()).resolve()
    place = usual if re.fullmatch(r"[\w./+-]+", str(usual)) else Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="sandbox-run-", dir=place)).resolve()
    (folder / "reports").mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sources(repositories: Sequence[Repository], scratch: Path) -> list[Source]:
    """Makes two copies of each repository: as it is, for checkouts; and for act."""
    sources = []
    for number, repository in enumerate(repositories):
        folder = scratch / "repositories" / str(number)
        original, copy = folder / "original", folder / "copy"
        folder.mkdir(parents=True)
        commit = snapshot(repository.path, original)
        shutil.copytree(original, copy, symlinks=True, ignore=NOT_FOR_ACT)
        sources.append(
            Source(
                repository.name,
                repository.ref,
                commit,
                original,
                copy,
                repository.visibility,
                tag_object(repository.path, repository.ref),
            )
        )
    return sources


def _generator(scratch: Path) -> Source:
    """The stand-in of slsa-github-generator, with a copy for act."""
    copy = scratch / "repositories/generator"
    shutil.copytree(GENERATOR.original, copy)
    return replace(GENERATOR, copy=copy)


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
