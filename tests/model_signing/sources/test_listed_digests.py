"""Signing without reading: digests that a place lists, and a quick look that verifies nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import model_signing
from model_signing import Compared, HashOptions, Verified
from model_signing.cli import main
from model_signing.errors import FileError, MismatchError, UsageError
from sandbox.hub import Hub
from tests.support.material import new_key, private_pem, public_pem
from tests.support.memory_source import MemorySource

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
FILES = {"config.json": b"{}", "a.bin": b"a" * 5000, "b.bin": b"b" * 3000}
LISTED = HashOptions(use_listed_digests=True)


@pytest.fixture
def place() -> MemorySource:
    return MemorySource("model", dict(FILES), lists=("a.bin", "b.bin"))


def test_only_what_has_no_digest_is_read(place: MemorySource, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    signed = model_signing.sign(place, tmp_path / "s.sig", SIGN, LISTED, progress=progress)
    assert place.reads == {"config.json"}
    assert signed.unread == 2
    assert seen[-1] == (2, 2)
    read = model_signing.sign(place, None, SIGN)
    assert read.unread == 0
    assert read.manifest == signed.manifest
    assert model_signing.verify(place, tmp_path / "s.sig", VERIFY).unread == 0
    assert place.reads == {*FILES}


def test_verification_reads_every_byte_whatever_is_listed(
    place: MemorySource, tmp_path: Path
) -> None:
    model_signing.sign(place, tmp_path / "s.sig", SIGN, LISTED)

    class Liar(MemorySource):
        """Lists what was signed, and sends something else."""

        def read(self, name: str, *how: object) -> Iterator[bytes]:  # type: ignore[override]
            yield b"evil" * 1250 if name == "a.bin" else self.files[name]

    liar = Liar("model", dict(FILES), lists=("a.bin", "b.bin"))
    with pytest.raises((FileError, MismatchError), match=r"other bytes|not what was signed"):
        model_signing.verify(liar, tmp_path / "s.sig", VERIFY)
    with pytest.raises(FileError, match="other bytes"):
        model_signing.sign(liar, None, SIGN)
    compared = model_signing.compare_listed(liar, tmp_path / "s.sig", VERIFY)
    assert isinstance(compared, Compared)
    assert not isinstance(compared, Verified)  # so nobody takes it for one
    assert not hasattr(compared, "open")
    assert compared.unread == 2


def test_a_quick_look_sees_what_is_listed(place: MemorySource, tmp_path: Path) -> None:
    model_signing.sign(place, tmp_path / "s.sig", SIGN)
    place.files["b.bin"] = b"c" * 3000
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.compare_listed(place, tmp_path / "s.sig", VERIFY)
    place.files.update(FILES)
    place.files["config.json"] = b"[]"  # has no digest, and is read
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.compare_listed(place, tmp_path / "s.sig", VERIFY)


@pytest.mark.parametrize("how", [{"algorithm": "blake3"}, {"method": "shards", "shard_size": 1000}])
def test_other_digests_are_not_listed_anywhere(
    place: MemorySource, tmp_path: Path, how: dict[str, object]
) -> None:
    options = HashOptions(use_listed_digests=True, **how)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="SHA-256 of whole files"):
        model_signing.sign(place, None, SIGN, options)
    options = HashOptions(**how)  # type: ignore[arg-type]
    model_signing.sign(place, tmp_path / "s.sig", SIGN, options)
    with pytest.raises(UsageError, match="SHA-256 of whole files"):
        model_signing.compare_listed(place, tmp_path / "s.sig", VERIFY)


def test_the_command_line_never_calls_it_verified(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pem").write_bytes(private_pem(KEY))
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    hub.commit("org/model", FILES)
    sign = ["sign", "key", "hf://org/model", "--private-key", "key.pem"]
    assert main([*sign, "--use-listed-digests"]) == 0
    assert "unread:" in capsys.readouterr().out
    assert not any(path.endswith(".bin") for _, _, path, _ in hub.asked)
    verify = ["verify", "key", "hf://org/model", "--public-key", "key.pub"]
    verify += ["--signature", "model.sig"]
    assert main([*verify, "--use-listed-digests"]) == 3
    said = capsys.readouterr().out
    assert said.startswith("as listed\n")
    assert "verified" not in said.lower()
    assert main([*verify, "--use-listed-digests", "--quiet"]) == 3
    assert capsys.readouterr().out.startswith("as listed\n")  # silence would say verified
    assert main([*verify, "--use-listed-digests", "--format", "json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["result"], said["unread"]) == ("as listed", 2)
    assert main([*verify, "--use-listed-digests", "--copy-to", "copy"]) == 2
    capsys.readouterr()
    assert main(verify) == 0
    assert capsys.readouterr().out.startswith("verified\n")
