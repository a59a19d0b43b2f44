"""Where a training command runs: it writes below its workspace only, and has no network.

What the system offers for that differs: an ordinary user may make namespaces of their own, or may
not (Ubuntu 24.04, GitHub's runners) but become root. Which of the two works is tried, not guessed,
and recorded. Where neither does, nothing runs, unless the caller does without in so many words.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slsa_for_models.errors import TrainingError

NOT_CONFINED = "none"
_PROGRAM = Path(__file__).with_name("confine.py")
_APART = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc")
# As one is; or as root, who then gives the command the rights of whoever called.
_FORMS = {
    "user namespace": ("unshare", "--user", "--map-current-user", "--keep-caps", *_APART),
    "root": ("sudo", "-n", "unshare", *_APART),
}
_TRIAL = 60.0  # seconds


@dataclass(frozen=True)
class Confinement:
    """How commands are run in a workspace.

    Attributes:
        form: Its name, for the record; `NOT_CONFINED` if commands are not confined.
        workspace: The only folder that they may write into.
        read_only: Files in it that they may not write either.
        network: Whether they have one.
    """

    form: str
    workspace: Path
    read_only: tuple[Path, ...] = ()
    network: bool = False

    @property
    def confines(self) -> bool:
        """Whether it does anything at all."""
        return self.form != NOT_CONFINED

    def run(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        limit: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command to its end, and ends every process of it.

        Args:
            command: Its words.
            directory: Where it starts.
            environment: All variables that it has.
            stdout: As of `subprocess.Popen`; what comes through a pipe is returned.
            stderr: The same.
            limit: In seconds.

        Raises:
            subprocess.TimeoutExpired: It was not done by then.
            OSError: The program is not there, or may not be run.
        """
        job = self.workspace.with_name(f"{self.workspace.name}.json")
        words = list(command)
        if self.confines:
            user = [os.getuid(), os.getgid()] if self.form == "root" else None
            told = {
                "command": words,
                "directory": str(directory),
                "workspace": str(self.workspace),
                "read_only": list(map(str, self.read_only)),
                "sockets": _sockets(),
                "environment": dict(environment),
                "network": self.network,
                "user": user,
            }
            job.write_text(json.dumps(told), encoding="utf-8")
            apart = [*_FORMS[self.form], *([] if self.network else ["--net"])]
            words = [*apart, "--", sys.executable, "-I", str(_PROGRAM), str(job)]
        # Its end tells `confine.py` that this process has ended, however it did.
        lifeline, ours = os.pipe()
        try:
            process = subprocess.Popen(
                words,
                cwd=directory,
                env=None if self.confines else dict(environment),
                stdin=lifeline if self.confines else subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=not self.confines,
            )
            try:
                said, errors = process.communicate(timeout=limit)
            finally:
                _end(process, whole_group=not self.confines)
        finally:
            os.close(lifeline)
            os.close(ours)
            job.unlink(missing_ok=True)
        return subprocess.CompletedProcess(words, process.returncode, said, errors)


def choose(workspace: Path, *, network: bool) -> Confinement:
    """The first form that works on this machine, by trying.

    Args:
        workspace: An empty folder, which the trial leaves empty.
        network: Whether the command may have one.

    Raises:
        TrainingError: None does.
    """
    problems = []
    outside = workspace.with_name(f"{workspace.name}.outside")
    outside.touch()
    try:
        for form in _FORMS:
            tried = Confinement(form, workspace, network=network)
            problem = _problem(tried, outside)
            if not problem:
                return tried
            problems.append(f"{form}: {problem}")
    finally:
        outside.unlink()
    raise TrainingError(
        "this machine cannot confine a training command",
        expected="Linux 6.2 or later with Landlock, and user namespaces or sudo without a password",
        found="; ".join(problems),
        fix="allow one of them; on a machine of your own, --unconfined does without, and the "
        "record says so",
    )


def _problem(tried: Confinement, outside: Path) -> str:
    """Why a form does not work; "" if a command in it cannot write outside, and starts at all."""
    program = _FORMS[tried.form][0]
    if sys.platform != "linux" or shutil.which(program) is None:
        return f"there is no {program}"
    script = 'test -w . && ! (echo >> "$1") 2>/dev/null'
    words = ["/bin/sh", "-c", script, "sh", str(outside)]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    try:
        done = tried.run(words, tried.workspace, environment, stderr=subprocess.PIPE, limit=_TRIAL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else (said or [f"exit code {done.returncode}"])[-1]


def _sockets() -> list[str]:
    """The files at which anybody on this machine listens, or did."""
    lines = Path("/proc/net/unix").read_bytes().splitlines()[1:]
    paths = (os.fsdecode(line.split(maxsplit=7)[-1]) for line in lines)
    return sorted({path for path in paths if path.startswith("/")})


def _end(process: subprocess.Popen[bytes], *, whole_group: bool) -> None:
    """Ends what is left; in a namespace of its own everything has ended with its first process."""
    if whole_group and os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif whole_group:
        process.kill()
    elif process.poll() is None:
        try:
            process.kill()  # `unshare` takes the others with it
        except PermissionError:  # it is root's
            ours = map(str, _descendants(process.pid))
            subprocess.run(["sudo", "-n", "kill", "-KILL", *ours], check=False)
    process.wait()


def _descendants(process: int) -> Iterator[int]:
    with suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from _descendants(int(child))
            yield int(child)
