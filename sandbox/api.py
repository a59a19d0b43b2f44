"""The little of GitHub's REST API that workflows here use: how an earlier run ended.

For demonstrations and tests only. "Get a workflow run", API version 2022-11-28.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

TOKEN = "sandbox-token"


class GitHubApi:
    """Answers on 127.0.0.1 at a free port, while in its context.

    Attributes:
        url: The value of `GITHUB_API_URL`.
        requests: What was asked, oldest first.
    """

    def __init__(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Serves `answers`: from path to JSON document."""
        self._answers = answers
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: list[str] = []
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> GitHubApi:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append(self.path)
                authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                answer = api._answers.get(self.path) if authorized else None
                body = json.dumps(answer or {"message": "Not Found"}).encode()
                self.send_response(200 if answer else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass  # the log of a run is about the run

        return Handler


def workflow_run(repository: str, run_id: str, commit: str, conclusion: str) -> dict[str, Any]:
    """A finished run as the API describes it, as far as anybody here looks."""
    return {
        "id": int(run_id),
        "head_sha": commit,
        "status": "completed",
        "conclusion": conclusion,
        "repository": {"full_name": repository},
    }
