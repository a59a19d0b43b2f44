"""The little of GitHub's REST API that workflows here use: how an earlier run ended.

For demonstrations and tests only. "Get a workflow run", API version 2022-11-28.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sandbox.local_server import LocalServer, Reply, Request

TOKEN = "sandbox-token"


@contextmanager
def github_api(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Serves `answers`, from path to JSON document, on 127.0.0.1; gives `GITHUB_API_URL`."""

    def answer(request: Request) -> Reply:
        authorized = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        document = answers.get(request.target) if authorized else None
        return Reply.of_json(200 if document else 404, document or {"message": "Not Found"})

    with LocalServer(answer) as server:
        yield server.url


def workflow_run(
    repository: str, run_id: str, attempt: int, commit: str, conclusion: str
) -> dict[str, Any]:
    """An attempt of a run as the API describes it when it is over, as far as anybody here looks."""
    return {
        "id": int(run_id),
        "run_attempt": attempt,
        "head_sha": commit,
        "status": "completed",
        "conclusion": conclusion,
        "repository": {"full_name": repository},
    }
