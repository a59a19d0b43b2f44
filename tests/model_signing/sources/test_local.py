"""Files: what belongs to a model, under which name (OMS 6.1, 6.2); atomic writing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from model_signing.errors import FileError, UsageError
from model_signing.oms.names import GIT_PATHS, Selection
from model_signing.safe_files import write_atomic
from model_signing.sources import local, open_source
from tests.support.material import ROOT

posix = pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX files only")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name in ("config.json", "weights/0.bin", "weights/deep/1.bin", "Upper", "with space"):
        write(root / name)
    return root


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(model: Path, ignored: Collection[str] = (), allow_symlinks: bool = False) -> list[str]:
    source = open_source(model, allow_symlinks=allow_symlinks)
    return sorted(source.entries(Selection(ignored))[0])


# Names (6.1.2) -----------------------------------------------------------------------------------


@posix
def test_names_are_those_that_find_prints(model: Path) -> None:
    run = subprocess.run(
        ["find", ".", "-type", "f", "-print0"],
        cwd=model,
        capture_output=True,
        check=True,
        timeout=300,
    )
    expected = sorted(name[2:] for name in run.stdout.decode().split("\0") if name)
    assert names(model) == expected
    assert len(expected) == 5


def test_a_single_file_is_named_by_its_basename(model: Path) -> None:
    source = open_source(model / "weights" / "0.bin")
    assert list(source.entries(Selection())[0]) == ["0.bin"]
    assert (source.single, source.name) == (True, "0.bin")


def test_the_path_of_the_model_does_not_matter(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = names(model)
    monkeypatch.chdir(model)
    assert names(Path()) == names(Path("../model")) == names(Path("weights/..")) == expected
    assert open_source(Path()).name == open_source("weights/..").name == "model"


def test_empty_directories_do_not_count(model: Path) -> None:
    (model / "empty" / "deeper").mkdir(parents=True)
    assert len(names(model)) == 5


@pytest.mark.parametrize(
    "name", ["模型.bin", "é.bin", "e\u0301.bin", "a:0:5", "a b", "'\"$(x)", "…"]
)
def test_unusual_names_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    if os.name != "posix":
        pytest.skip("not tested: this system does not allow such names")
    write(tmp_path / name)
    assert names(tmp_path) == [name]


@posix
@pytest.mark.parametrize("name", [b"\xff.bin", b"a\xc3", b"line\nbreak", b"\x1b[31mred", b"tab\t"])
def test_names_that_json_or_a_terminal_would_garble_are_refused(
    tmp_path: Path, name: bytes
) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    except OSError:
        pytest.skip("not tested: this file system does not allow such names")
    with pytest.raises(FileError, match="file name") as refusal:
        names(tmp_path)
    assert str(refusal.value).isascii()
    assert len(str(refusal.value).splitlines()) == 2


@posix
def test_a_tree_deeper_than_a_path_can_be_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("dd", dir_fd=descriptor)
        below = os.open("dd", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        with pytest.raises(FileError, match="cannot read"):
            names(root)
    finally:
        subprocess.run(
            ["rm", "-rf", root],
            check=True,
            timeout=300,
        )  # Python's own gives up on such depths


def test_a_deep_tree_is_walked_without_recursion(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(300):
        folder /= "d"
    write(folder / "f")
    assert names(tmp_path) == ["d/" * 300 + "f"]


# Exclusions (6.2) --------------------------------------------------------------------------------


def test_excluded_paths_match_from_the_root_with_their_subtree(model: Path) -> None:
    for name in (".git/config", "sub/.git/config", "cache/a/b", "cachefile", "sub/cache", ".gitx"):
        write(model / name)
    found = names(model, ignored=(*GIT_PATHS, "cache", "weights/0.bin"))
    kept = "Upper config.json weights/deep/1.bin sub/.git/config cachefile sub/cache .gitx"
    assert found == sorted(["with space", *kept.split()])


def test_nothing_is_not_a_model_nor_the_current_directory(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    assert open_source(".").entries(Selection([]))[0]
    with pytest.raises(UsageError, match="path is empty"):
        open_source("")
    for nothing in (None, 3, b"model"):
        with pytest.raises(UsageError, match="not a model"):
            open_source(nothing)  # type: ignore[arg-type]


def test_excluding_for_one_model_does_not_leak_into_the_next(model: Path) -> None:
    assert "config.json" not in names(model, ignored=["config.json"])
    assert "config.json" in names(model)


def test_a_listed_file_is_found_although_it_is_excluded(model: Path) -> None:
    write(model / "cache" / "signed")
    write(model / "cache" / "unsigned")
    found, unsigned = open_source(model).entries(Selection(["cache"], ["cache/signed"]))
    assert "cache/signed" in found
    assert "cache/unsigned" not in found
    assert unsigned == []


def test_only_listed_files_are_looked_at_when_asked(model: Path) -> None:
    (model / "junk").mkdir()
    write(model / "ignored")
    if os.name == "posix":
        os.mkfifo(model / "pipe")
        (model / "link").symlink_to("/")
    selection = Selection(["ignored"], ["weights/0.bin"], only_listed=True)
    found, unsigned = open_source(model).entries(selection)
    assert list(found) == ["weights/0.bin"]
    assert {"junk", "config.json", "weights/deep"} <= set(unsigned)
    assert "ignored" not in unsigned


@pytest.mark.parametrize(
    ("given", "canonical"),
    [("cache", "cache"), ("./cache/", "cache"), ("a//b/./c", "a/b/c"), (".git", ".git")],
)
def test_ignored_paths_become_canonical(model: Path, given: str, canonical: str) -> None:
    assert local.ignored_path(model, given) == canonical


def test_an_absolute_ignored_path_counts_from_the_model(model: Path) -> None:
    assert local.ignored_path(model, str(model / "weights" / "0.bin")) == "weights/0.bin"


@pytest.mark.parametrize(
    "given", ["", ".", "./", "/", "..", "a/..", "../model", "/etc", "*", "w?", "[ab]", "a/*/b"]
)
def test_ignored_paths_that_swallow_or_leave_the_model_are_refused(model: Path, given: str) -> None:
    with pytest.raises(UsageError, match="ignored path"):
        local.ignored_path(model, given)


def test_the_model_itself_cannot_be_ignored(model: Path) -> None:
    with pytest.raises(UsageError):
        local.ignored_path(model, str(model))


def test_a_path_is_found_inside_through_links(model: Path, tmp_path: Path) -> None:
    assert local.name_inside(model, model / "weights" / "new.sig") == "weights/new.sig"
    assert local.name_inside(model, tmp_path / "model.sig") is None
    assert local.name_inside(model, tmp_path / "model-2" / "x") is None
    if os.name == "posix":
        (tmp_path / "alias").symlink_to(model)
        assert local.name_inside(model, tmp_path / "alias" / "a.sig") == "a.sig"
        assert local.name_inside(tmp_path / "alias", model / "a.sig") == "a.sig"


# Symbolic links (6.1.1) --------------------------------------------------------------------------

LINKS: dict[str, tuple[str, str]] = {
    "to a file": ("link", "config.json"),
    "to a directory": ("link", "weights"),
    "dangling": ("link", "nowhere"),
    "out of the root": ("link", "/etc/hostname"),
    "deep inside": ("weights/deep/link", "1.bin"),
}


@posix
@pytest.mark.parametrize("case", LINKS)
def test_any_link_is_refused_by_default(model: Path, case: str) -> None:
    name, target = LINKS[case]
    (model / name).symlink_to(target)
    with pytest.raises(FileError, match="symbolic link") as refusal:
        names(model)
    assert str(model / name) in str(refusal.value.where)


@posix
def test_a_model_that_is_a_link_is_refused_by_default(model: Path, tmp_path: Path) -> None:
    (tmp_path / "to-directory").symlink_to(model)
    (tmp_path / "to-file").symlink_to(model / "config.json")
    for name in ("to-directory", "to-file"):
        with pytest.raises(FileError, match="symbolic link"):
            names(tmp_path / name)
        assert names(tmp_path / name, allow_symlinks=True)


@posix
def test_an_excluded_link_does_not_matter(model: Path) -> None:
    (model / ".git").symlink_to("/")
    assert len(names(model, ignored=[".git"])) == 5


@posix
def test_allowed_links_are_followed_under_their_own_name(model: Path) -> None:
    (model / "file").symlink_to("config.json")
    (model / "again").symlink_to(model / "config.json")
    (model / "folder").symlink_to("weights")
    (model / "weights" / "up").symlink_to("../config.json")
    found = names(model, allow_symlinks=True)
    assert {"file", "again", "folder/0.bin", "folder/deep/1.bin", "folder/up"} <= set(found)
    assert len(found) == 5 + 2 + 3 + 1


@posix
@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("link", "/etc/hostname", "out of the model"),
        ("link", "/", "out of the model"),
        ("link", "..", "out of the model"),
        ("link", "../model-2", "out of the model"),
        ("weights/link", "../../outside", "out of the model"),
        ("link", "nowhere", "nowhere"),
        ("link", "link", "nowhere"),
        ("link", ".", "back to a directory above"),
        ("weights/deep/link", "..", "back to a directory above"),
        ("weights/link", "../weights", "back to a directory above"),
    ],
)
def test_links_out_of_the_model_or_in_circles_are_refused(
    model: Path, name: str, target: str, message: str
) -> None:
    write(model.parent / "outside")
    write(model.parent / "model-2" / "x")
    (model / name).symlink_to(target)
    with pytest.raises(FileError, match=message):
        names(model, allow_symlinks=True)


@posix
def test_two_links_that_lead_to_each_others_directory_are_refused(model: Path) -> None:
    write(model / "a" / "f")
    write(model / "b" / "f")
    (model / "a" / "to-b").symlink_to("../b")
    (model / "b" / "to-a").symlink_to("../a")
    with pytest.raises(FileError, match="back to a directory above"):
        names(model, allow_symlinks=True)


@posix
def test_links_cannot_multiply_a_tree_without_end(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_FILES", 1000)
    for level in range(12):
        for side in "lr":
            folder = model / f"level{level}"
            folder.mkdir(exist_ok=True)
            (folder / side).symlink_to(f"../level{level + 1}")
    write(model / "level12" / "f")
    with pytest.raises(FileError, match="too many files"):
        names(model, allow_symlinks=True)


# What is no file ---------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("where", ["thing", "weights/thing"])
@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a device"])
def test_special_files_are_refused(model: Path, kind: str, where: str) -> None:
    path = model / where
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory() as short:
            listener.bind(f"{short}/s")  # a socket's path must be short
            shutil.move(f"{short}/s", path)
    else:
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("not tested: making a device needs root")
    with pytest.raises(FileError, match="files and directories only") as refusal:
        names(model)
    assert (refusal.value.found, refusal.value.where) == (kind, str(path))


@posix
def test_a_model_that_is_no_file_is_refused() -> None:
    with pytest.raises(FileError, match="a file or a directory"):
        names(Path(os.devnull))


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        names(tmp_path / "nothing")


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything: while this lasts, the tests are somebody else."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@posix
@pytest.mark.parametrize("forbidden", ["file", "directory", "a/deep/directory"])
def test_what_cannot_be_read_is_refused(forbidden: str) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    write(folder / "public")
    target = folder / forbidden
    write(target if forbidden == "file" else target / "hidden")
    for open_to_all in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        open_to_all.chmod(0o755)  # whatever the umask is
    target.chmod(0)
    try:
        with unprivileged(), pytest.raises(FileError, match="cannot read") as refusal:
            source = open_source(folder)
            for name, entry in source.entries(Selection())[0].items():
                list(source.read(name, entry, 0, 1))  # a file shows only when it is opened
    finally:
        target.chmod(0o700)
        shutil.rmtree(folder)
    assert str(refusal.value.where).rstrip("/") == str(target)
    assert refusal.value.found == "Permission denied"


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing -----------------------------------------------------------------------------------------


def test_a_file_is_written_whole_with_usual_permissions(tmp_path: Path) -> None:
    target = tmp_path / "model.sig"
    write_atomic(target, b"first")
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert listing(tmp_path) == ["model.sig"]
    usual = write(tmp_path / "usual")
    assert target.stat().st_mode == usual.stat().st_mode


def test_the_longest_name_of_many_bytes_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("模" * 85)  # 255 bytes
    write_atomic(target, b"data")
    assert target.read_bytes() == b"data"


def unwritable(tmp_path: Path) -> dict[str, Path]:
    return {
        "no directory": tmp_path / "none" / "model.sig",
        "a directory": tmp_path,
        "a file as directory": write(tmp_path / "file") / "model.sig",
        "a name too long": tmp_path / ("x" * 300),
        "a null character": tmp_path / "a\0b",
    }


@pytest.mark.parametrize(
    "case",
    ["no directory", "a directory", "a file as directory", "a name too long", "a null character"],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, case: str) -> None:
    target = unwritable(tmp_path)[case]
    before = listing(tmp_path)
    with pytest.raises(FileError, match="cannot write the file"):
        write_atomic(target, b"data")
    assert listing(tmp_path) == before


SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
from model_signing.errors import FileError
from model_signing.safe_files import write_atomic
target = Path(sys.argv[1])
{prepare}
try:
    write_atomic(target, b"x" * 100_000)
except FileError as error:
    print(error.message, error.found)
"""


def run_script(prepare: str, target: Path) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(prepare=prepare)
    # -B: where files are limited, compiled modules would be cut off, too.
    command = [sys.executable, "-B", "-c", script, str(target)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


@posix
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write(tmp_path / "model.sig", b"old")
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    run = run_script(limit, target)
    assert run.stdout.strip() == "cannot write the file File too large", run.stderr
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["model.sig"]


@posix
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_writing_the_old_file_is_still_whole(tmp_path: Path, moment: str) -> None:
    target = write(tmp_path / "model.sig", b"old")
    # Python 3.10's Path keeps functions of its own.
    kill = f"import pathlib; os.{moment} = pathlib.Path.{moment} = "
    kill += "lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    assert run_script(kill, target).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
