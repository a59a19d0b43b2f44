"""A verified copy: it is there with every byte as signed, or it is not there at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.cli import main
from model_signing.errors import Error, FileError, MismatchError, UsageError
from model_signing.sources import Buffer, copying
from tests.support import debian
from tests.support.limits import limited, until
from tests.support.material import ROOT, new_key, private_pem, public_pem
from tests.support.memory_source import MemorySource

pytestmark = pytest.mark.slow

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
OPTIONS = {
    "files": HashOptions(),
    "shards": HashOptions(method="shards", shard_size=1000),
    "blake3": HashOptions(algorithm="blake3"),
}
PLACES = ("local", "larger than memory", "elsewhere", "sharing")
FILES = {"a": b"a" * 500, "b.bin": os.urandom(3_000_000), "sub/deep/é.bin": b"\0" * 2500}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of `PLACES`. `sharing` is what a file system does that lets files share their bytes."""
    place: str = request.param
    if place != "elsewhere" and sys.platform == "linux":
        monkeypatch.setattr("fcntl.ioctl", share if place == "sharing" else no_sharing)
    elif place == "sharing":
        pytest.skip("not tested: files share bytes on Linux only")
    if place == "larger than memory":
        monkeypatch.setattr(copying, "_memory", lambda: 2 * sum(map(len, FILES.values())) - 1)
        monkeypatch.setattr(copying, "_PIECE", 1 << 20)
    return place


def share(target: int, request: int, source: int) -> int:
    """FICLONE, ioctl_ficlone(2)."""
    assert request == 0x40049409
    os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)
    return 0


def no_sharing(*_: int) -> int:
    raise OSError(errno.EOPNOTSUPP, "said by the test")


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies"


def place_of(model: Path, where: str) -> Path | MemorySource:
    return model if where != "elsewhere" else MemorySource("model", dict(FILES), piece=700)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("where", PLACES, indirect=True)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_copy_has_every_byte_that_was_verified(
    model: Path, signature: Path, copies: Path, options: HashOptions, where: str
) -> None:
    (model / ".gitattributes").write_text("not part of it")
    model_signing.sign(model, signature, SIGN, options)
    place = place_of(model, where)
    verified = model_signing.verify(place, signature, VERIFY, copy_to=copies / "copy")
    assert contents(copies / "copy") == FILES
    assert listing(copies) == ["copy"]
    again = model_signing.verify(copies / "copy", signature, VERIFY)
    assert again.manifest == verified.manifest
    (model / "a").write_bytes(b"later")
    with verified.open("a") as file:
        assert file.read() == FILES["a"]  # of the copy


@pytest.mark.skipif(sys.platform != "linux", reason="not tested: it is so on Linux only")
@pytest.mark.parametrize(
    ("where", "refused"),
    [("local", ""), *(("larger than memory", how) for how in ("", "asked", "written"))],
    indirect=["where"],
)
def test_a_copy_larger_than_memory_does_not_fill_it(
    model: Path,
    signature: Path,
    copies: Path,
    where: str,
    refused: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a file system does not take bytes past the page cache, it gets them as always."""
    try:
        os.close(os.open(copies / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"not tested: {copies} has a page cache only: {error}")
    if refused == "asked":
        monkeypatch.setattr("fcntl.fcntl", no_direct_io)
    elif refused == "written":
        monkeypatch.setattr(copying, "FileIO", NoDirectIO)
    model_signing.sign(model, signature, SIGN)
    model_signing.verify(model, signature, VERIFY, copy_to=copies / "copy")
    with (copies / "copy" / "b.bin").open("rb") as file:
        if where == "local" or refused:
            assert os.preadv(file.fileno(), [bytearray(1000)], 0, os.RWF_NOWAIT) == 1000
        else:
            with pytest.raises(BlockingIOError):
                os.preadv(file.fileno(), [bytearray(1000)], 0, os.RWF_NOWAIT)
    assert contents(copies / "copy") == FILES


def no_direct_io(_: object, command: int, *flags: int) -> int:
    if any(one & os.O_DIRECT for one in flags):
        raise OSError(errno.EINVAL, "said by the test")
    return os.O_WRONLY


class NoDirectIO(FileIO):
    """Of a file system that takes the flag, and then nothing."""

    def write(self, data: Buffer) -> int:
        import fcntl  # not on Windows

        if fcntl.fcntl(self, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "said by the test")
        return super().write(data)


def test_an_empty_file_is_copied_too(model: Path, signature: Path, copies: Path) -> None:
    files = {**FILES, "empty": b"", "sub/empty": b""}
    source = MemorySource("model", files)
    model_signing.sign(source, signature, SIGN)
    model_signing.verify(source, signature, VERIFY, copy_to=copies / "copy")
    assert contents(copies / "copy") == files


def test_a_copy_has_the_rights_of_any_new_folder(
    model: Path, signature: Path, copies: Path
) -> None:
    model_signing.sign(model, signature, SIGN)
    model_signing.verify(model, signature, VERIFY, copy_to=copies / "copy")
    (copies / "other").mkdir()
    (copies / "other" / "file").touch()
    for one, other in (("copy", "other"), ("copy/a", "other/file"), ("copy/sub", "other")):
        assert (copies / one).stat().st_mode == (copies / other).stat().st_mode


@pytest.mark.parametrize("where", PLACES, indirect=True)
def test_a_model_of_one_file_is_a_file_in_the_folder(
    model: Path, signature: Path, copies: Path, where: str
) -> None:
    one = model / "b.bin"
    model_signing.sign(one, signature, SIGN)
    source = MemorySource("b.bin", {"b.bin": FILES["b.bin"]}, single=True)
    place = one if where != "elsewhere" else source
    verified = model_signing.verify(place, signature, VERIFY, copy_to=copies / "copy")
    assert contents(copies / "copy") == {"b.bin": FILES["b.bin"]}
    with verified.open("b.bin") as file:
        assert file.read() == FILES["b.bin"]


def test_an_empty_folder_and_what_is_mounted_there_are_taken(
    model: Path, signature: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_signing.sign(model, signature, SIGN)
    (copies / "empty").mkdir()
    model_signing.verify(model, signature, VERIFY, copy_to=copies / "empty")
    assert contents(copies / "empty") == FILES
    (copies / "volume" / "lost+found").mkdir(parents=True)
    before = (copies / "volume").stat().st_ino
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "volume")
    model_signing.verify(model, signature, VERIFY, copy_to=copies / "volume")
    assert contents(copies / "volume") == FILES
    assert (copies / "volume").stat().st_ino == before  # it could not have been renamed
    assert listing(copies / "volume") == ["a", "b.bin", "lost+found", "sub"]


@pytest.mark.parametrize("where", PLACES, indirect=True)
@pytest.mark.parametrize("change", ["flipped", "missing", "added", "another signer"])
def test_nothing_appears_of_a_model_that_is_refused(
    model: Path, signature: Path, copies: Path, where: str, change: str
) -> None:
    model_signing.sign(model, signature, SIGN)
    files = dict(FILES)
    if change == "flipped":
        files["b.bin"] = files["b.bin"][:-1] + b"!"
    elif change == "missing":
        del files["a"]
    elif change == "added":
        files["extra"] = b""
    for name in FILES:
        (model / name).unlink()
    for name, data in files.items():
        (model / name).write_bytes(data)
    place = model if where != "elsewhere" else MemorySource("model", files)
    verify = model_signing.key_verifier(public_pem(new_key() if "signer" in change else KEY))
    with pytest.raises(Error):
        model_signing.verify(place, signature, verify, copy_to=copies / "copy")
    assert listing(copies) == []


@pytest.mark.parametrize("where", ["local"], indirect=True)
def test_nothing_appears_of_a_model_that_changes_meanwhile(
    model: Path, signature: Path, copies: Path, where: str
) -> None:
    model_signing.sign(model, signature, SIGN)

    def change(_done: int, _total: int) -> None:
        with (model / "b.bin").open("r+b") as file:
            file.write(b"evil")

    with pytest.raises((FileError, MismatchError)):
        model_signing.verify(model, signature, VERIFY, copy_to=copies / where, progress=change)
    assert listing(copies) == []


@pytest.mark.parametrize("where", ["sharing"], indirect=True)
def test_a_copy_that_shares_bytes_is_hashed_itself_whatever_happens_to_the_model(
    model: Path, signature: Path, copies: Path, where: str
) -> None:
    model_signing.sign(model, signature, SIGN)

    def change(_done: int, _total: int) -> None:
        for name in FILES:
            (model / name).write_bytes(b"evil")

    model_signing.verify(model, signature, VERIFY, copy_to=copies / where, progress=change)
    assert contents(copies / where) == FILES


SHARING = """
import os, sys
import model_signing
model, signature, key, copy = sys.argv[1:]
before = os.statvfs(".").f_bfree
model_signing.verify(model, signature, model_signing.key_verifier(key), copy_to=copy)
left = os.statvfs(".")
print((before - left.f_bfree) * left.f_bsize, open(f"{copy}/b", "rb").read() == bytes(50 << 20))
"""


@pytest.mark.full
def test_a_copy_takes_no_room_where_files_share_their_bytes(
    signature: Path, tmp_path: Path
) -> None:
    """On a real file system, in a mount namespace that goes with its only process."""
    program = shutil.which("mkfs.xfs") or debian.unpacked("xfsprogs") / "sbin" / "mkfs.xfs"
    image, place, key = (tmp_path / name for name in ("image", "place", "key.pub"))
    place.mkdir()
    key.write_bytes(public_pem(KEY))
    model_signing.sign(MemorySource("model", {"b": bytes(50 << 20)}), signature, SIGN)
    with image.open("wb") as file:
        file.truncate(400 << 20)
    script = (
        '"$1" -q -m reflink=1 "$2" && mount -o loop "$2" "$3" && cd "$3" || exit 77; mkdir model; '
        'head -c 52428800 /dev/zero > model/b; sync -f .; exec "$4" -c "$5" model "$6" "$7" copy'
    )
    words = (program, image, place, sys.executable, SHARING, signature, key)
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if run.returncode in (1, 77) and "Traceback" not in run.stderr:
        pytest.skip(f"not tested: no file system can be mounted here: {run.stderr.strip()[-200:]}")
    used, same = run.stdout.split()
    assert same == "True"
    assert int(used) < 10 << 20


def test_what_is_there_already_is_never_mixed_or_replaced(
    model: Path, signature: Path, copies: Path
) -> None:
    model_signing.sign(model, signature, SIGN)
    (copies / "full").mkdir()
    (copies / "full" / "mine").write_text("mine")
    (copies / "file").write_text("mine")
    (copies / "dangling").symlink_to("nowhere/else")

    def never(_done: int, _total: int) -> None:
        pytest.fail("the model was hashed first")

    for name in ("full", "file", "no/such/parent", "dangling", "a\0b"):
        with pytest.raises(FileError) as refusal:
            model_signing.verify(model, signature, VERIFY, copy_to=copies / name, progress=never)
        assert refusal.value.where
    assert (copies / "full" / "mine").read_text() == (copies / "file").read_text() == "mine"
    assert listing(copies) == ["dangling", "file", "full"]
    for inside in (model / "copy", model / "sub" / "copy"):
        with pytest.raises(UsageError, match="would lie in the model"):
            model_signing.verify(model, signature, VERIFY, copy_to=inside)


def test_something_that_takes_the_place_meanwhile_is_kept(
    model: Path, signature: Path, copies: Path
) -> None:
    model_signing.sign(model, signature, SIGN)

    def take(_done: int, _total: int) -> None:
        (copies / "copy").mkdir(exist_ok=True)
        (copies / "copy" / "mine").write_text("mine")

    with pytest.raises(FileError, match="mixed with what is there"):
        model_signing.verify(model, signature, VERIFY, copy_to=copies / "copy", progress=take)
    assert contents(copies) == {"copy/mine": b"mine"}


def test_two_that_copy_to_one_place_do_not_harm_each_other(
    model: Path, signature: Path, copies: Path
) -> None:
    model_signing.sign(model, signature, SIGN)

    def verify(_: int) -> bool:
        try:
            model_signing.verify(model, signature, VERIFY, copy_to=copies / "copy")
        except FileError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(verify, range(8)))
    assert done.count(True) == 1
    assert contents(copies / "copy") == FILES
    assert listing(copies) == ["copy"]


@pytest.mark.parametrize(
    "names",
    [("Config.json", "config.json"), ("Sub/a", "sub/b"), ("é", "e\u0301"), ("straße", "STRASSE")],
)
def test_names_that_some_file_systems_take_for_one_are_not_copied(
    signature: Path, copies: Path, names: tuple[str, ...]
) -> None:
    source = MemorySource("model", {name: name.encode() for name in names})
    model_signing.sign(source, signature, SIGN)
    model_signing.verify(source, signature, VERIFY)
    with pytest.raises(FileError, match="upper and lower case or Unicode form"):
        model_signing.verify(source, signature, VERIFY, copy_to=copies / "copy")
    assert listing(copies) == []


def test_no_room_is_told_before_anything_is_fetched(
    signature: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MemorySource("model", dict(FILES))
    model_signing.sign(source, signature, SIGN)
    usage = copying.shutil.disk_usage(copies)
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(FileError, match="no room") as refusal:
        model_signing.verify(source, signature, VERIFY, copy_to=copies / "copy")
    assert refusal.value.found == "1000000 bytes"
    assert listing(copies) == []


def test_an_executor_cannot_make_a_copy(model: Path, signature: Path, copies: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    with ThreadPoolExecutor() as executor, pytest.raises(UsageError, match="by threads here"):
        model_signing.verify(model, signature, VERIFY, executor=executor, copy_to=copies / "copy")
    assert listing(copies) == []


@pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX limits and signals only")
def test_a_full_disk_leaves_nothing(model: Path, signature: Path, copies: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    (copies.parent / "key.pub").write_bytes(public_pem(KEY))
    script = (
        "import resource, sys; from model_signing.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); sys.exit(main())"
    )
    options = ["--signature", str(signature), "--public-key", str(copies.parent / "key.pub")]
    options += ["--copy-to", str(copies / "copy")]
    run = subprocess.run(
        [sys.executable, "-B", "-c", script, "verify", "key", str(model), *options],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert run.returncode == 1
    assert "cannot write the copy of the model" in run.stderr
    assert "Traceback" not in run.stderr
    assert listing(copies) == []


SLOW = """
import sys
from pathlib import Path
import model_signing
from tests.support.memory_source import MemorySource
signature, key, copy = sys.argv[1:]
source = MemorySource("model", {"a": b"a" * 500, "b": b"b" * 500_000}, piece=1000, wait=0.05)
model_signing.verify(source, signature, model_signing.key_verifier(key), copy_to=copy)
"""


@pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX limits and signals only")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_is_killed_leaves_what_the_next_run_removes(
    model: Path, signature: Path, copies: Path, how: signal.Signals
) -> None:
    key = copies.parent / "key.pub"
    key.write_bytes(public_pem(KEY))
    slow = MemorySource("model", {"a": b"a" * 500, "b": b"b" * 500_000})
    model_signing.sign(slow, signature, SIGN)
    command = [sys.executable, "-c", SLOW, str(signature), str(key), str(copies / "copy")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with limited(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)) as process:
        until(lambda: [*copies.rglob("b")] or None, "the copy to begin")
        assert not (copies / "copy").exists()
        temporary = copies / listing(copies)[0]
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
        # One that is at work is not taken for a leftover.
        model_signing.verify(slow, signature, VERIFY, copy_to=copies / "other")
        assert temporary.exists()
        process.send_signal(how)
        process.wait(60)
    left = listing(copies)
    assert left == (["other"] if how is signal.SIGINT else [temporary.name, "other"])
    model_signing.verify(slow, signature, VERIFY, copy_to=copies / "copy")
    assert listing(copies) == ["copy", "other"]


def test_the_command_line_says_where_the_copy_is(
    model: Path, signature: Path, copies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_signing.sign(model, signature, SIGN)
    (copies.parent / "key.pub").write_bytes(public_pem(KEY))
    command = ["verify", "key", str(model), "--signature", str(signature)]
    command += ["--public-key", str(copies.parent / "key.pub"), "--copy-to", str(copies / "copy")]
    assert main([*command, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["copy"] == str(copies / "copy")
    assert contents(copies / "copy") == FILES
    assert main(command) == 1
    assert "the copy would be mixed with what is there already" in capsys.readouterr().err


def test_a_folder_of_a_model_is_no_leftover_whatever_it_is_called(
    model: Path, tmp_path: Path
) -> None:
    odd = model / f".model_signing-{'0' * 16}.tmp"
    odd.mkdir()
    (odd / "weights.bin").write_bytes(b"mine")
    signed = model_signing.sign(model, model / "model.sig", SIGN)
    assert f"{odd.name}/weights.bin" in signed.manifest.files
    assert (odd / "weights.bin").read_bytes() == b"mine"
    model_signing.verify(model, model / "model.sig", VERIFY)
