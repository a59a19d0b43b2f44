"""Each real service killed, stopped or restarted in the middle of a run of train.yml.

It is one run, which trains once: before the job that signs stand copies of it, one for each service
and fault. What they met, and what they left, is looked at by a test for each.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandbox.github import Event, Run
from sandbox.services.process import Service
from sandbox.services.sigstore import PROGRAMS, RealSigstore
from tests.services.test_faults import SEEN
from tests.workflows.runs import Sandbox
from tests.workflows.test_own_training import consume, said

SECONDS = 120  # until what was asked of a service has reached it
PATIENCE = 8  # seconds that a service is waited for which says nothing
CALLED = "model"  # the job that calls train.yml


@contextmanager
def killed(service: Service) -> Iterator[None]:
    service.kill()
    try:
        yield
    finally:
        service.start()


@contextmanager
def stopped(service: Service) -> Iterator[None]:
    service.stop()
    try:
        yield
    finally:
        service.resume()


@contextmanager
def restarted(service: Service) -> Iterator[None]:
    """Whoever asks it first is cut off, and then it is back."""
    asked = threading.Event()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.settimeout(SECONDS)

    def come_back() -> None:
        with listener:
            listener.accept()[0].close()
        asked.set()
        service.start()

    restart = threading.Thread(target=come_back)
    service.kill()
    listener.bind(("127.0.0.1", service.port))
    listener.listen()
    restart.start()
    yield
    restart.join(2 * SECONDS)
    assert asked.is_set()


FAULTS: dict[str, Callable[[Service], AbstractContextManager[None]]] = {
    "killed": killed,
    "stopped": stopped,
    "restarted": restarted,
}
JOBS = {f"{fault}-{name}": (fault, name) for name in PROGRAMS for fault in FAULTS}
# What somebody reads who meets it.
WORDS = {
    "killed": ("cannot be reached", "did not answer in time", "out of"),
    "stopped": ("did not answer in time", "out of"),
}


def with_copies(product: Path, signals: Path) -> None:
    """Writes the jobs into a product's train.yml: one after the other, and `sign` after them all.

    Each begins when a file of its name lies in `signals`: its fault is there by then. For a service
    that is stopped it waits less than users do, for that its programs have a variable.
    """
    path = product / ".github/workflows/train.yml"
    text = path.read_text(encoding="utf-8")
    (job,) = re.findall(r"^  sign:\n(?:(?:    .*)?\n)+", text, re.MULTILINE)
    begin = f'    steps:\n      - run: until test -e "{signals}/NAME"; do sleep 0.1; done\n'
    copies, before = "", ""
    for name in JOBS:
        copy = str(job)
        if name.startswith("restarted"):  # what it signs is not the run's
            copy = copy.partition("      - name: Upload the signature\n")[0]
        copy = copy.replace("  sign:\n", f"  {name}:\n").replace("    steps:\n", begin)
        copy = re.sub(r"    outputs:\n(?:      .*\n)+", "", copy).replace("NAME", name)
        if name.startswith("stopped"):
            copy = copy.replace("    steps:\n", f"    env: {{PATIENCE: {PATIENCE}}}\n    steps:\n")
        copies += copy.replace("    needs: [", f"    needs: [{before}") + "\n"
        before = f"{name}, "
    last = job.replace("    needs: [", f"    needs: [{before}")
    path.write_text(text.replace(job, copies + last), encoding="utf-8")
    path = product / "model_signing/methods/services.py"
    text = path.read_text(encoding="utf-8")
    patience = 'MAX_SECONDS = float(__import__("os").environ.get("PATIENCE", "60"))'
    assert text.count("MAX_SECONDS = 60.0") == 1
    path.write_text(text.replace("MAX_SECONDS = 60.0", patience), encoding="utf-8")


@dataclass
class Seen:
    """The run, and of each job what it printed and which artifacts there were at its end."""

    lines: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    run: Run | None = None


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """All faults, on programs that these tests may harm."""
    folder, signals = (tmp_path_factory.mktemp(name) for name in ("sandbox", "signals"))
    found, active = Seen(), dict[str, AbstractContextManager[None]]()
    with RealSigstore() as running:
        own = Sandbox(running, folder)

        def on_event(event: Event) -> None:
            name = event.job.removeprefix(f"{CALLED}/")
            if event.output is not None:
                found.lines[name].append(event.output)
            if name not in JOBS or event.step is not None or event.output is not None:
                return
            fault, program = JOBS[name]
            if event.result is None:
                active[name] = FAULTS[fault](running.services[program])
                active[name].__enter__()
                (signals / name).touch()
                return
            active.pop(name).__exit__(None, None, None)
            if program == "tesseract":  # Fulcio may wait two minutes before it asks the log again
                running.services["fulcio"].kill()
                running.services["fulcio"].start()
            found.artifacts[name] = [path.stem for path in folder.glob("run-*/artifacts/*.zip")]

        product = own.product(lambda root: with_copies(root, signals))
        found.run = consume(own, product=product, on_event=on_event)
        yield found


@pytest.mark.full
@pytest.mark.parametrize("job", JOBS)
def test_a_run_of_train_yml(job: str, seen: Seen) -> None:
    """Without a service nothing is signed, and somebody says why; one that comes back is waited
    for, and the next job signs.
    """
    fault, name = JOBS[job]
    assert seen.run is not None
    conclusion = seen.run.jobs[f"{CALLED}/{job}"].conclusion
    text = "\n".join(seen.lines[job])
    assert "Traceback" not in text
    signed = [one for one in seen.artifacts[job] if one.endswith((".sig", ".sigstore.json"))]
    assert not signed
    if fault == "restarted":
        assert conclusion == "success", text
        return
    assert conclusion == "failure", text
    refusals = [line for line in seen.lines[job] if SEEN[name] in line]
    assert any(why in line for why in WORDS[fault] for line in refusals), text


@pytest.mark.full
def test_what_comes_after_all_faults_is_whole(seen: Seen) -> None:
    assert seen.run is not None
    for job in ("sign", "verify"):
        assert seen.run.jobs[f"{CALLED}/{job}"].conclusion == "success", said(seen.run)
