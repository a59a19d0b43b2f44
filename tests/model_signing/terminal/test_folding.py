"""Long lines on a terminal: folded to its width, in a pipe left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.material import ROOT, make_model, new_key, private_pem, public_pem

pty = pytest.importorskip("pty", reason="not tested: this system has no pseudo-terminals")


def lines(columns: int, *arguments: str) -> list[str]:
    """What the program shows on a terminal of that width, output and messages."""
    import fcntl
    import struct
    import termios

    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    subprocess.run(
        [sys.executable, "-m", "model_signing", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=writer,
        stderr=writer,
        check=False,
        timeout=300,
    )
    os.close(writer)
    shown = os.read(reader, 1 << 16).decode()  # it fits into the terminal's buffer
    os.close(reader)
    return shown.splitlines()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    make_model(tmp_path)
    key = new_key()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "key.pub").write_bytes(public_pem(key))
    lines(300, "sign", "key", "model", "--private-key", "key.pem")
    return tmp_path


@pytest.mark.parametrize("columns", [100, 120])
def test_lines_fit_and_nothing_is_torn(here: Path, columns: int) -> None:
    wide, narrow = (lines(width, "inspect", "model.sig") for width in (400, columns))
    assert max(map(len, wide)) > columns
    assert max(map(len, narrow)) <= columns
    assert " ".join(wide).split() == " ".join(narrow).split()
    refusal = lines(columns, "verify", "key", "model", "--signature", "absent", "--private-key=k")
    assert max(map(len, refusal)) <= columns


def test_a_word_that_is_too_long_stays_whole(here: Path) -> None:
    digest = next(word for line in lines(400, "digest", "model") for word in line.split())
    assert digest in " ".join(lines(40, "digest", "model"))
    assert digest.removeprefix("sha256:") in " ".join(lines(40, "inspect", "model.sig"))


@pytest.mark.parametrize("columns", [0, 1, 5])
def test_a_terminal_of_no_width_folds_nothing(here: Path, columns: int) -> None:
    assert lines(columns, "inspect", "model.sig") == lines(400, "inspect", "model.sig")
