"""Runs a program, and ends all that it started when it ends, or when its owner is gone.

usage: python supervise.py RUN_FOLDER PROGRAM [ARGUMENT]...

The owner holds the other end of standard input. The program's processes are known by RUN_FOLDER in
their environment (`SANDBOX_RUN`), as steps of a workflow may well leave the process group. When
the owner dies without a word, the run's folder is removed, too. Standard library only. For
demonstrations and tests only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

VARIABLE = "SANDBOX_RUN"


def main(arguments: list[str]) -> int:
    """Runs the program; its exit code, or 137 if it was ended."""
    run, *command = arguments
    process = subprocess.Popen(
        command,
        env={**os.environ, VARIABLE: run},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    abandoned = threading.Event()

    def watch() -> None:
        while os.read(0, 1024):  # ends when the owner closes its end, or is gone
            pass
        abandoned.set()
        end_all(run, process.pid)

    threading.Thread(target=watch, daemon=True).start()
    if hasattr(os, "waitid"):  # until it is reaped its number, and its group's, is nobody else's
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()
    end_all(run, process.pid)
    code = process.wait()
    if abandoned.is_set():
        shutil.rmtree(run, ignore_errors=True)
        return 137
    return code


def end_all(run: str, group: int) -> None:
    """Kills every process of a run: those that carry its mark, and its process group."""
    for _ in range(10):  # a process may start another while this one looks
        left = marked_processes(run)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):  # ended by itself
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.05)


def marked_processes(run: str) -> list[int]:
    """The processes of a run that are alive, where the system tells (Linux)."""
    mark = f"{VARIABLE}={run}".encode()
    processes = (folder for folder in Path("/proc").glob("[0-9]*") if _is_marked(folder, mark))
    return [int(folder.name) for folder in processes]


def _is_marked(process: Path, mark: bytes) -> bool:
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # ended meanwhile, or somebody else's


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
