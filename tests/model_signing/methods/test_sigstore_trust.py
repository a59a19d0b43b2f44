"""The public instances' trust roots: offline, and what happens without a network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_signing.errors import FileError, SignatureError
from model_signing.methods import sigstore_trust
from model_signing.methods.sigstore import authenticate_sigstore
from model_signing.methods.sigstore_trust import SigstoreTrust
from tests.support.limits import until
from tests.support.material import shared


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    sigstore_trust._public.cache_clear()
    yield
    sigstore_trust._public.cache_clear()


def test_a_failed_refresh_names_the_option() -> None:
    data = shared(
        "oms", "test-cases", "verify", "historical", "historical-v1.1.0-sigstore", "bundle.sig"
    ).read_bytes()
    with pytest.raises(FileError, match="could not be refreshed") as refusal:
        authenticate_sigstore(data, SigstoreTrust())
    assert "--offline" in (refusal.value.fix or "")
    assert "Max retries" not in (refusal.value.found or "")


def test_offline_is_the_root_that_ships() -> None:
    data = shared(
        "oms", "test-cases", "verify", "historical", "historical-v1.1.0-sigstore", "bundle.sig"
    ).read_bytes()
    found = authenticate_sigstore(data, SigstoreTrust(offline=True))
    assert found.identity == "stefanb@us.ibm.com"
    assert found.time_source == "transparency log"
    assert found.signed_at is not None
    assert found.signed_at.timestamp() == 1760062340  # its log entry's integratedTime
    assert found.log is not None
    assert found.log.log_index == 598151086
    with pytest.raises(SignatureError):
        authenticate_sigstore(data, SigstoreTrust(staging=True, offline=True))


@pytest.mark.parametrize("staging", [False, True])
@pytest.mark.parametrize("place", ["file", "/proc/nope"])
def test_without_a_cache_offline_is_the_root_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, staging: bool
) -> None:
    (tmp_path / "file").write_text("")
    expected = sigstore_trust.load(SigstoreTrust(offline=True, staging=staging))
    sigstore_trust._public.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
    found = sigstore_trust.load(SigstoreTrust(offline=True, staging=staging))
    assert found.trusted_root._inner == expected.trusted_root._inner
    assert found.signing_config._inner == expected.signing_config._inner


def test_nobody_without_a_home_verifies_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", nowhere)
    assert sigstore_trust.load(SigstoreTrust(offline=True)).trusted_root
    with pytest.raises(FileError, match="could not be refreshed"):
        sigstore_trust.load(SigstoreTrust())


def test_a_refresh_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from sigstore.models import ClientTrustConfig

    never = threading.Event()
    monkeypatch.setattr(ClientTrustConfig, "production", lambda **_: never.wait(20))
    monkeypatch.setattr(sigstore_trust, "_REFRESH_SECONDS", 0.2)
    with pytest.raises(FileError, match="could not be refreshed") as refusal:
        sigstore_trust.load(SigstoreTrust())
    never.set()
    assert "no end of it" in (refusal.value.found or "")
    assert "--offline" in (refusal.value.fix or "")


def test_a_process_that_goes_on_refreshes_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = sigstore_trust.load(SigstoreTrust(offline=True))
    now, fetched, may_go_on = [1000.0], [0], threading.Event()
    may_go_on.set()

    def fetch(*_: object) -> object:
        assert may_go_on.wait(60)
        fetched[0] += 1
        if fetched[0] == 3:
            raise FileError("no network")
        return shipped

    def settled() -> None:
        until(lambda: sigstore_trust._public._running == set() or None, "the refresh")

    monkeypatch.setattr(sigstore_trust, "_fetched", fetch)
    monkeypatch.setattr(sigstore_trust, "_monotonic", lambda: now[0])
    for _ in range(3):
        assert sigstore_trust.roots(SigstoreTrust())
    assert fetched == [1]
    may_go_on.clear()
    now[0] += 3601
    for _ in range(3):  # nobody waits, and one refreshes
        assert sigstore_trust.roots(SigstoreTrust())
    assert fetched == [1]
    may_go_on.set()
    settled()
    assert fetched == [2]
    assert sigstore_trust.roots(SigstoreTrust())
    assert fetched == [2]
    now[0] += 3601  # the next one fails: what is there serves on
    assert sigstore_trust.roots(SigstoreTrust())
    settled()
    assert fetched == [3]
    now[0] += 86_400  # but not for ever
    fetched[0] = 2
    with pytest.raises(FileError, match="no network"):
        sigstore_trust.roots(SigstoreTrust())
    assert sigstore_trust.roots(SigstoreTrust())
