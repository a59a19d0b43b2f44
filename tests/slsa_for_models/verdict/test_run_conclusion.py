"""The conclusion of a run, asked from a real HTTP server that plays GitHub's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sandbox.local_server import Serving
from slsa_for_models import cli
from slsa_for_models.errors import RunError
from slsa_for_models.verdict import run_conclusion
from slsa_for_models.verdict.run_conclusion import GitHubApi
from tests.support import crafted
from tests.support.crafted import REF, SOURCE, TRAIN, Workshop, refusals

COMMIT = "c" * 40
RUN = "https://github.com/octo-org/models/actions/runs/42/attempts/1"
ASKED = "/repos/octo-org/models/actions/runs/42/attempts"
# Of a real answer (REST API 2022-11-28, "Get a workflow run attempt"), the fields looked at.
GOOD: dict[str, Any] = {
    "id": 42,
    "run_attempt": 1,
    "head_sha": COMMIT,
    "status": "completed",
    "conclusion": "success",
    "repository": {"full_name": "octo-org/models"},
}


class Api:
    """Answers every request with `status` and `body`, and remembers what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps(GOOD).encode()
        self.headers: dict[str, str] = {}
        self.chunked = False
        self.requests: list[tuple[str, str | None]] = []
        self.server = Serving(self._handler())
        self.url = self.server.url

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.requests.append((self.path, self.headers.get("Authorization")))
                self.send_response(api.status)
                for name, value in api.headers.items():
                    self.send_header(name, value)
                if not api.chunked:
                    self.send_header("Content-Length", str(len(api.body)))
                    self.end_headers()
                    self.wfile.write(api.body)
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in (api.body[:10], api.body[10:]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with api.server:
        yield api


def check(api: Api, run: str = RUN, answer: dict[str, Any] | None = None, **options: Any) -> str:
    if answer is not None:
        api.body = json.dumps({**GOOD, **answer}).encode()
    return run_conclusion.check(run, COMMIT, GitHubApi(api.url, "secret", **options))


def test_a_run_that_succeeded(api: Api) -> None:
    assert check(api) == f"{RUN}: completed, success"
    assert api.requests == [(f"{ASKED}/1", "Bearer secret")]


def test_an_answer_in_chunks_is_read_to_its_end(api: Api) -> None:
    api.chunked = True
    assert check(api) == f"{RUN}: completed, success"


def test_only_the_attempt_that_made_the_model_counts(api: Api) -> None:
    check(api, RUN.replace("attempts/1", "attempts/3"), answer={"run_attempt": 3})
    assert api.requests == [(f"{ASKED}/3", "Bearer secret")]
    with pytest.raises(RunError, match="another run"):  # a later one, which succeeded
        check(api, answer={"run_attempt": 2})


def test_a_model_of_an_attempt_that_failed(
    api: Api,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GITHUB_API_URL", api.url)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    model = workshop.model()
    options = ("--source-uri", SOURCE, "--builder-id", TRAIN, "--run-conclusion")
    for attempt, conclusion, code in (("1", "failure", 1), ("2", "success", 0)):
        provenance = workshop.train_provenance(model, run_attempt=attempt)
        about = {"id": 77, "run_attempt": int(attempt), "head_sha": crafted.COMMIT}
        api.body = json.dumps({**GOOD, **about, "conclusion": conclusion}).encode()
        found, verdict = workshop.verify(model, "--provenance", provenance, *options)
        assert (found, refusals(verdict)) == (code, ["RunError"][:code])
        if code:  # nothing is repeated of it
            capsys.readouterr()
            repeat = ("reproduce", model, "--provenance", provenance, *options)
            assert workshop.run(*repeat)[0] == 1
            assert "the run that made the model has not succeeded" in capsys.readouterr().err
    assert [path.rpartition("/")[2] for path, _ in api.requests] == ["1", "1", "2"]


@pytest.mark.parametrize(("conclusion", "code"), [("failure", 1), ("success", 0)])
def test_without_provenance_the_run_is_the_one_that_signed(
    api: Api, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, conclusion: str, code: int
) -> None:
    monkeypatch.setenv("GITHUB_API_URL", api.url)
    model = workshop.model()
    signer = ("--identity", f"{TRAIN}@{REF}", "--source-uri", SOURCE)
    about = {"id": 77, "head_sha": crafted.COMMIT, "conclusion": conclusion}
    api.body = json.dumps({**GOOD, **about}).encode()
    evidence = ("--signature", workshop.sign_model(model), *signer)
    found, verdict = workshop.verify(model, *evidence, "--run-conclusion")
    assert (found, refusals(verdict)) == (code, ["RunError"][:code])
    assert [path.rpartition("runs/")[2] for path, _ in api.requests] == ["77/attempts/1"]


def test_a_public_run_needs_no_token(api: Api) -> None:
    run_conclusion.check(RUN, COMMIT, GitHubApi(api.url))
    assert api.requests == [(f"{ASKED}/1", None)]


def test_nobody_elses_password_is_sent(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    check(api)
    run_conclusion.check(RUN, COMMIT, GitHubApi(api.url))
    assert [authorization for _, authorization in api.requests] == ["Bearer secret", None]


def test_within_the_run_itself_nobody_is_asked(api: Api) -> None:
    assert "this very run" in check(api, own_run=("octo-org/models", "42"))
    assert api.requests == []


@pytest.mark.parametrize("own_run", [("octo-org/models", "4"), ("octo-org/model", "42")])
def test_another_run_or_repository_is_not_the_run_itself(
    api: Api, own_run: tuple[str, str]
) -> None:
    check(api, own_run=own_run)
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"conclusion": "failure"}, RUN),
        ({"conclusion": "cancelled"}, RUN),
        ({"conclusion": None, "status": "in_progress"}, RUN),
        ({"conclusion": "success", "status": "in_progress"}, RUN),
        ({"conclusion": "SUCCESS"}, RUN),
        ({"id": 43}, "id"),
        ({"run_attempt": 2}, "run_attempt"),
        ({"run_attempt": None}, "run_attempt"),
        ({"head_sha": "d" * 40}, "head_sha"),
        ({"repository": {"full_name": "octo-org/models2"}}, "repository"),
        ({"repository": "octo-org/models"}, "repository"),
        ({"repository": None}, "repository"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_any_other_answer_is_refused(api: Api, change: dict[str, Any], where: str) -> None:
    api.body = json.dumps({**GOOD, **change}).encode()
    with pytest.raises(RunError) as refusal:
        check(api)
    assert refusal.value.where is not None and refusal.value.where.endswith(where)
    assert refusal.value.expected and refusal.value.found


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b'{"a":' + b" " * run_conclusion.MAX_BYTES + b"1}"]
)
def test_an_answer_that_is_none(api: Api, body: bytes) -> None:
    api.body = body
    with pytest.raises(RunError, match="not a JSON object"):
        check(api)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_no_answer(api: Api, status: int) -> None:
    api.status = status
    with pytest.raises(RunError) as refusal:
        check(api)
    assert refusal.value.found == f"HTTP status {status}"


def test_the_token_does_not_follow_a_redirect(api: Api) -> None:
    api.status, api.headers = 302, {"Location": f"{api.url}/elsewhere"}
    with pytest.raises(RunError):
        check(api)
    assert len(api.requests) == 1


def test_nobody_there(api: Api) -> None:
    with pytest.raises(RunError, match="cannot be asked") as refusal:
        run_conclusion.check(RUN, COMMIT, GitHubApi("http://127.0.0.1:1"))
    assert refusal.value.found and " object at 0x" not in refusal.value.found


@pytest.mark.parametrize("url", ["file:///etc/passwd#", "ftp://127.0.0.1", "127.0.0.1:80"])
def test_an_address_that_is_not_on_the_web(url: str) -> None:
    with pytest.raises(RunError):
        run_conclusion.check(RUN, COMMIT, GitHubApi(url))


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.replace("github.com", "github.com.example.test"),
        lambda run: run.replace("https", "http"),
        lambda run: run.replace("octo-org/models", "octo-org/models/../other"),
        lambda run: run.replace("octo-org/models", "octo-org/models?x="),
        lambda run: run.replace("runs/42", "runs/0042"),
        lambda run: run + "/../43",
        lambda run: run.removesuffix("/attempts/1"),
        lambda run: run + "\n",
        lambda run: "",
    ],
)
def test_what_is_not_a_run(api: Api, change: Callable[[str], str]) -> None:
    with pytest.raises(RunError, match="names a run"):
        check(api, change(RUN))
    assert api.requests == []


def test_verify_and_policy_init_have_the_option() -> None:
    for command in (["verify", "M"], ["policy", "init", "M", "--output", "P"]):
        assert cli.build_parser().parse_args(command).run_conclusion is False
        assert cli.build_parser().parse_args([*command, "--run-conclusion"]).run_conclusion is True
