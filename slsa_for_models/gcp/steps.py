"""The steps of the Tekton pipeline that are neither training nor signing.

A step of a Task is one command; what it found goes to Tekton results, JSON objects with `uri` and
`digest` under names that Tekton Chains understands (Chains, "SLSA Provenance", type hinting).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from model_signing.errors import DependencyError, FileError, UsageError
from model_signing.safe_files import write_atomic
from slsa_for_models.errors import CloneError, StorageError

_CHUNK = 1024 * 1024
TIMEOUT = 60  # seconds without an answer from the bucket
# Tekton keeps at most 4096 bytes of results of a whole Task in the pod's termination message; a
# Task here has four at most.
_MAX_RESULT = 1000
MAX_DESTINATION = 600

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BUCKET_URI = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/([^\s@#?*\[\]]+)")
_REFERENCE = re.compile(r"(gs://[^@]+)@sha256:([0-9a-f]{64})")


def clone(url: str, revision: str, directory: Path) -> str:
    """Fetches one commit of a repository, without its history, into an empty directory.

    Args:
        url: `https://HOST/ORG/REPO`, without `.git`.
        revision: A commit (hexadecimal), or a full reference such as `refs/heads/main`.
        directory: Where the files go; it may hold what a new volume holds (`lost+found`).

    Returns:
        The commit, hexadecimal.

    Raises:
        UsageError: The URL or the revision has another form.
        CloneError: git failed, or the server answered with another commit.
    """
    if not re.fullmatch(r"https://[^\s@?#]+[^\s@?#/]", url) or url.endswith(".git"):
        raise UsageError("not a repository's URL", expected="https://HOST/ORG/REPO", found=url)
    pinned = _COMMIT.fullmatch(revision) is not None
    if not pinned and not re.fullmatch(r"refs/(heads|tags)/[^\s:*?\[\\^~]+", revision):
        raise UsageError(
            "not a revision",
            expected="a full commit digest, refs/heads/NAME or refs/tags/NAME",
            found=revision,
        )
    _git(directory, "init", "--quiet")
    _git(directory, "fetch", "--quiet", "--depth=1", "--no-tags", url, revision)
    _git(directory, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    commit = _git(directory, "rev-parse", "HEAD")
    if pinned and commit != revision:
        raise CloneError("another commit was fetched", expected=revision, found=commit)
    return commit


def _git(directory: Path, *arguments: str) -> str:
    """Runs git: https only, no prompt, and no hooks or settings of whoever owns the volume."""
    environment = {
        "GIT_ALLOW_PROTOCOL": "https",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        **os.environ,
    }
    command = ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise CloneError(
            "git cannot be run", where=str(directory), found=error.strerror, fix="install git"
        ) from error
    if done.returncode:
        raise CloneError(
            f"`git {arguments[0]}` failed",
            where=str(directory),
            found=done.stderr.strip() or f"exit code {done.returncode}",
        )
    return done.stdout.strip()


def upload(path: Path, uri: str) -> str:
    """Writes a file to a new object; an object that exists is never replaced.

    Args:
        path: The file.
        uri: `gs://BUCKET/OBJECT`.

    Returns:
        The file's SHA-256, hexadecimal.

    Raises:
        FileError: The file cannot be read.
        StorageError: The object exists, or the bucket refused.
        DependencyError: google-cloud-storage is not installed.
    """
    blob = _blob(uri)
    with reading(path) as file, _storage_failures(uri):
        digest = _sha256(file)
        size = file.tell()
        file.seek(0)
        # Generation 0 is "there is no such object yet".
        blob.upload_from_file(
            file, size=size, if_generation_match=0, checksum="crc32c", **_patience()
        )
    return digest


def download(reference: str, directory: Path) -> Path:
    """Reads an object into a file of its own name, which appears only if the digest is right.

    Args:
        reference: `gs://BUCKET/OBJECT@sha256:DIGEST`.
        directory: Where the file goes.

    Raises:
        UsageError: The reference has another form.
        StorageError: There is no such object, the bucket refused, or its bytes are others.
        DependencyError: google-cloud-storage is not installed.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(
            "not a reference", expected="gs://BUCKET/OBJECT@sha256:DIGEST", found=reference
        )
    uri, expected = match.groups()
    blob = _blob(uri)
    name = uri.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise UsageError("the object has no file name", where=uri)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / name
    with tempfile.TemporaryDirectory(dir=directory, prefix=".download-") as scratch:
        path = Path(scratch) / name
        with path.open("w+b") as file, _storage_failures(uri):
            blob.download_to_file(file, **_patience())
            file.seek(0)
            found = _sha256(file)
        if found != expected:
            raise StorageError(
                "the object is not the one that was named",
                where=uri,
                expected=f"sha256:{expected}",
                found=f"sha256:{found}",
            )
        path.replace(target)
    return target


def write_result(path: Path, uri: str, digest: str, flags: Mapping[str, str] | None = None) -> None:
    """Writes one object result of a Task: `uri`, `digest` and Chains' own flags.

    Args:
        path: What Tekton substitutes for `$(results.NAME.path)`.
        uri: Where the artifact is.
        digest: `ALGORITHM:HEXADECIMAL`.
        flags: `isBuildArtifact`: `"true"` makes it a subject of the provenance.

    Raises:
        FileError: It cannot be written.
        UsageError: It would not fit into Tekton's limit.
    """
    data = json.dumps({"uri": uri, "digest": digest, **(flags or {})}, sort_keys=True).encode()
    if len(data) > _MAX_RESULT:
        raise UsageError("the result is too long for Tekton", where=path.name, found=uri[:100])
    write_atomic(path, data)


def _blob(uri: str) -> Any:  # noqa: ANN401 - google-cloud-storage has no types
    match = _BUCKET_URI.fullmatch(uri)
    if match is None or ".." in uri.split("/"):
        raise UsageError("not an object's URI", expected="gs://BUCKET/OBJECT", found=uri)
    bucket, name = match.groups()
    return _client(uri).bucket(bucket).blob(name)


def _client(uri: str) -> Any:  # noqa: ANN401
    """The bucket's service with the pod's own credentials (Application Default Credentials)."""
    try:
        from google.cloud import storage  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise DependencyError(
            "buckets need a package that is not installed",
            found=str(error),
            fix="pip install 'model-transparency[gcp]'",
        ) from error
    with _storage_failures(uri):
        return storage.Client()


def _patience() -> dict[str, Any]:
    """How long to wait for an answer, and for how long to ask again."""
    from google.cloud.storage.retry import (  # type: ignore[import-untyped,unused-ignore]
        DEFAULT_RETRY,
    )

    return {"timeout": TIMEOUT, "retry": DEFAULT_RETRY.with_timeout(TIMEOUT)}


@contextlib.contextmanager
def _storage_failures(uri: str) -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except PreconditionFailed as error:
        raise StorageError(
            "the object exists already and is not replaced",
            where=uri,
            fix="upload each run to a folder of its own",
        ) from error
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise StorageError(
            "the bucket did not do what it was asked", where=uri, found=str(error)[:500]
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file, open.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise FileError("cannot read the file", where=str(path), found=error.strerror) from error


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
