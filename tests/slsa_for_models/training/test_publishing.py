"""A result is published as a whole or not at all, whatever fails, and whenever it is killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from model_signing.errors import FileError
from slsa_for_models.training import run
from slsa_for_models.training.publishing import publish, staging
from tests.support.crafted import Workshop

NAMES = ["model", "training.json"]
ROOT = Path(__file__).resolve().parents[3]

# Publishes in a child that dies at its Nth event that Python audits (a rename, a link, a file),
# for every N there is; after each, the folder has to be as it was or as it should be.
KILLED = """
import os, sys
from pathlib import Path
from slsa_for_models.training.publishing import publish, staging
folder = Path(sys.argv[1])
states = set()
for last in range(1, 500):
    output = folder / str(last)
    output.mkdir()
    for name in ("model", "training.json", "other"):
        (output / name).write_text("old")
    child = os.fork()
    if not child:
        count = 0
        def die(event, _):
            global count
            if event.startswith(("os.", "shutil.", "ctypes.", "open", "tempfile.")):
                count += 1
                if count == last:
                    os.kill(os.getpid(), 9)
        with staging(output) as private:
            (private / "model").mkdir()
            (private / "model" / "weights").write_text("new")
            (private / "training.json").write_text("new")
            sys.addaudithook(die)
            publish(private, output, ["model", "training.json"])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    model, record = output / "model", output / "training.json"
    inside = model / "weights" if model.is_dir() else model
    states.add((inside.read_text(), record.read_text(), (output / "other").read_text()))
    if status == 0:
        break
print(last, sorted(states))
"""


def old(output: Path) -> None:
    output.mkdir()
    for name in (*NAMES, "other"):
        (output / name).write_text("old")


def write(private: Path) -> None:
    for name in NAMES:
        (private / name).write_text("new")


def contents(output: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(output.iterdir())}


@pytest.mark.skipif(sys.platform != "linux", reason="not tested: folders are exchanged on Linux")
def test_killed_at_any_moment(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    last, _, states = done.stdout.partition(" ")
    assert int(last) > 20, done.stderr
    assert states.strip() == str([("new", "new", "old"), ("old", "old", "old")])


@pytest.mark.parametrize("inside", [False, True], ids=["exchanged", "one by one"])
def test_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool):
    output = tmp_path / "out"
    old(output)
    (output / "folder").mkdir()
    (output / "folder" / "link").symlink_to("nowhere")
    output.chmod(0o2750)
    if inside:  # whoever stands in the folder stays in it
        monkeypatch.chdir(output)
    with staging(output) as private:
        write(private)
        publish(private, output, NAMES)
    (output / "folder" / "link").unlink()
    (output / "folder").rmdir()
    assert contents(output) == {"model": "new", "training.json": "new", "other": "old"}
    assert stat.S_IMODE(output.stat().st_mode) == 0o2750
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("fails", range(1, 5))
def test_one_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int):
    output = tmp_path / "out"
    old(output)
    monkeypatch.chdir(output)
    real, calls = Path.rename, []

    def rename(source: Path, target: Path) -> Path:
        calls.append(source)
        if len(calls) == fails:
            raise OSError(16, "Device or resource busy")
        return real(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(FileError, match="cannot be written"), staging(output) as private:
        write(private)
        publish(private, output, NAMES)
    monkeypatch.undo()
    assert len(calls) >= fails
    assert contents(output) == {"model": "old", "training.json": "old", "other": "old"}


def test_leftovers_of_a_killed_training_are_removed(tmp_path: Path):
    output = tmp_path / "out"
    old(output)
    for leftover in (output / ".training-abc", tmp_path / ".out.training-abc"):
        leftover.mkdir()
        (leftover / "model").write_text("new")
    (tmp_path / ".other.training-abc").mkdir()
    with staging(output):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.training-abc", "out"]
    assert contents(output) == {"model": "old", "training.json": "old", "other": "old"}


@pytest.mark.skipif(os.name != "posix", reason="not tested: folders are locked on POSIX")
def test_two_trainings_into_one_folder(tmp_path: Path):
    with staging(tmp_path / "out"):
        with pytest.raises(FileError, match="another training writes"), staging(tmp_path / "out"):
            pass
        with staging(tmp_path / "another"):
            pass
    with staging(tmp_path / "out"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="not tested: modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, umask: int):
    before = os.umask(umask)
    try:
        with staging(tmp_path / "out") as private:
            (private / "model").mkdir(mode=0o700)
            (private / "model" / "weights").touch(mode=0o600)
            (private / "training.json").touch(mode=0o600)
            publish(private, tmp_path / "out", NAMES)
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in sorted((tmp_path / "out").rglob("*"))]
    assert modes == [0o777 & ~umask, 0o666 & ~umask, 0o666 & ~umask]


def in_the_place(output: Path, what: str) -> None:
    place = output / ("training.json" if what == "record" else "pytorch_model.pth")
    if what == "link":
        (output / "elsewhere").touch()
        place.symlink_to("elsewhere")
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()


@pytest.mark.skipif(os.name != "posix", reason="not tested: links and pipes are POSIX's")
@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("folder", "another folder"),
        ("record", "another folder"),
        ("link", "a symbolic link"),
        ("pipe", "another file"),
    ],
)
def test_something_else_in_the_place(tmp_path: Path, what: str, found: str):
    in_the_place(tmp_path, what)
    with pytest.raises(FileError, match="something else is in the place") as refused:
        run.check_output(tmp_path, "pytorch_model.pth")
    assert refused.value.found == found


def test_a_folder_is_replaced_only_if_the_record_beside_it_is_about_it(
    tmp_path: Path, workshop: Workshop
):
    model = workshop.directory()
    with pytest.raises(FileError, match="something else is in the place"):
        run.check_output(workshop.folder, model.name)
    workshop.record_file(model)
    run.check_output(workshop.folder, model.name)
    workshop.record_file(workshop.model(name="other"))
    with pytest.raises(FileError, match="something else is in the place"):
        run.check_output(workshop.folder, model.name)


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="not tested: /proc is no mount point")
def test_mount_point_in_the_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "RECORD", "proc")
    with pytest.raises(FileError) as refused:
        run.check_output(Path("/"), "pytorch_model.pth")
    assert refused.value.found == "a mount point"
