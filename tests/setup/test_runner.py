"""`tests/run.py`: every test somewhere, a last line that counts all, and no death unnoticed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run import FRAMEWORKS, selection
from tests.support.limits import limited, until

ROOT = Path(__file__).resolve().parents[2]
LAST_LINE = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert not 'ever'\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The runner, in a checkout whose environments are all the one that runs this."""
    root = tmp_path / "checkout"
    for name in ("tests/run.py", "tests/support/tally.py", "pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    builder = root / "actions/setup/environment.py"
    builder.parent.mkdir(parents=True)
    builder.write_text(f"print({str(Path(sys.executable).parent)!r})\n")
    return root


def run(root: Path, *arguments: str, github: str = "") -> tuple[int, tuple[int, ...], str]:
    """Exit code, the counts of the last line, and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-I", root / "tests/run.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "GITHUB_ACTIONS": github},
        timeout=120,
        check=False,
    )
    counts = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert counts, done.stdout
    return done.returncode, tuple(map(int, counts.groups())), done.stdout


def test_the_last_line_counts_all_environments(checkout: Path) -> None:
    skips = "import pytest\n\ndef test_skips():\n    pytest.skip('why')\n"
    (checkout / "tests/test_a.py").write_text(PASSES + skips)
    (checkout / "tests/test_pytorch.py").write_text(PASSES)
    # No conftest.py here, so the file of PyTorch is also collected among the others.
    code, counts, printed = run(checkout)
    assert (code, counts) == (0, (3, 0, 1))
    # They run at once, and each is printed whole, in their order.
    said = [printed.index(words) for words in ("'dev'", "2 passed", "'test-pytorch'", "1 passed")]
    assert said == sorted(said), printed


def test_a_failure_is_counted_with_its_teardown_once(checkout: Path) -> None:
    (checkout / "tests/test_a.py").write_text(
        PASSES
        + "import pytest\n\n@pytest.fixture\ndef bad():\n    yield\n    raise OSError\n\n"
        + "def test_fails():\n    raise ValueError\n\ndef test_ends_badly(bad):\n    pass\n"
    )
    assert run(checkout)[:2] == (1, (1, 2, 0))


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_a_process_that_dies_is_a_failure_at_once(checkout: Path, workers: tuple[str, ...]) -> None:
    dies = "import os\n\ndef test_dies():\n    os.kill(os.getpid(), 11)\n"
    (checkout / "tests/test_a.py").write_text(dies)
    (checkout / "tests/test_b.py").write_text(PASSES)
    code, (_, failed, _), printed = run(checkout, *workers)
    assert (code, failed > 0) == (1, True), printed


# Fails the first time, as on a machine that stands still for a second; then `{then}`.
CASES = ["a", "b c::d[e]"]
SHAKY = f"""
import pathlib, pytest

@pytest.mark.parametrize("case", {CASES})
def test_shaky(case):
    mark = pathlib.Path(__file__).with_suffix("." + case[:1])
    if not mark.exists():
        mark.touch()
        pytest.fail("the first time")
    {{then}}
"""


def test_a_few_failures_run_again_alone_and_are_named(checkout: Path) -> None:
    (checkout / "tests/test_a.py").write_text(SHAKY.format(then="print('in full')"))
    (checkout / "tests/test_b.py").write_text(FAILS)
    code, counts, printed = run(checkout, "-n", "2", "--dist", "loadscope")
    assert (code, counts) == (1, (2, 1, 0)), printed
    assert "in full" in printed
    named = [f"passed only when run alone: tests/test_a.py::test_shaky[{case}]" for case in CASES]
    assert printed.splitlines()[-3:-1] == named
    (checkout / "tests/test_a.a").unlink()
    code, counts, printed = run(checkout, "tests/test_a.py")
    assert (code, counts) == (0, (2, 0, 0)), printed
    assert printed.splitlines()[-2] == named[0]


DIES = """
def test_dies():
    mark = pathlib.Path(__file__).with_suffix(".died")
    if not mark.exists():
        mark.touch()
        import os
        os._exit(1)
"""


@pytest.mark.parametrize(
    ("workers", "github", "then", "others"),
    [
        ((), "true", "pass", ""),
        ((), "", "pytest.skip('now')", ""),
        ((), "", "import os; os._exit(0)", ""),
        ((), "", "pass", "\n\n" + FAILS + FAILS.replace("fails", "fails_too")),
        (("-n", "1"), "", "pass", DIES),
    ],
    ids=["on GitHub", "skips", "ends", "too many", "a death"],
)
def test_what_did_not_pass_alone_has_failed(
    checkout: Path, workers: tuple[str, ...], github: str, then: str, others: str
) -> None:
    (checkout / "tests/test_a.py").write_text(SHAKY.format(then=then) + others)
    code, (passed, failed, _), printed = run(checkout, *workers, github=github)
    assert (code, passed, failed >= 2) == (1, 0, True), printed
    assert "passed only" not in printed


def test_whoever_ends_the_runner_ends_all(checkout: Path, tmp_path: Path) -> None:
    hangs = f"""
import os, pathlib, time

def test_hangs():
    mark = pathlib.Path({str(tmp_path)!r}) / f"{{os.getpid()}}.pid"
    mark.touch()
    time.sleep(3600)
"""
    (checkout / "tests/test_pytorch.py").write_text(hangs)
    command = [sys.executable, "-I", checkout / "tests/run.py"]
    with limited(subprocess.Popen(command, stdout=subprocess.DEVNULL), 200) as process:
        until(lambda: len(list(tmp_path.glob("*.pid"))) == 2 or None, "two tests", 120)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.returncode == 128 + signal.SIGTERM
    for mark in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.stem), 0)


def test_a_test_that_hangs_is_ended(checkout: Path) -> None:
    hangs = "import time\n\ndef test_hangs():\n    time.sleep(3600)\n"
    (checkout / "tests/test_a.py").write_text(hangs)
    code, counts, printed = run(checkout, "--timeout=2")
    assert (code, counts) == (1, (0, 1, 0)), printed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no test ran"),
        ("import nonsense_of_nobody\n", "nonsense_of_nobody"),
        ("import os\n\nos._exit(0)\n", "said nothing"),
    ],
    ids=["no test", "cannot be imported", "ends while collected"],
)
def test_what_runs_no_test_has_failed(checkout: Path, text: str, says: str) -> None:
    (checkout / "tests/test_a.py").write_text(text)
    code, (passed, failed, _), printed = run(checkout)
    assert (code, passed, failed) == (1, 0, 1)
    assert says in printed


def test_a_part_that_selects_nothing_is_no_failure_if_another_has_tests(checkout: Path) -> None:
    (checkout / "tests/test_a.py").write_text(PASSES)
    (checkout / "tests/test_pytorch.py").write_text("def test_other():\n    pass\n")
    assert run(checkout, "-k", "passes")[:2] == (0, (1, 0, 0))
    assert run(checkout, "-k", "nobody")[:2] == (1, (0, 1, 0))


def test_an_environment_that_cannot_be_built_is_a_failure(checkout: Path) -> None:
    (checkout / "tests/test_a.py").write_text(PASSES)
    builder = checkout / "actions/setup/environment.py"
    builder.write_text("import sys; sys.exit('environment: no network')\n")
    code, counts, printed = run(checkout)
    assert (code, counts) == (1, (0, 1, 0))
    assert "the environment could not be built" in printed


def test_every_file_is_for_one_environment_and_none_skips_itself_for_a_framework() -> None:
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        named = [name for name in FRAMEWORKS if name in file.stem.split("_")]
        assert len(named) <= 1, file
        text = file.read_text(encoding="utf-8")
        for module in FRAMEWORKS.values():
            assert f'importorskip("{module}' not in text, file


def test_arguments_are_for_the_environments_that_have_such_tests() -> None:
    safety = "tests/slsa_for_models/models/test_safety_tensorflow.py"
    assert selection("test-tensorflow", ["-x", safety]) == (["-x"], [str(ROOT / safety)])
    assert selection("test-pytorch", ["-x", safety])[1] == []
    assert selection("dev", ["-k", "word"]) == (["-k", "word"], ["tests"])
    assert "tests/docs" not in " ".join(selection("test-pytorch", [])[1])
