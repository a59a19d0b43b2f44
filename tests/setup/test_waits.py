"""Nothing that is tested is waited for without end: a hang is a failure that says where."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# It waits for what its owner ends.
ENDED_BY_ITS_OWNER = "sandbox/github/supervise.py"
WITH_TIMEOUT = {
    *("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"),
    *("urllib.request.urlopen", "requests.get", "requests.post"),
}
WITH_A_LIMIT = {"wait", "communicate", "join"}


def endless(source: str) -> list[int]:
    """The lines of calls that wait for a child, a thread, a server or a lock without a limit."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        timeout = {"timeout", None} & {keyword.arg for keyword in call.keywords}
        name, how = ast.unparse(call.func), ast.unparse(call)
        if (
            (name in WITH_TIMEOUT and not timeout)
            or (call.func.attr in WITH_A_LIMIT and not call.args and not timeout)
            or (call.func.attr == "flock" and "LOCK_NB" not in how)
        ):
            found.append(call.lineno)
    return found


@pytest.mark.parametrize("folder", ["tests", "sandbox"])
def test_every_wait_has_a_limit(folder: str) -> None:
    assert {
        name: lines
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (name := path.relative_to(ROOT).as_posix()) != ENDED_BY_ITS_OWNER
        and (lines := endless(path.read_text(encoding="utf-8")))
    } == {}


@pytest.mark.parametrize(
    "wait",
    [
        "subprocess.run(command, check=True)",
        "process.wait()",
        "process.communicate(input=b'')",
        "thread.join()",
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "urllib.request.urlopen(url)",
    ],
)
def test_a_wait_without_a_limit_is_found(wait: str) -> None:
    assert endless(f"x = 1\n{wait}\n") == [2]
