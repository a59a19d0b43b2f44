"""Run the tests, each in the environment that holds what it needs, and sum up in the last line.

usage: python tests/run.py [--roles ROLE,...] [PYTEST ARGUMENT ...]

No environment and no process holds both frameworks. A test needs one if its file is named after it
(`test_pytorch.py`, `test_safety_tensorflow.py`) or if it is marked (`@pytest.mark.pytorch`); it
runs where that one is, all others run where there is none (`conftest.py` picks them). Standard
library only, on any Python that we support.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("dev", "test-pytorch", "test-tensorflow")
FRAMEWORKS = {"pytorch": "torch", "tensorflow": "tensorflow"}
# Of one test, and of all tests of an environment. Nothing waits for ever.
TEST_SECONDS, PART_SECONDS = 900, 2 * 3600
NO_TESTS = 5


def main(arguments: list[str]) -> int:
    """Run all parts; 0 if there were tests and all passed."""
    roles: tuple[str, ...] = ROLES
    if arguments[:1] == ["--roles"]:
        roles, arguments = tuple(arguments[1].split(",")), arguments[2:]
    total: Counter[str] = Counter()
    problems: list[str] = []
    for role in roles:
        if not (chosen := selection(role, arguments)):
            continue
        print(f"\n=== tests in the environment '{role}'", flush=True)
        counted, problem = run(role, chosen)
        total += counted
        if problem:
            problems.append(f"tests in '{role}': {problem}")
    if not sum(total.values()):
        problems.append("no test ran")
    failed = max(total["failed"] + total["lost"], len(problems) and 1)
    print()
    for problem in problems:
        print(problem)
    print(f"{total['passed']} passed, {failed} failed, {total['skipped']} skipped", flush=True)
    return 1 if failed else 0


def selection(role: str, arguments: list[str]) -> list[str]:
    """The arguments for the pytest of an environment: options, and the files it has tests in.

    Empty if there are none of those that were asked for.
    """
    framework = role.partition("-")[2]
    paths = [argument for argument in arguments if (ROOT / argument.partition("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    chosen = [
        name
        for path in paths or ["tests"]
        for name in ([path] if "::" in path or not framework else _files(ROOT / path))
        if not framework or _needs(framework, ROOT / name.partition("::")[0])
    ]
    return [*options, *chosen] if chosen else []


def _files(path: Path) -> list[str]:
    return [str(file) for file in ([path] if path.is_file() else sorted(path.rglob("test_*.py")))]


def _needs(framework: str, file: Path) -> bool:
    marked = f"pytest.mark.{framework}" in file.read_text(encoding="utf-8")
    return framework_of(file) == framework or marked


def framework_of(file: Path) -> str:
    """The framework that a test file is named after, or nothing."""
    words = file.stem.split("_") if file.suffix == ".py" else []
    return next((name for name in FRAMEWORKS if name in words), "")


def run(role: str, arguments: list[str]) -> tuple[Counter[str], str]:
    """One pytest: its counts, and what is wrong besides."""
    builder = [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), role]
    built = subprocess.run(
        builder, stdout=subprocess.PIPE, text=True, check=False, timeout=PART_SECONDS
    )
    if built.returncode:
        return Counter(), "the environment could not be built"
    python = Path(built.stdout.strip()) / "python"
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally.json"
        command = [str(python), "-m", "pytest", "-p", "tests.support.tally", "-rs"]
        command += [f"--timeout={TEST_SECONDS}", "--max-worker-restart=0", *arguments]
        if role.partition("-")[2]:
            # A framework's tests compute and do not wait, and each worker imports it first.
            command.append(f"--maxprocesses={os.cpu_count()}")
        code = call(command, {**os.environ, "TESTS_TALLY": str(tally)})
        if not tally.exists():
            return Counter(), f"pytest ended with {code} and said nothing"
        counts = json.loads(tally.read_text(encoding="utf-8"))
    names = counts.pop("names")
    if names:
        return Counter(counts), f"{len(names)} tests did not end, such as {names[0]}"
    if code not in (0, 1, NO_TESTS):
        return Counter(counts), f"pytest ended with {code}"
    if code == 1 and not counts["failed"]:
        return Counter(counts), "pytest failed outside of a test"
    return Counter(counts), ""


def call(command: list[str], variables: dict[str, str]) -> int:
    """The exit code of a command, which is ended with all that it started when time is up."""
    process = subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=True)
    try:
        return process.wait(PART_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"\nended after {PART_SECONDS} seconds", flush=True)
        return -signal.SIGTERM
    finally:  # also when this process is told to end
        if process.poll() is None:
            if os.name == "nt":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def _ended(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    sys.exit(main(sys.argv[1:]))
