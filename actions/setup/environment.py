"""Build, once, the locked Python environment of a role and print the folder of its programs.

usage: python environment.py ROLE [--github-output FILE]

A role is a hash-locked file in `requirements/`: `base` signs and verifies, `pytorch` and
`tensorflow` also train, `dev` runs the tests, `peer` holds the implementation we compare with.
Environments live in `$MODEL_TRANSPARENCY_CACHE` (default `~/.cache/model-transparency`) under the
digest of everything that went into them, so a second run installs nothing, and a changed lock or
changed source never meets an old environment. Standard library only: this runs before anything is
installed. Every package is checked against its SHA-256 and none is built from source, except our
own, from the checkout that this file lies in, and `SOURCE_ONLY`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
# The framework locks hold one Python's wheels for one platform.
FRAMEWORK_ROLES = ("pytorch", "tensorflow", "dev")
FRAMEWORK_PYTHON = "3.11"
# Roles that are an environment *for* something else and do not contain our own packages.
WITHOUT_OURS = ("bootstrap", "dev", "test", "peer", "kubeflow")
# The one package that is published without a wheel: pure Python, built by the locked setuptools.
SOURCE_ONLY = {"kubeflow": "kfp-server-api"}
# Where PyTorch publishes its CPU build; PyPI's build for Linux carries CUDA, several gigabytes.
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "model_signing", "slsa_for_models")
UNUSED_SECONDS = 14 * 24 * 3600
PROGRAMS = "Scripts" if os.name == "nt" else "bin"


class SetupError(Exception):
    """An environment could not be built; the message says why and what to do."""


def main(argv: list[str]) -> int:
    """Print the folder of programs of the role in `argv`; 0 built, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(description="Build the locked environment of a role.")
    parser.add_argument("role", choices=roles(), metavar="ROLE", help=", ".join(roles()))
    parser.add_argument("--github-output", type=Path, metavar="FILE", help="also write bin=FOLDER")
    args = parser.parse_args(argv)
    try:
        programs = environment(args.role) / PROGRAMS
    except SetupError as error:
        print(f"environment: {error}", file=sys.stderr)
        return 1
    print(programs)
    if args.github_output:
        with args.github_output.open("a", encoding="utf-8") as output:
            output.write(f"bin={programs}\n")
    return 0


def roles() -> list[str]:
    """The names of the lock files."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def environment(role: str) -> Path:
    """The finished environment of `role`, built first if there is none yet.

    Raises:
        SetupError: A tool is missing, a download failed, or a package has another digest.
    """
    if role == "bootstrap":
        return _once("bootstrap", _key(role, platform.python_version()), _build_bootstrap)
    python = FRAMEWORK_PYTHON if role in FRAMEWORK_ROLES else platform.python_version()
    return _once(role, _key(role, python), lambda target: _build(role, python, target))


def _key(role: str, python: str) -> str:
    """Digest of what goes into the environment: lock, Python, platform and our source."""
    digest = hashlib.sha256()
    for part in (role, python, sys.platform, platform.machine()):
        digest.update(part.encode() + b"\0")
    digest.update((REQUIREMENTS / f"{role}.txt").read_bytes())
    if role not in WITHOUT_OURS:
        digest.update(_source_digest())
    return digest.hexdigest()[:20]


def _source_digest() -> bytes:
    """SHA-256 over the names and bytes of the files that our wheel is built from."""
    files = [
        path
        for name in SOURCE
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def _once(role: str, key: str, build: Callable[[Path], None]) -> Path:
    """`build(folder)` unless the finished environment is there; whole or not at all."""
    final = _cache() / "environments" / f"{role}-{key}"
    if final.is_dir():
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(final)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.parent / f"{role}.lock"):
        if final.is_dir():  # another process built it while this one waited
            return final
        started = time.monotonic()
        print(f"environment: installing '{role}' (once) ...", file=sys.stderr, flush=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{role}-", dir=final.parent))
        try:
            build(scratch)
            scratch.chmod(0o755)
            os.utime(scratch)
            scratch.replace(final)
            _remove_unused(role, final.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        print(f"environment: done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return final


def _remove_unused(role: str, folder: Path) -> None:
    """Every change of our source makes an environment: those that nobody asks for go."""
    for path in folder.glob(f"{role}-*"):
        if path.stat().st_mtime < time.time() - UNUSED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _cache() -> Path:
    """The folder for environments and downloaded packages."""
    chosen = os.environ.get("MODEL_TRANSPARENCY_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache/model-transparency").resolve()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time; where there is no flock (Windows) the rename alone decides."""
    with path.open("w") as handle:
        if os.name != "nt":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build_bootstrap(target: Path) -> None:
    """A plain virtual environment with the installer and the build backend, by pip."""
    _run(
        [sys.executable, "-I", "-m", "venv", str(target)],
        cwd=target,
        fix="Install Python's venv module.",
    )
    pip = [str(target / PROGRAMS / "python"), "-I", "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    _run([*pip, "-r", str(REQUIREMENTS / "bootstrap.txt")], cwd=target)


def _build(role: str, python: str, target: Path) -> None:
    """The role's packages by uv, then our own wheel, built from this checkout."""
    tools = environment("bootstrap")
    uv = _uv(tools)
    interpreter = sys.executable if platform.python_version().startswith(python) else python
    new = ["venv", "--quiet", "--allow-existing", "--relocatable", "--python", interpreter]
    _run(
        [*uv, *new, str(target)],
        cwd=target,
        fix=f"Install Python {python}; the locks of {', '.join(FRAMEWORK_ROLES)} are made for it.",
    )
    into = ["--quiet", "--python", str(target / PROGRAMS / "python")]
    if role not in FRAMEWORK_ROLES:  # a short command would spend half its time on compiling
        into.append("--compile-bytecode")
    lock = REQUIREMENTS / f"{role}.txt"
    strictly = ["--require-hashes", "--only-binary", ":all:"]
    if role in SOURCE_ONLY:
        strictly += ["--no-binary", SOURCE_ONLY[role], "--build-constraints", str(lock)]
    _run([*uv, "pip", "sync", *into, *strictly, *_torch_source(lock), str(lock)], cwd=target)
    if role in WITHOUT_OURS:
        return
    wheels = target / ".wheel"
    backend = [str(tools / PROGRAMS / "python"), "-I", "-m", "hatchling", "build", "-t", "wheel"]
    _run([*backend, "-d", str(wheels)], cwd=ROOT)
    wheel = next(wheels.glob("*.whl"))
    _run([*uv, "pip", "install", *into, "--offline", "--no-deps", str(wheel)], cwd=target)
    shutil.rmtree(wheels)


def _uv(tools: Path) -> list[str]:
    """The command line of the locked uv, deaf to configuration files lying about."""
    cache = ["--cache-dir", str(_cache() / "uv")]  # beside the environments, so it can hard-link
    return [str(tools / PROGRAMS / "uv"), "--no-config", "--no-progress", *cache]


def _torch_source(lock: Path) -> list[str]:
    """Options that say where PyTorch's CPU wheel comes from; the lock's hash decides if it fits."""
    pinned = [line.split()[0] for line in lock.read_text().splitlines() if line[:6] == "torch="]
    if not pinned:
        return []
    local = os.environ.get("PIP_FIND_LINKS", "")
    stem = pinned[0].replace("==", "-")
    if local and list(Path(local).glob(f"{stem}-*.whl")):
        return ["--find-links", str(Path(local).resolve())]
    return ["--index", PYTORCH_CPU_INDEX, "--index-strategy", "unsafe-best-match"]


def _run(command: list[str], cwd: Path, fix: str | None = None) -> None:
    """Run a tool; its own words are the message when it fails.

    Never in the caller's folder: a job's workspace holds what artifacts brought, and Python, pip
    and uv take modules and configuration from where they run.
    """
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        shown = " ".join(Path(command[0]).name if i == 0 else a for i, a in enumerate(command))
        raise SetupError("\n".join(filter(None, [f"'{shown}' failed:", words, fix])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
