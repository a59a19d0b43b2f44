"""`exec`: the program starts with the verified copy and nothing between, or it does not start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import model_signing
from slsa_for_models import cli
from tests.support.limits import limited, until
from tests.support.material import ROOT, new_key, private_pem, public_pem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="not tested: exec is for Linux"),
]

KEY = new_key()
POLICY = 'version = 1\n[signer]\npublic_key = "key.pub"\n'

# A real server in small: it reads all of the model when it starts, and then answers with it.
SERVER = """
import http.server, pathlib, sys
folder = pathlib.Path(sys.argv[1])
weights = b"".join(path.read_bytes() for path in sorted(folder.rglob("*.onnx")))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(weights)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, folder, flush=True)
server.serve_forever()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "layers").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "layers" / "0.onnx").write_bytes(b"weights")
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "tmp").mkdir()
    sign(root)
    return root


def sign(model: Path) -> None:
    signature = model.with_name("model.sig")
    model_signing.sign(model, signature, model_signing.key_signer(private_pem(KEY)))


def command(model: Path, *program: object, options: tuple[object, ...] = ()) -> list[str]:
    start = [sys.executable, "-m", "slsa_for_models", "exec", model, *options]
    policy = ["--policy", model.with_name("policy.toml")]
    return list(map(str, [*start, *policy, "--", *program]))


def environment(model: Path, **more: str) -> dict[str, str]:
    private = str(model.with_name("tmp"))
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": private, **more}


def run(
    model: Path, *program: object, options: tuple[object, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model, *program, options=options),
        env=environment(model, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def gone(model: Path) -> None:
    """Waits until no private copy is left."""
    until(lambda: list(model.with_name("tmp").iterdir()) == [] or None, "the copy to go")


def test_exit_code_output_environment_and_arguments_are_those_of_the_command(model: Path) -> None:
    script = 'import os, sys; print(sys.argv[1:], os.environ["MINE"]); sys.exit(7)'
    done = run(
        model, sys.executable, "-c", script, "--model={}", "", "--a_b", "--", "x", MINE="kept"
    )
    path, _, rest = done.stdout.partition("', ")
    assert done.returncode == 7, done.stderr
    assert path.startswith(f"['--model={model.with_name('tmp')}/") and path.endswith("/model")
    assert rest == "'', '--a_b', '--', 'x'] kept\n"
    assert "VERIFIED model" in done.stderr
    gone(model)


def test_the_program_is_the_process_that_was_started(model: Path) -> None:
    """So whoever started it, signals it and waits for it, and nobody stands between."""
    script = "import os, signal, sys; print(os.getpid(), signal.getsignal(signal.SIGPIPE) == 0)"
    start = command(model, sys.executable, "-c", script, "{}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with limited(subprocess.Popen(start, env=environment(model), text=True, **pipes)) as process:
        output, _ = process.communicate(timeout=60)
        # Python itself ignores SIGPIPE; what is inherited would be seen by others.
        assert output.split()[0] == str(process.pid)
    shown = run(model, "sh", "-c", "grep SigIgn /proc/self/status; test -d $0", "{}")
    assert int(shown.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert shown.returncode == 0


def ask(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        data: bytes = answer.read()
        return data


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_server_serves_the_verified_model_until_a_signal_ends_it(
    model: Path, how: signal.Signals
) -> None:
    start = command(model, sys.executable, "-c", SERVER, "{}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with limited(subprocess.Popen(start, env=environment(model), text=True, **pipes)) as process:
        assert process.stdout is not None
        port, path = process.stdout.readline().split()
        (model / "layers" / "0.onnx").write_bytes(b"evil!!!")
        assert ask(int(port)) == b"weights"
        assert (Path(path) / "layers" / "0.onnx").read_bytes() == b"weights"
        # Another one does not take the copy in use for a leftover; and does not start.
        refused = run(model, sys.executable, "-c", SERVER, "{}")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert Path(path).is_dir()
        process.send_signal(how)
        assert process.wait(60) in (-how, 1)
        with pytest.raises(urllib.error.URLError):
            ask(int(port))
    gone(model)


@pytest.mark.parametrize("change", ["flipped", "added", "code", "policy"])
def test_the_program_does_not_start_with_a_model_that_is_refused(
    model: Path, tmp_path: Path, change: str
) -> None:
    if change == "flipped":
        (model / "layers" / "0.onnx").write_bytes(b"weightz")
    elif change == "added":
        (model / "more").touch()
    elif change == "code":
        (model / "modeling.py").write_text("")
        sign(model)
    else:
        (tmp_path / "key.pub").write_bytes(public_pem(new_key()))
    started = tmp_path / "started"
    for options in ((), ("--as", tmp_path / "copy")):
        done = run(model, "sh", "-c", 'touch "$1"; ls "$2"', "sh", started, "{}", options=options)
        assert (done.returncode, done.stdout) == (1, "")
        assert "REFUSED model" in done.stderr and "Traceback" not in done.stderr
        assert not started.exists()
    assert not (tmp_path / "copy").exists()
    assert list(model.with_name("tmp").iterdir()) == []


def test_code_may_be_allowed(model: Path) -> None:
    (model / "modeling.py").write_text("print('ran')")
    sign(model)
    policy = model.with_name("policy.toml")
    for options in (("--code", "allowed"), ()):
        done = run(model, sys.executable, "{}/modeling.py", options=options)
        assert (done.returncode, done.stdout) == (0, "ran\n")
        policy.write_text(f'{POLICY}[load]\ncode = "allowed"\n')
    contradicted = run(model, "ls", "{}", options=("--code", "refused"))
    assert contradicted.returncode == 2
    assert "an option contradicts the policy" in contradicted.stderr


def test_a_named_copy_stays(model: Path, tmp_path: Path) -> None:
    done = run(model, "ls", "{}", options=("--as", tmp_path / "copy"))
    assert (done.returncode, done.stdout.split()) == (0, ["config.json", "layers"])
    assert (tmp_path / "copy" / "layers" / "0.onnx").read_bytes() == b"weights"
    again = run(model, "ls", "{}", options=("--as", tmp_path / "copy"))
    assert (again.returncode, again.stdout) == (1, "")
    assert "mixed with what is there already" in again.stderr


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (("ls",), "does not say where the model's path goes"),
        (("{}", "x"), "does not say where the model's path goes"),
        (("no-such-program", "{}"), "there is no such command"),
        ((), "COMMAND"),
    ],
)
def test_mistakes_are_told_before_the_work(
    model: Path,
    program: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(model.with_name("tmp")))
    (model / "layers" / "0.onnx").write_bytes(b"never hashed")
    assert cli.main(command(model, *program)[3:]) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_while_the_model_is_hashed_leaves_nothing(model: Path, tmp_path: Path) -> None:
    large = model / "layers" / "1.onnx"
    large.write_bytes(b"signed")
    sign(model)
    os.truncate(large, shutil.disk_usage(model).free // 2)  # sparse: takes long to copy
    started = tmp_path / "started"
    start = command(model, "sh", "-c", 'touch "$1"; ls "$2"', "sh", started, "{}")
    with limited(
        subprocess.Popen(start, env=environment(model), stderr=subprocess.DEVNULL)
    ) as process:
        until(lambda: list(model.with_name("tmp").rglob("1.onnx")) or None, "the copy to begin")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert list(model.with_name("tmp").iterdir()) == []
    time.sleep(0.1)
    assert not started.exists()
