"""Many models in one run: each for itself, and one broken model hides no other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

import model_signing
from model_signing.cli import main
from model_signing.sources import ahead
from model_signing.terminal import many
from sandbox.sigstore import LocalSigstore
from tests.support.limits import limited, until
from tests.support.material import ROOT, new_key, private_pem, public_pem

PERSON = "dev@example.test"
CORPUS = 300  # folders with a signature inside each


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, key = tmp_path_factory.mktemp("keys"), new_key()
    (folder / "key.pem").write_bytes(private_pem(key))
    (folder / "key.pub").write_bytes(public_pem(key))
    return folder / "key.pem", folder / "key.pub"


def corpus(folder: Path, count: int) -> list[Path]:
    """As a hub's mirror lies on a disk: ORG/NAME with a few files, among them hidden ones."""
    models = [folder / f"org-{index % 7}" / f"model-{index:03}" for index in range(count)]
    for index, model in enumerate(models):
        (model / "onnx").mkdir(parents=True)
        (model / ".gitattributes").write_text("*.bin filter=lfs\n")
        (model / "config.json").write_text(json.dumps({"index": index}))
        (model / "onnx" / "weights.bin").write_bytes(index.to_bytes(4, "big") * 100)
    return models


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_corpus_of_folders_with_a_signature_inside_each(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    models = corpus(tmp_path, CORPUS)
    code, out, err = run(capsys, "sign", "key", *models, "--private-key", private)
    assert (code, err) == (0, "")
    assert all((model / "model.sig").is_file() for model in models)
    assert {line.split(":")[0] for line in out.splitlines()[:CORPUS]} == {
        f"signed    {model}" for model in models
    }
    for model in models[::50]:  # each is an ordinary signature
        model_signing.verify(model, model / "model.sig", model_signing.key_verifier(public))

    changed, unsigned, grown = models[3], models[4], models[5]
    (changed / "config.json").write_text("{}")
    (unsigned / "model.sig").unlink()
    (grown / "more").write_text("x")
    absent = tmp_path / "absent"
    line = ("verify", "key", *models, absent, "--public-key", public)
    code, out, err = run(capsys, *line)
    assert code == 1
    verified = [one for one in out.splitlines() if one.startswith("verified  /")]
    assert len(verified) == CORPUS - 3
    assert f"verified  {models[0]}: 2 files, " in out
    for model, words in (
        (changed, "where:    config.json"),
        (unsigned, "no signature in the model or beside it"),
        (grown, "not signed: more"),
        (absent, "there is no such model"),
    ):
        told = err.partition(f"model_signing: refused: {model}: ")[2].partition("\nmodel_signing:")
        assert words in told[0]
        assert f"\n  {model} " in out  # and once more in the table
    assert [row.split() for row in out.splitlines()[-7:-4]] == [
        ["models", "files", "bytes"],
        ["verified", f"{CORPUS - 3}", f"{2 * (CORPUS - 3):,}", out.splitlines()[-6].split()[-1]],
        ["refused", "4"],
    ]
    assert run(capsys, *line, "--quiet")[:2] == (1, "")


def test_json_is_a_line_for_each_and_a_summary(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    models = corpus(tmp_path, 5)
    absent, sign = tmp_path / "absent", ("--private-key", private, "--quiet")
    code, out, err = run(capsys, "sign", "key", absent, *models, *sign)
    assert (code, out) == (1, "")
    assert err.startswith(f"model_signing: refused: {absent}: cannot read the model\n")
    (models[2] / "config.json").write_text("{}")
    line = ("verify", "key", *models, "--public-key", public, "--format", "json")
    code, out, err = run(capsys, *line)
    assert (code, err) == (1, "")
    schema = json.loads((ROOT / "slsa_for_models/schemas/model_signing-result.v1.json").read_text())
    documents = [json.loads(one) for one in out.splitlines()]
    for document in documents:
        jsonschema.Draft202012Validator(schema).validate(document)
    assert documents.pop() == {"result": "summary", "models": 5, "refused": 1}
    found = {document["model"]: document.get("error") for document in documents}
    assert found == {
        str(model): "MismatchError" if model is models[2] else None for model in models
    }


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        (None, "m/model.sig", "f.onnx.sig"),
        ("my.sig", "m/my.sig", "my.sig"),
        ("{}.oms", "m.oms", "f.onnx.oms"),
    ],
)
def test_where_a_signature_lies(
    tmp_path: Path,
    keys: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    name: str | None,
    folder: str,
    file: str,
) -> None:
    private, public = keys
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w").write_text("1")
    (tmp_path / "f.onnx").write_text("2")
    models = (tmp_path / "m", tmp_path / "f.onnx")
    named = () if name is None else ("--signature-name", name)
    assert run(capsys, "sign", "key", *models, "--private-key", private, *named)[0] == 0
    assert (tmp_path / folder).is_file()
    assert (tmp_path / file).is_file()
    assert run(capsys, "verify", "key", *models, "--public-key", public, *named)[0] == 0
    for model in models:  # of one it is found alike
        assert run(capsys, "verify", "key", model, "--public-key", public, *named)[0] == 0


def test_the_folder_one_stands_in_has_a_name(
    tmp_path: Path,
    keys: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (model,) = corpus(tmp_path, 1)
    monkeypatch.chdir(model)
    sign = ("sign", "key", ".", "--private-key", keys[0], "--signature-name", "{}.sig")
    assert run(capsys, *sign)[0] == 0
    assert model.with_name(f"{model.name}.sig").is_file()
    assert run(capsys, "verify", "key", ".", "--public-key", keys[1])[0] == 0


def test_a_path_to_ignore_is_of_the_model_it_lies_in(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    models = corpus(tmp_path, 2)
    for model in models:
        (model / "cache").write_text("x")
    ignored = ("--ignore-paths", models[0] / "config.json", "--ignore-paths", "cache")
    sign = ("sign", "key", *models, "--private-key", keys[0], *ignored, "--format", "json")
    code, out, err = run(capsys, *sign)
    assert (code, err) == (0, "")
    files = {one["model"]: one["files"] for one in map(json.loads, out.splitlines()[:2])}
    assert files == {str(models[0]): 1, str(models[1]): 2}


def test_a_sigstore_identity_is_asked_for_once(
    tmp_path: Path,
    sigstore: LocalSigstore,
    trust_config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = corpus(tmp_path, 20)
    before = sigstore.requests.count("POST /api/v2/signingCert")
    token = sigstore.oidc.token(PERSON)
    trust = ("--trust-config", trust_config)
    code, _, err = run(capsys, "sign", *models, "--identity-token", token, *trust)
    assert (code, err) == (0, "")
    assert sigstore.requests.count("POST /api/v2/signingCert") == before + 1
    who = ("--identity", PERSON, "--identity-provider", sigstore.url)
    code, out, _ = run(capsys, "verify", *models, *who, *trust)
    assert code == 0
    assert out.count(f"sigstore {PERSON}\n") == 20


def test_an_identity_that_cannot_be_had_is_not_asked_for_again(
    tmp_path: Path,
    sigstore: LocalSigstore,
    trust_config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from model_signing.methods import identity_tokens

    asked: list[int] = []

    def nobody(*_: object) -> None:
        asked.append(1)
        raise EOFError

    monkeypatch.setattr(identity_tokens, "asked", nobody)
    models = corpus(tmp_path, 20)
    code, _, err = run(capsys, "sign", *models, "--trust-config", trust_config)
    assert (code, len(asked)) == (1, 1)
    assert err.count("needs a person at a terminal") == 20
    assert not list(tmp_path.rglob("*.sig"))


@contextlib.contextmanager
def started(*command: object) -> Iterator[subprocess.Popen[str]]:
    """`model_signing` in a process of its own, to be stopped from outside."""
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "model_signing", *map(str, command)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with limited(process):
        yield process


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_ctrl_c_ends_the_run(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    models = [tmp_path / f"m{index}" for index in range(40)]
    for model in models:
        model.mkdir()
        with (model / "w").open("wb") as file:
            file.truncate(4 << 30)  # sparse: minutes to hash
    with started("sign", "key", *models, "--private-key", keys[0]) as process:
        threads = Path(f"/proc/{process.pid}/task")
        until(lambda: len(list(threads.iterdir())) > 2 or None, "threads that hash")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert not list(tmp_path.rglob("*.sig"))


def test_ctrl_c_does_not_wait_for_models_whose_place_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, waited_for = threading.Event(), list[str]()

    def work(model: str, *_: object) -> many.Done:
        if not ended.wait(60):
            waited_for.append(model)
        return many.Done()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.wait", interrupted)
    monkeypatch.setattr(ahead, "_HEARD", 0.01)
    with pytest.raises(KeyboardInterrupt):
        many.run(["mem://a", "mem://b", "mem://c"], work, jobs=2, prog="model_signing")
    ended.set()
    assert not waited_for


@pytest.mark.skipif(sys.platform != "linux", reason="pipes can be measured")
def test_ctrl_c_amid_a_line_prints_none_twice(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """Nobody reads, so that the pipe is full when it comes; a line is longer than the pipe."""
    from fcntl import F_SETPIPE_SZ, fcntl, ioctl
    from termios import FIONREAD

    models = [tmp_path / "/".join(["no-such-folder"] * 200) / str(index) for index in range(3)]
    with started("verify", "key", *models, "--public-key", keys[1], "--format", "json") as process:
        assert process.stdout
        size, waiting = fcntl(process.stdout, F_SETPIPE_SZ, 4096), bytearray(4)

        def is_full() -> bool | None:
            ioctl(process.stdout.fileno(), FIONREAD, waiting)
            return int.from_bytes(waiting, sys.byteorder) == size or None

        until(is_full, "the pipe is full")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert out.count('"model":') == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads do it")
@pytest.mark.parametrize("end", ["one killed", "all stopped", "first killed"])
def test_many_small_models_are_looked_at_by_processes(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str], end: str
) -> None:
    """Which come to an end over a model that takes for ever."""
    models = corpus(tmp_path, 40)
    assert run(capsys, "sign", "key", *models, "--private-key", keys[0])[0] == 0
    with (models[0] / "config.json").open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    options = ("--public-key", keys[1], "--jobs", "2", "--format", "json")
    with started("verify", "key", *models, *options) as process:
        assert process.stdout
        assert {json.loads(process.stdout.readline())["model"] for _ in models[1:]} == {
            str(model) for model in models[1:]
        }
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: children.read_text().count(" ") == 1 or None, "the other one's end")
        child = int(children.read_text())
        if end == "one killed":
            os.kill(child, signal.SIGKILL)
        elif end == "first killed":
            process.kill()
        else:  # as a terminal does; it is told once, by whoever began it
            os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    if end == "first killed":
        until(lambda: not Path(f"/proc/{child}/fd/0").exists() or None, "the end of the other one")
        return
    if end == "all stopped":
        assert (process.returncode, err) == (130, "interrupted\n")
        assert "summary" not in out
        assert not Path(f"/proc/{child}").exists()
        return
    lost, summary = map(json.loads, out.splitlines())
    assert (process.returncode, lost["model"], lost["found"]) == (1, str(models[0]), "exit code -9")
    assert summary == {"result": "summary", "models": 40, "refused": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads do it")
@pytest.mark.parametrize("allowed", [0, 1])
def test_where_the_system_allows_no_more_processes(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str], allowed: int
) -> None:
    models = corpus(tmp_path, 40)
    assert run(capsys, "sign", "key", *models, "--private-key", keys[0])[0] == 0
    script = f"""
import errno, os, sys, threading
from model_signing.cli import main
from model_signing.sources import ahead
from model_signing.terminal import many
from model_signing.terminal import many
many._IN_A_PIPE = 7  # fewer than there are models
many._READ_AT_ONCE = 100  # less than a line
allowed, fork, first, start = [None] * {allowed}, os.fork, os.getpid(), threading.Thread.start
def only_in_the_first(thread):
    if os.getpid() != first:
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = only_in_the_first
def limited():
    if not allowed:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    allowed.pop()
    return fork()
os.fork = limited
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-B", "-c", script, "verify", "key", *map(str, models)]
    done = subprocess.run(
        [*command, "--public-key", str(keys[1]), "--jobs", "2", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = map(json.loads, done.stdout.splitlines())
    assert {line["model"] for line in lines} == {str(model) for model in models}
    assert summary == {"result": "summary", "models": 40, "refused": 0}
