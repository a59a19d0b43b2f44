"""One model, many machines: a Dask scheduler and its workers, as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import model_signing
from model_signing import executors, hashing
from model_signing.cli import main
from model_signing.errors import DependencyError, Error, FileError, UsageError
from model_signing.sources import open_source
from sandbox.hub import Hub
from tests.support.limits import ended_with_us, limited, until
from tests.support.material import ROOT, new_key, private_pem, public_pem

# Looked for and not imported: where other tests run, that would be for nothing.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("distributed") is None,
        reason="no distributed: nothing hashed on a cluster was tested",
    ),
]
MIB = 1 << 20


class Cluster:
    """A scheduler and workers with one thread each, in a folder of their own."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        text = until(
            lambda: (self._file.read_text() if self._file.exists() else "") or None, "scheduler"
        )
        self.address = str(json.loads(text)["address"])

    def _start(self, kind: str, *options: str, code: Path = ROOT) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-B",
            "-c",
            f"import sys; sys.argv[0] = '{kind}'; "
            f"from distributed.cli.dask_{kind} import main; main()",
        ]
        log = self._stack.enter_context((self._folder / f"{kind}-{len(self.workers)}").open("wb"))
        process = subprocess.Popen(
            ended_with_us([*command, *options, "--scheduler-file", self._file]),
            cwd=self._folder,  # away from the model's, as another machine is
            env={**os.environ, "PYTHONPATH": str(code)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._stack.enter_context(limited(process, 240))
        return process

    def add(self, *, code: Path = ROOT) -> subprocess.Popen[bytes]:
        """Starts a worker, and waits until the scheduler has it."""
        import distributed

        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        self.workers.append(self._start("worker", *options, code=code))
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=60)
        return self.workers[-1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        (tmp_path / "cluster").mkdir()
        yield Cluster(tmp_path / "cluster", stack)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for index in range(6):
        with (folder / f"part-{index}.bin").open("wb") as file:
            file.write(bytes([index]) * 100)
            file.truncate((50 + index) * MIB)  # sparse, and read as any other
    for index in range(700):
        (folder / "sub" / str(index)).write_text(str(index))
    return folder


def test_signed_and_verified_by_workers_with_one_killed_in_the_middle(
    cluster: Cluster, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add()
    cluster.add()
    expected = model_signing.digest(model)
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        if not seen:
            cluster.workers[0].kill()
        seen.append((done, total))

    with executors.opened(f"dask:{cluster.address}") as executor:
        found = model_signing.digest(model, executor=executor, progress=progress)
    assert found == expected
    assert cluster.workers[0].wait(60) == -signal.SIGKILL
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert seen[-1][0] == seen[-1][1] > 300 * MIB

    key = new_key()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "key.pub").write_bytes(public_pem(key))
    monkeypatch.chdir(tmp_path)  # a relative path means the same to a worker elsewhere
    on = ["--executor", f"dask:{cluster.address}", "--quiet"]
    sign = ["sign", "key", "model", "--private-key", "key.pem"]
    verify = ["verify", "key", "model", "--public-key", "key.pub", "--signature", "model.sig"]
    assert main([*sign, *on]) == 0
    assert main([*verify, "--quiet"]) == 0  # here, by what they hashed there
    assert main([*verify, *on]) == 0
    with (model / "part-3.bin").open("r+b") as file:
        file.seek(40 * MIB)
        file.write(b"x")
    assert main([*verify, *on]) == 1


def test_workers_read_a_model_at_an_address_and_this_process_does_not(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    files = {"config.json": b"{}", "weights.safetensors": os.urandom(3 * MIB)}
    for name, data in files.items():
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "here" / name).write_bytes(data)
    hub.commit("org/here", files)
    cluster: Cluster = request.getfixturevalue("cluster")
    cluster.add()
    source = open_source("hf://org/here")

    def read(*_: object) -> None:
        pytest.fail("read here")

    monkeypatch.setattr(type(source), "read", read)
    with executors.opened(f"dask:{cluster.address}") as executor:
        found = model_signing.digest(source, executor=executor)
    assert found == model_signing.digest(tmp_path / "here")


def test_a_refusal_of_a_worker_is_the_same_refusal(
    cluster: Cluster, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add()
    real = hashing._elsewhere

    def changed(*arguments: object) -> None:
        (model / "sub" / "7").write_text("X")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hashing, "_elsewhere", changed)
    with (
        pytest.raises(FileError, match="the file changed while it was being hashed") as refusal,
        executors.opened(f"dask:{cluster.address}") as executor,
    ):
        model_signing.digest(model, executor=executor)
    assert refusal.value.where == str(model / "sub" / "7")


def test_a_worker_with_other_code_is_refused_before_the_work(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(ROOT / "model_signing", other / "model_signing")
    with (other / "model_signing" / "hashing.py").open("a") as file:
        file.write("# newer\n")
    cluster.add()
    cluster.add(code=other)
    code = main(["digest", str(model), "--executor", f"dask:{cluster.address}"])
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert "a worker differs from this machine" in err
    assert err.count("its code ") == 2


@pytest.mark.full
def test_ctrl_c_cancels_what_has_not_begun(cluster: Cluster, tmp_path: Path) -> None:
    import distributed

    (tmp_path / "endless").mkdir()
    for index in range(40):
        with (tmp_path / "endless" / str(index)).open("wb") as file:
            file.truncate(1 << 40)  # sparse: an hour to hash
    worker = cluster.add()
    command = [sys.executable, "-B", "-m", "model_signing", "digest", tmp_path / "endless"]
    process = subprocess.Popen(
        [*command, "--executor", f"dask:{cluster.address}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with limited(process), distributed.Client(cluster.address, set_as_default=False) as client:

        def tasks() -> int:
            return int(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))

        until(lambda: tasks() == 40 or None, "all that is to be hashed")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "interrupted\n")
        until(lambda: tasks() == 0 or None, "none of it any more")
    assert worker.poll() is None


def test_a_cluster_without_workers_is_refused(cluster: Cluster, model: Path) -> None:
    with (
        pytest.raises(FileError, match="has no workers"),
        executors.opened(f"dask:{cluster.address}"),
    ):
        pytest.fail("opened")


def test_a_cluster_whose_workers_all_end_is_not_waited_for_without_end(
    cluster: Cluster, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_LOOKED_AT", 0.2)
    monkeypatch.setattr(executors, "_ALONE_FOR", 2.0)
    worker = cluster.add()
    with (
        pytest.raises(Error, match=r"no workers any more|ends while it hashes"),
        executors.opened(f"dask:{cluster.address}") as executor,
    ):
        assert executor is not None
        future = executor.submit(time.sleep, 60)
        threading.Timer(1, worker.kill).start()
        future.result(100)


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("dask", UsageError),
        ("dask:", UsageError),
        ("ray:1.2.3.4", UsageError),
        ("dask:tcp://127.0.0.1:9", FileError),
        ("dask:nonsense://x", FileError),
        ("dask:tls://127.0.0.1:9", FileError),
        ("dask:tcp://MUTE", FileError),
    ],
)
def test_what_is_no_cluster(
    name: str, refusal: type[Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_CONNECTED_WITHIN", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # connects, and nobody answers
        name = name.replace("MUTE", f"127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(refusal) as found, executors.opened(name):
            pytest.fail("opened")
    assert found.value.message


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError) as found, executors.opened("dask:tcp://x:1"):
        pytest.fail("opened")
    assert found.value.fix == "pip install 'model-transparency[dask]'"
