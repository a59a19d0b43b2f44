"""A model on Hugging Face's hub, or another with its interface (`HF_ENDPOINT`).

Addresses, tokens, proxies and connections are those of its own client, `huggingface_hub`. A
revision is resolved to a commit once, and every answer has to be of that commit and of the file
that was listed. Large files are redirected to other hosts, which get no token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote, urljoin, urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_session, parse_hf_uri
from huggingface_hub.errors import HfUriError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from model_signing.errors import FileError, innermost, without_secrets
from model_signing.oms.names import Selection
from model_signing.sources import Buffer, Entry, remote

_MAX_ANSWER = 16 << 20  # bytes of one page of a listing; the hub's have a thousand entries
_SECONDS = 60.0  # without a byte
_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")
_FOLDERS = {"model": "models", "dataset": "datasets"}  # type of a repository -> in paths
_NO_REPOSITORY = "there is no such repository, or it is not for everybody"
_SAYS = {  # the hub's own code of an error -> what is wrong, what to do
    "RepoNotFound": (_NO_REPOSITORY, "check the name, or log in with `hf auth login`"),
    "RevisionNotFound": ("the repository has no such revision", "name a branch, tag or commit"),
    "EntryNotFound": ("the repository has no such file", "check the name"),
    "GatedRepo": ("the repository is gated", "ask for access on its page, then `hf auth login`"),
}


@dataclass(frozen=True)
class HubSource:
    """A repository at one commit, or one file of it.

    Attributes:
        kind: "model" or "dataset".
        repository: ORG/NAME.
        commit: 40 hexadecimal digits.
        path: The file, or "" for the repository.
    """

    kind: str
    repository: str
    commit: str
    path: str = ""

    at_once: ClassVar[int] = remote.AT_ONCE

    def __str__(self) -> str:
        address = f"{_address(self.kind, self.repository)}@{self.commit}"
        return f"{address}/{self.path}" if self.single else address

    @property
    def single(self) -> bool:
        """Whether it is one file."""
        return bool(self.path)

    @property
    def name(self) -> str:
        """The model's own name (OMS 6.5)."""
        return (self.path or self.repository).rpartition("/")[2]

    def entries(self, selection: Selection) -> tuple[Mapping[str, Entry], list[str]]:
        """The files of the commit, or the one; see `Source`.

        Raises:
            FileError: There is no such file.
        """
        files = self._files()
        if self.single:
            files = ((self.name, entry) for name, entry in files if name == self.path)
            one = next(files, None)
            if one is None:
                raise self._absent()
            files = iter([one])
        return remote.listed(files, selection, str(self))

    def read(self, name: str, entry: Entry, start: int, stop: int) -> Iterator[Buffer]:
        """These bytes of a file; see `Source`."""
        file = _File(self._whole, self.path or name, entry)
        where = f"{self._whole}/{self.path or name}"
        return remote.pieces(file.ask, start, stop, where, divisible=lambda: file.ranges)

    def signatures(self) -> Iterator[tuple[str, bytes]]:
        """The signature files at the repository's root, or beside the file; see `RemoteSource`."""
        wanted: tuple[str, ...] = remote.signature_names(self.name)
        if self.single:
            wanted = (f"{self.path.rpartition('/')[0]}/{wanted[1]}".lstrip("/"),)
        whole, is_there = self._whole, not self.single
        for name, entry in self._files():
            is_there = is_there or name == self.path
            if name in wanted and entry.size <= remote.MAX_SIGNATURE:
                yield (
                    f"{whole}/{name}",
                    b"".join(map(bytes, whole.read(name, entry, 0, entry.size))),
                )
        if not is_there:
            raise self._absent()

    def inside(self, address: str) -> str | None:
        """The name of a file of this repository; see `RemoteSource`."""
        there = _parsed(address)
        same = (there.type, there.id) == (self.kind, self.repository) and not self.single
        return (there.path_in_repo or None) if same else None

    def _absent(self) -> FileError:
        message, fix = _SAYS["EntryNotFound"]
        return FileError(message, where=str(self), fix=fix)

    @property
    def _whole(self) -> HubSource:
        return replace(self, path="")

    def _files(self) -> Iterator[tuple[str, Entry]]:
        url: str | None = f"{_api(self.kind, self.repository)}/tree/{self.commit}?recursive=true"
        left = 2 * remote.MAX_LISTED  # with folders, which are no files
        while url is not None:
            page, url = _json(url, str(self))
            if not isinstance(page, list):
                raise _not_understood(str(self))
            left -= len(page) or 1000  # a page of nothing, as if it were full
            if left < 0:
                raise remote.too_many(str(self))
            for item in page:
                if (file := self._file(item)) is not None:
                    yield file

    def _file(self, item: object) -> tuple[str, Entry] | None:
        """A file of a listing, its version being what its ETag will be; None if it is a folder."""
        if not isinstance(item, dict) or not isinstance(name := item.get("path"), str):
            raise _not_understood(str(self))
        if item.get("type") == "directory":
            return None
        large = item.get("lfs")
        said = large if isinstance(large, dict) else item
        size, version = said.get("size"), said.get("oid")
        if type(size) is not int or size < 0 or not isinstance(version, str):
            raise _not_understood(str(self))
        if said is item:
            return name, Entry(size, version)
        if not _SHA256.fullmatch(version):
            raise _not_understood(str(self))
        return name, Entry(size, version, version)


class _File:
    """A file of a commit that is read in pieces: where it lies is asked for once.

    Attributes:
        ranges: Whether they are known there, as far as it has answered.
    """

    ranges = True

    def __init__(self, source: HubSource, name: str, entry: Entry) -> None:
        self._source, self._entry, self._where = source, entry, f"{source}/{name}"
        folder = "datasets/" if source.kind == "dataset" else ""
        path = f"{folder}{source.repository}/resolve/{source.commit}/{quote(name)}"
        self._hub = f"{constants.ENDPOINT}/{path}"
        self._elsewhere: str | None = None

    def ask(self, start: int, stop: int) -> Iterator[Buffer]:
        """The bytes between two offsets; see `remote.Ask`."""
        url = self._elsewhere or self._hub
        try:
            yield from self._get(url, start, stop)
        except (FileError, remote.TemporaryError) as error:
            if url == self._hub:
                raise
            self._elsewhere = None  # such addresses are signed, and end
            refusal = error.refusal if isinstance(error, remote.TemporaryError) else error
            raise remote.TemporaryError(refusal, 0.0) from error

    def _get(self, url: str, start: int, stop: int) -> Iterator[Buffer]:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with _request(url, self._where, headers) as response:
            if url == self._hub:
                self._check(response)
                if urlsplit(str(response.url)).netloc != urlsplit(url).netloc:
                    self._elsewhere = str(response.url)
            self.ranges = response.status_code == 206
            whole = not self.ranges and (start, stop) == (0, self._entry.size)
            given = response.headers.get("Content-Range", "")
            if not whole and not given.startswith(f"bytes {start}-{stop - 1}/"):
                raise FileError(
                    "the place sends another range than was asked for",
                    where=self._where,
                    expected=f"bytes {start}-{stop - 1}",
                    found=given or f"HTTP {response.status_code} without a range",
                )
            yield from response.iter_raw()

    def _check(self, response: httpx2.Response) -> None:
        """The hub says what it redirects to, or sends: it has to be what was listed."""
        for answer in (*response.history, response):
            commit, etag = map(answer.headers.get, ("X-Repo-Commit", "X-Linked-Etag"))
            if etag is None and answer.is_success:  # that of a redirection is its own
                etag = answer.headers.get("ETag")
            if commit is None or etag is None:
                continue
            found = (commit, etag.removeprefix("W/").strip('"'))
            expected = (self._source.commit, self._entry.version or found[1])
            if found == expected:
                return
            raise remote.changed(self._where, " ".join(map(str, expected)), " ".join(found))
        raise FileError("the hub does not say which version it sends", where=self._where)


def open_address(address: str) -> HubSource:
    """A model at `hf://[datasets/]ORG/NAME[@REVISION][/FILE]`; the revision is resolved.

    Raises:
        FileError: It is malformed; there is none, or none for us; the hub does not answer.
    """
    there = _parsed(address)
    return HubSource(there.type, there.id, _resolved(there, address), there.path_in_repo or "")


def read_file(address: str, most: int) -> bytes | None:
    """At most so many bytes of the file at `hf://[datasets/]ORG/NAME[@REVISION]/PATH`, or None."""
    there = _parsed(address)
    if not there.path_in_repo:
        raise _malformed(address, "a repository")
    source = HubSource(there.type, there.id, _resolved(there, address))
    for name, entry in source._files():
        if name == there.path_in_repo:
            return b"".join(map(bytes, source.read(name, entry, 0, min(most, entry.size))))
    return None


def write_file(address: str, data: bytes) -> None:
    """Uploads a file to `hf://[datasets/]ORG/NAME[@BRANCH]/PATH`, as a commit.

    Raises:
        FileError: It is malformed, or the hub does not take it.
    """
    there = _parsed(address)
    if not there.path_in_repo:
        raise _malformed(address, "a repository")
    try:
        with _patience():
            HfApi(library_name="model_signing").upload_file(
                path_or_fileobj=data,
                path_in_repo=there.path_in_repo,
                repo_id=there.id,
                repo_type=there.type,
                revision=there.revision,
                commit_message=f"Sign the model: {there.path_in_repo}",
            )
    except (OSError, ValueError, httpx2.HTTPError) as error:
        said = without_secrets(getattr(error, "server_message", None) or "")
        raise FileError(
            "the hub does not take the signature",
            where=address,
            found=said or innermost(error),
            fix="log in with `hf auth login`, as somebody who may write there",
        ) from error


@contextmanager
def _patience() -> Iterator[None]:
    """The client itself waits for a hub that does not answer as long as it does not."""
    session = get_session()
    before, session.timeout = session.timeout, httpx2.Timeout(_SECONDS)
    try:
        yield
    finally:
        session.timeout = before


def _parsed(address: str) -> Any:  # noqa: ANN401 - the client's own class
    try:
        there = parse_hf_uri(address)
    except HfUriError as error:
        raise _malformed(address, str(error.args[-1])) from None
    if there.type not in _FOLDERS:
        raise _malformed(address, f"a {there.type}")
    return there


def _malformed(address: str, found: str) -> FileError:
    return FileError(
        "this is not the address of a model on the hub, or of a file",
        where=address,
        expected="hf://[datasets/]ORG/NAME[@REVISION][/FILE]",
        found=found,
    )


def _address(kind: str, repository: str) -> str:
    return f"hf://{'datasets/' if kind == 'dataset' else ''}{repository}"


def _api(kind: str, repository: str) -> str:
    return f"{constants.ENDPOINT}/api/{_FOLDERS[kind]}/{repository}"


def _resolved(there: Any, address: str) -> str:  # noqa: ANN401
    revision = quote(there.revision or constants.DEFAULT_REVISION, safe="")
    document, _ = _json(f"{_api(there.type, there.id)}/revision/{revision}", address)
    commit = document.get("sha") if isinstance(document, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _not_understood(address)
    return commit


def _json(url: str, where: str) -> tuple[Any, str | None]:
    """A document, and the address of the next page of it."""

    def attempt() -> tuple[httpx2.Response, bytes]:
        with _request(url, where, {}) as response:
            return response, b"".join(remote.bounded(response.iter_raw(), _MAX_ANSWER, where))

    response, data = remote.patiently(attempt)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _not_understood(where) from None
    following = response.links.get("next", {}).get("url")
    if following is None:
        return document, None
    try:
        following = urljoin(url, following)
        same = urlsplit(following)[:2] == urlsplit(url)[:2]
    except ValueError:  # no address at all
        raise _not_understood(where) from None
    if not same:  # which would get the token
        found = without_secrets(following)
        raise FileError("the hub continues a listing on another host", where=where, found=found)
    return document, following


def _not_understood(where: str) -> FileError:
    found = without_secrets(constants.ENDPOINT)
    return FileError("the hub's answer is not understood", where=where, found=found)


@contextmanager
def _request(url: str, where: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """An answer whose bytes are not there yet. Only the hub gets the token."""
    own = urlsplit(url)[:2] == urlsplit(constants.ENDPOINT)[:2]
    sent = {**build_hf_headers(token=None if own else False), **headers}
    try:
        with get_session().stream(
            "GET",
            url,
            headers={**sent, "Accept-Encoding": "identity"},
            timeout=_SECONDS,
            follow_redirects=True,
        ) as response:
            if response.status_code not in (200, 206):
                raise _failed(response, where)
            yield response
    except OfflineModeIsEnabled as error:
        fix = "unset HF_HUB_OFFLINE"
        raise FileError("the hub's client is set to be offline", where=where, fix=fix) from error
    except httpx2.TransportError as error:
        refusal = FileError(
            "the hub does not answer",
            where=where,
            found=f"{without_secrets(constants.ENDPOINT)}: {innermost(error)}",
            fix="check the network, or HF_ENDPOINT",
        )
        lasting = isinstance(error, (httpx2.UnsupportedProtocol, httpx2.ProxyError))
        raise (refusal if lasting else remote.TemporaryError(refusal)) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise FileError("the hub is not understood", where=where, found=innermost(error)) from error


def _failed(response: httpx2.Response, where: str) -> FileError | remote.TemporaryError:
    code = response.headers.get("X-Error-Code", "")
    said = without_secrets(response.headers.get("X-Error-Message", ""))
    if code in _SAYS:
        message, fix = _SAYS[code]
        found = said or f"HTTP {response.status_code}"
        return FileError(message, where=where, found=found, fix=fix)
    after = response.headers.get("Retry-After")
    return remote.failure(response.status_code, where, said=said, retry_after=after)
