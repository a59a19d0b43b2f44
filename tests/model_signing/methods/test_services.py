"""Services that fail: waited for in bounded time, asked again where that helps, named if not."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_signing import cli
from model_signing.errors import Error, SigningError, UsageError
from model_signing.methods import services
from model_signing.methods.sigstore import SigstoreSigning, sigstore_signer
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from tests.support.clock import Clock
from tests.support.material import statement

pytestmark = pytest.mark.slow

PATHS = {
    "Fulcio": ("caUrls", "/api/v2/signingCert"),
    "transparency log": ("rekorTlogUrls", "/api/v2/log/entries"),
    "timestamp authority": ("tsaUrls", "/api/v1/timestamp"),
}
Fault = Callable[[BaseHTTPRequestHandler], None]


class Front:
    """The sandbox's Sigstore behind a server whose faults a test chooses, path by path."""

    def __init__(self, upstream: LocalSigstore, folder: Path, clock: Clock) -> None:
        self.upstream, self.folder, self.clock = upstream, folder, clock
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[str] = []
        self.released = threading.Event()
        front = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
                path = self.path.partition("?")[0]
                front.asked.append(path)
                if front.faults.get(path):
                    front.faults[path].pop(0)(self)
                    return
                status, data, kind = self.forward()
                reply(self, status, data, **{"content-type": kind})

            def forward(self) -> tuple[int, bytes, str]:
                passed = ("content-type", "authorization", "accept")
                headers = {k: v for k, v in self.headers.items() if k.lower() in passed}
                port = int(front.upstream.url.rpartition(":")[2])
                there = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                there.request(self.command, self.path, self.body, headers)
                said = there.getresponse()
                data = said.read()
                there.close()
                return said.status, data, said.getheader("content-type") or ""

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def fails(self, service: str, *faults: Fault) -> str:
        """The address of a service that has these faults, one a request, from now on."""
        _, path = PATHS[service]
        self.faults[path] = list(faults)
        return f"{self.url}{path}"

    def config(self) -> Path:
        document = self.upstream.trust_config()
        for kind, _ in PATHS.values():
            service = document["signingConfig"][kind][0]
            service["url"] = service["url"].replace(self.upstream.url, self.url)
        path = self.folder / "config.json"
        path.write_text(json.dumps(document))
        return path

    def sign(self, token: str | None = None, **options: object) -> bytes:
        token = token or self.upstream.oidc.token()
        return sigstore_signer(SigstoreTrust(self.config()), identity_token=token, **options)(
            statement()
        )

    def refused(self, token: str | None = None, **options: object) -> Error:
        with pytest.raises(SigningError) as refusal:
            self.sign(token, **options)
        return refusal.value


def reply(to: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    to.send_response(status)
    for name, value in {**headers, "content-length": str(len(body))}.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()
    to.wfile.write(body)


def busy(status: int = 503, body: bytes = b"", **headers: str) -> Fault:
    return lambda to: reply(to, status, body, **headers)


def cut(to: BaseHTTPRequestHandler) -> None:
    to.close_connection = True


def lost(to: BaseHTTPRequestHandler) -> None:
    """The service hears the request, and nobody hears its answer."""
    to.forward()  # type: ignore[attr-defined]
    to.close_connection = True


def trickle(to: BaseHTTPRequestHandler, front: Front) -> None:
    to.wfile.write(b"HTTP/1.0 201 Created\r\ncontent-type: ")
    while not front.released.wait(0.1):
        to.wfile.write(b"x")


def endless(to: BaseHTTPRequestHandler) -> None:
    to.send_response(201)
    to.end_headers()
    for _ in range(200):
        to.wfile.write(b" " * 100_000)


@pytest.fixture(params=PATHS)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    clock = Clock()
    monkeypatch.setattr(services, "time", clock)
    monkeypatch.setattr(services, "_PAUSES", (1, 2))
    with LocalSigstore() as upstream:
        front = Front(upstream, tmp_path, clock)
        yield front
        front.released.set()
        front.server.shutdown()
        front.server.server_close()


@pytest.mark.parametrize(
    "fault", [busy(), busy(500), busy(429, retry_after="0"), busy(408), busy(425), cut]
)
def test_what_passes_is_asked_again(service: str, fault: Fault, front: Front) -> None:
    front.fails(service, fault, fault)
    assert front.sign()
    assert front.asked.count(PATHS[service][1]) == 3


def test_an_answer_that_was_lost_is_had_anew(service: str, front: Front) -> None:
    """The log has the first signature already, and refuses it: the second is another one."""
    front.fails(service, lost)
    assert front.sign()
    logged = front.asked.count(PATHS["transparency log"][1])
    assert logged == (3 if service == "transparency log" else 1)


def test_what_is_in_the_log_twice_over_is_refused(front: Front) -> None:
    words = json.dumps({"code": 6, "message": "an equivalent entry already exists"}).encode()
    front.fails("transparency log", *[busy(409, words, content_type="application/json")] * 9)
    refusal = front.refused()
    assert refusal.found == "HTTP 409: an equivalent entry already exists"
    assert front.asked.count(PATHS["transparency log"][1]) == 2


def test_an_outage_is_no_refusal(service: str, front: Front) -> None:
    words = json.dumps({"code": 14, "message": "the disk is full"}).encode()
    fault = busy(503, words, content_type="application/json")
    address = front.fails(service, *[fault] * 9)
    refusal = front.refused()
    assert service in refusal.message
    assert "is out of service" in refusal.message
    assert (refusal.where, refusal.found) == (address, "HTTP 503: the disk is full")
    assert "refused" not in str(refusal)
    assert "new token" not in str(refusal)
    assert front.asked.count(PATHS[service][1]) == 3


def test_a_statement_too_large_for_the_log_says_how_else_to_sign(front: Front) -> None:
    log = next(name for name in PATHS if "log" in name)
    address = front.fails(log, busy(413, b"no", content_type="text/plain"))
    refusal = front.refused()
    assert "refused the entry" in refusal.message
    assert refusal.where == address
    assert re.fullmatch("HTTP 413: no; [1-9][0-9]+ bytes were sent", refusal.found or "")
    assert "Rekor v2" in (refusal.fix or "")


def test_a_page_of_a_proxy_is_not_repeated(service: str, front: Front) -> None:
    page = busy(502, b"<html>nginx says no</html>", content_type="text/html")
    front.fails(service, *[page] * 9)
    assert front.refused().found == "HTTP 502"


def test_retry_after_is_heeded(service: str, front: Front) -> None:
    front.fails(service, busy(retry_after="17"))
    assert front.sign()
    assert front.clock.now == 17
    front.fails(service, busy(retry_after="86400"))
    assert "86400 s" in (front.refused().found or "")
    assert front.clock.now == 17


@pytest.mark.parametrize("how", ["silent", "trickle"])
def test_no_wait_is_without_end(service: str, how: str, front: Front) -> None:
    address = front.fails(
        service,
        lambda to: trickle(to, front) if how == "trickle" else front.released.wait(300),  # type: ignore[func-returns-value]
    )
    told: list[str] = []
    start = time.monotonic()
    refusal = front.refused(timeout=4, say=told.append)
    assert time.monotonic() - start < services.MAX_SECONDS / 2
    assert f"{service}" in refusal.message
    assert "did not answer in time" in refusal.message
    assert refusal.where == address
    assert any(service in line and address in line for line in told)


def test_the_timeout_is_of_all_services_together(front: Front) -> None:
    """Each of them answers within it, the last one is not asked any more."""

    def slow(to: BaseHTTPRequestHandler) -> None:
        status, data, kind = to.forward()  # type: ignore[attr-defined]
        front.clock.now += 15
        reply(to, status, data, **{"content-type": kind})

    for timeout, asked in ((50, 3), (25, 2)):
        for service in PATHS:
            front.fails(service, slow)
        front.asked.clear()
        if asked == len(PATHS):
            assert front.sign(timeout=timeout)
        else:
            assert "did not answer in time" in front.refused(timeout=timeout).message
        assert len(front.asked) == asked


def test_not_longer_than_the_token_lives(front: Front) -> None:
    front.fails("Fulcio", lambda _: front.released.wait(300))
    token = front.upstream.oidc.token(lifetime=timedelta(seconds=3))
    start = time.monotonic()
    assert "Fulcio" in front.refused(token).message
    assert time.monotonic() - start < services.MAX_SECONDS / 2


def test_an_answer_without_end_is_cut(service: str, front: Front) -> None:
    address = front.fails(service, endless)
    refusal = front.refused()
    assert service in refusal.message
    assert "without end" in refusal.message
    assert refusal.where == address
    assert front.asked.count(PATHS[service][1]) == 1


def test_a_redirect_to_another_host_is_refused(service: str, front: Front) -> None:
    with LocalSigstore() as other:
        _, path = PATHS[service]
        target = f"http://127.0.0.1:{other.url.rpartition(':')[2]}{path}"
        front.fails(service, busy(307, location=target))
        refusal = front.refused()
        assert "redirects to another host" in refusal.message
        assert refusal.found == "127.0.0.1"
        assert other.requests == []


def test_a_redirect_on_the_same_host_is_followed(service: str, front: Front) -> None:
    front.fails(service, busy(307, location=f"{front.url}{PATHS[service][1]}"))
    assert front.sign()


def test_a_refused_token_is_told_what_it_says(front: Front) -> None:
    words = json.dumps({"message": "There was an error processing the identity token"}).encode()
    front.fails("Fulcio", busy(400, words, content_type="application/json"))
    token = front.upstream.oidc.token("dev@example.test", email_verified=False)
    refusal = front.refused(token)
    assert refusal.message == "Fulcio refused to issue a certificate"
    for part in (
        "HTTP 400: There was an error processing the identity token",
        f"issuer {front.upstream.url}",
        "audience sigstore",
        "dev@example.test (NOT verified)",
        "expires 20",
    ):
        assert part in (refusal.found or "")
    assert (refusal.fix or "").startswith(
        "have the identity provider verify dev@example.test, and "
    )
    assert "new token" in (refusal.fix or "")
    assert token not in str(refusal)
    assert front.asked == [PATHS["Fulcio"][1]]


def test_what_is_not_json_is_named(front: Front) -> None:
    for service in ("Fulcio", "transparency log"):
        address = front.fails(service, busy(201, b"<html>"))
        refusal = front.refused()
        assert "not JSON" in refusal.message
        assert refusal.where == address


def test_the_identity_provider_of_a_job(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = front.upstream.oidc.request_token_for({"repository": "acme/widget"})
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv(
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        front.upstream.job_token_url.replace(front.upstream.url, front.url),
    )
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer)
    signer = SigstoreSigning(front.config(), ambient=True, timeout=10)
    front.faults["/job-token"] = [busy(), busy(500)]
    assert sigstore_signer(signer)(statement())
    front.faults["/job-token"] = [busy()] * 9
    with pytest.raises(SigningError, match="identity provider is out of service") as refusal:
        sigstore_signer(signer)(statement())
    assert refusal.value.where == f"{front.url}/job-token"


def test_an_empty_token_is_said(
    front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for empty in ("", " \n"):
        with pytest.raises(SigningError, match="token is empty"):
            sigstore_signer(SigstoreTrust(front.config()), identity_token=empty)
    model, signature, file = (tmp_path / name for name in ("model", "model.sig", "token"))
    model.write_bytes(b"weights")
    file.write_text("\n")
    options = ("--signature", signature, "--identity-token-file", file, "--timeout", 5)
    assert cli.main(["sign", *map(str, (model, *options))]) == 1
    said = capsys.readouterr().err
    assert "the identity token is empty" in said
    assert str(file) in said
    assert not signature.exists()


def test_a_timeout_is_some_time(front: Front) -> None:
    for none in (0, -1):
        with pytest.raises(UsageError, match="no time to wait"):
            sigstore_signer(SigstoreTrust(front.config()), timeout=none)
