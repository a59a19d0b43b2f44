"""The environment builder: whole or not at all, once, and only what the lock names."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDER = Path("actions/setup/environment.py")


def build(
    root: Path, cache: Path, *arguments: str, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(root / BUILDER), *arguments],
        cwd=cwd,
        env={**os.environ, "MODEL_TRANSPARENCY_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the builder reads, so that a test may damage it."""
    root = tmp_path / "checkout"
    for name in ("actions/setup", "requirements", "model_signing", "slsa_for_models"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of its own that starts with the packages downloaded so far, if any."""
    folder = tmp_path_factory.mktemp("cache")
    warm = Path(
        os.environ.get("MODEL_TRANSPARENCY_CACHE", Path.home() / ".cache/model-transparency")
    )
    if (warm / "uv").is_dir():  # hard links: nothing is copied, nothing of the original is changed
        shutil.copytree(warm / "uv", folder / "uv", copy_function=os.link, symlinks=True)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A job's folder into which an artifact brought modules and settings of unlucky names."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    for name in ("venv", "ensurepip", "pip", "hatchling", "packaging", "uv", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'RAN')!r}, 'a').write({name!r})\n")
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\nrequires-python = '<3'\n")
    (folder / "uv.toml").write_text("no-index = true\n")
    (folder / ".python-version").write_text("2.7\n")
    return folder


def test_the_programs_of_the_base_environment_are_those_of_this_checkout(
    checkout: Path, cache: Path, workspace: Path
) -> None:
    first = build(checkout, cache, "base", cwd=workspace)
    assert first.returncode == 0, first.stderr
    assert not (workspace / "RAN").exists()  # nothing of the folder it was called in
    again = build(checkout, cache, "base")
    assert (again.stdout, again.stderr) == (first.stdout, "")  # nothing was installed twice
    programs = Path(first.stdout.strip())
    where = subprocess.run(
        [programs / "python", "-I", "-c", "import model_signing; print(model_signing.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=1800,
    ).stdout
    assert Path(where).is_relative_to(programs.parent)

    # What nobody asked for in two weeks goes when something new is built; the rest stays.
    kept, unused = (cache / "environments" / f"base-{name}" for name in ("kept", "unused"))
    for folder, days in ((kept, 13), (unused, 15)):
        folder.mkdir()
        os.utime(folder, (time.time() - days * 86400,) * 2)
    (checkout / "model_signing/extra.py").write_text("'''Another commit.'''\n")
    changed = build(checkout, cache, "base")
    assert changed.returncode == 0
    assert kept.is_dir()
    assert not unused.exists()
    assert programs.is_dir()
    assert changed.stdout != first.stdout  # changed source never meets the old environment


def test_a_package_with_another_digest_is_refused_and_nothing_stays(
    checkout: Path, cache: Path
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
    before = set((cache / "environments").iterdir()) if (cache / "environments").exists() else set()
    refused = build(checkout, cache, "base")
    assert refused.returncode == 1
    assert "cryptography" in refused.stderr
    assert "Traceback" not in refused.stderr
    left = set((cache / "environments").iterdir()) - before
    assert not [path for path in left if path.is_dir() and "bootstrap" not in path.name]


def test_a_builder_that_is_killed_leaves_no_environment_that_looks_finished(
    checkout: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-I", str(checkout / BUILDER), "base"],
        env={**os.environ, "MODEL_TRANSPARENCY_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not list((cache / "environments").glob(".boot*/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    names = [path.name for path in (cache / "environments").iterdir() if path.is_dir()]
    assert names
    assert all(name.startswith(".") for name in names)


def test_an_unknown_role_is_a_usage_error_that_lists_the_roles(tmp_path: Path) -> None:
    refused = build(ROOT, tmp_path, "tensorflw")
    assert refused.returncode == 2
    assert "tensorflow" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_the_locks_name_digests_and_no_host() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text, lock.name
        for requirement in re.split(r"\n(?=\S)", text.strip()):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), (lock.name, requirement)
