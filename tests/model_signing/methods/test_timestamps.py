"""Asking a timestamp authority (RFC 3161 3.4) that answers as it likes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from rfc3161_client import decode_timestamp_response

from model_signing.errors import SigningError
from model_signing.methods import services
from model_signing.methods.timestamps import timestamp
from sandbox.local_server import Serving
from sandbox.sigstore import LocalSigstore


@contextmanager
def authority(sigstore: LocalSigstore, how: str) -> Iterator[str]:
    """The sandbox's authority behind a server that misbehaves."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            if how.startswith("redirect"):
                self.send_response(int(how.split()[1]))
                self.send_header("Location", f"{sigstore.url}/api/v1/timestamp")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if how == "no answer":
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(500 if how == "an error" else 200)
            self.send_header("Content-Type", "application/timestamp-reply")
            bodies = {
                "too much": bytes(2_000_000),
                "not DER": b"<html>",
                "nothing": b"",
                "an error": b"out of order",
            }
            data = bodies[how] if how in bodies else sigstore.tsa.reply(query)
            if how == "in pieces":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for start in range(0, len(data), 100):
                    piece = data[start : start + 100]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
                return
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with Serving(Handler) as server:
        yield f"{server.url}/"


@pytest.mark.parametrize("how", ["as it should", "in pieces", "redirect 307", "redirect 308"])
def test_an_answer_is_an_answer_however_it_comes(sigstore: LocalSigstore, how: str) -> None:
    with authority(sigstore, how) as url:
        response = timestamp(b"a signature", url)
    assert decode_timestamp_response(response).status == 0


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("too much", "answered without end"),
        ("not DER", "gave no timestamp"),
        ("nothing", "gave no timestamp"),
        ("an error", "is out of service"),
        ("no answer", "cannot be reached"),
    ],
)
def test_what_is_no_answer_is_refused(
    sigstore: LocalSigstore, how: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_PAUSES", (0.01, 0.02))
    with authority(sigstore, how) as url, pytest.raises(SigningError) as refusal:
        timestamp(b"a signature", url)
    assert refusal.value.message == f"the timestamp authority {words}"
    assert refusal.value.where == url
    assert refusal.value.found or refusal.value.expected
    assert ("HTTP 500" in (refusal.value.found or "")) == (how == "an error")
    assert "object at 0x" not in str(refusal.value)


def test_an_authority_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_PAUSES", ())
    with pytest.raises(SigningError) as refusal:
        timestamp(b"a signature", "http://127.0.0.1:1/")
    assert "refused" in (refusal.value.found or "")
    assert "object at 0x" not in (refusal.value.found or "")
