"""Models on Hugging Face's hub: its own client against a hub on this machine."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from hashlib import sha1, sha256
from pathlib import Path

import pytest

import model_signing
from model_signing.cli import main
from model_signing.errors import Error, FileError, MismatchError, SignatureError
from model_signing.sources import open_source, remote
from sandbox.hub import Hub
from sandbox.local_server import Reply, Request
from slsa_for_models import cli as slsa
from tests.support.material import ROOT, new_key, private_pem, public_pem
from tests.support.training_runs import train_on

huggingface_hub = pytest.importorskip("huggingface_hub", reason="not tested: no huggingface_hub")
constants = importlib.import_module("huggingface_hub.constants")

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "config.json": b'{"layers": 3}',
    "empty.txt": b"",
    "weights/model.safetensors": os.urandom(50_000),
    "weights/größe, 100%.bin": os.urandom(5_000),
}
NAME = "org/my-model"
ADDRESS = f"hf://{NAME}"


@pytest.fixture
def hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    hub.commit(NAME, FILES)
    return hub


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "my-model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my-model" / name).write_bytes(data)
    return tmp_path / "my-model"


def commit_of(hub: Hub) -> str:
    return hub.repositories["models", NAME].branches["main"]


@pytest.mark.parametrize("piece", [remote.PIECE, 1024])
def test_the_same_signature_here_and_there(
    hub: Hub, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(remote, "PIECE", piece)
    monkeypatch.setattr(remote, "ROOM", 1000)
    monkeypatch.setattr(remote, "JUDGED", 0.0)
    there = model_signing.sign(ADDRESS, tmp_path / "there.sig", SIGN)
    local = model_signing.sign(here, tmp_path / "here.sig", SIGN)
    assert there.manifest == local.manifest
    assert there.payload_digest == local.payload_digest
    assert there.resolved == f"{ADDRESS}@{commit_of(hub)}"
    assert model_signing.verify(ADDRESS, tmp_path / "here.sig", VERIFY).files == 4
    assert model_signing.verify(here, tmp_path / "there.sig", VERIFY).files == 4
    copied = model_signing.verify(ADDRESS, tmp_path / "here.sig", VERIFY, copy_to=tmp_path / "c")
    assert copied.manifest == there.manifest
    model_signing.verify(tmp_path / "c", tmp_path / "here.sig", VERIFY)


def test_verified_files_are_opened_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    verified = model_signing.verify(ADDRESS, tmp_path / "model.sig", VERIFY)
    for name in ("config.json", "empty.txt", "weights/model.safetensors"):
        with verified.open(name) as file:
            assert file.read() == FILES[name]


@pytest.mark.slow
def test_what_its_own_client_downloads_is_what_is_verified(hub: Hub, tmp_path: Path) -> None:
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    script = (
        "import sys; from huggingface_hub import snapshot_download\n"
        "snapshot_download(sys.argv[1], local_dir=sys.argv[2])"
    )
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    verify = ["-m", "model_signing", "verify", "key", "--public-key", "key.pub"]
    for arguments in (
        ["-c", script, NAME, "downloaded"],
        [*verify, "downloaded", "--signature", "model.sig"],
        [*verify, ADDRESS, "--signature", "model.sig"],
    ):
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, timeout=60, cwd=tmp_path, env=environment)


def test_a_revision_is_resolved_once(hub: Hub, tmp_path: Path) -> None:
    first = commit_of(hub)
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    source = open_source(ADDRESS)
    second = hub.commit(NAME, {**FILES, "config.json": b"{}"})
    assert str(source) == f"{ADDRESS}@{first}"
    model_signing.verify(source, tmp_path / "model.sig", VERIFY)  # whatever main is by now
    model_signing.verify(f"{ADDRESS}@{first}", tmp_path / "model.sig", VERIFY)
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(f"{ADDRESS}@main", tmp_path / "model.sig", VERIFY)
    hub.commit(NAME, FILES, branch="v1/stable")
    verified = model_signing.verify(f"{ADDRESS}@v1%2Fstable", tmp_path / "model.sig", VERIFY)
    assert verified.resolved not in (None, f"{ADDRESS}@{second}")


def test_a_data_set_is_a_repository_too(hub: Hub, tmp_path: Path) -> None:
    hub.commit(NAME, {"train.csv": b"1,2"}, kind="datasets")
    model_signing.sign(f"hf://datasets/{NAME}", tmp_path / "data.sig", SIGN)
    verified = model_signing.verify(f"hf://datasets/{NAME}", tmp_path / "data.sig", VERIFY)
    assert list(verified.manifest.files) == ["train.csv"]
    assert verified.resolved is not None
    assert verified.resolved.startswith(f"hf://datasets/{NAME}@")


def test_one_file_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    file = f"{ADDRESS}/weights/model.safetensors"
    signed = model_signing.sign(file, tmp_path / "file.sig", SIGN)
    local = tmp_path / "model.safetensors"
    local.write_bytes(FILES["weights/model.safetensors"])
    assert model_signing.verify(local, tmp_path / "file.sig", VERIFY).manifest == signed.manifest
    hub.commit(NAME, {**FILES, "weights/model.safetensors.sig": signed.bundle})
    verified = model_signing.verify(file, None, VERIFY)  # which lies beside it
    assert verified.resolved == f"{ADDRESS}@{commit_of(hub)}/weights/model.safetensors"
    with pytest.raises(FileError, match="no such file"):
        model_signing.digest(f"{ADDRESS}/weights/absent")
    with pytest.raises(FileError, match="no such file"):
        model_signing.verify(f"{ADDRESS}/weights", None, VERIFY)  # a folder


def test_a_training_reads_a_pinned_file(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = b"x,y\n" * 1000  # which lie on another host
    hub.commit(NAME, {"data/train.csv": rows, "other.csv": b"1"}, kind="datasets")
    commit = hub.repositories["datasets", NAME].branches["main"]
    address = f"hf://datasets/{NAME}@{commit}"
    pin = partial(train_on, tmp_path, sha256(rows).hexdigest())
    assert pin(f"{address}/data/train.csv") == (0, rows)
    hub.commit(NAME, {"data/train.csv": b"another"}, kind="datasets")
    for place, words in (
        (f"hf://datasets/{NAME}/data/train.csv", "not the one that was pinned"),
        (f"{address}/absent.csv", "no such file"),
        (address, "has to be that of one file"),
        (f"hf://datasets/{NAME}@absent/data/train.csv", "Invalid rev id"),
    ):
        assert pin(place) == (1, None)
        assert words in capsys.readouterr().err


def test_the_token_is_for_the_hub_only(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["models", NAME].needs_token = "private"
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    # The first of a process, the client asks for something else, too.
    asked = [one for one in hub.asked if one[2] != "/api/agent-harnesses"]
    hosts = {(host, token) for host, _, _, token in asked}
    assert hosts == {("127.0.0.1", True), ("localhost", False)}


def breaking(hub: Hub, times: int) -> list[str]:
    """The storage ends its first answers after 300 bytes; the ranges that they were for."""
    data, broken = FILES["weights/model.safetensors"], list[str]()

    def fault(request: Request) -> Reply | None:
        asked = request.headers.get("Range", "")
        if not request.headers["Host"].startswith("localhost") or len(broken) == times:
            return None
        broken.append(asked)
        start, stop = map(int, asked.removeprefix("bytes=").split("-"))
        said = (("Content-Range", f"bytes {start}-{stop}/{len(data)}"),)
        return Reply(206, data[start : stop + 1], headers=said, breaks_after=300)

    hub.fault = fault
    return broken


def test_a_large_file_is_looked_for_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PIECE", 1000)
    monkeypatch.setattr(remote, "ROOM", 1000)
    monkeypatch.setattr(remote, "JUDGED", 0.0)
    breaking(hub, 1)  # so that not all of it is there at once
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    resolved = [path for host, _, path, _ in hub.asked if path.endswith("model.safetensors")]
    assert len(resolved) == 1
    assert sum(host == "localhost" for host, *_ in hub.asked) >= 50


def test_a_hub_without_ranges_is_read_all_the_same(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PIECE", 1000), ("ROOM", 1000), ("JUDGED", 0.0)):
        monkeypatch.setattr(remote, name, value)
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)

    def fault(request: Request) -> Reply | None:
        if request.headers["Host"].startswith("localhost"):
            del request.headers["Range"]
        return None

    hub.fault = fault
    assert model_signing.verify(ADDRESS, tmp_path / "model.sig", VERIFY).files == 4


def test_a_source_is_read_in_other_processes(hub: Hub, tmp_path: Path) -> None:
    source = open_source(ADDRESS)
    assert pickle.loads(pickle.dumps(source)) == source


def test_signatures_are_uploaded_and_found(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    key.write_bytes(private_pem(KEY))
    public.write_bytes(public_pem(KEY))
    signature = f"{ADDRESS}/model.sig"
    assert main(["sign", "key", ADDRESS, "--private-key", str(key), "--signature", signature]) == 0
    assert commit_of(hub) not in capsys.readouterr().out  # that of the files is shown
    verify = ["verify", "key", ADDRESS, "--public-key", str(public), "--format", "json"]
    assert main(verify) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["resolved"] == f"{ADDRESS}@{commit_of(hub)}"
    assert said["signature"] == f"{ADDRESS}@{commit_of(hub)}/model.sig"
    assert main([*verify, "--signature", signature]) == 0
    capsys.readouterr()
    assert main(["inspect", signature]) == 0
    assert capsys.readouterr().out.startswith("UNVERIFIED")
    # Signed again: the older signature is replaced, and is no part of the model.
    assert main(["sign", "key", ADDRESS, "--private-key", str(key), "--signature", signature]) == 0
    assert main(verify) == 0
    capsys.readouterr()
    other = f"{ADDRESS}/config.json"
    assert main(["sign", "key", ADDRESS, "--private-key", str(key), "--signature", other]) == 1
    assert "is no signature" in capsys.readouterr().err
    # Somebody else's beside it does no harm; alone it is refused.
    files = hub.repositories["models", NAME].commits[commit_of(hub)]
    stranger = model_signing.sign(ADDRESS, None, model_signing.key_signer(private_pem(new_key())))
    hub.commit(NAME, {**files, "my-model.sig": stranger.bundle})
    assert main(verify) == 0
    assert json.loads(capsys.readouterr().out)["other_signatures"] == [
        f"{ADDRESS}@{commit_of(hub)}/my-model.sig"
    ]
    hub.commit(NAME, {**FILES, "my-model.sig": stranger.bundle})
    with pytest.raises(SignatureError):
        model_signing.verify(ADDRESS, None, VERIFY)


def test_an_upload_that_is_never_answered_ends(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = importlib.import_module("model_signing.sources.huggingface")
    monkeypatch.setattr(place, "_SECONDS", 0.2)
    given_up = threading.Event()

    def never(request: Request) -> Reply | None:
        if "/commit/" in request.target:
            given_up.wait(60)
        return None

    hub.fault = never
    try:
        with pytest.raises(FileError, match="does not take the signature"):
            place.write_file(f"{ADDRESS}/model.sig", b"{}")
    finally:
        given_up.set()
    assert huggingface_hub.get_session().timeout.read is None  # as others may want it


def with_status(status: int, code: str = "", **headers: str) -> Reply:
    given = (("X-Error-Code", code), *((k.replace("_", "-"), v) for k, v in headers.items()))
    return Reply(status, b'{"error": "said the hub"}', headers=given)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://org/absent", "no such repository"),
        (f"{ADDRESS}@absent", "no such revision"),
        (f"{ADDRESS}@" + "0" * 40, "no such revision"),
        ("hf://", "not the address of a model"),
        ("hf://org", "not the address of a model"),
        ("hf://spaces/org/app", "not the address of a model"),
        ("hf://../..", "not the address of a model"),
    ],
)
def test_what_is_not_there_is_told(hub: Hub, address: str, message: str) -> None:
    with pytest.raises(FileError, match=message) as refusal:
        model_signing.digest(address)
    assert refusal.value.where == address


@pytest.mark.parametrize(
    ("where", "status", "code", "message"),
    [
        ("revision", 403, "GatedRepo", "is gated"),
        ("revision", 503, "", "a failure of its own"),
        ("tree", 401, "", "asks for a credential"),
        ("tree", 500, "", "a failure of its own"),
        ("resolve", 403, "", "access is refused"),
        ("resolve", 404, "EntryNotFound", "no such file"),
        ("resolve", 404, "", "no such model or file"),
        ("resolve", 416, "", "shorter than it was listed"),
        ("resolve", 429, "", "too many requests"),
    ],
)
def test_each_failure_has_one_clear_message(
    hub: Hub, tmp_path: Path, where: str, status: int, code: str, message: str
) -> None:
    hub.fault = lambda one: with_status(status, code) if f"/{where}/" in one.target else None
    with pytest.raises(FileError, match=message):
        model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_for_a_while_is_asked_for_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    failures = [with_status(429, Retry_After="7"), with_status(503), with_status(500)]
    hub.fault = lambda one: failures.pop() if "/tree/" in one.target and failures else None
    model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    assert 7 in waited
    hub.fault = lambda one: with_status(429, Retry_After="86400")
    with pytest.raises(FileError, match="too many requests"):
        model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    assert max(waited) == 7


@pytest.mark.parametrize("judged", [0.0, 1e9], ids=["ranges", "one request"])
def test_a_connection_that_breaks_is_resumed_where_it_was(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: float
) -> None:
    monkeypatch.setattr(remote, "PIECE", 1000)
    monkeypatch.setattr(remote, "ROOM", 1000)
    monkeypatch.setattr(remote, "JUDGED", judged)
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    broken = breaking(hub, 20)
    signed = model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    assert len(broken) == 20
    if judged:
        assert broken[-1] == f"bytes={19 * 300}-49999"
    hub.fault = lambda _: None
    assert model_signing.verify(ADDRESS, tmp_path / "model.sig", VERIFY).manifest == signed.manifest


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    waited: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    with pytest.raises(FileError, match="the hub does not answer") as refusal:
        model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    assert "refused" in (refusal.value.found or "")
    assert len(waited) == remote.TRIES - 1
    monkeypatch.setattr(constants, "ENDPOINT", "127.0.0.1:9")  # no address, and will be none
    with pytest.raises(FileError, match="the hub does not answer") as refusal:
        model_signing.sign(ADDRESS, tmp_path / "model.sig", SIGN)
    assert "protocol" in (refusal.value.found or "")
    assert len(waited) == remote.TRIES - 1


@pytest.mark.parametrize("name", ["config.json", "weights/model.safetensors"])
def test_a_file_that_changes_between_listing_and_reading_is_refused(hub: Hub, name: str) -> None:
    source, commits = open_source(ADDRESS), hub.repositories["models", NAME].commits
    changed = {**FILES, name: b"x" * len(FILES[name])}

    def swap(one: Request) -> None:
        if "/resolve/" in one.target:
            commits[commit_of(hub)] = changed

    hub.fault = swap
    with pytest.raises(FileError, match="another version of the file than it listed"):
        model_signing.digest(source)


def test_a_listing_without_end_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_LISTED", 3000)
    again = (("Link", f'<{hub.endpoint}/api/models/{NAME}/tree/main?cursor=1>; rel="next"'),)
    folder = {"type": "directory", "path": "f", "oid": "0" * 40}
    for page in ([], [folder] * 1000):
        reply = Reply(200, json.dumps(page).encode(), headers=again)
        hub.fault = lambda one, reply=reply: reply if "/tree/" in one.target else None
        with pytest.raises(FileError, match="too many files"):
            model_signing.digest(ADDRESS)
        with pytest.raises(FileError, match="too many files"):
            model_signing.verify(ADDRESS, None, VERIFY)


def test_what_was_compressed_unasked_is_not_unpacked(hub: Hub) -> None:
    data = FILES["config.json"]
    etag = sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()
    headers = (("X-Repo-Commit", commit_of(hub)), ("ETag", etag), ("Content-Encoding", "gzip"))
    packed = Reply(200, gzip.compress(data), headers=headers)
    hub.fault = lambda one: packed if one.target.endswith("/config.json") else None
    with pytest.raises(FileError, match="more bytes than were asked for"):
        model_signing.digest(ADDRESS)


def test_a_verdict_is_of_what_it_was_read_from(
    hub: Hub, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    stranger = model_signing.sign(ADDRESS, None, model_signing.key_signer(private_pem(new_key())))
    signed = model_signing.sign(ADDRESS, None, SIGN)
    evidence = {"model.sig": stranger.bundle, "my-model.sig": signed.bundle}
    hub.commit(NAME, {**FILES, **evidence})
    verify = ["verify", ADDRESS, "--public-key", str(tmp_path / "key.pub")]
    summary = tmp_path / "summary.md"
    options = ["--copy-to", str(tmp_path / "copy"), "--summary", str(summary)]
    assert slsa.main([*verify, *options]) == 0
    page = summary.read_text()
    assert "pip install 'model-transparency[huggingface]'\n" in page
    assert f"slsa_for_models verify \\\n  {ADDRESS}@{commit_of(hub)} \\" in page
    said = capsys.readouterr().out
    assert f"{ADDRESS}@{commit_of(hub)}" in said
    assert said.splitlines()[-1].startswith("VERIFIED my-model")
    assert slsa.main(["subjects", str(tmp_path / "copy"), "--format", "text"]) == 0
    copied = capsys.readouterr().out.replace("copy", "my-model")
    hub.commit(NAME, FILES)
    assert slsa.main(["subjects", ADDRESS, "--format", "text"]) == 0
    assert capsys.readouterr().out == copied
    assert slsa.main(verify) == 2  # nothing lies there any more
    hub.commit(NAME, {**FILES, **evidence, "config.json": b'{"layers": 4}'})
    assert slsa.main(verify) == 1


@pytest.mark.parametrize("name", ["../evil", "a\x1b[2J", "weights", "config.json"])
def test_hostile_names_are_refused(hub: Hub, name: str) -> None:
    page = [{"type": "file", "path": one, "size": 1, "oid": "0" * 40} for one in (*FILES, name)]
    if name == "weights":
        page[-1]["path"] = "config.json/x"
    hub.fault = lambda one: Reply.of_json(200, page) if "/tree/" in one.target else None
    with pytest.raises(FileError) as refusal:
        model_signing.digest(ADDRESS)
    assert refusal.value.where is not None
    assert refusal.value.where.startswith(ADDRESS)
    assert "\x1b" not in str(refusal.value)


ENDLESS = json.dumps(
    [{"type": "file", "path": "x" * 4000, "size": 1, "oid": "0" * 40}] * 2
).encode()


@pytest.mark.parametrize(
    "page",
    [
        b"{}",
        b"not json",
        b"[1]",
        b"[{}]",
        b'[{"type": "file", "path": 1}]',
        b'[{"type": "file", "path": "a", "size": -1, "oid": "0"}]',
        b'[{"type": "file", "path": "a", "size": "1", "oid": "0"}]',
        b'[{"type": "file", "path": "a", "size": 1}]',
        b'[{"type": "file", "path": "a", "size": 1, "oid": "0", "lfs": {"oid": "x", "size": 1}}]',
        b"[" * 100_000,
        ENDLESS,
        b" " * (17 << 20),
    ],
)
def test_an_answer_that_is_none_is_refused(hub: Hub, page: bytes) -> None:
    hub.fault = lambda one: Reply(200, page) if "/tree/" in one.target else None
    with pytest.raises(FileError):
        model_signing.digest(ADDRESS)


@pytest.mark.parametrize("commit", [None, "main", "0" * 39, 7])
def test_a_revision_that_leads_to_no_commit_is_refused(hub: Hub, commit: object) -> None:
    hub.fault = lambda one: Reply.of_json(200, {"sha": commit})
    with pytest.raises(FileError, match="not understood"):
        open_source(ADDRESS)


def test_a_repository_without_files_is_no_model(hub: Hub) -> None:
    hub.commit("org/empty", {})
    with pytest.raises(FileError, match="the model has no files"):
        model_signing.digest("hf://org/empty")


def test_the_version_that_counts_is_not_that_of_a_redirection(hub: Hub) -> None:
    """The hub answers for small files by way of a cache of its own, on the same host."""
    commit = commit_of(hub)

    def fault(one: Request) -> Reply | None:
        if not one.target.endswith("/config.json") or "/moved/" in one.target:
            return None
        headers = (("X-Repo-Commit", commit), ("ETag", 'W/"of the redirection"'))
        return Reply(
            307, b"", location=f"/{NAME}/resolve/{commit}/moved/config.json", headers=headers
        )

    hub.repositories["models", NAME].commits[commit] = {
        **FILES,
        "moved/config.json": b'{"layers": 3}',
    }
    hub.fault = fault
    assert model_signing.digest(ADDRESS)


@pytest.mark.parametrize(
    ("url", "message"),
    [("http://evil.example/next?key=secret", "on another host"), ("http://[::1", "not understood")],
)
def test_a_listing_goes_on_at_the_hub_only(hub: Hub, url: str, message: str) -> None:
    link = (("Link", f'<{url}>; rel="next"'),)
    hub.fault = lambda one: Reply(200, b"[]", headers=link) if "/tree/" in one.target else None
    with pytest.raises(FileError, match=message) as refusal:
        model_signing.digest(ADDRESS)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("answer", ["whole", "another range", "too much", "no version"])
def test_bytes_that_were_not_asked_for_are_refused(hub: Hub, answer: str) -> None:
    commit = commit_of(hub)
    blob = sha1(b"blob 13\0" + FILES["config.json"]).hexdigest()

    def fault(one: Request) -> Reply | None:
        if "config.json" not in one.target or "/resolve/" not in one.target:
            return None
        version = (("X-Repo-Commit", commit), ("ETag", blob))
        if answer == "whole":
            return Reply(200, b"x" * 14, headers=version)
        if answer == "another range":
            given = ("Content-Range", "bytes 5-17/18")
            return Reply(206, FILES["config.json"], headers=(*version, given))
        if answer == "too much":
            return Reply(206, bytes(1 << 20), headers=version)
        return Reply(206, FILES["config.json"], headers=(("Content-Range", "bytes 0-12/13"),))

    hub.fault = fault
    with pytest.raises(FileError):
        model_signing.digest(ADDRESS)


def test_an_offline_client_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Error, match="offline"):
        model_signing.digest(ADDRESS)
