"""Each real service killed, stopped or restarted while a signature is made: a message in time.

After each fault the same signature is made again, and verified: nothing stays broken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_signing import cli
from sandbox.services.process import Service
from sandbox.services.sigstore import PROGRAMS, RealSigstore

PERSON = "dev@example.test"
SECONDS = 8  # what a signature may wait for all services together
# What of a program's absence the user sees: Fulcio alone knows of its certificate log.
SEEN = {
    "fulcio": "Fulcio",
    "tesseract": "Fulcio",
    "rekor": "the transparency log",
    "timestamp-authority": "the timestamp authority",
}


class Bench:
    """A model, signed and verified by the command line."""

    def __init__(self, sigstore: RealSigstore, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.sigstore, self.capsys = sigstore, capsys
        self.model, self.signature = folder / "model", folder / "model.sig"
        self.model.write_bytes(b"weights")
        self.trust = str(sigstore.write_trust_config(folder / "trust.json"))

    def sign(self, seconds: float = SECONDS, **claims: object) -> tuple[int, str, float]:
        """Exit code, what was said, and the seconds it took."""
        token = self.sigstore.oidc.token(PERSON, **claims)  # type: ignore[arg-type]
        start = time.monotonic()
        code = cli.main(
            [
                *("sign", str(self.model), "--signature", str(self.signature)),
                *("--trust-config", self.trust, "--identity-token", token),
                *("--timeout", str(seconds)),
            ]
        )
        return code, self.capsys.readouterr().err, time.monotonic() - start

    def signs_and_verifies(self) -> None:
        code, said, _ = self.sign(60)
        assert code == 0, said
        verify = ["verify", str(self.model), "--signature", str(self.signature)]
        verify += ["--trust-config", self.trust, "--identity", PERSON]
        assert cli.main([*verify, "--identity-provider", self.sigstore.url]) == 0
        self.signature.unlink()


@pytest.fixture(scope="module")
def own() -> Iterator[RealSigstore]:
    """Programs that these tests may harm."""
    with RealSigstore() as running:
        yield running


@pytest.fixture
def bench(own: RealSigstore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(own, tmp_path, capsys)


FAULTS: dict[str, tuple[Callable[[Service], None], Callable[[Service], None]]] = {
    "killed": (Service.kill, Service.start),
    "stopped": (Service.stop, Service.resume),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that_is_away(name: str, fault: str, bench: Bench, own: RealSigstore) -> None:
    begin, end = FAULTS[fault]
    begin(own.services[name])
    try:
        code, said, seconds = bench.sign()
    finally:
        end(own.services[name])
    assert code == 1
    assert SEEN[name] in said, said
    assert "did not answer in time" in said or "cannot be reached" in said or "out of" in said
    assert "Traceback" not in said
    assert "new token" not in said
    assert seconds < 4 * SECONDS
    assert not bench.signature.exists()
    bench.signs_and_verifies()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_service_that_is_slow(name: str, bench: Bench, own: RealSigstore) -> None:
    """It answers after three seconds; the signature waits for it."""
    own.services[name].stop()
    resume = threading.Timer(3, own.services[name].resume)
    resume.start()
    try:
        code, said, _ = bench.sign(60)
    finally:
        resume.join(60)
    assert code == 0, said
    bench.signs_and_verifies()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_restart_in_the_middle(name: str, bench: Bench, own: RealSigstore) -> None:
    """Signatures go on through a crash: each is whole, or refused and not there."""
    done = threading.Event()
    outcomes: list[tuple[int, bool]] = []

    def restart() -> None:
        time.sleep(1)
        own.services[name].kill()
        time.sleep(1)
        own.services[name].start()
        done.set()

    crash = threading.Thread(target=restart)
    crash.start()
    try:
        while not done.is_set():
            bench.signature.unlink(missing_ok=True)
            code, said, _ = bench.sign(20)
            assert code in (0, 1), said
            outcomes.append((code, bench.signature.exists()))
    finally:
        crash.join(60)
    assert set(outcomes) <= {(0, True), (1, False)}
    bench.signs_and_verifies()


# What each token that is wrong is told, before anybody asks for a new one of the same kind.
TOKENS: dict[str, tuple[dict[str, object], str]] = {
    "expired": ({"exp": int(time.time()) - 3600}, "expired"),
    "another audience": ({"aud": "somebody-else"}, "expected: a token for the audience sigstore"),
    "unknown issuer": (
        {"iss": "https://issuer.example.test"},
        "is https://issuer.example.test an issuer that this Fulcio takes?",
    ),
    "unverified e-mail": ({"email_verified": False}, "have the identity provider verify"),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_is_refused(kind: str, bench: Bench) -> None:
    claims, words = TOKENS[kind]
    code, said, _ = bench.sign(20, **claims)
    assert code == 1
    assert words in said, said
    assert not bench.signature.exists()
