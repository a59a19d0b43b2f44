"""How the run ended that a model claims to come from, asked from GitHub.

Provenance is written while a run is still going on, and holds for whatever a job of it made. If the
run failed afterwards (a test, an approval, a scan), its artifacts are still there and still verify.
So a gate asks, online, whether the run as a whole succeeded. The answer is GitHub's word over TLS,
not a signature; it can only ever add a refusal to a verdict that holds without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

from model_signing.errors import innermost
from slsa_for_models.errors import RunError
from slsa_for_models.evidence.statement import value_at
from slsa_for_models.verdict.result import NO_PROVENANCE, Verdict
from slsa_for_models.verdict.table import Table

API = "https://api.github.com"
MAX_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 30
_RUN = re.compile(
    r"https://github\.com/([A-Za-z0-9-]+/[A-Za-z0-9._-]+)/actions/runs/([1-9][0-9]{0,19})"
    r"/attempts/([1-9][0-9]{0,9})"
)


@dataclass(frozen=True)
class GitHubApi:
    """GitHub's REST API, version 2022-11-28, and who asks it.

    Attributes:
        url: Its address.
        token: A token with `actions: read` on the repository; may be empty for public ones.
        own_run: The repository (`ORG/REPO`) and number of the run that asks, where one does. Within
            it there is no conclusion yet: jobs that this one needs have succeeded, or it would not
            run.
    """

    url: str = API
    token: str = field(default="", repr=False)
    own_run: tuple[str, str] | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> GitHubApi:
        """From `GITHUB_API_URL`, `GITHUB_TOKEN`, `GITHUB_REPOSITORY` and `GITHUB_RUN_ID`.

        As GitHub sets them; all may be absent.
        """
        return cls(
            environ.get("GITHUB_API_URL") or API,
            environ.get("GITHUB_TOKEN", ""),
            (environ.get("GITHUB_REPOSITORY", ""), environ.get("GITHUB_RUN_ID", "")),
        )


def examine(table: Table, verdict: Verdict, api: GitHubApi) -> None:
    """Adds one more step for every attempt of a run that was certified.

    Args:
        table: Where the steps go, after all others.
        verdict: The verdict so far: who signed the provenances that it rests on; without any, the
            model.
        api: Whom to ask.
    """
    signed = [item.signed for item in verdict.accepted]
    signed = signed or ([verdict.signer] if verdict.signer else [])
    runs = {(one.facts.get("invocation") or "", one.facts.get("commit") or "") for one in signed}
    lost = NO_PROVENANCE if table.refusal and not signed else ""
    for run, commit in sorted(runs) or [("", "")]:
        table.step(
            "run",
            "The run has succeeded",
            "GitHub REST API, Get a workflow run attempt",
            partial(check, run, commit, api),
            unless=lost,
        )


def check(run: str, commit: str, api: GitHubApi) -> str:
    """Asks whether an attempt of a run succeeded: another one may have made another model.

    Args:
        run: The run invocation URI of the certificate (extension 1.3.6.1.4.1.57264.1.21).
        commit: The commit it was for, hexadecimal.
        api: Whom to ask.

    Returns:
        What was found, for the verdict.

    Raises:
        RunError: The run did not succeed, is another than it says, or GitHub could not be asked.
    """
    match = _RUN.fullmatch(run)
    if match is None:
        raise RunError(
            "no accepted provenance names a run of GitHub Actions",
            where="run",
            expected="https://github.com/ORG/REPO/actions/runs/NUMBER/attempts/NUMBER",
            found=run or "none",
        )
    repository, number, attempt = match.groups()
    if api.own_run == (repository, number):
        return f"{run}: this very run; the jobs before this one have succeeded"
    url = f"{api.url.rstrip('/')}/repos/{repository}/actions/runs/{number}/attempts/{attempt}"
    answer = _get(url, api.token)
    # 1. The answer is about this attempt of this run, of this repository and commit.
    for name, expected in (
        ("id", number),
        ("run_attempt", attempt),
        ("repository.full_name", repository),
        ("head_sha", commit),
    ):
        found = value_at(answer, name)
        if str(found) != expected:
            raise RunError(
                "GitHub answers about another run than the provenance names",
                where=f"{url}, {name.partition('.')[0]}",
                expected=expected,
                found="nothing" if found is None else str(found),
            )
    # 2. It is over, and every job of it succeeded or was meant to be skipped.
    status, conclusion = answer.get("status"), answer.get("conclusion")
    if (status, conclusion) != ("completed", "success"):
        raise RunError(
            "the run that made the model has not succeeded",
            where=run,
            expected="completed, success",
            found=f"{status}, {conclusion or 'no conclusion yet'}",
            fix="do not deploy it; run all jobs again, and deploy what that attempt makes",
        )
    return f"{run}: completed, success"


def _get(url: str, token: str) -> dict[str, object]:
    """The JSON object at `url`, bounded in size and time."""
    import requests  # not what every verification needs

    if urlsplit(url).scheme not in ("https", "http"):
        raise RunError("the address of GitHub's API is not a web address", found=url)
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Given as a function, so that no netrc file says otherwise.
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    try:
        with requests.get(
            url,
            headers=headers,
            auth=authorize,
            allow_redirects=False,  # the token is for the address asked, and for no other
            stream=True,
            timeout=TIMEOUT_SECONDS,
        ) as response:
            status = response.status_code
            body = bytearray()
            for piece in response.iter_content(64 * 1024):  # of a chunked answer every chunk
                body += piece
                if len(body) > MAX_BYTES:
                    break
    except OSError as error:
        raise RunError(
            "GitHub cannot be asked how the run ended", where=url, found=innermost(error)
        ) from error
    if status != HTTPStatus.OK:
        raise RunError(
            "GitHub does not tell how the run ended",
            where=url,
            found=f"HTTP status {status}",
            fix="grant the job `actions: read`; of another private repository it may not ask",
        )
    try:
        answer = json.loads(body) if len(body) <= MAX_BYTES else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise RunError("GitHub's answer is not a JSON object of at most 1 MiB", where=url)
    return answer
