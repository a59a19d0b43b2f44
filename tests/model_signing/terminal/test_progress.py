"""The progress bar: on a terminal, after a second, and gone at the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.material import ROOT

pty = pytest.importorskip("pty", reason="not tested: this system has no pseudo-terminals")

SCRIPT = """
import sys, time
from model_signing.terminal import progress
from tests.support.clock import Clock

progress.time = clock = Clock()

def rich():
    return "rich" in sys.modules

with progress.bar(shown={shown}) as say:
    if say:
        say(10_000_000, 100_000_000)
        clock.now += 0.9
        say(20_000_000, 100_000_000)
    print("soon", rich())
    clock.now += 0.2
    if say:
        for done in (50_000_000, 70_000_000, 75_000_000):
            say(done, 100_000_000)
            clock.now += 0.2
            time.sleep(0.1)  # the rate is by the machine's clock
    print("late", rich())
    {end}
print("result", flush=True)
"""


def run(
    shown: bool = True, end: str = "pass", terminal: bool = True, term: str = "xterm"
) -> tuple[str, str, int]:
    """What the script says on standard output, on the terminal or pipe, and its exit code."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(shown=shown, end=end)],
        cwd=ROOT,
        env={**os.environ, "TERM": term, "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    )
    os.close(writer)
    said, _ = process.communicate(timeout=60)
    drawn = b""
    while chunk := _read(reader):
        drawn += chunk
    os.close(reader)
    return said, drawn.decode(), process.returncode


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # a terminal whose other side is closed
        return b""


def test_a_bar_is_drawn_after_a_second_and_is_gone_at_the_end() -> None:
    said, drawn, code = run()
    assert (said, code) == ("soon False\nlate True\nresult\n", 0)
    assert "10%" not in drawn and "20%" not in drawn
    assert "50%" in drawn and "75%" in drawn
    assert "75.0/100.0 MB" in drawn
    assert "MB/s" in drawn
    assert drawn.rstrip("\n").endswith("\x1b[2K")  # the line is erased
    assert "\x1b[?25h" in drawn  # and the cursor is back


def test_nothing_is_drawn_over_what_follows_the_work() -> None:
    end = "say(100_000_000, 100_000_000); print('your identity?', file=sys.stderr); time.sleep(0.2)"
    _, drawn, code = run(end=end)
    assert code == 0
    assert drawn.index("\x1b[2K", drawn.index("75%")) < drawn.index("your identity?")
    assert "%" not in drawn.partition("your identity?")[2]


def test_an_error_does_not_leave_a_bar_behind() -> None:
    _, drawn, code = run(end="raise KeyboardInterrupt")
    assert code != 0
    assert drawn.index("\x1b[2K", drawn.index("75%")) < drawn.index("Traceback")


@pytest.mark.parametrize(("shown", "terminal"), [(True, False), (False, True)])
def test_nothing_is_drawn_in_a_pipe_or_when_not_wanted(shown: bool, terminal: bool) -> None:
    assert run(shown, terminal=terminal) == ("soon False\nlate False\nresult\n", "", 0)


def test_nothing_is_drawn_on_a_terminal_that_cannot() -> None:
    said, drawn, code = run(term="dumb")
    assert (drawn, code) == ("", 0)
    assert said.endswith("result\n")
