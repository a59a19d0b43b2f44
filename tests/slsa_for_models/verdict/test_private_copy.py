"""A verified copy: the bytes that are loaded are the bytes that were signed, or nothing is."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import model_signing
from model_signing.errors import Error, FileError, MismatchError, UsageError
from slsa_for_models import Expectations, Signer, verified, verify
from slsa_for_models.errors import UnsafeModelError
from tests.support.limits import limited
from tests.support.material import ROOT, new_key, private_pem, public_pem
from tests.support.memory_source import MemorySource

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
EXPECTED = Expectations(signer=Signer(public_key=public_pem(KEY)))
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "layers/0.onnx": os.urandom(40_000),
    "layers/1.onnx": os.urandom(70_000),
    "tokenizer/vocab.txt": b"a b c",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    write(root, FILES)
    return root


@pytest.fixture
def signature(model: Path, tmp_path: Path) -> Path:
    model_signing.sign(model, tmp_path / "model.sig", SIGN)
    return tmp_path / "model.sig"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private copies are made."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("where", ["local", "elsewhere"])
def test_the_copy_is_whole_private_and_goes(
    model: Path, signature: Path, temporary: Path, where: str
) -> None:
    place = model if where == "local" else MemorySource("model", dict(FILES))
    with verified(place, EXPECTED, signature=signature) as path:
        assert contents(path) == FILES
        assert (path.name, path.is_dir()) == ("model", True)
        if os.name == "posix":
            assert stat.S_IMODE(next(temporary.iterdir()).stat().st_mode) == 0o700
            modes = {stat.S_IMODE(one.stat().st_mode) for one in (path, *path.rglob("*"))}
            assert modes == {0o444, 0o555}
        (model / "config.json").write_bytes(b"later")
        assert contents(path) == FILES
    assert list(temporary.iterdir()) == []


def test_a_file_is_the_path_itself(model: Path, tmp_path: Path, temporary: Path) -> None:
    one = model / "layers" / "0.onnx"
    model_signing.sign(one, tmp_path / "one.sig", SIGN)
    with verified(one, EXPECTED, signature=tmp_path / "one.sig") as path:
        assert (path.name, path.read_bytes()) == ("0.onnx", FILES["layers/0.onnx"])
    assert list(temporary.iterdir()) == []


def test_it_goes_also_when_loading_fails(model: Path, signature: Path, temporary: Path) -> None:
    with (
        pytest.raises(ValueError, match="no such layer"),
        verified(model, EXPECTED, signature=signature),
    ):
        raise ValueError("no such layer")
    assert list(temporary.iterdir()) == []


def test_what_is_kept_stays_and_may_be_written_to(
    model: Path, signature: Path, tmp_path: Path, temporary: Path
) -> None:
    with verified(model, EXPECTED, signature=signature, keep=tmp_path / "kept") as path:
        assert path == tmp_path / "kept"
    assert contents(path) == FILES
    (path / "config.json").write_bytes(b"mine")
    assert list(temporary.iterdir()) == []
    with (
        pytest.raises(FileError, match="mixed with what is there"),
        verified(model, EXPECTED, signature=signature, keep=path),
    ):
        pytest.fail("it was verified")


@pytest.mark.parametrize("change", ["flipped", "missing", "added", "another signer", "no evidence"])
def test_the_block_is_not_entered_with_a_model_that_is_refused(
    model: Path, signature: Path, temporary: Path, tmp_path: Path, change: str
) -> None:
    expected, evidence = EXPECTED, {"signature": signature}
    if change == "flipped":
        (model / "config.json").write_bytes(FILES["config.json"][:-1] + b"!")
    elif change == "missing":
        (model / "config.json").unlink()
    elif change == "added":
        (model / "more.json").touch()
    elif change == "another signer":
        expected = Expectations(signer=Signer(public_key=public_pem(new_key())))
    else:
        evidence = {}
    for keep in (None, tmp_path / "kept"):
        with (
            pytest.raises(UsageError if change == "no evidence" else Error),
            verified(model, expected, keep=keep, **evidence),
        ):
            pytest.fail("it was verified")
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "kept").exists()


# Code ---------------------------------------------------------------------------------------------


def test_code_is_refused_unless_it_is_allowed(model: Path, tmp_path: Path, temporary: Path) -> None:
    (model / "modeling_tiny.py").write_text("class Tiny: ...")
    signature = tmp_path / "with-code.sig"
    model_signing.sign(model, signature, SIGN)
    with (
        pytest.raises(UnsafeModelError, match="holds code") as refusal,
        verified(model, EXPECTED, signature=signature),
    ):
        pytest.fail("it was verified")
    assert refusal.value.found == "modeling_tiny.py (Python code)"
    assert list(temporary.iterdir()) == []
    with verified(model, EXPECTED.stating(code="allowed"), signature=signature) as path:
        assert (path / "modeling_tiny.py").read_text() == "class Tiny: ..."
    # `verify` says so, and it is for the policy to refuse it.
    verdict = verify(model, EXPECTED, signature=signature)
    (step,) = [step for step in verdict.steps if step.title == "Code in it"]
    assert (verdict.verified, step.outcome) == (True, "info")
    assert step.found == "loading it can run modeling_tiny.py (Python code)"
    refused = verify(model, EXPECTED.stating(code="refused"), signature=signature)
    assert isinstance(refused.refusal, UnsafeModelError)


def test_code_of_somebody_else_is_not_allowed_with_that_of_the_model(
    model: Path, tmp_path: Path
) -> None:
    auto_map = b'{"auto_map": {"AutoModel": "evil/repository--modeling_evil.Evil"}}'
    (model / "config.json").write_bytes(auto_map)
    signature = tmp_path / "elsewhere.sig"
    model_signing.sign(model, signature, SIGN)
    with (
        pytest.raises(
            UnsafeModelError, match="code from elsewhere, which nobody signed"
        ) as refusal,
        verified(model, EXPECTED.stating(code="allowed"), signature=signature),
    ):
        pytest.fail("it was verified")
    assert refusal.value.where == "config.json"
    assert "modeling_evil.Evil of evil/repository" in (refusal.value.found or "")


# Whoever may write to the place meanwhile ---------------------------------------------------------

EVIL = b"evil" * 20_000


class Attacker:
    """Does something at random to a model, from a thread of its own and while it is hashed."""

    def __init__(self, model: Path, seed: int) -> None:
        self._model, self._random = model, random.Random(seed)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.did: Counter[str] = Counter()
        self._acts: tuple[Callable[[Path], object], ...] = (
            self.write_into,
            self.append,
            self.truncate,
            self.replace,
            self.swap_for_a_link,
            self.exchange,
            self.rename_folder,
            self.folder_behind_a_link,
            self.add,
            self.remove,
            self.restore,
            self.restore_all,
            self.restore_all,
        )

    def act(self, *_: object) -> None:
        with self._lock, suppress(OSError):  # another act was there before
            act = self._random.choice(self._acts)
            act(self._model / self._random.choice(list(FILES)))
            self.did[act.__name__] += 1

    def in_its_own_time(self) -> None:
        while not self._over.wait(0.02 * self._random.random() ** 4):
            self.act()

    def begin(self) -> None:
        """The model as it was signed, or something else already."""
        with self._lock:
            self.restore_all()
            assert contents(self._model) == FILES
        if self._random.random() < 0.1:
            self.act()

    def __enter__(self) -> Attacker:
        self._thread = threading.Thread(target=self.in_its_own_time)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def write_into(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(self._random.randrange(40_000) if path.suffix == ".onnx" else 0)
            file.write(b"evil")

    def append(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(b"evil")

    def truncate(self, path: Path) -> None:
        os.truncate(path, self._random.randrange(path.stat().st_size or 1))

    def replace(self, path: Path) -> None:
        """By a file of the same size and times."""
        before = path.stat()
        other = path.with_name("other")
        other.write_bytes(EVIL[: before.st_size])
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)

    def swap_for_a_link(self, path: Path) -> None:
        target = self._model.parent / "evil"
        target.write_bytes(EVIL[: len(FILES[path.relative_to(self._model).as_posix()])])
        path.unlink()
        path.symlink_to(target)

    def exchange(self, _: Path) -> None:
        one, other = self._model / "layers/0.onnx", self._model / "layers/1.onnx"
        one.rename(self._model / "x")
        other.rename(one)
        (self._model / "x").rename(other)

    def rename_folder(self, _: Path) -> None:
        (self._model / "layers").rename(self._model / "gone")
        write(self._model, {"layers/0.onnx": EVIL[:40_000], "layers/1.onnx": EVIL[:70_000]})

    def folder_behind_a_link(self, _: Path) -> None:
        outside = self._model.parent / "outside"
        write(outside, {"0.onnx": EVIL[:40_000], "1.onnx": EVIL[:70_000]})
        shutil.rmtree(self._model / "layers")
        (self._model / "layers").symlink_to(outside)

    def add(self, path: Path) -> None:
        path.with_name("added").write_bytes(b"evil")

    def remove(self, path: Path) -> None:
        path.unlink()

    def restore(self, path: Path) -> None:
        """So that only one of several is evil."""
        path.unlink(missing_ok=True)
        write(self._model, {(name := path.relative_to(self._model).as_posix()): FILES[name]})

    def restore_all(self, _: object = None) -> None:
        other = self._model.with_name("good")
        shutil.rmtree(other, ignore_errors=True)
        write(other, FILES)
        for path in list(self._model.iterdir()):
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
        for path in list(other.iterdir()):
            path.rename(self._model / path.name)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="not tested: links and renames of open files")
@pytest.mark.parametrize("attempts", [200, pytest.param(1000, marks=pytest.mark.full)])
def test_no_other_bytes_are_ever_loaded_than_those_verified(
    model: Path, signature: Path, temporary: Path, attempts: int
) -> None:
    """Each attempt meets random acts before, while and after the model is hashed."""
    ended: Counter[str] = Counter()
    with Attacker(model, seed=attempts) as attacker:
        for _ in range(attempts):
            attacker.begin()
            try:
                with verified(model, EXPECTED, signature=signature, progress=attacker.act) as path:
                    attacker.act()
                    assert contents(path) == FILES
                    assert not any(one.is_symlink() for one in path.rglob("*"))
                ended["loaded"] += 1
            except (FileError, MismatchError) as refusal:
                ended[type(refusal).__name__] += 1
    assert sum(ended.values()) == attempts
    assert min(ended["loaded"], ended["FileError"], ended["MismatchError"]) > attempts // 100, ended
    assert len(attacker.did) == len({act.__name__ for act in attacker._acts}), attacker.did
    assert list(temporary.iterdir()) == []


# What was killed ----------------------------------------------------------------------------------

HOLDS = """
import sys
from slsa_for_models import Expectations, Signer, verified
model, signature, key = sys.argv[1:]
expected = Expectations(signer=Signer(public_key=open(key, "rb").read()))
with verified(model, expected, signature=signature) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX locks and modes only")
def test_what_a_killed_process_leaves_goes_with_the_next_one(
    model: Path, signature: Path, temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    command = [sys.executable, "-c", HOLDS, str(model), str(signature), str(tmp_path / "key.pub")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with limited(subprocess.Popen(command, env=environment, text=True, **pipes)) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        with verified(model, EXPECTED, signature=signature):
            assert contents(path) == FILES  # in use, and no leftover
        process.kill()
        process.wait(60)
    assert contents(path) == FILES
    with verified(model, EXPECTED, signature=signature):
        assert not path.exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX owners only")
def test_what_others_put_beside_it_does_no_harm(
    model: Path, signature: Path, temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    name = ".model_signing-{}.tmp".format
    (temporary / name("0" * 16)).symlink_to(tmp_path / "mine")
    os.mkfifo(temporary / name("1" * 16))
    (temporary / name("2" * 16)).mkdir()
    (temporary / name("2" * 16) / "link").symlink_to(tmp_path / "mine")
    (temporary / name("3" * 16)).write_text("left by a killed signing")
    with verified(model, EXPECTED, signature=signature) as path:
        assert contents(path) == FILES
    assert (tmp_path / "mine" / "file").read_text() == "mine"
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) & 0o700 == 0o700
    assert sorted(path.name for path in temporary.iterdir()) == [name("0" * 16), name("1" * 16)]
