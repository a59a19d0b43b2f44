"""HTTP on this machine, for the sandbox's services: one function answers what one port is asked.

For demonstrations and tests only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

MAX_REQUEST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """An HTTP request; `target` is path and query as they were sent."""

    method: str
    target: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `body` is sent as it is."""

    status: int
    body: bytes
    content_type: str = "application/json"
    location: str | None = None

    @classmethod
    def of_json(cls, status: int, document: object) -> Reply:
        """An answer in JSON."""
        return cls(status, json.dumps(document).encode())


class LocalServer:
    """Answers on 127.0.0.1, at a free port, while in its context.

    Attributes:
        port: The port, from the start on.
    """

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        class Handler(_Handler):
            pass

        Handler.answer = staticmethod(answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> LocalServer:
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers at once: Nagle's algorithm would hold each back for 40 ms.
    disable_nagle_algorithm = True
    answer: Callable[[Request], Reply]

    def do_GET(self) -> None:
        self._reply(b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_REQUEST:
            self.close_connection = True
            self._send(Reply.of_json(413, {"message": "request too large"}))
            return
        self._reply(self.rfile.read(length))

    def _reply(self, body: bytes) -> None:
        self._send(type(self).answer(Request(self.command, self.path, self.headers, body)))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.location is not None:
            self.send_header("Location", reply.location)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: whoever answers may remember."""
