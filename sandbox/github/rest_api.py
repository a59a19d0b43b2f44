"""The little of GitHub's REST API that workflows here use: how an earlier run ended.

For demonstrations and tests only. "Get a workflow run", API version 2022-11-28.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "sandbox-token"


@contextmanager
def github_api(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Serves `answers`, from path to JSON document, on 127.0.0.1; gives `GITHUB_API_URL`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            answer = answers.get(self.path) if authorized else None
            body = json.dumps(answer or {"message": "Not Found"}).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass  # the log of a run is about the run

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


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
