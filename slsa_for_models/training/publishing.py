"""The result of a training gets its names all at once, or the earlier one keeps them.

Two files have to change together, and a file system renames one thing at a time. So the output
folder is prepared a second time beside itself, with the new files and everything else that is in
it, and the two folders exchange their names: that is one step, whatever ends the process before or
after it. Where the system cannot do that (it is not Linux, or the folder is a mount point), the
files are renamed one by one, and back if one of them cannot be.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from model_signing.errors import FileError

_STAGING = ".training-"
_MOST_NEIGHBOURS = 1000  # other files in the folder, each of which is linked
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_place(place: Path, *, is_result: bool = False) -> None:
    """Refuses, before the work, what a result would not replace.

    Args:
        place: Of the result.
        is_result: Whether a folder that is there is an earlier result.

    Raises:
        FileError: Something else than an earlier result is there.
    """
    found = ""
    if os.path.ismount(place):
        found = "a mount point"
    elif place.is_symlink():
        found = "a symbolic link"
    elif place.is_dir() and not is_result:
        found = "another folder"
    elif place.exists() and not place.is_dir() and not place.is_file():
        found = "another file"
    if found:
        raise FileError(
            "something else is in the place of the result",
            where=str(place),
            expected="an earlier result, or nothing",
            found=found,
            fix="choose another --output-dir",
        )


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A private folder inside the output folder, which is this training's alone until its end.

    Raises:
        FileError: The folder cannot be written, or another training writes into it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        locked = _lock(output)
        if locked is not None:
            _remove_leftovers(output)
        folder = Path(tempfile.mkdtemp(dir=output, prefix=_STAGING))
    except OSError as error:
        raise FileError(
            "the output folder cannot be written", where=str(output), found=error.strerror
        ) from error
    try:
        yield folder
    except OSError as error:
        raise FileError(
            "the model cannot be written", where=str(output), found=error.strerror or str(error)
        ) from error
    finally:
        open_folders(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if locked is not None:
            os.close(locked)


def publish(folder: Path, output: Path, names: Sequence[str]) -> None:
    """Moves the finished files from `staging`'s folder to their names, all or none of them.

    Args:
        folder: Where they are, `staging`'s folder or one in it.
        output: Where they go, replacing those of an earlier run.
        names: Files or folders.

    Raises:
        OSError: They cannot be; the earlier ones are where they were.
    """
    for name in names:
        _finish(folder / name)
    if not _exchange_folders(folder, output, names):
        _rename_each(folder, output, names)


def open_folders(folder: Path) -> None:
    """Whatever modes its folders were given, all that is in them can be seen and removed."""
    for here, names, _ in os.walk(folder):
        for path in (Path(here, name) for name in names):
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)


def _lock(output: Path) -> int | None:
    """A descriptor of the folder that no other training has at the same time."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FileError(
            "another training writes into this folder",
            where=str(output),
            fix="wait until it has ended, or choose another --output-dir",
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(output: Path) -> None:
    """What a training left that was killed; it ran in this folder, which is ours now."""
    resolved = output.resolve()
    for leftover in (
        *resolved.glob(f"{_STAGING}*"),
        *resolved.parent.glob(f".{glob.escape(resolved.name)}{_STAGING}*"),
    ):
        shutil.rmtree(leftover, ignore_errors=True)


def _finish(item: Path) -> None:
    """Modes follow the umask, whatever a library thought of; the bytes are on the disk."""
    umask = os.umask(0o077)
    os.umask(umask)
    for path in (item, *item.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


# at once ------------------------------------------------------------------------------------------


def _exchange_folders(folder: Path, output: Path, names: Sequence[str]) -> bool:
    """Exchanges the output folder for one with the new files; False if nothing was changed."""
    output = output.resolve()
    staged = folder.resolve().relative_to(output).parts[0]
    if Path.cwd() == output or output in Path.cwd().parents:
        return False  # whoever stands in the folder would find himself in the old one
    try:
        second = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}{_STAGING}"))
    except OSError:
        return False
    try:
        if not _fill(second, output, {staged, *names}):
            return False
        for name in names:
            _link(folder / name, second / name)
        _copy_owner(output, second)
        _sync(second)
        if not _exchange(second, output):
            return False
        with contextlib.suppress(OSError):  # the new files have their names
            _sync(output.parent)
            for late in second.iterdir():  # what others put there meanwhile
                if late.name != staged and not (output / late.name).exists():
                    late.rename(output / late.name)
        return True
    except OSError:
        return False
    finally:
        shutil.rmtree(second, ignore_errors=True)


def _fill(second: Path, output: Path, without: set[str]) -> bool:
    """Links everything else that is in the output folder; False if that would be too much."""
    left = [item for item in output.iterdir() if item.name not in without]
    entries = sum(1 + sum(1 for _ in item.rglob("*")) for item in left if not item.is_symlink())
    if entries > _MOST_NEIGHBOURS:
        return False
    for item in left:
        _link(item, second / item.name)
    return True


def _link(source: Path, target: Path) -> None:
    """The same files under a second name; folders are made anew, special files are not."""
    if source.is_symlink() or not source.is_dir():
        if not source.is_symlink() and not source.is_file():
            raise OSError(f"{source} is a special file")
        os.link(source, target, follow_symlinks=False)
        return
    if os.path.ismount(source):
        raise OSError(f"{source} is a mount point")
    target.mkdir()
    for item in source.iterdir():
        _link(item, target / item.name)
    _copy_owner(source, target)


def _copy_owner(source: Path, target: Path) -> None:
    found = source.stat()
    if (found.st_uid, found.st_gid) != (target.stat().st_uid, target.stat().st_gid):
        os.chown(target, found.st_uid, found.st_gid)
    shutil.copystat(source, target)
    target.chmod(stat.S_IMODE(found.st_mode))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> bool:
    """Two folders exchange their names, in one step (renameat2(2)); False if they cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


# one by one ---------------------------------------------------------------------------------------


def _rename_each(folder: Path, output: Path, names: Sequence[str]) -> None:
    """Renames the files one by one; if one cannot be, those before it are renamed back."""
    earlier = Path(tempfile.mkdtemp(dir=output, prefix=".earlier-"))
    moves = [(output / name, earlier / name) for name in reversed(names)]  # the record goes first:
    moves += [(folder / name, output / name) for name in names]  # it describes no new model
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            if source.exists():
                done.append((source, target))
                source.rename(target)
    except BaseException:
        try:
            for source, target in reversed(done):
                if target.exists() and not source.exists():
                    target.rename(source)
            earlier.rmdir()
        except OSError as error:
            raise FileError(
                "the earlier result could not be put back",
                where=str(output),
                found=error.strerror,
                fix=f"it is in {earlier}",
            ) from error
        raise
    shutil.rmtree(earlier, ignore_errors=True)
