"""Each real service killed, stopped or restarted in the middle of a whole run of train.yml."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sandbox.github import Event, Run
from sandbox.services.process import Service
from sandbox.services.sigstore import PROGRAMS, RealSigstore
from tests.services.test_faults import SEEN
from tests.workflows.runs import Sandbox
from tests.workflows.test_own_training import consume, said

SECONDS = 120  # until what was asked of a service has reached it


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Programs that these tests may harm, and a place for runs."""
    with RealSigstore() as running:
        yield Sandbox(running, tmp_path_factory.mktemp("sandbox"))


def run(own: Sandbox, fault: Callable[[], object]) -> Run:
    """A run of train.yml, with a fault when the model is trained and its signing begins."""

    def on_event(event: Event) -> None:
        if (event.job, event.step, event.result, event.output) == ("model/sign", None, None, None):
            fault()

    return consume(own, on_event=on_event)


@contextmanager
def crashing(service: Service) -> Iterator[Callable[[], None]]:
    """Ends the service when called; whoever asks it first is cut off, and then it is back."""
    crashed, asked = threading.Event(), threading.Event()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.settimeout(SECONDS)

    def come_back() -> None:
        with listener:
            listener.accept()[0].close()
        asked.set()
        service.start()

    restart = threading.Thread(target=come_back)

    def crash() -> None:
        service.kill()
        listener.bind(("127.0.0.1", service.port))
        listener.listen()
        crashed.set()
        restart.start()

    yield crash
    assert crashed.is_set()
    restart.join(2 * SECONDS)
    assert asked.is_set()


@pytest.mark.full
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_run_of_train_yml(name: str, own: Sandbox) -> None:
    """Without a service nothing is signed, and somebody says why; the next run is whole."""
    assert isinstance(own.sigstore, RealSigstore)
    service = own.sigstore.services[name]
    for begin, end, words in (
        (service.kill, service.start, ("cannot be reached", "did not answer in time", "out of")),
        (service.stop, service.resume, ("did not answer in time", "out of")),
    ):
        try:
            failed = run(own, begin)
        finally:
            end()
        assert failed.conclusion == "failure", said(failed)
        refusals = [line for line in said(failed).splitlines() if SEEN[name] in line]
        assert any(why in line for why in words for line in refusals), refusals
        assert "Traceback" not in said(failed)
        assert failed.jobs["model/verify"].conclusion == "skipped"
        signed = (".sig", ".provenance.sigstore.json")
        assert not [name for name in failed.artifact_names() if name.endswith(signed)]
    if name == "tesseract":  # Fulcio may by now wait two minutes before it asks the log again
        own.sigstore.services["fulcio"].kill()
        own.sigstore.services["fulcio"].start()
    with crashing(service) as crash:
        whole = run(own, crash)
    assert whole.conclusion == "success", said(whole)
    assert whole.jobs["model"].outputs["verdict"] == "verified"
