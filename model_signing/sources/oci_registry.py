"""Asking an OCI registry (distribution-spec v1.1), and what goes wrong with that.

Who we are is the business of the client, `oras`: docker's config.json, its credential helpers, and
the tokens that they buy. What is tried again, and for how long, is that of `remote`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import oras.auth.utils
import oras.container
import oras.logger
import oras.provider
import requests
from requests.adapters import HTTPAdapter

from model_signing.errors import FileError, innermost, without_secrets
from model_signing.oms import strict_json
from model_signing.sources import Buffer, remote

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SCHEME = "oci://"
_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"  # distribution-spec, "Pulling manifests"
_ADDRESS = re.compile(
    r"(?P<host>(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_HUB, _HUB_API = ("docker.io", "index.docker.io"), "registry-1.docker.io"
_HUB_CREDENTIALS = "https://index.docker.io/v1/"  # its name in docker's config.json

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER = "application/vnd.docker.distribution.manifest"
_ACCEPT = {"Accept": f"{MANIFEST}, {INDEX}, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"}
MAX_DOCUMENT = 4 << 20  # bytes of a manifest or a list: what a registry has to take
# A proxy that compresses would make the numbers of the bytes others.
_UNCHANGED = {"Accept-Encoding": "identity"}
_OTHER = "the registry sends other bytes than were asked for"
_MAX_SAID = 64 << 10  # bytes of a refusal
_BUFFER = 256 << 10  # bytes
_SECONDS = (10.0, 60.0)  # to connect; between two pieces of an answer


@dataclass(frozen=True)
class Address:
    """What `oci://HOST[:PORT]/NAME:TAG` or `...@sha256:DIGEST` says."""

    host: str
    repository: str
    reference: str  # a digest, or a tag

    def __str__(self) -> str:
        return f"{self.place}{'@' if ':' in self.reference else ':'}{self.reference}"

    @property
    def place(self) -> str:
        """The address of the repository."""
        return f"{SCHEME}{self.host}/{self.repository}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address; if it has both a tag and a digest, the digest counts.

        Raises:
            FileError: It is none.
        """
        rest = text[len(SCHEME) :] if text.lower().startswith(SCHEME) else ""
        match = _ADDRESS.fullmatch(rest)
        named = match and (match["digest"] or match["tag"])
        if not match or not named or not _is_host(match["host"]):
            raise FileError(
                "not the address of a model in a registry",
                where=text,
                expected=f"{SCHEME}HOST[:PORT]/NAME:TAG or {SCHEME}HOST[:PORT]/NAME@sha256:DIGEST",
                fix="names in a registry are in lower case" if rest != rest.lower() else None,
            )
        host, repository = match["host"], match["repository"]
        if host in _HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(host, repository, named)


class Document(NamedTuple):
    """What a registry answered."""

    data: bytes
    kind: str  # media type
    next_page: str | None  # address of what follows, if it is a part of a list


class Repository:
    """A repository of a registry. Requests may come from any thread.

    Every method raises a `FileError`: the registry cannot be reached or fails, does not have what
    it was asked for, does not let us, or sends what it should not.
    """

    def __init__(self, address: Address) -> None:
        self._address, host = address, address.host
        api = _HUB_API if host in _HUB else host
        # As docker, crane and cosign do: no TLS is expected from this machine itself.
        self._plain = _is_loopback(urlsplit(f"//{api}").hostname or "")
        self._base = f"{'http' if self._plain else 'https'}://{api}/v2/{address.repository}/"
        self._lock = Lock()
        self._ranges = True
        self._basic = False  # which of oras' two ways to say who we are

    def __str__(self) -> str:
        return self._address.place

    def manifest(self, reference: str) -> Document | None:
        """A manifest, if it is there. It has the digest that the reference is, if it is one."""
        where = str(replace(self._address, reference=reference))
        found = self.document(f"manifests/{reference}", where, _ACCEPT)
        if found is not None and ":" in reference:
            check_digest(found.data, reference, where)
        return found

    def document(self, path: str, where: str, headers: Mapping[str, str]) -> Document | None:
        """What is below the repository, or at an address that was given, if it is there."""

        def attempt() -> Document | None:
            with self._ask("GET", path, where, headers, absent=True) as answer:
                if answer.status_code == HTTPStatus.NOT_FOUND:
                    return None
                following = answer.links.get("next", {}).get("url")
                return Document(
                    _body(answer, MAX_DOCUMENT, where),
                    answer.headers.get("content-type", "").partition(";")[0].strip().lower(),
                    _following(answer, following, where) if following else None,
                )

        return remote.patiently(attempt)

    def blob(self, digest: str, start: int, stop: int, where: str) -> Iterator[Buffer]:
        """These bytes of a blob, in order, and unchecked; see `remote.pieces`."""
        ask = partial(self._range, digest, where)
        # A registry need not know ranges: then each would come with all that is before it.
        return remote.pieces(ask, start, stop, where, divisible=lambda: self._ranges)

    def _range(self, digest: str, where: str, start: int, stop: int) -> Iterator[Buffer]:
        """These bytes of a blob, as they come; see `remote.Ask`."""
        headers = {"Range": f"bytes={start}-{stop - 1}", **_UNCHANGED}
        with self._ask("GET", f"blobs/{digest}", where, headers) as answer:
            self._ranges = answer.status_code == HTTPStatus.PARTIAL_CONTENT
            said = answer.headers.get("content-range", "")
            _check_unchanged(answer, where)
            if self._ranges and not said.startswith(f"bytes {start}-"):
                raise FileError(
                    _OTHER, where=where, expected=f"bytes {start}-{stop - 1}", found=said
                )
            skip = 0 if self._ranges else start
            yield from _pieces(answer, stop - start, where, skip, more=not self._ranges)

    def whole_blob(self, digest: str, size: int, where: str) -> bytes:
        """A small blob, which has this digest, whatever the registry says."""
        data = b"".join(map(bytes, self.blob(digest, 0, size, where)))
        return check_digest(data, digest, where)

    def put_blob(self, data: bytes, where: str) -> str:
        """Stores a blob, unless it is there, and returns its digest."""
        digest = f"sha256:{sha256(data).hexdigest()}"

        def attempt() -> str:
            with self._ask("HEAD", f"blobs/{digest}", where, absent=True) as answer:
                if answer.ok:
                    return digest
            with self._ask("POST", "blobs/uploads/", where, data=b"") as answer:
                place = _following(answer, answer.headers.get("location", ""), where)
            address = f"{place}{'&' if '?' in place else '?'}digest={digest}"
            headers = {"Content-Type": "application/octet-stream"}
            with self._ask("PUT", address, where, headers, data):
                return digest

        return remote.patiently(attempt)

    def put_manifest(self, reference: str, data: bytes, kind: str, where: str) -> Mapping[str, str]:
        """Stores a manifest under a tag or its digest, and returns the answer's headers."""

        def attempt() -> Mapping[str, str]:
            path = f"manifests/{reference}"
            with self._ask("PUT", path, where, {"Content-Type": kind}, data) as answer:
                return answer.headers

        return remote.patiently(attempt)

    def _ask(
        self,
        method: str,
        path: str,
        where: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        *,
        absent: bool = False,
    ) -> requests.Response:
        """An answer of success, its body not read yet; or of 404, where it may be `absent`.

        `path` is below the repository, or an address that the registry gave.

        Raises:
            FileError, TemporaryError: As `remote.failure`.
        """
        url = urljoin(self._base, path)
        if urlsplit(url)[:2] != urlsplit(self._base)[:2]:  # it would get our token
            found = without_secrets(url)
            raise FileError("the registry sends us to another host", where=where, found=found)
        try:
            answer = self._send(method, url, dict(headers or {}), data, where)
            if answer.ok or (absent and answer.status_code == HTTPStatus.NOT_FOUND):
                return answer
            with answer:
                said = _said(_body(answer, _MAX_SAID, where, more=True))
        except requests.RequestException as error:
            raise unreachable(error, where) from None
        except ValueError as error:  # an address that is none, to go on with
            raise _misled(str(error), where) from None
        after = answer.headers.get("retry-after")
        refusal = remote.failure(answer.status_code, where, said=said, retry_after=after)
        if isinstance(refusal, FileError) and answer.status_code == HTTPStatus.UNAUTHORIZED:
            refusal.fix = f"log in with `docker login {self._address.host}`, or check the name"
        raise refusal

    def _send(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, where: str
    ) -> requests.Response:
        """One request; once more, if the registry wants to know who asks."""
        client = self._client
        how: dict[str, Any] = {"data": data, "stream": True}
        # The session takes it away when it is sent to another host.
        known: dict[str, str] = {}
        with suppress(AttributeError):  # oras has no credentials for the one way
            known = client.auth.get_auth_header()
        answer: requests.Response
        answer = client.session.request(method, url, headers={**headers, **known}, **how)
        proof = {}
        # What another host asks for, where a blob was moved to, is not answered.
        mine = urlsplit(answer.url)[:2] == urlsplit(self._base)[:2]
        if answer.status_code == HTTPStatus.UNAUTHORIZED and mine:
            proof = self._proof(answer, where, bool(known))
        if proof:
            answer.close()
            answer = self._client.session.request(method, url, headers={**headers, **proof}, **how)
        return answer

    def _proof(self, answer: requests.Response, where: str, known: bool) -> dict[str, str]:
        """Who we are, said as the registry asks for it; nothing if that cannot be said.

        `known`: it was said already, and the registry does not believe it; a token may be too old.
        """
        challenge = answer.headers.get("www-authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        if kind == "basic" and not known:
            with self._lock:
                if not self._basic:  # else another thread has met this
                    self._basic = True
                    self.__dict__.pop("_client", None)  # made anew, for this way
        elif kind == "bearer" and not self._basic:
            realm = oras.auth.utils.parse_auth_header(challenge).realm or ""
            if not self._plain and urlsplit(realm).scheme != "https":
                found = without_secrets(realm)
                raise FileError(
                    "the registry wants credentials without TLS", where=where, found=found
                )
        else:
            return {}
        try:
            proof, changed = self._client.auth.authenticate_request(answer, {}, refresh=True)
        except (AttributeError, ValueError):  # there are none, or the answer is no token
            return {}
        return dict(proof) if changed else {}

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - oras has no types
        """The client of oras, with the credentials that this machine has for the registry."""
        oras.logger.logger.logger.disabled = True  # what goes wrong is said by us, and once
        kind = "basic" if self._basic else "token"
        client = oras.provider.Registry(insecure=self._plain, auth_backend=kind)
        client.session.max_redirects = 5
        for scheme in ("https://", "http://"):
            client.session.mount(scheme, _Adapter(pool_maxsize=32))
        host = self._address.host
        container = oras.container.Container(self._address.repository)
        container.registry = _HUB_CREDENTIALS if host in _HUB else host
        folder = os.environ.get("DOCKER_CONFIG")
        try:
            if folder:  # in place of the one at home, which oras would mix with it
                client.auth._auth_config = _docker_config(Path(folder, "config.json"))
            client.auth.load_configs(container)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(
                "docker's credentials cannot be read",
                where=f"{folder or '~/.docker'}/config.json",
                found=innermost(error),
                fix=f"log in again: docker login {host}",
            ) from None
        return client


def _docker_config(path: Path) -> dict[str, Any]:
    """What oras takes from docker's configuration; no file is one without credentials."""
    found = json.loads(path.read_bytes()) if path.exists() else {}
    return {
        "auths": found.get("auths", {}),
        "credsStore": found.get("credsStore"),
        "credHelpers": found.get("credHelpers", {}),
    }


class _Adapter(HTTPAdapter):
    """Waits no longer than `_SECONDS`, also where oras asks for a token and says nothing of that.

    Nor does it read such an answer without end.
    """

    def send(self, request: Any, **how: Any) -> requests.Response:  # type: ignore[override] # noqa: ANN401
        how["timeout"] = how.get("timeout") or _SECONDS
        stream, how["stream"] = how.get("stream"), True
        answer = super().send(request, **how)
        if not stream:  # else whoever asked reads it
            with answer:
                answer._content = _body(answer, MAX_DOCUMENT, request.url.partition("?")[0])
        return answer


def unreachable(error: Exception, where: str) -> FileError | remote.TemporaryError:
    """A connection that could not be made, or broke."""
    lasting = (
        requests.exceptions.SSLError,
        requests.exceptions.ProxyError,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.TooManyRedirects,
    )
    refusal = FileError(
        "the registry cannot be reached",
        where=where,
        found=innermost(error),
        fix="check the network, and the address",
    )
    return refusal if isinstance(error, lasting) else remote.TemporaryError(refusal)


def _following(answer: requests.Response, address: str, where: str) -> str:
    """An address in an answer, relative to that of the answer."""
    try:
        return urljoin(answer.url, address)
    except ValueError:
        raise _misled(address, where) from None


def _misled(found: str, where: str) -> FileError:
    message, found = "the registry names an address that is none", without_secrets(found)
    return FileError(message, where=where, found=found)


def _check_unchanged(answer: requests.Response, where: str) -> None:
    coding = answer.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise FileError(_OTHER, where=where, expected="no encoding", found=coding)


def check_digest(data: bytes, digest: str, where: str) -> bytes:
    """The data, if it has this digest.

    Raises:
        FileError: It has another.
    """
    found = f"sha256:{sha256(data).hexdigest()}"
    if found != digest:
        raise FileError(
            "the registry sends other bytes than the digest names",
            where=where,
            expected=digest,
            found=found,
        )
    return data


def _body(answer: requests.Response, limit: int, where: str, *, more: bool = False) -> bytes:
    """What an answer holds; see `_pieces`."""
    return b"".join(_pieces(answer, limit, where, more=more))


def _pieces(
    answer: requests.Response, limit: int, where: str, skip: int = 0, *, more: bool = False
) -> Iterator[Buffer]:
    """What an answer holds, without the first bytes; whether there may be `more` than `limit`.

    Raises:
        FileError: There is more.
        TemporaryError: The connection breaks.
    """
    try:
        for piece in answer.iter_content(_BUFFER):
            taken = memoryview(piece)[skip:]
            skip -= min(skip, len(piece))
            yield taken[:limit]
            limit -= len(taken)
            if limit < 0:
                break
    except requests.RequestException as error:
        raise unreachable(error, where) from None
    if limit < 0 and not more:
        raise FileError("the place sends more bytes than were asked for", where=where)


def _said(data: bytes) -> str:
    """The registry's own words (distribution-spec, "Error Codes"); no page of a proxy."""
    try:
        document = strict_json.loads(data, FileError, "")
        errors = document["errors"] if isinstance(document, dict) else []
        return "; ".join(f"{one['code']}: {one.get('message', '')}" for one in errors[:3])
    except (FileError, LookupError, TypeError, AttributeError):
        return ""


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        if text.startswith("["):
            ip_address(parts.hostname or "")  # urlsplit itself asks from Python 3.11 on
        return parts.port != 0
    except ValueError:  # no such port, or no IPv6 address
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
