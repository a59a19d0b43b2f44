"""The sandbox's servers answer requests for them, whole ones, and nothing else."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse

import pytest

from sandbox.local_server import MAX_REQUEST


def ask(sigstore, text: str) -> int:
    """The status of the answer to these very bytes."""
    port = urllib.parse.urlsplit(sigstore.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text.replace("PORT", str(port)).encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost:PORT", 200),
        ("Host: 127.0.0.1:PORT", 200),
        ("Host: attacker.example", 421),
        ("Host: attacker.example:PORT", 421),
        ("Host: localhost", 421),
        ("Host: localhost:PORT\r\nHost: attacker.example", 421),
        ("X: y", 421),
        ("Host: localhost:PORT\r\nX: " + "y" * 70_000, 431),
        ("Host: localhost:PORT\r\n" + "X: y\r\n" * 200 + "X: y", 431),
    ],
)
def test_only_requests_for_this_host_are_answered(sigstore, headers, status):
    assert ask(sigstore, f"GET /keys HTTP/1.1\r\n{headers}\r\n\r\n") == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: -1", 400),
        ("Content-Length: many", 400),
        ("Content-Length: 1\r\nContent-Length: 2", 400),
        (f"Content-Length: {MAX_REQUEST + 1}", 413),
        ("Content-Length: " + "9" * 5000, 413),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_a_request_says_how_long_it_is(sigstore, headers, status):
    text = f"POST /api/v2/log/entries HTTP/1.1\r\nHost: localhost:PORT\r\n{headers}\r\n\r\n"
    assert ask(sigstore, text) == status


@pytest.mark.parametrize(
    "path", ["/api/v2/log/entries", "/api/v2/signingCert", "/api/v1/timestamp"]
)
@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", "{}", "\udcff", "[" * 100_000, json.dumps({"a": {"b": [1]}})]
)
def test_what_is_malformed_is_a_bad_request(sigstore, path, body):
    data = body.encode(errors="surrogateescape")
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(sigstore.url).netloc, timeout=20)
    connection.request("POST", path, data, {"Authorization": f"Bearer {sigstore.oidc.token()}"})
    answer = connection.getresponse()
    # An authority says of no body that it cannot be processed, as the real one.
    missing = path.endswith("timestamp") and not data
    assert answer.status == (422 if missing else 400)
    assert json.loads(answer.read())["message"]
    connection.close()


@pytest.mark.parametrize(
    "redirect",
    [
        "http://localhost/%0d%0aSet-Cookie:%20a",
        "http://localhost/%0a",
        "http://[::1",
        "http://evil/",
    ],
)
def test_a_redirect_holds_no_line_break_and_stays_here(sigstore, redirect):
    assert (
        ask(
            sigstore,
            f"GET /authorize?redirect_uri={redirect} HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
        )
        == 400
    )
