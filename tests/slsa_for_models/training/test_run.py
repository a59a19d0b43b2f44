"""Any training command: what it is given, what it is kept from, and what comes of it.

Every command here is a real one, confined by the system that runs the tests.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sandbox.local_server import Serving
from slsa_for_models import cli
from slsa_for_models.evidence import training_record
from slsa_for_models.training import confinement
from tests.support.limits import limited, until

ROOT = Path(__file__).resolve().parents[3]
DATA = b"1,2\n3,4\n"
DIGEST = hashlib.sha256(DATA).hexdigest()
COPY = ("sh", "-c", "cp d/data.csv m")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")


@dataclass
class Bench:
    """A source, a pinned input, and a folder for results."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __post_init__(self) -> None:
        self.source.mkdir()
        (self.folder / "data.csv").write_bytes(DATA)
        self.pin(f"{DIGEST}  d/data.csv  file:{self.folder}/data.csv")

    @property
    def source(self) -> Path:
        return self.folder / "src"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def pin(self, *lines: str) -> None:
        (self.folder / "pins").write_text("\n".join(lines) + "\n")

    def train(self, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """Runs a command; its exit code, and what was printed."""
        given = ["train", "--model", "m", "--source", str(self.source), *options]
        given += ["--data", str(self.folder / "pins"), "--output-dir", str(self.out)]
        code = cli.main([*given, "--", *command])
        return code, "".join(self.capsys.readouterr())

    def refused(self, *command: str, options: tuple[str, ...] = (), code: int = 1) -> str:
        """What a refusal says; it leaves nothing behind."""
        found, said = self.train(*command, options=options)
        assert found == code, said
        assert not self.out.exists() or list(self.out.iterdir()) == []
        assert "error:" in said and "Traceback" not in said
        return said

    def record(self) -> training_record.TrainingRecord:
        return training_record.parse((self.out / "training.json").read_bytes())


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


# A workflow's inputs, or a cluster's plan ---------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        ({"comand": "true", "model": "m"}, (), "did you mean `command`"),
        ({"plan": '{"comand": "true"}', "model": "m"}, (), "did you mean `command`"),
        ({"plan": '{"command": "true", "runner": "x"}', "model": ""}, (), "input model"),
        ({"command": "true", "model": "a/m"}, ("--model", "n"), "name another model"),
        ({"command": "true", "model": "m"}, ("--network", "allowed"), "an input already"),
        ({"command": "true", "model": "m"}, ("--epochs", "1"), "an input already"),
        ({"command": "true", "model": "m"}, ("--", "false"), "an input already"),
        ({"model": "pytorch_model.pth", "requirements": "r.txt"}, (), "are a command's"),
        ({"model": "pytorch_model.pth", "network": "allowed"}, (), "are a command's"),
        ({"command": "true", "model": "m", "epochs": 5}, (), "are a recipe's"),
        ({"command": "true", "model": "m", "source": "x"}, (), "an option says otherwise"),
        ({"command": "true", "model": "m", "source": "x"}, ("--source", "y"), "says otherwise"),
        ({"model": "pytorch_model.pth", "output-dir": "x"}, (), "an option says otherwise"),
        ({"command": "true", "model": "m", "python-version": "3.9"}, (), "chooses a Python"),
        ({"command": "true", "model": "m", "runner": "gpu"}, (), "not known"),
        ({"command": "true", "model": "m", "data-artifact": "x"}, (), "are a recipe's"),
        ({"model": "pytorch_model.pth", "data-artifact": "x"}, (), "give --artifacts DIR"),
        ({"model": "pytorch_model"}, (), "unknown model format"),
        ({}, (), "neither a command nor a format"),
        ({"epochs": 0}, ("--model", "pytorch_model.pth"), "not a number from 1"),
        ({"model": "pytorch_model.pth", "dataset-url": "https://u:p@x"}, (), "like a secret"),
        (
            {"model": "pytorch_model.pth", "data-artifact": "data", "data-dir": "x"},
            ("--artifacts", "y"),
            "more than one data set",
        ),
    ],
)
def test_inputs_that_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    inputs: dict[str, object],
    options: tuple[str, ...],
    words: str,
) -> None:
    given = ["train", "--workflow-inputs", json.dumps(inputs), "--output-dir", str(tmp_path / "o")]
    code = cli.main([*given, *options])
    said = capsys.readouterr().err
    assert (code, words in said) == (2, True), said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("name", "framework"),
    [("pytorch_model.onnx", "pytorch"), ("tensorflow_model.keras", "tensorflow")],
)
def test_a_framework_that_is_not_there_is_named_before_any_data_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, framework: str
) -> None:
    assert cli.main(["train", name, "--output-dir", str(tmp_path / "o")]) == 1
    error = capsys.readouterr().err
    assert f"{name} needs a package that is not installed" in error
    assert f"pip install 'model-transparency[{framework}]'" in error


# What comes of it ---------------------------------------------------------------------------------


def test_a_model_and_its_record(bench: Bench) -> None:
    (bench.source / "train.py").write_text("print('hello')")
    code, said = bench.train(*COPY)
    assert (code, f"sha256:{DIGEST}" in said) == (0, True)
    assert sorted(path.name for path in bench.out.iterdir()) == ["m", "training.json"]
    assert (bench.out / "m").read_bytes() == DATA
    told = bench.record()
    assert told.model == training_record.Model("m", len(DATA), DIGEST)
    assert told.dataset.sha256 == DIGEST
    assert told.dataset.files[0].name == "d/data.csv"
    assert told.dataset.files[0].uri is None  # a path of this machine is nobody's business
    assert told.command == COPY
    assert (told.environment.network, told.environment.confinement) == ("none", "user namespace")
    assert told.environment.requirements_sha256 is None
    assert str(bench.folder) not in (bench.out / "training.json").read_text()


def test_a_model_that_is_a_folder(bench: Bench) -> None:
    script = "mkdir -p m/a && cp d/data.csv m/a/w && echo b > m/b && chmod 000 m/a"
    assert bench.train("sh", "-c", script)[0] == 0
    listing = f"{DIGEST}  a/w\n{hashlib.sha256(b'b' + os.linesep.encode()).hexdigest()}  b\n"
    told = bench.record().model
    assert [file.name for file in told.files] == ["a/w", "b"]
    assert told.sha256 == hashlib.sha256(listing.encode()).hexdigest()
    assert bench.train("sh", "-c", "mkdir m; echo other > m/c")[0] == 0  # it replaces its own
    assert [path.name for path in (bench.out / "m").iterdir()] == ["c"]


def test_metrics_and_parameters(bench: Bench) -> None:
    script = """
import json, os, sys
given = json.load(open(os.environ["TRAINING_PARAMETERS"]))
json.dump({"roc_auc": {"test": 0.93}, "ok": True, "words": "x", "given": sys.argv[1:]},
          open("metrics.json", "w"))
open("m", "w").write(json.dumps(given))
"""
    parameters = {"C": 1.5, "shuffle": True, "train.n_est": 50, "note": "a b"}
    options = ("--metrics", "metrics.json", "--parameters", json.dumps(parameters))
    code, said = bench.train("python3", "-c", script, "{parameters}", options=options)
    assert code == 0, said
    told = bench.record()
    assert told.metrics == {"roc_auc.test": 0.93}
    assert told.parameters == parameters
    assert told.command[3:] == ("--C=1.5", "--shuffle=true", "--train.n_est=50", "--note=a b")
    assert json.loads((bench.out / "m").read_text()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", ["", "[", '{"a": NaN}', '{"a": 1e301}', '{"a": 1, "a": 2}', " " * 65537, None]
)
def test_metrics_that_are_none(bench: Bench, content: str | None) -> None:
    (bench.source / "given").write_text(content or "")
    write = "cp given x.json" if content is not None else "ln -s /etc/passwd x.json"
    script = f"cp d/data.csv m; {write}"
    bench.refused("sh", "-c", script, options=("--metrics", "x.json"))


def test_metrics_that_were_committed_are_not_those_of_this_training(bench: Bench) -> None:
    (bench.source / "x.json").write_text('{"accuracy": 1}')
    said = bench.refused(*COPY, options=("--metrics", "x.json"))
    assert "wrote no metrics file" in said
    assert (bench.source / "x.json").exists()


def test_the_whole_of_several_inputs_is_what_sha256sum_prints(bench: Bench) -> None:
    (bench.folder / "b").write_bytes(b"b")
    second = hashlib.sha256(b"b").hexdigest()
    bench.pin(
        f"{DIGEST}  d/z  file:{bench.folder}/data.csv",
        f"# a remark\n\n{second}  a/b  file:{bench.folder}/b",
    )
    script = "sha256sum a/b d/z > sums; sha256sum < sums | cut -c1-64 > m"
    assert bench.train("sh", "-c", script)[0] == 0
    assert bench.record().dataset.sha256 == (bench.out / "m").read_text().strip()


def test_the_source_is_copied_and_not_written(bench: Bench) -> None:
    (bench.source / "code").mkdir()
    (bench.source / "code" / "note").write_text("old")
    (bench.source / ".git").mkdir()
    script = "test ! -e ../.git && echo new > note && cp note ../m"
    assert bench.train("sh", "-ec", script, options=("--directory", "code"))[0] == 0
    assert (bench.source / "code" / "note").read_text() == "old"


def test_an_output_folder_within_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As who stands in a project's folder and names nothing."""
    monkeypatch.chdir(tmp_path)
    for content in "ab":
        script = f"test ! -e out && printf {content} > m"
        assert cli.main(["train", "--model", "m", "--", "sh", "-ec", script]) == 0
        assert (tmp_path / "out" / "m").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Its inputs ---------------------------------------------------------------------------------------


def test_data_that_changed_after_it_was_pinned(bench: Bench) -> None:
    with (bench.folder / "data.csv").open("ab") as file:
        file.write(b"5\n")
    said = bench.refused("sh", "-c", f"touch {bench.folder}/started; cp d/data.csv m")
    assert "an input is not the one that was pinned" in said and DIGEST in said
    assert not (bench.folder / "started").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "chmod u+w d/data.csv; echo 9 >> d/data.csv; cp d/data.csv m",
        "cp d/data.csv k; chmod u+w d/data.csv; echo 9 >> d/data.csv; cp d/data.csv m; "
        "cat k > d/data.csv",
        "cp d/data.csv k; mount --bind k d/data.csv; cp d/data.csv m",
        "mount -o remount,rw,bind d/data.csv; echo 9 >> d/data.csv; cp d/data.csv m",
        "rm -f d/data.csv; echo 9 > d/data.csv; cp d/data.csv m",
        "echo 9 > k; mv k d/data.csv; cp d/data.csv m",
        "unshare --user --map-root-user --mount sh -ec 'umount d/data.csv; echo 9 > d/data.csv'",
    ],
    ids=["append", "and back", "mount", "remount", "remove", "rename", "another namespace"],
)
def test_data_that_the_command_would_change(bench: Bench, script: str) -> None:
    assert "the training command failed" in bench.refused("sh", "-ec", script)
    assert (bench.folder / "data.csv").read_bytes() == DATA


def test_data_in_a_folder_that_the_command_exchanges(bench: Bench) -> None:
    script = "mv d e; mkdir d; echo 9 > d/data.csv; cp d/data.csv m"
    assert "the command changed its data" in bench.refused("sh", "-ec", script)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (f"{DIGEST}  ../d  file:/x", 2, "not a path in the workspace"),
        (f"{DIGEST}  /d  file:/x", 2, "not a path in the workspace"),
        (f"{DIGEST}  d  ", 2, "not a pinned input"),
        (f"{DIGEST[1:]}  d  file:/x", 2, "not a pinned input"),
        ("d  https://example.test/x", 2, "not a pinned input"),
        (f"{DIGEST}  d  ../x", 2, "not a pinned input"),
        (f"{DIGEST}  d  file:/x file:/y", 2, "not a pinned input"),
        (f"{DIGEST}  m  file:/x", 2, "the same place"),
        (f"{DIGEST}  m/x  file:/x", 2, "the same place"),
        (f"{DIGEST}  d  https://user:secret@example.test/x", 2, "looks like a secret"),
        (f"{DIGEST}  d  https://s3.test/x?X-Amz-Signature=ab", 2, "looks like a secret"),
        (f"{DIGEST}  d  file:/no/such/file", 1, "cannot be had"),
        (f"{DIGEST}  d  artifact:none/x", 1, "no such artifact"),
        (f"{DIGEST}  d  gopher://example.test/x", 1, "this kind of address is not known"),
        (f"{DIGEST}  taken  file:/x", 1, "in the place of an input"),
        (f"{DIGEST}  none  source:", 1, "the source does not have this input"),
        (f"{DIGEST}  taken  source:", 1, "not the one that was pinned"),
        (f"{DIGEST}  link/d  file:/x", 1, "a link leads out"),
    ],
)
def test_pins_that_cannot_be_kept(bench: Bench, line: str, code: int, words: str) -> None:
    (bench.source / "taken").touch()
    (bench.source / "link").symlink_to(bench.folder)
    bench.pin(line)
    assert words in bench.refused("true", code=code)


def test_inputs_from_elsewhere(bench: Bench) -> None:
    artifacts = bench.folder / "artifacts"
    (artifacts / "earlier").mkdir(parents=True)
    (bench.source / "committed").write_bytes(DATA)
    (artifacts / "earlier" / "x").write_bytes(DATA)
    (artifacts / "link").symlink_to(bench.folder)
    with server(bench.folder) as url:
        bench.pin(
            f"{DIGEST}  a  {url}/data.csv",
            f"{DIGEST}  b  {url}/none {url}/data.csv",
            f"{DIGEST}  c  artifact:earlier/x",
            f"{DIGEST}  committed  source:",
        )
        options = ("--artifacts", str(artifacts))
        code, said = bench.train("sh", "-ec", "cmp a b; cmp b c; cp committed m", options=options)
        assert code == 0, said
        assert bench.record().dataset.files[0].uri == f"{url}/data.csv"
        shutil.rmtree(bench.out)
        bench.pin(f"{'0' * 64}  a  {url}/data.csv")
        assert "an input is not the one that was pinned" in bench.refused("true")
        bench.pin(f"{DIGEST}  a  artifact:link/data.csv")
        assert "no such artifact" in bench.refused("true", options=options)


# What it is kept from -----------------------------------------------------------------------------


def test_a_command_that_writes_elsewhere(bench: Bench) -> None:
    places = [bench.folder / name for name in ("outside", "src/x", "out/x")]
    places += [Path("/tmp/outside-of-a-training"), Path("/dev/x")]
    script = 'for one; do if (echo x > "$one"); then exit 9; fi; done; cp d/data.csv m'
    code, said = bench.train("sh", "-c", script, "sh", *map(str, places))
    assert code == 0, said
    assert not any(path.exists() for path in places)


def test_what_a_command_may_write(bench: Bench) -> None:
    script = """
import multiprocessing as m, os, tempfile
m.get_context("fork").Lock().acquire()
open("/dev/null", "w").write("x"); tempfile.TemporaryFile().write(b"x")
open(os.path.expanduser("~/x"), "w").write("x"); open("m", "w").write("x")
"""
    code, said = bench.train("python3", "-c", script)
    assert code == 0, said


def test_a_command_has_no_rights_and_no_variables(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "theirs")
    script = "env > m; grep ^Cap /proc/self/status >> m; grep NoNewPrivs /proc/self/status >> m"
    assert bench.train("sh", "-c", script)[0] == 0
    lines = (bench.out / "m").read_text().splitlines()
    assert not [line for line in lines if "theirs" in line]
    capabilities = [line.split()[1] for line in lines if line.startswith("Cap")]
    assert set(capabilities) == {"0" * 16}
    assert "NoNewPrivs:\t1" in lines
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert {"PATH", "HOME", "TMPDIR"} < names and "GITHUB_TOKEN" not in names


def test_a_command_sees_no_service_and_no_process(bench: Bench) -> None:
    script = 'test -z "$(ls -A /run)"; ls -d /proc/[0-9]* | wc -l > m'
    assert bench.train("sh", "-ec", script)[0] == 0
    assert int((bench.out / "m").read_text()) < 8


@pytest.mark.parametrize("network", ["none", "allowed"])
def test_a_command_reaches_no_service_that_listens_at_a_file(bench: Bench, network: str) -> None:
    """A socket's path is short, so this one is in no folder of the test's."""
    connect = "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    script = f"import socket, sys; {connect}; open('m', 'w')"
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as service:
        service.bind(f"{folder}/a service")
        service.listen()
        command = ("python3", "-c", script, f"{folder}/a service")
        assert subprocess.run(command, cwd=folder, check=False, timeout=60).returncode == 0
        said = bench.refused(*command, options=("--network", network))
    assert "the training command failed" in said


FETCH = "import urllib.request as u, sys; u.urlopen(sys.argv[1], timeout=60); open('m', 'w')"


def test_no_network_unless_it_is_allowed(bench: Bench) -> None:
    with server(bench.folder) as url:
        command = ("python3", "-c", FETCH, url)
        assert "the training command failed" in bench.refused(*command)
        code, said = bench.train(*command, options=("--network", "allowed"))
    assert code == 0, said
    assert bench.record().environment.network == "allowed"


def test_processes_that_train_together_reach_each_other(bench: Bench) -> None:
    script = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).send(b"x")
assert server.accept()[0].recv(1) == b"x"
open("m", "w").write("x")
"""
    code, said = bench.train("python3", "-c", script)
    assert code == 0, said


def test_a_child_ends_with_the_command(bench: Bench) -> None:
    script = "cat d/data.csv > m; (sleep 20; echo late >> m) & setsid sleep 98301 & exit 0"
    assert bench.train("sh", "-c", script)[0] == 0
    assert (bench.out / "m").read_bytes() == DATA
    assert not is_running("sleep 98301")


def is_running(command: str) -> bool:
    """Whether a process has exactly these words."""
    words = command.replace(" ", "\0").encode() + b"\0"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes() == words:
                return True
    return False


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "terminated\n"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_an_end_from_outside_ends_the_command(
    bench: Bench, number: int, code: int, said: str
) -> None:
    mark = f"sleep 9{os.getpid()}{int(number)}"
    given = ["train", "--model", "m", "--source", str(bench.source), "--output-dir", str(bench.out)]
    running = subprocess.Popen(
        [sys.executable, "-m", "slsa_for_models", *given, "--", "sh", "-c", f"echo go; {mark}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with limited(running):
        assert running.stdout.readline() == "go\n"
        until(lambda: is_running(mark) or None, "the command")
        running.send_signal(number)
        assert running.wait(60) == code
        if number != signal.SIGKILL:
            assert running.stderr.read().endswith(said)
    until(lambda: not is_running(mark) or None, "its end")
    if number != signal.SIGKILL:
        assert list(bench.out.iterdir()) == []


# What is no model ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("ln -s /etc/passwd m", "neither a file nor a folder"),
        ("mkdir m; cp d/data.csv m; ln -s /etc m/x", "neither a file nor a folder"),
        ("mkfifo m", "neither a file nor a folder"),
        ("mkdir m; mkfifo m/x", "neither a file nor a folder"),
        ("mkdir -p m/n", "an empty folder"),
        ("true", "wrote no model"),
        ("cp d/data.csv m; exit 3", "exit code 3"),
        ("cp d/data.csv m; kill -9 $$", "exit code 137"),
    ],
)
def test_what_is_no_model(bench: Bench, script: str, words: str) -> None:
    assert words in bench.refused("sh", "-c", script)


def test_a_model_that_was_committed(bench: Bench) -> None:
    (bench.source / "m").write_text("old")
    assert "there before training" in bench.refused("true")


def test_a_home_that_was_committed_leads_nowhere(bench: Bench) -> None:
    """What is written there before the command starts is written without its confinement."""
    (bench.folder / "outside").mkdir()
    (bench.source / ".home").symlink_to(bench.folder / "outside")
    said = bench.refused(*COPY, options=("--parameters", '{"a": 1}'))
    assert "in the place of the command's home" in said
    assert list((bench.folder / "outside").iterdir()) == []


def test_a_program_that_is_not_there(bench: Bench) -> None:
    assert "the training command failed" in bench.refused("no-such-program")
    assert "folder is not in the source" in bench.refused("true", options=("--directory", "none"))


def test_a_model_that_was_signed_is_not_written_over(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "m.sig").touch()
    code, said = bench.train(*COPY)
    assert (code, "is signed already" in said) == (1, True)
    assert [path.name for path in bench.out.iterdir()] == ["m.sig"]


# What is given -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "ghp_" + "a1" * 18,
        "github_pat_" + "a" * 22,
        "AKIAABCDEFGHIJKLMNOP",
        "sk-" + "a1" * 10,
        "xoxb-1234567890",
        "-----BEGIN PRIVATE KEY-----",
        "--api_key=" + "0a" * 20,
    ],
)
def test_secrets_are_not_published(bench: Bench, secret: str) -> None:
    said = bench.refused(*COPY, secret, code=2)
    assert "looks like a secret" in said and secret not in said


def test_names_that_only_sound_secret(bench: Bench) -> None:
    words = ("--use_cls_token", "1", "--num_memory_tokens", "16", "--commit", "0a" * 20, "")
    code, said = bench.train(*COPY, *words)
    assert code == 0, said
    assert bench.record().command[-len(words) :] == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "../m"), "not a path in the workspace"),
        (("--model", "training.json"), "cannot have this name"),
        (("--model", "a b"), "cannot have this name"),
        (("--metrics", "/x"), "not a path in the workspace"),
        (("--parameters", "[]"), "not a flat JSON object"),
        (("--parameters", '{"a": {}}'), "not a flat JSON object"),
        (("--parameters", '{"a b": 1}'), "not a flat JSON object"),
        (("--parameters", "{"), "not valid JSON"),
        (("--network", "some"), "unknown value"),
        (("--epochs", "3"), "an option is a recipe's"),
        (("--dataset", "synthetic"), "an option is a recipe's"),
    ],
)
def test_values_that_make_no_sense(bench: Bench, options: tuple[str, ...], words: str) -> None:
    assert words in bench.refused("true", options=options, code=2)


def test_no_command(bench: Bench) -> None:
    assert "no command" in bench.refused(code=2)


# Packages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lock",
    [
        "numpy>=1",
        "numpy==2.4.6",
        "numpy",
        "numpy==2.* --hash=sha256:" + "0" * 64,
        "-e .",
        "-r other.txt",
        "./wheel.whl",
        "numpy @ https://example.test/numpy.whl",
        "numpy==2.4.6 --hash=md5:" + "0" * 32,
    ],
)
def test_requirements_that_are_not_locked(bench: Bench, lock: str) -> None:
    locked = "idna==3.10 \\\n    --hash=sha256:" + "0" * 64
    (bench.source / "r.txt").write_text(f"# all\n{locked}\n{lock}  # via x\n")
    said = bench.refused(*COPY, options=("--requirements", "r.txt"))
    assert "not locked" in said and lock.split()[0] in said


@pytest.mark.parametrize(
    "text",
    [
        "# a remark \\\n-r https://example.test/more.txt\n",
        "  # a remark \\\r\n-r https://example.test/more.txt\r\n",
        "# coding: utf-7 +AAo-numpy\n",
        "#\n# Encoding=utf_16\n",
    ],
)
def test_entries_that_a_remark_hides(bench: Bench, text: str) -> None:
    """As `pip` reads requirements, which is not by lines that go on, or UTF-8, alone."""
    (bench.source / "r.txt").write_text(text, newline="")
    said = bench.refused(*COPY, options=("--requirements", "r.txt"))
    assert "could hide an entry" in said


def test_requirements_that_cannot_be_read(bench: Bench) -> None:
    said = bench.refused(*COPY, options=("--requirements", "none.txt"))
    assert "the requirements cannot be read" in said


def test_requirements_that_are_a_link_elsewhere(bench: Bench) -> None:
    (bench.source / "r.txt").symlink_to("/etc/passwd")
    said = bench.refused(*COPY, options=("--requirements", "r.txt"), code=2)
    assert "a link leads out of the source" in said and "root" not in said


def test_the_interpreter_that_a_command_names_is_the_one_described(bench: Bench) -> None:
    assert bench.train(sys.executable, "-c", "open('m', 'w').write('x')")[0] == 0
    assert bench.record().environment.packages["pytest"] == pytest.__version__


@pytest.mark.slow
def test_another_wheel_than_the_lock_has_is_not_installed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That those it has are, for the command, `test_reproduce.py` shows."""
    wheels = bench.folder / "wheels"
    make_wheel(wheels)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    lock = f"small-example==1.0 \\\n    --hash=sha256:{'0' * 64}\n"
    (bench.source / "r.lock").write_text(lock)
    assert "cannot be installed" in bench.refused("true", options=("--requirements", "r.lock"))


def make_wheel(folder: Path) -> str:
    """The SHA-256 of a wheel of one empty module."""
    import zipfile

    folder.mkdir()
    path, info = folder / "small_example-1.0-py3-none-any.whl", "small_example-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("small_example.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: small-example\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Where it cannot be confined ----------------------------------------------------------------------


def test_a_machine_that_cannot_confine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = {"user namespace": ("no-such-program",), "root": ("false",)}
    monkeypatch.setattr(confinement, "_FORMS", forms)
    said = bench.refused(*COPY)
    assert "cannot confine" in said and "--unconfined" in said
    code, said = bench.train(*COPY, options=("--unconfined",))
    assert code == 0, said
    told = bench.record().environment
    # It could have reached anything, so nothing else is claimed.
    assert (told.confinement, told.network) == ("none", "allowed")


def test_a_form_that_confines_nothing_is_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried by writing outside, not by asking whether a program is there."""
    fake = bench.folder / "fake"
    fake.write_text(
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        "job = json.load(open(sys.argv[-1]))\n"
        "os.chdir(job['directory'])\n"
        "os.execvp(job['command'][0], job['command'])\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(confinement, "_FORMS", {"user namespace": (str(fake),)})
    assert "cannot confine" in bench.refused(*COPY)


def test_an_unconfined_command_that_changes_its_data(bench: Bench) -> None:
    script = "chmod u+w d/data.csv; echo 9 >> d/data.csv; cp d/data.csv m"
    said = bench.refused("sh", "-c", script, options=("--unconfined",))
    assert "the command changed its data" in said


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serves a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with Serving(handler) as running:
        yield running.url
