"""One real service: a process that can be ended, stopped and started again where it was.

For demonstrations and tests only.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sandbox.checkout import SetupError
from sandbox.github import supervise

READY_SECONDS, ENDING_SECONDS = 60, 20
# Below what systems take for connections of their own, so that a port stays free until it is used.
PORTS = range(20_000, 32_000)
LOCK = "in-use"


class ServiceError(SetupError):
    """A service did not start; the message says what it said last."""


class Service:
    """A program that listens, with a folder of its own for what it keeps, while it is started.

    It is ended, with all that it started, when this process ends, however that happens.

    Attributes:
        name: For messages.
        port: Where it listens on this machine.
        log: What it prints, of all its starts.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        port: int,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.port = name, port
        self.log = folder.parent / f"{name}.log"
        self._command = [str(word) for word in command]
        self._folder = folder  # its path marks the processes; removed if we are gone
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns when it answers.

        Raises:
            ServiceError: It ended, or does not answer.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts it, without waiting."""
        self._folder.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, supervise.__file__, str(self._folder), *self._command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: then the supervisor ends it
            )

    def wait_until_ready(self) -> None:
        """Returns when it answers.

        Raises:
            ServiceError: It ended, or does not answer.
        """
        assert self._process is not None
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("localhost", self.port), 1),
            ):
                return
            time.sleep(0.05)
        self.kill()
        said = self.log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
        raise ServiceError(f"{self.name} does not answer at port {self.port}; it said: {said}")

    def kill(self) -> None:
        """Ends it at once, as a crash would; what it has written stays."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        # Not by the supervisor's pipe: it would take the folder for abandoned, and remove it.
        supervise.end_all(str(self._folder), self._process.pid)
        self._process.stdin.close()
        self._process.wait(ENDING_SECONDS)
        self._process = None

    def stop(self) -> None:
        """Lets it hang: it holds its connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on after `stop`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in supervise.marked_processes(str(self._folder)):
            os.kill(pid, number)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that is there while this is; what killed processes left of theirs is removed, too.

    Whoever lives holds a lock in its folder. What has no lock in it is left alone: it may be new.
    """
    import fcntl  # not on Windows, where tests of these programs are collected, too

    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{prefix}*/{LOCK}"):
        with contextlib.suppress(OSError), left.open() as lock:  # somebody's who lives, or not ours
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        with (folder / f"{LOCK}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody looks for it by this name
            (folder / f"{LOCK}.new").rename(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Different ports of this machine on which nobody listens; nobody else gets them meanwhile."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in random.sample(PORTS, len(PORTS)):
            with contextlib.suppress(OSError), contextlib.ExitStack() as taken:
                # By UDP, which no service speaks: others look between now and when one listens.
                claim = taken.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                claim.bind(("127.0.0.1", port))
                with socket.socket() as probe:
                    probe.bind(("", port))
                held.push(taken.pop_all())
                found.append(port)
            if len(found) == count:
                break
        else:
            raise ServiceError("no port is free on this machine")
        yield found
