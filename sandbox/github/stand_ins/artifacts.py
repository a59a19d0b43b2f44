"""What actions/upload-artifact and actions/download-artifact do, on the sandbox's disk.

For demonstrations and tests only. An artifact is `NAME.zip` in a folder of the run, with its
digest beside it as `NAME.sha256`.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import itertools
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from sandbox.github.stand_ins.commands import StepError, flag, run, set_output, value

# @actions/artifact, "path-and-artifact-name-validation".
FORBIDDEN_IN_NAME = '":<>|*?\r\n\\/'


def upload() -> None:
    """Packs files into an artifact of the run."""
    name = value("NAME")
    found = next((character for character in FORBIDDEN_IN_NAME if character in name), None)
    if not name or found:
        raise StepError(f"The artifact name is not valid: {name!r}. Contains {found!r}")
    patterns = [line.strip() for line in value("SOURCE").splitlines() if line.strip()]
    files, root = find_files(patterns, hidden=flag("INCLUDE_HIDDEN_FILES"))
    if not files:
        message = f"No files were found with the provided path: {value('SOURCE')}."
        if value("IF_NO_FILES_FOUND") == "error":
            raise StepError(f"{message} No artifacts will be uploaded.")
        if value("IF_NO_FILES_FOUND") != "ignore":
            print(f"::warning::{message} No artifacts will be uploaded.")
        return
    archive = _folder() / f"{name}.zip"
    if archive.exists() and not flag("OVERWRITE"):
        raise StepError(
            f"Failed to CreateArtifact: an artifact with the name '{name}' already exists on the "
            "workflow run"
        )
    temporary = archive.with_suffix(".partial")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as writer:
        for file in files:
            writer.write(file, file.relative_to(root).as_posix())
    digest = _sha256(temporary)
    archive.with_suffix(".sha256").write_text(digest)
    temporary.replace(archive)
    number = str(zlib.crc32(f"{value('GITHUB_RUN_ID')}/{name}".encode()))
    set_output("artifact-id", number)
    set_output("artifact-digest", digest)
    run_url = f"{value('GITHUB_SERVER_URL')}/{value('GITHUB_REPOSITORY')}/actions/runs"
    set_output("artifact-url", f"{run_url}/{value('GITHUB_RUN_ID')}/artifacts/{number}")
    print(f"Artifact {name} has {len(files)} files, SHA-256 {digest}")


def find_files(patterns: Sequence[str], *, hidden: bool) -> tuple[list[Path], Path]:
    """The files that patterns name, sorted, and the folder to which their names are relative.

    As upload-artifact has it: a folder stands for all in it; with one pattern names are relative
    to the folder it names, with several to what their files have in common.
    """
    included: set[Path] = set()
    roots: list[Path] = []
    for pattern in patterns:
        root, matches = _matches(pattern.removeprefix("!"))
        if pattern.startswith("!"):
            included -= matches
        else:
            included |= matches
            roots.append(root)
    here = Path.cwd().resolve()
    files = sorted(
        file
        for file in included
        if hidden or not any(part.startswith(".") for part in file.relative_to(here).parts)
    )
    if not files:
        return [], here
    several = len(roots) > 1
    root = Path(os.path.commonpath([file.parent for file in files])) if several else roots[0]
    return files, root


def _matches(pattern: str) -> tuple[Path, set[Path]]:
    """The folder that a pattern searches, and the files that it finds."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    folder = Path(*fixed).resolve()
    if len(fixed) == len(parts):
        found = [folder]
    else:
        found = list(folder.glob(str(Path(*parts[len(fixed) :]))))
    files = {file for path in found for file in (path, *path.rglob("*")) if file.is_file()}
    return folder if folder.is_dir() else folder.parent, files


def download() -> None:
    """Unpacks one artifact, or all that match, after checking their digests."""
    name = value("NAME")
    archives = sorted(_folder_of(value("REPOSITORY"), value("RUN_ID")).glob("*.zip"))
    if name:
        archives = [archive for archive in archives if archive.name == f"{name}.zip"]
        if not archives:
            raise StepError(f"Unable to download artifact(s): Artifact not found for name: {name}")
    elif value("PATTERN"):
        archives = [item for item in archives if fnmatch.fnmatch(item.stem, value("PATTERN"))]
    target = Path(value("TARGET") or ".").resolve()
    apart = not name and not flag("MERGE_MULTIPLE")
    for archive in archives:
        artifact = archive.name.removesuffix(".zip")
        if _sha256(archive) != archive.with_suffix(".sha256").read_text():
            raise StepError(
                f"The digest of artifact '{artifact}' is not the one it was stored with"
            )
        with zipfile.ZipFile(archive) as reader:
            reader.extractall(target / artifact if apart else target)
        print(f"Artifact {artifact} unpacked")
    target.mkdir(parents=True, exist_ok=True)
    set_output("download-path", str(target))


def _folder() -> Path:
    return Path(os.environ["SANDBOX_ARTIFACTS"])


def _folder_of(repository: str, run_id: str) -> Path:
    """Where a run's artifacts are; for another run than this one, a token is needed."""
    if (repository, run_id) == (value("GITHUB_REPOSITORY"), value("GITHUB_RUN_ID")):
        return _folder()
    earlier: dict[str, str] = json.loads(value("SANDBOX_EARLIER_RUNS") or "{}")
    folder = earlier.get(f"{repository} {run_id}")
    if folder is None or not value("TOKEN"):
        raise StepError("Unable to download artifact(s): Not Found")
    return Path(folder)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    run({"upload": upload, "download": download}[sys.argv[1]])
