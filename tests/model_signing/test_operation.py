"""Signing and opening in a world that fails: full disks, signals, rivals, files that change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.errors import BundleError, FileError, MismatchError, SignatureError
from tests.support.limits import limited
from tests.support.material import ROOT, new_key, private_pem, public_pem

posix = pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX files only")
KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
OPTIONS = {
    "files": HashOptions(),
    "shards": HashOptions(method="shards", shard_size=1000),
    "blake2b": HashOptions(algorithm="blake2b"),
    "blake3": HashOptions(algorithm="blake3"),
    "blake3 in shards": HashOptions(algorithm="blake3", method="shards", shard_size=1000),
    "shards of 1 GB": HashOptions(method="shards"),
}


# Opening what was verified -----------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_opened_file_holds_the_verified_bytes(
    model: Path, signature: Path, options: HashOptions
) -> None:
    model_signing.sign(model, signature, SIGN, options)
    verified = model_signing.verify(model, signature, VERIFY)
    expected = (model / "b.bin").read_bytes()
    with verified.open("b.bin") as file:
        assert file.read(100) == expected[:100]
        (model / "b.bin").write_bytes(b"evil" * 625)  # in the middle of reading
        assert file.read() == expected[100:]
        file.seek(0)
        assert file.read() == expected


@pytest.mark.parametrize("change", ["flipped", "truncated", "grown", "replaced by a FIFO"])
@pytest.mark.parametrize("options", [OPTIONS["files"], OPTIONS["shards"]], ids=["files", "shards"])
def test_a_file_that_changed_after_verification_cannot_be_opened_as_verified(
    model: Path, signature: Path, options: HashOptions, change: str
) -> None:
    model_signing.sign(model, signature, SIGN, options)
    verified = model_signing.verify(model, signature, VERIFY)
    original = (model / "b.bin").read_bytes()
    if change == "grown":
        (model / "b.bin").write_bytes(original + b"more")
        with verified.open("b.bin") as file:
            assert file.read() == original  # what was appended was not verified
        return
    if change == "flipped":
        (model / "b.bin").write_bytes(bytes([original[0] ^ 1]) + original[1:])
    elif change == "truncated":
        os.truncate(model / "b.bin", 1000)
    elif os.name == "posix":
        (model / "b.bin").unlink()
        os.mkfifo(model / "b.bin")
    else:
        pytest.skip("not tested: this system has no FIFOs")
    with pytest.raises(MismatchError, match="changed after it was verified"):
        verified.open("b.bin")


def test_only_verified_files_can_be_opened(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    (model / "extra").write_text("x")
    verified = model_signing.verify(model, signature, VERIFY, ignore_unsigned_files=True)
    for name in ("extra", "../model.sig", "nothing", "sub", "/etc/hostname"):
        with pytest.raises(FileError, match="no such file"):
            verified.open(name)


# Operation ---------------------------------------------------------------------------------------


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_missing_or_foreign_signature_is_refused(model: Path, signature: Path) -> None:
    with pytest.raises(FileError):
        model_signing.verify(model, signature, VERIFY)
    signature.write_bytes(b"{}")
    with pytest.raises(BundleError):
        model_signing.verify(model, signature, VERIFY)
    model_signing.sign(model, signature, model_signing.key_signer(private_pem(new_key())))
    with pytest.raises(SignatureError):
        model_signing.verify(model, signature, VERIFY)


def test_a_missing_model_is_refused(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    shutil.rmtree(model)
    with pytest.raises(FileError):
        model_signing.verify(model, signature, VERIFY)


def test_a_failing_signer_writes_nothing(model: Path, signature: Path) -> None:
    def refuse(_: bytes) -> bytes:
        raise SignatureError("no")

    with pytest.raises(SignatureError):
        model_signing.sign(model, signature, refuse)
    assert listing(signature.parent) == ["model"]


def test_a_place_that_cannot_be_written_is_noticed_before_hashing(
    model: Path, tmp_path: Path
) -> None:
    def never(_done: int, _total: int) -> None:
        pytest.fail("the model was hashed first")

    for place in (tmp_path / "none" / "model.sig", tmp_path, model / "a" / "model.sig"):
        with pytest.raises(FileError):
            model_signing.sign(model, place, SIGN, progress=never)


def test_a_signature_never_replaces_the_model(model: Path, signature: Path) -> None:
    for model_path, place in ((model / "a", model / "a"), (model, model / "a")):
        before = (model / "a").read_bytes()
        with pytest.raises(FileError, match=r"of its own|replace a file of the model"):
            model_signing.sign(model_path, place, SIGN)
        assert (model / "a").read_bytes() == before


@posix
def test_a_read_only_model_can_be_signed_and_verified(model: Path, signature: Path) -> None:
    for path in (*model.rglob("*"), model):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        model_signing.sign(model, signature, SIGN)
        model_signing.verify(model, signature, VERIFY)
    finally:
        for path in (model, *model.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


def test_two_signers_at_once_leave_one_whole_signature(model: Path, signature: Path) -> None:
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def sign() -> None:
        try:
            barrier.wait(60)
            for _ in range(10):
                model_signing.sign(model, signature, SIGN)
                model_signing.verify(model, signature, VERIFY)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sign, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
    assert listing(signature.parent) == ["model", "model.sig"]


RUN = """
import functools, os, resource, signal, sys
from pathlib import Path
import model_signing
from model_signing.errors import Error
model, signature, key = map(Path, sys.argv[1:])
say = functools.cache(functools.partial(print, flush=True))
{prepare}
try:
    sign = model_signing.key_signer(key.read_bytes())
    model_signing.sign(model, signature, sign, progress=lambda *_: say("hashing"))
except Error as error:
    sys.exit(error.message)
"""


def run(prepare: str, model: Path, signature: Path) -> subprocess.Popen[str]:
    key = signature.with_name("key.pem")
    key.write_bytes(private_pem(KEY))
    # -B: where files are limited, compiled modules would be cut off, too.
    command = [sys.executable, "-B", "-c", RUN.format(prepare=prepare)]
    return subprocess.Popen(
        [*command, model, signature, key],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@posix
def test_signing_on_a_full_disk_keeps_the_old_signature(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    before = signature.read_bytes()
    (model / "more").write_text("x")
    process = run("resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))", model, signature)
    with limited(process):
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (1, "cannot write the file")
    assert signature.read_bytes() == before
    assert listing(signature.parent) == ["key.pem", "model", "model.sig"]


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_signing_that_is_stopped_writes_no_signature(
    model: Path, signature: Path, number: signal.Signals
) -> None:
    with (model / "huge").open("wb") as file:
        file.truncate(1 << 40)  # minutes of hashing
    with limited(run("", model, signature)) as process:
        assert process.stdout is not None and process.stdout.readline() == "hashing\n"
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == -number
    assert listing(signature.parent) == ["key.pem", "model"]
