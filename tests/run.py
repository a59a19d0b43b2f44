"""Run the tests, each in the environment that holds what it needs, and sum up in the last line.

usage: python tests/run.py [--roles ROLE,...] [PYTEST ARGUMENT ...]

No environment and no process holds both frameworks. A test needs one if its file is named after it
(`test_pytorch.py`, `test_safety_tensorflow.py`) or if it is marked (`@pytest.mark.pytorch`); it
runs where that one is, all others run where there is none (`conftest.py` picks them). Standard
library only, on any Python that we support.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("dev", "test-pytorch", "test-tensorflow")
FRAMEWORKS = {"pytorch": "torch", "tensorflow": "tensorflow"}
# Of one test, and of all tests of an environment. Nothing waits for ever.
TEST_SECONDS, PART_SECONDS = 900, 2 * 3600
NO_TESTS = 5
# So many failures of a part may come of a machine that stood still; more are a fault.
FEW = 3
PASSED_ALONE = "passed only when run alone:"


def main(arguments: list[str]) -> int:
    """Run all parts; 0 if there were tests and all passed."""
    roles: tuple[str, ...] = ROLES
    if arguments[:1] == ["--roles"]:
        roles, arguments = tuple(arguments[1].split(",")), arguments[2:]
    total: Counter[str] = Counter()
    problems: list[str] = []
    passed_alone: list[str] = []
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        parts = []
        for role in roles:
            options, files = selection(role, arguments)
            if files and (python := environment(role)):
                parts.append(Part(role, python, options, files))
            elif files:
                problems.append(f"tests in '{role}': the environment could not be built")
        # All at once: one that waits, or comes to its end, leaves its core to the others.
        for part in parts:
            running.callback(part.end)
            part.start(folder / part.role, captured=part is not parts[0])
        for part in parts:
            print(f"\n=== tests in the environment '{part.role}'", flush=True)
            part.finish()
        for part in parts:
            if os.environ.get("GITHUB_ACTIONS") != "true":
                passed_alone += part.try_again(folder / "alone")
            total += part.counts
            if part.problem:
                problems.append(f"tests in '{part.role}': {part.problem}")
    if not sum(total.values()):
        problems.append("no test ran")
    failed = max(total["failed"] + total["lost"], len(problems) and 1)
    print()
    for problem in problems:
        print(problem)
    for name in passed_alone:
        print(f"{PASSED_ALONE} {name}")
    print(f"{total['passed']} passed, {failed} failed, {total['skipped']} skipped", flush=True)
    return 1 if failed else 0


def selection(role: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments for the pytest of an environment: options, and the files it has tests in."""
    framework = role.partition("-")[2]
    paths = [argument for argument in arguments if (ROOT / argument.partition("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    chosen = [
        name
        for path in paths or ["tests"]
        for name in ([path] if "::" in path or not framework else _files(ROOT / path))
        if not framework or _needs(framework, ROOT / name.partition("::")[0])
    ]
    return options, chosen


def _files(path: Path) -> list[str]:
    return [str(file) for file in ([path] if path.is_file() else sorted(path.rglob("test_*.py")))]


def _needs(framework: str, file: Path) -> bool:
    marked = f"pytest.mark.{framework}" in file.read_text(encoding="utf-8")
    return framework_of(file) == framework or marked


def framework_of(file: Path) -> str:
    """The framework that a test file is named after, or nothing."""
    words = file.stem.split("_") if file.suffix == ".py" else []
    return next((name for name in FRAMEWORKS if name in words), "")


def environment(role: str) -> Path | None:
    """The Python of an environment, built if there is none yet; nothing if it could not be."""
    builder = [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), role]
    built = subprocess.run(
        builder, stdout=subprocess.PIPE, text=True, check=False, timeout=PART_SECONDS
    )
    return None if built.returncode else Path(built.stdout.strip()) / "python"


@dataclass
class Part:
    """The tests of one environment, run by one pytest.

    Attributes:
        role: The environment.
        python: Its Python.
        options: For pytest.
        files: What it is to collect.
        counts: How its tests ended, by word.
        failures: The tests that failed, by name.
        problem: What is wrong besides, or nothing.
    """

    role: str
    python: Path
    options: list[str]
    files: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    problem: str = ""
    _process: subprocess.Popen[bytes] | None = None

    def start(self, notes: Path, captured: bool) -> None:
        """Begin; what it prints waits in a file beside its `notes` if it is `captured`."""
        self._tally, self._log = notes.with_suffix(".json"), notes.with_suffix(".log")
        self._tally.unlink(missing_ok=True)
        command = [str(self.python), "-m", "pytest", "-p", "tests.support.tally", "-rs"]
        command += [f"--timeout={TEST_SECONDS}", "--max-worker-restart=0"]
        if self.role.partition("-")[2]:
            # A framework's tests compute and do not wait, and each worker imports it first.
            command.append(f"--maxprocesses={(os.cpu_count() or 1) // 2 or 1}")
        with self._log.open("wb") if captured else contextlib.nullcontext() as output:
            self._process = subprocess.Popen(
                [*command, *self.options, *self.files],
                stdout=output,
                stderr=subprocess.STDOUT if captured else None,
                cwd=ROOT,
                env={**os.environ, "TESTS_TALLY": str(self._tally)},
                start_new_session=True,
            )
        self._deadline = time.monotonic() + PART_SECONDS

    def finish(self) -> None:
        """Print what was captured, as it comes, until the end; then read what it came to."""
        with self._log.open("rb") if self._log.exists() else io.BytesIO() as captured:
            code = None
            while code is None:
                code = self._code_within(0.2)
                sys.stdout.buffer.write(captured.read())
                sys.stdout.flush()
        if not self._tally.exists():
            self.problem = f"pytest ended with {code} and said nothing"
            return
        told = json.loads(self._tally.read_text(encoding="utf-8"))
        lost, self.failures, died = (told.pop(name) for name in ("names", "failures", "died"))
        self.counts = Counter(told)
        if lost:
            self.problem = f"{len(lost)} tests did not end, such as {lost[0]}"
        elif died:
            self.problem = "a process of pytest died"
        elif code not in (0, 1, NO_TESTS):
            self.problem = f"pytest ended with {code}"
        elif code == 1 and not self.counts["failed"]:
            self.problem = "pytest failed outside of a test"

    def try_again(self, notes: Path) -> list[str]:
        """Run the few tests that failed once more, alone; the names of those that pass."""
        few = 0 < len(self.failures) == self.counts["failed"] <= FEW
        if self.problem or not few:
            return []
        print(f"\n=== once more, alone, in the environment '{self.role}'", flush=True)
        alone = Part(
            self.role, self.python, [*self.options, "-vv", "-rA", "-n", "0"], self.failures
        )
        try:
            alone.start(notes, captured=False)
            alone.finish()
        finally:
            alone.end()
        if alone.problem or alone.counts["passed"] + len(alone.failures) != len(self.failures):
            return []
        passed = [name for name in self.failures if name not in alone.failures]
        self.counts["failed"] -= len(passed)
        self.counts["passed"] += len(passed)
        return passed

    def end(self) -> None:
        """End it with all that it started; also when this process is told to end."""
        if self._process and self._process.poll() is None:
            if os.name == "nt":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)

    def _code_within(self, seconds: float) -> int | None:
        """The code that it ends with, or nothing if it has not ended yet."""
        assert self._process
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            if time.monotonic() < self._deadline:
                return None
            print(f"\nended after {PART_SECONDS} seconds", flush=True)
            self.end()
            return -signal.SIGTERM


def _ended(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    sys.exit(main(sys.argv[1:]))
