"""HTTP on this machine, for the services of the sandbox and of tests: who answers at one port.

For demonstrations and tests only.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_REQUEST = 4 * 1024 * 1024
# A request that comes slower is given up.
REQUEST_SECONDS = 60
# Of requests for another host, such as one that a web page's script gave our address, none is ours.
HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Request:
    """An HTTP request; `target` is path and query as they were sent."""

    method: str
    target: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `body` is sent as it is, or, where the connection breaks, a part of it."""

    status: int
    body: bytes
    content_type: str = "application/json"
    location: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    breaks_after: int | None = None

    @classmethod
    def of_json(cls, status: int, document: object) -> Reply:
        """An answer in JSON."""
        return cls(status, json.dumps(document).encode())


class Serving:
    """Answers on 127.0.0.1, at a free port, while in its context.

    Args:
        handler: Makes what answers a request.

    Attributes:
        port: The port, from the start on.
    """

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class LocalServer(Serving):
    """The same, where one function answers what is asked."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        class Handler(_Handler):
            pass

        Handler.answer = staticmethod(answer)
        super().__init__(Handler)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of whoever has heard enough."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers at once: Nagle's algorithm would hold each back for 40 ms.
    disable_nagle_algorithm = True
    timeout = REQUEST_SECONDS
    answer: Callable[[Request], Reply]

    def do_GET(self) -> None:
        self._reply()

    def do_HEAD(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def _reply(self) -> None:
        hosts, lengths = (self.headers.get_all(name) or [] for name in ("Host", "Content-Length"))
        port = self.connection.getsockname()[1]
        length = lengths[0] if lengths else "0"
        if hosts not in ([f"{host}:{port}"] for host in HOSTS):
            self._refuse(421, "the request is for another host")
        elif len(lengths) > 1 or not (length.isascii() and length.isdigit()):
            self._refuse(400, "Content-Length is not one number")
        elif "Transfer-Encoding" in self.headers:
            self._refuse(411, "the request has no Content-Length")
        elif len(length) > 10 or int(length) > MAX_REQUEST:
            self._refuse(413, "request too large")
        else:
            body = self.rfile.read(int(length))
            self._send(type(self).answer(Request(self.command, self.path, self.headers, body)))

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # what follows is no request
        self._send(Reply.of_json(status, {"message": message}))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.location is not None:
            self.send_header("Location", reply.location)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: reply.breaks_after])
        if reply.breaks_after is not None:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: whoever answers may remember."""
