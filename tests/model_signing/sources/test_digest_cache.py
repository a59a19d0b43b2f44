"""A cache of digests: signing again reads what changed, and nothing else ever relies on it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.cli import main
from model_signing.errors import FileError, MismatchError, UsageError
from model_signing.sources import digest_cache
from model_signing.sources.local import LocalSource
from tests.support.material import new_key, private_pem, public_pem
from tests.support.memory_source import MemorySource

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
HOW = {
    "files": HashOptions(),
    "shards": HashOptions(method="shards", shard_size=1000),
    "blake3": HashOptions(algorithm="blake3"),
}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files have been as they are for a while."""
    later = time.time_ns() + 3600 * 1_000_000_000
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: later)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What is read to be hashed; what lies in a model by accident is looked for, too."""
    names: set[str] = set()
    real = LocalSource.read

    def read(self: LocalSource, name: str, *how: Any, **more: Any) -> object:
        names.add(name)
        return real(self, name, *how, **more)

    monkeypatch.setattr(LocalSource, "read", read)
    monkeypatch.setattr("model_signing.sources.strays.inspected", lambda *_: [])
    return names


def signed(model: Path, cache: Path, options: HashOptions = HOW["files"]) -> dict[str, str]:
    options = HashOptions(**{**vars(options), "digest_cache": cache})
    return dict(model_signing.sign(model, None, SIGN, options).manifest.digests)


@pytest.mark.parametrize("options", HOW.values(), ids=HOW)
def test_signing_again_reads_what_changed(
    model: Path, tmp_path: Path, settled: None, reads: set[str], options: HashOptions
) -> None:
    cache = tmp_path / "cache"
    first = signed(model, cache, options)
    assert reads == {"a", "b.bin", "sub/c.bin", "sub/deep/é.bin"}
    reads.clear()
    assert signed(model, cache, options) == first
    assert reads == set()
    (model / "b.bin").write_bytes(b"x" * 2500)  # as long as it was
    changed = signed(model, cache, options)
    assert reads == {"b.bin"}
    assert changed == dict(model_signing.sign(model, None, SIGN, options).manifest.digests)
    assert changed != first


CHANGES: dict[str, Callable[[Path], object]] = {
    "written, its times set back": lambda path: (
        status := path.stat(),
        path.write_bytes(b"x" * status.st_size),
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns)),
    ),
    "replaced, its times set back": lambda path: (
        status := path.stat(),
        path.with_name("new").write_bytes(b"x" * status.st_size),
        os.utime(path.with_name("new"), ns=(status.st_atime_ns, status.st_mtime_ns)),
        path.with_name("new").rename(path),
    ),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


@pytest.mark.skipif(os.name != "posix", reason="not tested: times of POSIX only")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_change_is_missed(
    model: Path, tmp_path: Path, settled: None, change: Callable[[Path], object]
) -> None:
    signed(model, tmp_path / "cache")
    change(model / "b.bin")
    expected = model_signing.sign(model, None, SIGN).manifest.digests
    assert signed(model, tmp_path / "cache") == expected


def test_what_changed_a_moment_ago_is_not_remembered(
    model: Path, tmp_path: Path, reads: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within the same tick of the clock."""
    made = min(path.stat().st_ctime_ns for path in model.rglob("*") if path.is_file())
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: made + 1_000_000_000)
    signed(model, tmp_path / "cache")
    reads.clear()
    signed(model, tmp_path / "cache")
    assert reads == {"a", "b.bin", "sub/c.bin", "sub/deep/é.bin"}


def test_verification_never_uses_it(model: Path, tmp_path: Path, settled: None) -> None:
    cache = tmp_path / "cache"
    signed(model, cache)
    with contextlib.closing(sqlite3.connect(cache)) as database, database:
        database.execute("UPDATE digests SET digest = ?", ("0" * 64,))
    signature = tmp_path / "model.sig"
    model_signing.sign(model, signature, SIGN, HashOptions(digest_cache=cache))
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(model, signature, VERIFY)
    command = ["verify", "key", str(model), "--signature", str(signature)]
    command += ["--public-key", "key.pub", "--digest-cache", str(cache)]
    assert main(command) == 2


def test_a_cache_that_others_may_write_to_is_refused(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    signed(model, cache)
    if os.name == "posix":
        assert cache.stat().st_mode & 0o777 == 0o600
        cache.chmod(0o620)
        with pytest.raises(FileError, match="written to by others"):
            signed(model, cache)
        cache.chmod(0o600)
        tmp_path.chmod(0o1777)  # as /tmp: a journal could be put beside it
        with pytest.raises(FileError, match="written to by others") as refusal:
            signed(model, cache)
        assert refusal.value.where == str(tmp_path)
        tmp_path.chmod(0o755)
        (tmp_path / "link").symlink_to(cache)
        with pytest.raises(FileError, match="cannot use the digest cache"):
            signed(model, tmp_path / "link")
    signed(model, cache)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_something_else_is_refused_and_kept(model: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").write_bytes(content)
    (tmp_path / "cache").chmod(0o600)
    with pytest.raises(FileError, match="cannot use the digest cache"):
        signed(model, tmp_path / "cache")
    assert (tmp_path / "cache").read_bytes() == content
    for place in (tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(FileError, match="cannot use the digest cache"):
            signed(model, place)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ("UPDATE digests SET digest = upper(digest)", "no sha256 digest"),
        ("UPDATE digests SET digest = ''", "no sha256 digest"),
        ("UPDATE digests SET digest = NULL", "no sha256 digest"),
        ("CREATE TABLE bookmarks (url TEXT)", "another program"),
    ],
)
def test_what_it_never_wrote_is_refused(
    model: Path, tmp_path: Path, settled: None, changes: str, found: str
) -> None:
    signed(model, tmp_path / "cache")
    with contextlib.closing(sqlite3.connect(tmp_path / "cache")) as database, database:
        database.execute(changes)
    with pytest.raises(FileError, match="cannot use the digest cache") as refusal:
        signed(model, tmp_path / "cache")
    assert found in (refusal.value.found or "")


def test_it_is_no_file_of_the_model(model: Path, settled: None) -> None:
    with pytest.raises(UsageError, match="would be a file of the model"):
        signed(model, model / "cache")
    assert not (model / "cache").exists()
    for _ in range(2):
        ignored = HashOptions(digest_cache=model / "cache", ignore_paths=["cache"])
        assert model_signing.sign(model, None, SIGN, ignored)


def test_many_may_use_it_at_once(model: Path, tmp_path: Path, settled: None) -> None:
    expected = dict(model_signing.sign(model, None, SIGN).manifest.digests)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: signed(model, tmp_path / "cache"), range(12)))
    assert all(one == expected for one in found)


def test_it_is_for_models_on_this_machine(tmp_path: Path) -> None:
    source = MemorySource("model", {"a": b"a"})
    with pytest.raises(UsageError, match="on this machine"):
        model_signing.sign(source, None, SIGN, HashOptions(digest_cache=tmp_path / "cache"))


def test_the_command_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settled: None
) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(KEY))
    command = ["sign", "key", str(model), "--private-key", str(tmp_path / "key.pem")]
    command += ["--signature", str(tmp_path / "s.sig"), "--digest-cache", str(tmp_path / "cache")]
    assert main(command) == main(command) == 0
    model_signing.verify(model, tmp_path / "s.sig", VERIFY)
