"""Signing and opening in a world that fails: full disks, signals, rivals, files that change."""

from __future__ import annotations

import os
import shutil
import signal
import stat
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
    signature.unlink()
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
        with pytest.raises(FileError, match=r"of its own|would replace a file"):
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


NOT_SIGNATURES = {
    "a private key": private_pem(KEY),
    "a public key": public_pem(KEY),
    "notes": b"notes of a year",
    "JSON of another kind": b'{"mediaType": "application/json"}',
}


@pytest.mark.parametrize("spelling", ["as it is", "by a link", "by a detour"])
@pytest.mark.parametrize("content", NOT_SIGNATURES.values(), ids=NOT_SIGNATURES)
def test_a_signature_replaces_no_file_that_is_none(
    model: Path, tmp_path: Path, content: bytes, spelling: str
) -> None:
    place = tmp_path / "place"
    place.write_bytes(content)
    (tmp_path / "link").symlink_to(place)
    names = {"by a link": tmp_path / "link", "by a detour": model / ".." / "place"}

    def never(_done: int, _total: int) -> None:
        pytest.fail("the model was hashed first")

    with pytest.raises(FileError, match="would replace a file that is no signature"):
        model_signing.sign(model, names.get(spelling, place), SIGN, progress=never)
    assert place.read_bytes() == content


def test_several_bundles_in_one_file_are_not_cut_down_to_one(model: Path, signature: Path) -> None:
    line = model_signing.sign(model, None, SIGN).bundle
    for several in (line + line, b"[" + line + b"," + line + b"]"):
        signature.write_bytes(several)
        with pytest.raises(FileError, match="no signature"):
            model_signing.sign(model, signature, SIGN)
        assert signature.read_bytes() == several


def test_an_empty_file_is_written_to_unless_it_is_of_the_model(
    model: Path, signature: Path
) -> None:
    for place in (signature, model / "__init__.py"):
        place.touch()
    model_signing.sign(model, signature, SIGN)
    with pytest.raises(FileError, match="a file of the model"):
        model_signing.sign(model, model / "__init__.py", SIGN)


def test_a_signature_that_came_meanwhile_is_not_replaced_by_what_is_none(
    model: Path, signature: Path
) -> None:
    def slow(statement: bytes) -> bytes:
        signature.write_bytes(b"notes")
        return SIGN(statement)

    with pytest.raises(FileError, match="no signature"):
        model_signing.sign(model, signature, slow)
    assert signature.read_bytes() == b"notes"


def test_sign_can_return_the_bundle_without_writing_it(model: Path, tmp_path: Path) -> None:
    signed = model_signing.sign(model, None, SIGN)
    assert signed.signature is None
    assert listing(tmp_path) == ["model"]
    (tmp_path / "later.sig").write_bytes(signed.bundle)
    verified = model_signing.verify(model, tmp_path / "later.sig", VERIFY)
    assert verified.bundle == signed.bundle


@posix
def test_an_older_signature_keeps_its_mode_and_a_link_stays_a_link(
    model: Path, signature: Path, tmp_path: Path
) -> None:
    model_signing.sign(model, signature, SIGN)
    signature.chmod(0o640)
    (tmp_path / "link").symlink_to("model.sig")
    (tmp_path / "new").symlink_to("made.sig")
    model_signing.sign(model, tmp_path / "link", SIGN)
    model_signing.sign(model, tmp_path / "new", SIGN)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").is_symlink()
    assert stat.S_IMODE(signature.stat().st_mode) == 0o640
    model_signing.verify(model, tmp_path / "made.sig", VERIFY)


@posix
def test_a_link_inside_the_model_is_left_out_with_what_it_leads_to(model: Path) -> None:
    (model / "link.sig").symlink_to("real.sig")
    for _ in range(2):
        signed = model_signing.sign(model, model / "link.sig", SIGN)
        assert not {"link.sig", "real.sig"} & signed.manifest.files.keys()
        model_signing.verify(model, model / "link.sig", VERIFY)


@posix
def test_a_fifo_gets_the_signature_and_stays(model: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with limited(subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE)) as reader:
        model_signing.sign(model, fifo, SIGN)
        (tmp_path / "got.sig").write_bytes(reader.communicate(timeout=60)[0])
    assert fifo.is_fifo()
    model_signing.verify(model, tmp_path / "got.sig", VERIFY)


@posix
@pytest.mark.parametrize("place", ["-", "/dev/stdout", "/dev/fd/1", "a link"])
def test_standard_output_is_appended_to(model: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(KEY))
    (tmp_path / "link").symlink_to("/proc/self/fd/1" if sys.platform == "linux" else "/dev/fd/1")
    place = str(tmp_path / "link") if place == "a link" else place
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(model)]
    with (tmp_path / "out").open("ab") as file:
        file.write(b"before\n")
        file.flush()
        done = subprocess.run(
            [*command, "--private-key", str(tmp_path / "key.pem"), "--signature", place],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )
    assert (done.returncode, done.stderr.split("\n")[0]) == (0, "signed")
    before, bundle, nothing = (tmp_path / "out").read_bytes().split(b"\n")
    assert (before, nothing) == (b"before", b"")
    (tmp_path / "got.sig").write_bytes(bundle)
    model_signing.verify(model, tmp_path / "got.sig", VERIFY)
    assert listing(tmp_path) == ["got.sig", "key.pem", "link", "model", "out"]


@posix
def test_the_leftover_of_a_killed_signing_is_never_part_of_the_model(
    model: Path, signature: Path
) -> None:
    inside = model / "sub" / "model.sig"
    model_signing.sign(model, inside, SIGN)
    kill = "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
    kill += "signature = model / 'sub/model.sig'"
    with limited(run(kill, model, signature)) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (leftover,) = set(listing(inside.parent)) - {"c.bin", "deep", "model.sig"}
    model_signing.verify(model, inside, VERIFY)
    model_signing.sign(model, signature, SIGN)  # elsewhere: the leftover stays, and is left out
    assert leftover in listing(inside.parent)
    model_signing.verify(model, signature, VERIFY, ignore_paths=["sub/model.sig"])
    model_signing.sign(model, inside, SIGN)
    assert leftover not in listing(inside.parent)
    (inside.parent / leftover).mkdir()  # nothing of ours
    (inside.parent / leftover / "evil").touch()
    with pytest.raises(MismatchError, match="files that were signed"):
        model_signing.verify(model, inside, VERIFY)


@posix
def test_a_file_without_end_is_not_read_to_its_end(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    zero = "/dev/zero"
    for read in (
        lambda: model_signing.key_signer(zero),
        lambda: model_signing.key_verifier(zero),
        lambda: model_signing.certificate_verifier([zero]),
        lambda: model_signing.verify(model, zero, VERIFY),
    ):
        with pytest.raises(BundleError, match="too large"):
            read()


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
except KeyboardInterrupt:
    sys.exit(130)  # at its end an interpreter does not always remember that this is uncaught
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
        process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert listing(signature.parent) == ["key.pem", "model"]
