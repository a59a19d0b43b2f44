"""Build, once, the locked Python environment of a role and print the folder of its programs.

usage: python environment.py ROLE [--github-output FILE]

A role is one or more hash-locked files of `requirements/` (the table `ROLES`). Environments live in
`$MODEL_TRANSPARENCY_CACHE` (default `~/.cache/model-transparency`) under the digest of everything
that went into them, so a second run installs nothing, and a changed lock or changed source never
meets an old environment. Each is tried before it gets its name. Standard library only: this runs
before anything is installed, on the Python that runs it, and fetches nothing but packages. Every
package is checked against its SHA-256 and none is built from source, except our own, from the
checkout that this file lies in, and `SOURCE_ONLY`.

Of pip's settings, those that say where packages come from are kept (index, proxy, certificates,
find-links; by variable or `pip.conf`); all others, and Python's, are kept away from the tools.

PyTorch is built twice: for the CPU by PyTorch itself (`pytorch.txt`), and by PyPI, for Linux with
CUDA (`pytorch-cuda.txt`). The smaller one is taken where a wheel that its lock allows is found.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.isolated and sys.platform != "win32":
    import os  # loaded already: nothing of PYTHONPATH has run in this process

    os.execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606

import argparse
import ast
import contextlib
import hashlib
import html
import os
import platform
import re
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"


@dataclass(frozen=True)
class Role:
    """What an environment is made of.

    Attributes:
        locks: The hash-locked files that are installed together.
        tried: What has to work in it: names of modules to import.
        ours: It holds our own packages, built from this checkout.
        compiled: Modules are compiled at once: short commands would spend half their time on it.
    """

    locks: tuple[str, ...]
    tried: tuple[str, ...]
    ours: bool = False
    compiled: bool = True


# PyTorch's first optimizer imports its compiler, and a training is confined: it could not keep the
# compiled modules, and would compile them anew each time, for four seconds.
TORCH = ("torch", "torch._dynamo")
OURS = ("model_signing.cli", "slsa_for_models.cli")
TESTS = ("pytest", "xdist", "hypothesis", "jsonschema", "sigstore", "numpy")
ROLES = {
    "base": Role(("base",), (*OURS, "sigstore.sign"), ours=True),
    "pytorch": Role(
        ("pytorch",), (*OURS, *TORCH, "onnx", "onnxruntime"), ours=True, compiled=False
    ),
    "tensorflow": Role(("tensorflow",), (*OURS, "tensorflow"), ours=True, compiled=False),
    "gcp": Role(("gcp",), (*OURS, "google.cloud.storage"), ours=True),
    "verifier": Role(("verifier",), (*OURS, "sigstore.verify", "obstore", "oras"), ours=True),
    "demo": Role(("demo",), ("sigstore.sign", "jwt", "yaml", "rfc8785")),
    "lint": Role(("lint",), ("mypy", "check_jsonschema")),
    "test": Role(("test",), TESTS),
    "dev": Role(("dev",), (*TESTS, "yaml", "google.cloud.storage", "matplotlib")),
    "test-pytorch": Role(("dev", "pytorch"), (*TESTS, *TORCH), compiled=False),
    "test-tensorflow": Role(("test", "tensorflow"), (*TESTS, "tensorflow"), compiled=False),
    "kubeflow": Role(("kubeflow",), ("kfp", "kfp_server_api")),
    "peer": Role(("peer",), ("model_signing.signing",)),
    "bootstrap": Role(("bootstrap",), ("hatchling.build", "uv")),
}
# The one package that is published without a wheel: pure Python, built by the locked setuptools.
SOURCE_ONLY = {"kubeflow": "kfp-server-api"}
# The lock to take where the one of PyTorch's own build cannot be had.
PYTORCH, PYTORCH_OF_PYPI = "pytorch", "pytorch-cuda"
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 4.0
MAX_PAGE_BYTES = 16 * 1024 * 1024
SOURCE = ("pyproject.toml", "LICENSE", "model_signing", "slsa_for_models")
# In the key: environments that an earlier way of building made are not met again.
WAY_OF_BUILDING = "2"
# A copy of the lock, in the environments that have one: what training says it was installed from.
LOCK_NAME = "locked-requirements.txt"
UNUSED_SECONDS = 14 * 24 * 3600
PROGRAMS = "Scripts" if os.name == "nt" else "bin"
_PYTHON = f"{PROGRAMS}/python.exe" if os.name == "nt" else f"{PROGRAMS}/python"
PYTHON = ".".join(platform.python_version_tuple()[:2])


class SetupError(Exception):
    """An environment could not be built; the message says why and what to do."""


def main(argv: list[str]) -> int:
    """Print the folder of programs of the role in `argv`; 0 built, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(description="Build the locked environment of a role.")
    parser.add_argument("role", choices=list(ROLES), metavar="ROLE", help=", ".join(ROLES))
    parser.add_argument("--github-output", type=Path, metavar="FILE", help="also write bin=FOLDER")
    args = parser.parse_args(argv)
    os.umask(0o022)  # who may enter the cache folder may use what is in it
    try:
        programs = environment(args.role) / PROGRAMS
        print(programs)
        if args.github_output:
            with args.github_output.open("a", encoding="utf-8") as output:
                output.write(f"bin={programs}\n")
    except SetupError as error:
        print(f"environment: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"environment: {words_of_system(error)}", file=sys.stderr)
        return 1
    return 0


def environment(role: str) -> Path:
    """The finished environment of `role`, built first if there is none yet.

    Raises:
        SetupError: A tool is missing, a download failed, or a package has another digest.
    """
    known = ROLES[role]
    if role == "bootstrap":
        return _once(role, known.locks, lambda target: _build_bootstrap(target))
    if PYTORCH not in known.locks:
        return _once(role, known.locks, lambda target: _build(role, known.locks, target))
    other = tuple(PYTORCH_OF_PYPI if lock == PYTORCH else lock for lock in known.locks)
    for locks in (known.locks, other):
        if found := _finished(role, locks):
            return found
    settings = Settings.of(_bootstrap_python())
    source = _pytorch_source(settings)
    locks = known.locks if source else other
    return _once(role, locks, lambda target: _build(role, locks, target, torch=source))


def _key(role: str, locks: tuple[str, ...]) -> str:
    """Digest of what goes into the environment: locks, Python, platform and our source."""
    digest = hashlib.sha256()
    python = (platform.python_implementation(), platform.python_version(), _abi_flags())
    for part in (WAY_OF_BUILDING, role, *python, sys.platform, platform.machine()):
        digest.update(part.encode() + b"\0")
    for lock in locks:
        digest.update((REQUIREMENTS / f"{lock}.txt").read_bytes())
    if ROLES[role].ours:
        digest.update(_source_digest())
    return digest.hexdigest()[:20]


def _abi_flags() -> str:
    return getattr(sys, "abiflags", "")


def _source_digest() -> bytes:
    """SHA-256 over the names and bytes of the files that our wheel is built from; not documents."""
    files = [
        path
        for name in SOURCE
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def _finished(role: str, locks: tuple[str, ...]) -> Path | None:
    """The environment, if it is there and its Python still is."""
    return _whole(_environments() / f"{role}-{_key(role, locks)}", _PYTHON)


def _whole(folder: Path, mark: str) -> Path | None:
    if not (folder / mark).exists():
        return None
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(folder)
    return folder


def _python_in(environment: Path) -> Path:
    return environment / _PYTHON


def _once(role: str, locks: tuple[str, ...], build: Callable[[Path], None]) -> Path:
    """`build(folder)`, and a try, unless the finished environment is there."""

    def build_and_try(scratch: Path) -> None:
        build(scratch)
        _try(role, scratch)

    named = "" if (PYTORCH_OF_PYPI not in locks) else ", with PyPI's build of PyTorch"
    doing = f"installing '{role}'{named}"
    return once(role, _key(role, locks), _PYTHON, doing, build_and_try)


def once(name: str, key: str, mark: str, doing: str, build: Callable[[Path], None]) -> Path:
    """The folder NAME-KEY of the cache, made by `build(folder)` unless it is there.

    Whole or not at all: it gets its name when `build` has returned.

    Args:
        name: What it is.
        key: Digest of everything that goes into it.
        mark: A file in it; where that is gone, the folder is made anew.
        doing: What is said while others wait.
        build: Fills an empty folder.

    Raises:
        SetupError: It could not be built.
    """
    folder = _environments()
    final = folder / f"{name}-{key}"
    if found := _whole(final, mark):
        return found
    _make_cache(folder)
    with locked(folder / f"{name}.lock"):
        if found := _whole(final, mark):  # another process built it while this one waited
            return found
        _remove_leftovers(name, folder)
        if os.path.lexists(final):  # its Python is gone
            shutil.rmtree(final)
        started = time.monotonic()
        print(f"environment: {doing} (once) ...", file=sys.stderr, flush=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        try:
            build(scratch)
            scratch.chmod(0o755)
            os.utime(scratch)
            scratch.replace(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        print(f"environment: done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return final


def _make_cache(folder: Path) -> None:
    """The folder of environments, in which this user may write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(
            f"nothing can be written to {folder}: {error.strerror}. "
            "Set MODEL_TRANSPARENCY_CACHE to a folder of your own"
        ) from None


def _remove_leftovers(role: str, folder: Path) -> None:
    """What killed builds of this role left, and environments that nobody asked for in two weeks.

    Called with the role's lock: nobody else builds it. Windows has no such lock, hence the age.
    """
    for path in folder.iterdir():
        if re.fullmatch(rf"\.{role}-[^-]+", path.name):
            oldest = time.time() - (UNUSED_SECONDS if os.name == "nt" else -1)
        elif re.fullmatch(rf"{role}-[0-9a-z]+", path.name):
            oldest = time.time() - UNUSED_SECONDS
        else:
            continue
        if path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)


def cache_folder() -> Path:
    """The folder for environments and downloaded packages."""
    chosen = os.environ.get("MODEL_TRANSPARENCY_CACHE")
    try:
        return (Path(chosen) if chosen else Path.home() / ".cache/model-transparency").resolve()
    except (RuntimeError, OSError):
        raise SetupError("no home folder: set MODEL_TRANSPARENCY_CACHE to a folder") from None


def _environments() -> Path:
    return cache_folder() / "environments"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One builder at a time; where there is no flock (Windows) the rename alone decides."""
    with path.open("a") as handle:
        if os.name != "nt":
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"environment: waiting for another '{path.stem}' ...", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _try(role: str, target: Path) -> None:
    """The environment does what its role is for, or is not published."""
    script = "".join(f"import {module}\n" for module in ROLES[role].tried)
    command = [str(_python_in(target)), "-I", "-c", script]
    done = subprocess.run(
        command, cwd=target, env=_clean(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SetupError(
            f"the environment '{role}' was installed and does not work: "
            f"{last_line(done.stderr) or f'exit code {done.returncode}'} "
            f"({keep_log(role, command, done)})"
        )


def _build_bootstrap(target: Path) -> None:
    """A plain virtual environment with the installer and the build backend, by pip."""
    make = [sys.executable, "-I", "-m", "venv", str(target)]
    _run("bootstrap", make, target, _clean(), Settings())
    python = _python_in(target)
    settings = Settings.of(python)
    pip = [str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--retries=1"]
    pip += ["--cache-dir", str(cache_folder() / "pip"), "--no-input", "--progress-bar=off"]
    pip += ["--require-hashes", "--only-binary", ":all:", *settings.pip_options()]
    pip += ["-r", str(REQUIREMENTS / "bootstrap.txt")]
    _run("bootstrap", pip, target, settings.pip_environment(), settings)


def _bootstrap_python() -> Path:
    return _python_in(environment("bootstrap"))


def _build(role: str, locks: tuple[str, ...], target: Path, torch: list[str] | None = None) -> None:
    """The role's packages by uv, then our own wheel, built from this checkout.

    Args:
        role: The role.
        locks: Its locks.
        target: Where.
        torch: Options of uv that say where PyTorch's own build of PyTorch comes from.
    """
    tools = environment("bootstrap")
    settings = Settings.of(_python_in(tools))
    uv = [str(tools / PROGRAMS / "uv"), "--no-config", "--no-progress", "--no-python-downloads"]
    uv += [
        "--cache-dir",
        str(cache_folder() / "uv"),
    ]  # beside the environments, so it can hard-link
    variables = settings.uv_environment()
    new = ["venv", "--allow-existing", "--relocatable", "--python", sys.executable, str(target)]
    _run(role, [*uv, *new], target, variables, settings)
    into = ["--python", str(_python_in(target))]
    if ROLES[role].compiled:
        into.append("--compile-bytecode")
    files = [REQUIREMENTS / f"{lock}.txt" for lock in locks]
    strictly = ["--require-hashes", "--only-binary", ":all:"]
    if role in SOURCE_ONLY:
        strictly += ["--no-binary", SOURCE_ONLY[role], "--build-constraints", str(files[0])]
    if torch:
        files, alone = _without_torch(files, target)
    sync = [*uv, "pip", "sync", *into, *strictly, *settings.uv_options(), *map(str, files)]
    _run(role, sync, target, variables, settings)
    if torch:  # that place is asked for this package alone
        add = [*uv, "pip", "install", *into, *strictly, "--no-deps", *torch, "-r", str(alone)]
        _run(role, add, target, settings.uv_environment(index=False), settings)
        shutil.rmtree(alone.parent)
    if len(locks) == 1:
        shutil.copy(REQUIREMENTS / f"{locks[0]}.txt", target / LOCK_NAME)
    if ROLES[role].ours:
        _install_ours(role, [*uv, "pip", "install", *into], tools, target, variables)


def _install_ours(
    role: str, install: list[str], tools: Path, target: Path, variables: dict[str, str]
) -> None:
    wheels = target / ".wheel"
    backend = [str(_python_in(tools)), "-I", "-m", "hatchling", "build", "-t", "wheel"]
    _run(role, [*backend, "-d", str(wheels)], ROOT, _clean(), Settings())
    wheel = next(wheels.glob("*.whl"))
    _run(role, [*install, "--offline", "--no-deps", str(wheel)], target, variables, Settings())
    shutil.rmtree(wheels)


# PyTorch's own build


def _torch_block() -> str:
    lock = (REQUIREMENTS / f"{PYTORCH}.txt").read_text(encoding="utf-8")
    found = re.search(r"^torch==.*(?:\n[ \t].*)*", lock, re.MULTILINE)
    if not found:
        raise SetupError(f"{PYTORCH}.txt does not name torch")
    return found[0]


def _without_torch(files: list[Path], target: Path) -> tuple[list[Path], Path]:
    """Copies of locks without torch, and a lock of torch alone."""
    folder = target / ".locks"
    folder.mkdir()
    block = _torch_block()
    copies = []
    for file in files:
        copies.append(folder / file.name)
        copies[-1].write_text(file.read_text(encoding="utf-8").replace(block + "\n", ""))
    alone = folder / "torch.txt"
    alone.write_text(block + "\n")
    return copies, alone


def _pytorch_source(settings: Settings) -> list[str] | None:
    """Options of uv for the place that has PyTorch's own build for this Python, or None.

    A wheel counts only if the lock names its digest, so a place without one costs no download.
    """
    block = _torch_block()
    stem = re.escape(block.split()[0].replace("==", "-")).replace(r"\+", r"(?:\+|%2B)")
    tag = f"cp{PYTHON.replace('.', '')}"
    wheel = rf"{stem}-{tag}-{tag}{re.escape(_abi_flags())}-[\w.]+\.whl"
    digests = set(re.findall(r"sha256:([0-9a-f]{64})", block))
    for place in settings.find_links:
        folder = Path(place)
        if folder.is_dir():
            for file in folder.iterdir():
                if re.fullmatch(wheel, file.name) and _sha256(file) in digests:
                    return ["--no-index", "--find-links", place]
        elif _page_has(place, wheel, digests, settings):
            return ["--no-index", "--find-links", place]
    if settings.no_index or os.environ.get("UV_OFFLINE"):
        return None
    if _page_has(f"{PYTORCH_INDEX}/torch/", wheel, digests, settings):
        return ["--default-index", PYTORCH_INDEX]
    return None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _page_has(url: str, wheel: str, digests: set[str], settings: Settings) -> bool:
    """A page of links has the wheel, and the wheel answers; asked once, for a few seconds."""
    try:
        with settings.opener().open(url, timeout=PROBE_SECONDS) as answer:
            text = answer.read(MAX_PAGE_BYTES).decode("utf-8", "replace")
            base = answer.geturl()
        for link in re.findall(r"""href=["']([^"']+)["']""", text):
            address, _, fragment = html.unescape(link).partition("#")
            name = address.rpartition("/")[2]
            if re.fullmatch(wheel, name) and fragment.removeprefix("sha256=") in digests:
                request = urllib.request.Request(  # noqa: S310 (of a page that we chose)
                    urllib.parse.urljoin(base, address), method="HEAD"
                )
                with settings.opener().open(request, timeout=PROBE_SECONDS):
                    return True
    except (OSError, ValueError):  # there is no such place, or not from here
        pass
    return False


# What says where packages come from


@dataclass(frozen=True)
class Settings:
    """What pip was told about where packages come from: by pip.conf, and by PIP_* above it."""

    values: dict[str, str] = field(default_factory=dict)

    NAMES = (
        *("index-url", "extra-index-url", "find-links", "no-index", "proxy", "cert"),
        *("client-cert", "trusted-host", "timeout", "default-timeout", "keyring-provider"),
    )

    @classmethod
    def of(cls, python: Path) -> Settings:
        """As the pip of an environment reads them.

        Raises:
            SetupError: A configuration file is malformed.
        """
        done = subprocess.run(
            [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "config", "list"],
            env=_without("PYTHON"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = " ".join((done.stderr or done.stdout).split())[-300:]
            raise SetupError(f"pip's configuration cannot be read: {words}")
        found: dict[str, dict[str, str]] = {}
        for section, name, value in re.findall(
            r"^(global|install|:env:)\.([\w-]+)=(.*)$", done.stdout, re.MULTILINE
        ):
            found.setdefault(section, {})[name] = str(ast.literal_eval(value))
        merged: dict[str, str] = {}
        for section in ("global", "install", ":env:"):  # a later one wins
            merged |= found.get(section, {})
        return cls({name: merged[name] for name in cls.NAMES if merged.get(name)})

    @property
    def find_links(self) -> list[str]:
        """Folders, absolute, and addresses of pages."""
        return [
            item if "://" in item else str(Path(item).expanduser().resolve())
            for item in self.values.get("find-links", "").split()
        ]

    @property
    def no_index(self) -> bool:
        """Only find-links are asked."""
        return self.values.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t")

    @property
    def index(self) -> str:
        """The index that packages come from, as a message may show it."""
        kept = os.environ.get("UV_DEFAULT_INDEX") or self.values.get("index-url")
        return _public(kept) if kept else "PyPI"

    def pip_options(self) -> list[str]:
        """What pip is told on its command line: what may hold spaces."""
        return [word for item in self.find_links for word in ("--find-links", item)]

    def pip_environment(self) -> dict[str, str]:
        """Pip's variables: these settings and nothing else."""
        settings = {
            f"PIP_{name.upper().replace('-', '_')}": value
            for name, value in self.values.items()
            if name != "find-links"
        }
        return {**_clean(), "PIP_CONFIG_FILE": os.devnull, **settings}

    def uv_options(self) -> list[str]:
        """The same for uv. Every package is checked by its digest, whichever index it is from."""
        several = ["--index-strategy", "unsafe-best-match"]
        return [*self.pip_options(), *(several if self.values.get("extra-index-url") else [])]

    def uv_environment(self, index: bool = True) -> dict[str, str]:
        """Uv's variables: its own that say where packages come from, else pip's.

        Args:
            index: Include the indexes; otherwise only how to reach one.
        """
        given = self.values
        indexes = {
            "UV_DEFAULT_INDEX": given.get("index-url"),
            "UV_INDEX": given.get("extra-index-url"),
            "UV_NO_INDEX": "1" if self.no_index else None,
        }
        cert = given.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
        reach = {
            "UV_HTTP_TIMEOUT": given.get("timeout") or given.get("default-timeout"),
            "UV_INSECURE_HOST": given.get("trusted-host"),
            "UV_KEYRING_PROVIDER": given.get("keyring-provider"),
            "SSL_CERT_DIR" if cert and Path(cert).is_dir() else "SSL_CERT_FILE": cert,
            "SSL_CLIENT_CERT": given.get("client-cert"),
            "ALL_PROXY": given.get("proxy"),
            "HTTPS_PROXY": given.get("proxy"),
            "HTTP_PROXY": given.get("proxy"),
        }
        translated = {
            name: value
            for name, value in {**(indexes if index else {}), **reach}.items()
            if value is not None
        }
        own = {
            name: value
            for name, value in os.environ.items()
            if re.fullmatch(r"UV_(HTTP_\w+|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|OFFLINE)", name)
            or re.fullmatch(r"UV_(KEYRING_PROVIDER|INDEX_\w+_(USERNAME|PASSWORD))", name)
            or (index and re.fullmatch(r"UV_(DEFAULT_INDEX|INDEX|NO_INDEX|FIND_LINKS)", name))
        }
        return {**_clean(), **translated, **own}

    def opener(self) -> urllib.request.OpenerDirector:
        """Opens addresses as pip would: by its proxy, with its certificates."""
        cert = self.values.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
        trusted = ssl.create_default_context(
            cafile=cert if cert and Path(cert).is_file() else None,
            capath=cert if cert and Path(cert).is_dir() else None,
        )
        proxy = self.values.get("proxy")
        return urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trusted),
            urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None),
        )


def _without(*prefixes: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def _clean() -> dict[str, str]:
    """The variables, without those that change what Python, pip, uv and hatchling do."""
    return _without("PYTHON", "PIP_", "UV_", "HATCH_", "VIRTUAL_ENV", "CONDA_", "__PYVENV")


# Messages


def _run(
    role: str, command: list[str], cwd: Path, variables: dict[str, str], settings: Settings
) -> None:
    """Run a tool; when it fails, one line says what failed, where and what to do.

    Never in the caller's folder: a job's workspace holds what artifacts brought, and Python, pip
    and uv take modules and configuration from where they run.
    """
    done = subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SetupError(f"{_said(role, done, settings)} ({keep_log(role, command, done)})")


def keep_log(role: str, command: list[str], done: subprocess.CompletedProcess[str]) -> str:
    """Where all is that a tool said."""
    log = _environments() / f"{role}.log"
    try:
        log.write_text(f"{command}\n{done.stdout}{done.stderr}exit code {done.returncode}\n")
    except OSError:  # a full disk
        return "its words could not be kept"
    return f"all it said: {log}"


def _said(role: str, done: subprocess.CompletedProcess[str], settings: Settings) -> str:
    """The cause of a failure, from the tools' own words, and what to do."""
    text = re.sub(r"\s+", " ", done.stdout + "\n" + done.stderr)
    for pattern, says in CAUSES:
        if found := re.search(pattern, text):
            words = {name: value or "" for name, value in found.groupdict().items()}
            if "url" in words:
                words["url"] = _public(words["url"])
                words["package"] = words.get("package") or _package_at(words["url"])
            return says.format(
                role=role, cache=cache_folder(), python=PYTHON, index=settings.index, **words
            )
    return f"'{role}' was not installed: {last_line(done.stderr or done.stdout)}"


def _public(url: str) -> str:
    """An address without the password in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def _package_at(url: str) -> str:
    """The package that an address is about: `https://host/simple/NAME/`, or a file of it."""
    last = urllib.parse.urlsplit(url).path.rstrip("/").rpartition("/")[2]
    return last.partition("-")[0] if last.endswith((".whl", ".gz", ".metadata")) else last


def last_line(text: str) -> str:
    """The last line that is not empty, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def words_of_system(error: OSError) -> str:
    """What the system refused, and what to do."""
    if error.errno in (28, 122):
        return f"no space left in {cache_folder()}: make room, or set MODEL_TRANSPARENCY_CACHE"
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


# What tools say (spaces joined), and what we say: the first that matches. A hash before a network.
CAUSES = (
    (
        r"No space left on device|Disk quota exceeded|os error (28|122)\b",
        "no space left in {cache} for '{role}': make room there, or set MODEL_TRANSPARENCY_CACHE "
        "to a folder on another disk",
    ),
    (
        r"Hash mismatch for `(?P<package>[^`]+)`.*?Computed: (?P<found>sha256:\w{64})",
        "{package} from {index} is not what our lock has (found {found}): do not use that index "
        "before you know why",
    ),
    (
        r"DO NOT MATCH THE HASHES.*? (?P<package>\S+==\S+) from (?P<url>\S+?):? .*?"
        r"Got (?P<found>\w{64})",
        "{package} from {url} is not what our lock has (found sha256:{found}): do not use that "
        "index before you know why",
    ),
    (
        r"(?P<package>[\w.-]+==[^\s,]+) has no wheels with a matching (Python|platform)",
        "{package} is not built for Python {python} on this system: use another Python "
        "(make ... PYTHON=python3.12), or a format of another framework (MODEL=pytorch_model.pth)",
    ),
    (
        r"invalid peer certificate|certificate verify failed|CERTIFICATE_VERIFY_FAILED",
        "{index} shows a certificate that is not trusted here: set SSL_CERT_FILE (or pip's `cert`) "
        "to your network's certificates",
    ),
    (
        r"\((?P<status>[45]\d\d [\w ]+)\) for url \((?P<url>[^)]+)\)",
        "{package} cannot be had, {url} answers {status}: name an index that has it "
        "(PIP_INDEX_URL)",
    ),
    (
        r"Failed to (fetch|download): `?(?P<url>https?://[^\s`]+)`?.*?"
        r"(?P<why>timed out|dns error|[Cc]onnection \w+|[Nn]etwork [\w ]+|tunnel error|$)",
        "{package} cannot be fetched from {url} ({why}): is there a network? Behind a proxy set "
        "HTTPS_PROXY, for another index PIP_INDEX_URL",
    ),
    (
        r"Because (?P<package>[\w.-]+) was not found .*?"
        r"An index \((?P<url>[^)]+)\) returned an? (?P<status>[45]\d\d \w+)",
        "{package} cannot be had, {url} answers {status}: name an index that has it "
        "(PIP_INDEX_URL)",
    ),
    (
        r"Because (?P<package>[\w.-]+) was not found in (the package registry|the provided)",
        "{package} is not in {index}: name an index that has it (PIP_INDEX_URL)",
    ),
    (
        r"(?P<why>Name or service not known|Temporary failure in name resolution|timed out|"
        r"Connection refused|Network is unreachable|Tunnel connection failed).*?"
        r"No matching distribution found for (?P<package>[\w.-]+)",
        "{package} cannot be fetched from {index} ({why}): is there a network? Behind a proxy set "
        "HTTPS_PROXY, for another index PIP_INDEX_URL",
    ),
    (
        r"No matching distribution found for (?P<package>[\w.-]+)",
        "{package} for Python {python} is not in {index}: name an index that has it "
        "(PIP_INDEX_URL)",
    ),
    (
        r"ensurepip is not available|No module named '?(ensurepip|venv)\b",
        "Python {python} has no module venv: install it (Debian: python3-venv), or use another "
        "Python (make ... PYTHON=...)",
    ),
    (
        r"[Pp]ermission denied[^`]*(`(?P<file>[^`]+)`)?",
        "permission denied in {cache} {file}: set MODEL_TRANSPARENCY_CACHE to a folder of your own",
    ),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
