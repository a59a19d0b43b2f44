"""Set-up in unfriendly surroundings: settings, poisoned modules, caches, indexes that fail."""

from __future__ import annotations

import base64
import hashlib
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.local_server import Serving
from tests.setup.conftest import BUILDER, ROOT, Build, environments

NOBODY = "http://127.0.0.1:9/simple"  # nobody listens on the discard port
PYTHON = f"cp3{sys.version_info.minor}"


@pytest.fixture
def builder() -> ModuleType:
    """The builder, to be asked in parts."""
    spec = importlib.util.spec_from_file_location("builder", ROOT / BUILDER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["builder"] = module
    spec.loader.exec_module(module)
    return module


class Index(http.server.BaseHTTPRequestHandler):
    """Answers with `pages`, notes who asked for what, and refuses everything else."""

    pages: dict[str, bytes]
    asked: list[str]
    refusal: int

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        content = self.pages.get(self.path)
        self.send_response(self.refusal if content is None else 200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if content and self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Starts an index of some pages; gives its address and the list of what it was asked."""
    stack = ExitStack()

    def start(pages: dict[str, bytes], refusal: int = 404) -> tuple[str, list[str]]:
        asked: list[str] = []
        handler = type("Index", (Index,), {"pages": pages, "asked": asked, "refusal": refusal})
        return stack.enter_context(Serving(handler)).url, asked

    with stack:
        yield start


# Settings


def test_settings_of_pip_and_python_neither_break_nor_poison(
    checkout: Path, empty_cache: Path, build: Build, tmp_path: Path
) -> None:
    """A job's folder and its variables brought modules, settings and places of unlucky names."""
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    workspace.mkdir()
    for name in ("venv", "ensurepip", "pip", "hatchling", "packaging", "uv", "sitecustomize"):
        (workspace / f"{name}.py").write_text(f"open({str(workspace / 'RAN')!r}, 'a')\n")
    (workspace / "argparse.py").write_text(f"open({str(workspace / 'RAN')!r}, 'a')\n")
    (workspace / "pyproject.toml").write_text("[project]\nname = 'x'\nrequires-python = '<3'\n")
    (workspace / "uv.toml").write_text("no-index = true\n")
    (workspace / ".python-version").write_text("2.7\n")
    (workspace / "pip.conf").write_text(
        f"[global]\nprefix = {elsewhere}\n[install]\nuser = true\nno-binary = :all:\n"
    )
    built = build(
        checkout,
        empty_cache,
        "base",
        cwd=workspace,
        PYTHONPATH=str(workspace),
        PYTHONHOME=str(workspace),
        PYTHONSAFEPATH="1",
        PYTHONOPTIMIZE="2",
        PIP_CONFIG_FILE=str(workspace / "pip.conf"),
        **dict.fromkeys(("PIP_PREFIX", "PIP_TARGET", "PIP_ROOT", "UV_TARGET"), str(elsewhere)),
        **dict.fromkeys(("PIP_DRY_RUN", "PIP_USER", "PIP_NO_DEPS", "UV_SYSTEM_PYTHON"), "1"),
        PIP_CONSTRAINT="/nowhere",
        UV_PYTHON="2.7",
        HOME=None,
        umask=0o077,
    )
    assert built.returncode == 0, built.stderr
    assert not (workspace / "RAN").exists()
    assert not elsewhere.exists()
    # Who may enter the cache may use what is in it.
    folder = Path(built.stdout.strip()).parent
    ours = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages/model_signing"
    for path in (folder, folder / "bin", ours, ours / "cli.py"):
        assert path.stat().st_mode & 0o005 >= 0o004, path
    again = build(checkout, empty_cache, "base")
    assert (again.stdout, again.stderr) == (built.stdout, "")


def test_called_without_isolation_it_isolates_itself(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('poisoned')\n")
    done = subprocess.run(
        [sys.executable, ROOT / BUILDER, "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_where_packages_come_from_is_kept_and_no_password_is_shown(
    checkout: Path, cache: Path, build: Build, serve, tmp_path: Path
) -> None:
    url, asked = serve({}, 403)
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = {url.replace('//', '//me:secret@')}/simple\n"
    )
    variables = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_FIND_LINKS": None}
    refused = build(checkout, cache, "lint", **variables)
    assert refused.returncode == 1
    said = refused.stderr.splitlines()[-1]
    assert f"{url}/simple answers 403 Forbidden: name an index that has it" in said
    assert asked and "secret" not in refused.stderr
    assert environments(cache) == []
    # A variable wins over the file.
    other, asked_other = serve({})
    refused = build(checkout, cache, "lint", **variables, PIP_INDEX_URL=f"{other}/simple")
    assert f"is not in {other}/simple" in refused.stderr
    assert asked_other


def test_pip_takes_the_index_too(checkout: Path, tmp_path: Path, build: Build, serve) -> None:
    url, asked = serve({})
    refused = build(checkout, tmp_path / "c", "base", PIP_INDEX_URL=url, PIP_FIND_LINKS=None)
    assert re.search(rf"\w+ for Python \S+ is not in {url}: name an index", refused.stderr)
    assert asked
    assert not list((tmp_path / "c/environments").glob("*boot*/"))


def test_no_network_is_one_line(checkout: Path, cache: Path, build: Build) -> None:
    refused = build(checkout, cache, "lint", PIP_INDEX_URL=NOBODY, UV_HTTP_RETRIES="0")
    said = refused.stderr.splitlines()[-1]
    assert re.search(
        rf"environment: \S+ cannot be fetched from {NOBODY}/\S+ \(Connection refused\): "
        r"is there a network\? .* \(all it said: \S+lint\.log\)",
        said,
    ), refused.stderr
    assert len(said) < 400
    log = (cache / "environments/lint.log").read_text()
    assert "exit code" in log and "--require-hashes" in log


def test_a_configuration_that_cannot_be_read(
    checkout: Path, cache: Path, build: Build, tmp_path: Path
) -> None:
    (tmp_path / "pip.conf").write_text("no section\n")
    refused = build(checkout, cache, "base", PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert refused.returncode == 1
    assert "pip's configuration cannot be read" in refused.stderr
    assert str(tmp_path / "pip.conf") in refused.stderr


# Caches


@pytest.mark.parametrize("place", ["file", "/dev/null/x", "/proc/x"])
def test_a_cache_that_cannot_be(checkout: Path, build: Build, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    refused = build(checkout, tmp_path / place, "base")
    assert refused.returncode == 1
    assert re.fullmatch(
        r"environment: nothing can be written to \S+: [\w ]+\. "
        r"Set MODEL_TRANSPARENCY_CACHE to a folder of your own\n",
        refused.stderr,
    )


def test_no_home(builder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_TRANSPARENCY_CACHE", raising=False)
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.setattr(builder.Path, "home", lambda: Path("~nobody-of-this-name").expanduser())
    with pytest.raises(builder.SetupError, match="no home folder: set MODEL_TRANSPARENCY_CACHE"):
        builder.environment("base")


# What the tools said when it happened, and what we say.
WORDS = {
    "uv, a full disk": (
        "error: Failed to write to the client cache\n  cause: failed to write to file "
        "`/c/uv/simple-v28/pypi/.tmpiMMbcb`: No space left on device (os error 28)\n",
        r"no space left in \S+ for 'base': make room there",
    ),
    "pip, a quota": (
        "ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded\n",
        r"no space left in \S+ for 'base': make room there",
    ),
    "uv, no wheel for this Python": (
        "error: No solution found when resolving dependencies\n  cause: Because "
        "tensorflow-cpu==2.21.0 has no wheels with a matching Python ABI tag (e.g., `cp314`) and "
        "you require tensorflow-cpu==2.21.0, we can conclude that your requirements are "
        "unsatisfiable.\n\nhint: You require CPython 3.14 (`cp314`), but we only found wheels for "
        "`tensorflow-cpu` (v2.21.0) with the following Python ABI tags: `cp310`, `cp313`\n",
        r"tensorflow-cpu==2\.21\.0 is not built for Python 3\.\d+ on this system: .*PYTHON=",
    ),
    "uv, an unknown authority": (
        "error: Failed to fetch: https://index.example/simple/idna/\n  cause: error sending request"
        "\n  cause: client error (Connect)\n  cause: invalid peer certificate: UnknownIssuer\n",
        "PyPI shows a certificate that is not trusted here: set SSL_CERT_FILE",
    ),
    "uv, no name service": (
        "error: Request failed after 3 retries in 7.4s\n  cause: Failed to fetch: "
        "https://nohost.invalid/simple/idna/\n  cause: error sending request for url "
        "(https://nohost.invalid/simple/idna/)\n  cause: client error (Connect)\n"
        "  cause: dns error\n  cause: error resolving DNS\n",
        r"idna cannot be fetched from https://nohost\.invalid/simple/idna/ \(dns error\)",
    ),
    "pip, another digest": (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have "
        "updated the package versions, please update the hashes.\n    idna==3.20 from "
        "https://index.example/58/a2/idna-3.20-py3-none-any.whl (from -r r.txt (line 1)):\n"
        f"        Expected sha256 {'0' * 64}\n             Got        {'1' * 64}\n",
        r"idna==3\.20 from https://index\S+\.whl is not what our lock has \(found sha256:1{64}",
    ),
    "venv of a Python in parts": (
        "The virtual environment was not created successfully because ensurepip is not "
        "available.\n",
        r"has no module venv: install it \(Debian: python3-venv\)",
    ),
    "anything else": ("warning: x\nerror: something new\n", "not installed: error: something new$"),
}


@pytest.mark.parametrize("case", WORDS)
def test_a_failure_is_said_in_one_line(builder: ModuleType, case: str) -> None:
    words, says = WORDS[case]
    done = subprocess.CompletedProcess([], 1, stdout="", stderr=words)
    said = builder._said("base", done, builder.Settings())
    assert re.search(says, said), said
    assert "\n" not in said and len(said) < 350


# PyTorch's own build


def fake_torch(folder: Path, python: str = PYTHON) -> Path:
    """A wheel named as PyTorch's own build, of one module."""
    module = b"__version__ = '2.13.0+cpu'\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(module).digest()).rstrip(b"=").decode()
    info = "torch-2.13.0+cpu.dist-info"
    tag = f"{python}-{python}-manylinux_2_28_x86_64"
    files = {
        "torch.py": module,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        f"{info}/RECORD": f"torch.py,sha256={digest},{len(module)}\n{info}/RECORD,,\n".encode(),
    }
    folder.mkdir(exist_ok=True)
    wheel = folder / f"torch-2.13.0+cpu-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def of_torch(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The builder, with a lock of PyTorch's own build that allows just one made-up wheel."""
    wheel = fake_torch(tmp_path / "made")
    (tmp_path / "requirements").mkdir()
    for name, version in (("pytorch", "2.13.0+cpu"), ("pytorch-cuda", "2.13.0")):
        line = f"torch=={version} \\\n    --hash=sha256:{sha256(wheel)}\n"
        (tmp_path / f"requirements/{name}.txt").write_text(line)
    monkeypatch.setattr(builder, "REQUIREMENTS", tmp_path / "requirements")
    monkeypatch.setattr(builder, "PYTORCH_INDEX", NOBODY)
    return builder


def page(wheel: Path, digest: str) -> bytes:
    name = wheel.name.replace("+", "%2B")
    return f'<a href="/files/{name}#sha256={digest}">{wheel.name}</a>'.encode()


def test_a_folder_with_the_wheel_is_taken_first(of_torch: ModuleType, tmp_path: Path) -> None:
    settings = of_torch.Settings({"find-links": f"/nowhere {tmp_path / 'made'}"})
    source = of_torch._pytorch_source(settings)
    assert source == ["--no-index", "--find-links", str(tmp_path / "made")]


def test_a_wheel_of_another_digest_or_python_is_none(of_torch: ModuleType, tmp_path: Path) -> None:
    other = fake_torch(tmp_path / "other")
    other.write_bytes(other.read_bytes() + b"\0")
    fake_torch(tmp_path / "old", "cp39")
    for name in ("other", "old", "empty"):
        (tmp_path / name).mkdir(exist_ok=True)
        settings = of_torch.Settings({"find-links": str(tmp_path / name)})
        assert of_torch._pytorch_source(settings) is None, name


@pytest.mark.parametrize(
    ("digest", "served", "taken"),
    [
        ("right", True, True),
        ("right", False, False),  # the page answers, the host of the files does not
        ("wrong", True, False),
    ],
)
def test_the_index_is_taken_if_page_and_wheel_answer(
    of_torch: ModuleType, tmp_path: Path, serve, monkeypatch, digest: str, served: bool, taken: bool
) -> None:
    wheel = tmp_path / "made" / fake_torch(tmp_path / "made").name
    named = sha256(wheel) if digest == "right" else "0" * 64
    pages = {"/whl/cpu/torch/": page(wheel, named)}
    if served:
        pages[f"/files/{wheel.name.replace('+', '%2B')}"] = wheel.read_bytes()
    url, asked = serve(pages, 403)
    monkeypatch.setattr(of_torch, "PYTORCH_INDEX", f"{url}/whl/cpu")
    source = of_torch._pytorch_source(of_torch.Settings())
    assert source == (["--default-index", f"{url}/whl/cpu"] if taken else None)
    assert asked[0] == "GET /whl/cpu/torch/"
    assert of_torch._pytorch_source(of_torch.Settings({"no-index": "true"})) is None


def test_an_index_that_does_not_answer_costs_seconds(of_torch: ModuleType, monkeypatch) -> None:
    import socket
    import time

    with socket.socket() as silent:  # takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(
            of_torch, "PYTORCH_INDEX", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        monkeypatch.setattr(of_torch, "PROBE_SECONDS", 0.5)
        started = time.monotonic()
        assert of_torch._pytorch_source(of_torch.Settings()) is None
        assert time.monotonic() - started < 60


def test_pytorchs_index_is_asked_for_torch_alone(
    checkout: Path, cache: Path, build: Build, serve, tmp_path: Path
) -> None:
    """And the other lock is taken where that index is not there."""
    wheel = fake_torch(tmp_path / "made")
    pages = {
        "/whl/cpu/torch/": page(wheel, sha256(wheel)),
        f"/files/{wheel.name.replace('+', '%2B')}": wheel.read_bytes(),
    }
    url, asked = serve(pages)
    idna = re.search(
        r"^idna==.*(?:\n[ \t].*)*\n", (ROOT / "requirements/base.txt").read_text(), re.MULTILINE
    )
    assert idna
    pins = f"torch==2.13.0+cpu \\\n    --hash=sha256:{sha256(wheel)}\n"
    (checkout / "requirements/pytorch.txt").write_text(idna[0] + pins)
    (checkout / "requirements/pytorch-cuda.txt").write_text(idna[0])
    builder = checkout / BUILDER
    text = builder.read_text()
    role = re.search(r'    "pytorch": Role\(\n.*?\n    \),\n', text, re.DOTALL)
    assert role
    text = text.replace(role[0], '    "pytorch": Role(("pytorch",), ("idna",)),\n')
    index = "https://download.pytorch.org/whl/cpu"
    assert index in text
    for address, has_torch in ((f"{url}/whl/cpu", True), (NOBODY, False)):
        builder.write_text(text.replace(index, address))
        built = build(checkout, cache, "pytorch", PIP_FIND_LINKS=None)
        assert built.returncode == 0, built.stderr
        assert ("PyPI's build of PyTorch" in built.stderr) is not has_torch
        programs = Path(built.stdout.strip())
        lock = "pytorch" if has_torch else "pytorch-cuda"
        assert (programs.parent / "locked-requirements.txt").read_text() == (
            checkout / f"requirements/{lock}.txt"
        ).read_text()
        there = subprocess.run([programs / "python", "-c", "import torch"], timeout=60, check=False)
        assert (there.returncode == 0) is has_torch
        for folder in programs.parent.parent.glob("pytorch-*"):  # or the next one would be taken
            folder.rename(folder.with_name(f"aside-{folder.name}"))
    assert {line.split()[1].split("/")[1] for line in asked} == {"whl", "files"}
    assert {line for line in asked if "/whl/" in line} == {"GET /whl/cpu/torch/"}
