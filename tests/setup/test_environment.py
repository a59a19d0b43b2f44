"""The environment builder: whole or not at all, once, and only what the lock names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.setup.conftest import BUILDER, ROOT, Build, environments
from tests.support.limits import until


def test_the_programs_of_the_base_environment_are_those_of_this_checkout(
    checkout: Path, cache: Path, build: Build
) -> None:
    first = build(checkout, cache, "base")
    assert first.returncode == 0, first.stderr
    again = build(checkout, cache, "base")
    assert (again.stdout, again.stderr) == (first.stdout, "")  # nothing was installed twice
    programs = Path(first.stdout.strip())
    where = subprocess.run(
        [programs / "python", "-I", "-c", "import model_signing; print(model_signing.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert Path(where).is_relative_to(programs.parent)
    lock = (checkout / "requirements/base.txt").read_bytes()
    assert (programs.parent / "locked-requirements.txt").read_bytes() == lock

    # Documents are no part of it; changed source never meets the old environment.
    for document in ("README.md", "slsa_for_models/README.md"):
        (checkout / document).write_text("Other words.\n")
    assert build(checkout, cache, "base").stdout == first.stdout
    (checkout / "model_signing/extra.py").write_text("'''Another commit.'''\n")
    # What nobody can use, or uses any more, goes when something new is built.
    ages = {"base-kept": 13, "base-unused": 15, ".base-killed1": 0, ".test-other123": 0}
    for name, days in ages.items():
        folder = cache / "environments" / name
        folder.mkdir()
        (folder / "file").touch()
        os.utime(folder, (time.time() - days * 86400,) * 2)
    changed = build(checkout, cache, "base")
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout != first.stdout
    now = Path(changed.stdout.strip())
    kept = [".test-other123", "base-kept", programs.parent.name, now.parent.name]
    assert environments(cache) == sorted(kept)

    # One whose Python is gone is built again.
    (now / "python").unlink()
    (now / "python").symlink_to("/nowhere/python3")
    again = build(checkout, cache, "base")
    assert (again.returncode, again.stdout) == (0, changed.stdout), again.stderr
    assert (now / "python").resolve().exists()


def test_a_package_with_another_digest_is_refused_and_nothing_stays(
    checkout: Path, cache: Path, build: Build
) -> None:
    lock = checkout / "requirements/base.txt"
    text = lock.read_text()
    lock.write_text(
        re.sub(
            r"(cryptography==[^\n]*\n)(\s+--hash=sha256:\w{64} ?\\?\n)+",
            rf"\1    --hash=sha256:{'0' * 64}\n",
            text,
        )
    )
    assert lock.read_text() != text
    refused = build(checkout, cache, "base")
    assert (refused.returncode, refused.stdout) == (1, "")
    said = refused.stderr.splitlines()[-1]
    assert re.search(r"cryptography==\S+ from \S+ is not what our lock has \(found sha256:", said)
    assert len(said) < 400
    assert "Traceback" not in refused.stderr
    assert environments(cache) == []


def test_what_does_not_work_gets_no_name(checkout: Path, cache: Path, build: Build) -> None:
    (checkout / "slsa_for_models/cli.py").write_text("raise ImportError('half a program')\n")
    refused = build(checkout, cache, "base")
    assert refused.returncode == 1
    assert "'base' was installed and does not work: ImportError: half a program" in refused.stderr
    assert environments(cache) == []


def test_a_builder_that_is_killed_leaves_no_environment_that_looks_finished(
    checkout: Path, empty_cache: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-I", str(checkout / BUILDER), "base"],
        env={**os.environ, "MODEL_TRANSPARENCY_CACHE": str(empty_cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = empty_cache / "environments"
    until(lambda: list(folder.glob(".boot*/*")) or None, "the first of it")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    assert names
    assert all(name.startswith(".") for name in names)


def test_an_unknown_role_is_a_usage_error_that_lists_the_roles(
    tmp_path: Path, build: Build
) -> None:
    refused = build(ROOT, tmp_path / "cache", "tensorflw")
    assert refused.returncode == 2
    assert "tensorflow" in refused.stderr
    assert not (tmp_path / "cache").exists()


LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.stem for lock in LOCKS])
def test_a_lock_names_digests_and_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        if not requirement.startswith("#"):  # how it is made
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement


def versions(name: str) -> set[str]:
    """Packages with version and marker, as a lock has them."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return set(re.findall(r"^([\w.-]+==[^\\\n]*?) *\\?$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("tests", "framework"),
    [("dev", "pytorch"), ("dev", "pytorch-cuda"), ("test", "tensorflow")],
)
def test_locks_that_are_installed_together_agree(tests: str, framework: str) -> None:
    def by_name(lock: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for requirement in versions(lock):
            found.setdefault(requirement.partition("==")[0], set()).add(
                requirement.partition("==")[2].partition(" ")[0]
            )
        return found

    ours, other = by_name(tests), by_name(framework)
    shared = ours.keys() & other.keys()
    assert len(shared) > 20
    assert {name: (ours[name], other[name]) for name in shared if ours[name] != other[name]} == {}


def test_the_two_builds_of_pytorch_differ_in_nothing_else() -> None:
    ours, of_pypi = versions("pytorch"), versions("pytorch-cuda")
    assert {item.partition("==")[0] for item in ours - of_pypi} == {"torch"}
    only = {item.partition("==")[0] for item in of_pypi - ours}
    assert "torch" in only
    assert all(re.match(r"torch$|triton$|nvidia-|cuda-", name) for name in only)
