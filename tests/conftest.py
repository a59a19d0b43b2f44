"""Fixtures shared by all tests."""

from __future__ import annotations

import compileall
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from sandbox.hub import TOKEN, Hub
from sandbox.services import KINDS, sigstore_of_kind
from sandbox.sigstore import LocalSigstore
from tests.run import FRAMEWORKS, framework_of
from tests.support.limits import locked

ROOT = Path(__file__).resolve().parents[1]
# The first one also builds the environments that it runs in.
DEMONSTRATION_SECONDS = 1800

# Several workers train at once: threads that wait for each other sleep, and do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What tests start writes no compiled modules: a test may stop or starve its process. It reads those
# that an environment was built with, and the checkout's, which the first process makes.
if "PYTEST_XDIST_WORKER" not in os.environ:
    for package in ("model_signing", "slsa_for_models", "sandbox", "tests"):
        compileall.compile_dir(ROOT / package, quiet=2)
    from sandbox.services.programs import builder

    # Beside the environments: what it computes of Unicode and of our modules, 2 s, is not kept
    # in the checkout, and is the same the next time.
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(builder.cache_folder() / "hypothesis")
if find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # What is found counts, not how soon: the machine may be busy, or stand still for a moment.
    slow = [HealthCheck.too_slow]
    settings.register_profile("unhurried", deadline=None, suppress_health_check=slow)
    settings.load_profile("unhurried")
os.environ.pop("PYTHONPYCACHEPREFIX", None)
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = False  # what pytest makes of the test modules is kept


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that is imported and collected stays: no look through it would find garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_finish() -> None:
    """From here on tests run, and import what they need."""
    sys.dont_write_bytecode = True


# A shell lets what it starts in the background ignore Ctrl-C; the processes tested are not to.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which Sigstore the tests meet."""
    parser.addoption("--sigstore", choices=KINDS, default=KINDS[0], help="default: %(default)s")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes or reads by a relative name is not in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, for its own client here and in processes that are started."""
    reason = "not tested: no huggingface_hub"
    constants = pytest.importorskip("huggingface_hub.constants", reason=reason)
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


# The framework of this environment, if it has one.
HERE = next((name for name, module in FRAMEWORKS.items() if find_spec(module)), "")
# Whole runs. A worker that began one of these last would be the only one at the end.
LONG = ("docs", "workflows", "gcp", "kubeflow")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """A file named after a framework imports it."""
    return True if framework_of(collection_path) not in ("", HERE) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests that are for this environment and this Sigstore; the longest come first."""
    real = config.getoption("--sigstore") == "real"
    elsewhere = [item for item in items if not (_framework(item) == HERE and _meets(item, real))]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = sorted(
        (item for item in items if item not in elsewhere), key=lambda item: not _is_long(item.path)
    )


@cache
def _is_long(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / "tests" / part) for part in LONG)


@cache
def _only_real(path: Path) -> bool:
    return path.is_relative_to(ROOT / "tests/services")


def _meets(item: pytest.Item, real: bool) -> bool:
    """With the real services run those of `tests/services`, and those that are marked; else all."""
    only_real = _only_real(item.path)
    return only_real or item.get_closest_marker("services") is not None if real else not only_real


def _framework(item: pytest.Item) -> str:
    """A test runs where the framework is that its file's name or mark names, or where none is."""
    marks = (name for name in FRAMEWORKS if item.get_closest_marker(name))
    return framework_of(item.path) or next(marks, "")


@pytest.fixture(scope="session")
def sigstore(pytestconfig: pytest.Config) -> Iterator[LocalSigstore]:
    """A Sigstore on this machine. A test that turns its knobs makes its own instead."""
    with sigstore_of_kind(pytestconfig.getoption("--sigstore")) as running:
        yield running


@pytest.fixture(scope="session")
def trust_config(sigstore: LocalSigstore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of that Sigstore's client trust config."""
    return sigstore.write_trust_config(tmp_path_factory.mktemp("sigstore") / "trust-config.json")


@pytest.fixture(scope="session")
def demonstration(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> tuple[str, Path]:
    """What `make demo` printed, and the folder that it left. Copy the folder to do harm to it.

    The demonstration runs once, whichever of pytest-xdist's processes asks for it first.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    kind = pytestconfig.getoption("--sigstore")
    output, printed = shared / "demonstration/out", shared / "demonstration/printed.txt"
    with locked(shared / "demonstration.lock", DEMONSTRATION_SECONDS):
        if not printed.exists():
            # Of the default model, whichever was chosen for the `make` that runs these tests.
            chosen = {
                "MAKEFLAGS",
                "MAKEOVERRIDES",
                "MFLAGS",
                "MODEL",
                "DATA",
                "DATA_DIR",
                "SIGSTORE",
            }
            done = subprocess.run(
                ["make", "demo", f"OUTPUT={output}", f"SIGSTORE={kind}"],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name not in chosen},
                capture_output=True,
                text=True,
                check=False,
                timeout=DEMONSTRATION_SECONDS,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout, encoding="utf-8")
    return printed.read_text(encoding="utf-8"), output
