"""A model in a bucket: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

The client is `obstore`; credentials, endpoints, proxies and retries are its own (`AWS_*`,
`GOOGLE_*`, `AZURE_*`). An object is read on the condition that it is the one that was listed; what
has neither a version nor an ETag is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from model_signing.errors import FileError, without_secrets
from model_signing.oms.names import Selection
from model_signing.sources import Buffer, Entry, beside, remote
from model_signing.sources.ahead import heard, hears

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_Result = TypeVar("_Result")
_ADDRESS = re.compile(r"(s3|gs|az)://([^/?#]+)(?:/(.*))?", re.DOTALL)
_STATUS = re.compile(r"status code: (\d{3})")
# Where clients look last for credentials: what a cloud lends its machines.
_METADATA = re.compile(
    r"http://\S*/(?:latest/api/token|latest/meta-data|metadata/identity)"
    r"|http://(?:169\.254\.|metadata\.google\.)"
)
_XML = re.compile(r"(?:: )?<\?xml[^>]*>?")  # of which the first line says nothing
# A file over a slow line takes longer than the client's half a minute; but who sends not one byte
# for a minute has gone. Plain HTTP is used where an endpoint says so: an emulator's, or a cluster's
# own.
_CLIENT: Any = {"timeout": "600s", "read_timeout": "60s", "allow_http": True}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_LISTED = 1000  # objects that it gives at a time
_RETRIES: Any = {"max_retries": 3}
_MEMORY = 64 << 10  # bytes, at least, of what it gives at a time; more does not stay in a cache


@dataclass(frozen=True)
class BucketSource:
    """What lies below a prefix of a bucket; or one object.

    Attributes:
        bucket: `s3://NAME`, `gs://NAME` or `az://NAME`.
        key: The prefix, without the slash at its end; "" is the whole bucket.
        single: Whether it is one object.
    """

    bucket: str
    key: str
    single: bool = False

    at_once: ClassVar[int] = remote.AT_ONCE

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """The model's own name (OMS 6.5)."""
        return str(self).rpartition("/")[2]

    def entries(self, selection: Selection) -> tuple[Mapping[str, Entry], list[str]]:
        """The objects below the prefix, with the version that each has now; see `Source`."""
        found = [(self.name, self._head(self.key))] if self.single else self._below()
        return remote.listed(found, selection, str(self))

    def read(self, name: str, entry: Entry, start: int, stop: int) -> Iterator[Buffer]:
        """These bytes of an object; see `Source`."""
        key = self.key if self.single else f"{self.key}/{name}".lstrip("/")

        ask = partial(_get, self.bucket, key, entry)
        return remote.pieces(ask, start, stop, f"{self.bucket}/{key}", in_background=True)

    def signatures(self) -> Iterator[tuple[str, bytes]]:
        """The signature files in the prefix, and beside it; see `RemoteSource`."""
        folder, _, name = self.key.rpartition("/")
        keys = [f"{folder}/{beside.BESIDE.replace('{}', name)}".lstrip("/")] if name else []
        if not self.single:
            inside = remote.signature_names(self.name)
            keys = [f"{self.key}/{one}".lstrip("/") for one in inside] + keys
        for key in dict.fromkeys(keys):
            address = f"{self.bucket}/{key}"
            if (data := read_file(address, remote.MAX_SIGNATURE)) is not None:
                yield address, data

    def inside(self, address: str) -> str | None:
        """The name in this model of an object; see `RemoteSource`."""
        bucket, key = _parsed(address)
        if bucket != self.bucket or self.single or not f"{key}/".startswith(self._prefix):
            return None
        return key[len(self._prefix) :] or None

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def _below(self) -> Iterator[tuple[str, Entry]]:
        where = str(self)
        try:
            chunks = obstore.list(_store(self.bucket), self._prefix or None, chunk_size=_LISTED)
            found = iter(partial(_done, partial(next, chunks, None)), None)
            for item in remote.counted(chain.from_iterable(found), where):
                key = item["path"]
                # Consoles mark a folder by an empty object whose key ends with a slash, which the
                # client takes away.
                if key == self.key or not (item["size"] or _exists(self.bucket, key)):
                    continue
                yield key.removeprefix(self._prefix), _entry(item, f"{self.bucket}/{key}")
        except (BaseError, OSError, ValueError) as error:
            raise _failed(error, where) from error

    def _head(self, key: str) -> Entry:
        where = f"{self.bucket}/{key}"
        try:
            return _entry(_asked(self.bucket, key), where)
        except (BaseError, OSError, ValueError) as error:
            raise _failed(error, where) from error


def open_address(address: str) -> BucketSource:
    """A model at `s3://BUCKET/PREFIX`, or the same of `gs` and `az`; a prefix or one object.

    Raises:
        FileError: It is malformed; there is nothing, or nothing for us; the place does not answer.
    """
    bucket, key = _parsed(address)
    key = key.rstrip("/")
    if key and not address.endswith("/") and _exists(bucket, key):
        return BucketSource(bucket, key, single=True)
    source = BucketSource(bucket, key)
    if next(source._below(), None) is None:
        raise FileError(
            "there is nothing below this prefix",
            where=address,
            fix="check the name; and whether the credentials are for it",
        )
    return source


def read_file(address: str, most: int) -> bytes | None:
    """At most so many bytes of an object, or None."""
    bucket, key = _parsed(address)
    try:
        found = _asked(bucket, key)
    except FileNotFoundError:
        return None
    except (BaseError, OSError, ValueError) as error:
        raise _failed(error, address) from error
    entry = _entry(found, address)
    source = BucketSource(bucket, key, single=True)
    return b"".join(map(bytes, source.read(source.name, entry, 0, min(most, entry.size))))


def write_file(address: str, data: bytes) -> None:
    """Puts an object, whole or not at all."""
    bucket, key = _parsed(address)
    try:
        _done(lambda: obstore.put(_store(bucket), key, data))
    except (BaseError, OSError, ValueError) as error:
        raise _failed(error, address) from error


def _parsed(address: str) -> tuple[str, str]:
    """Bucket, as an address, and key."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not address.isprintable():
        raise FileError(
            "this is not the address of a model in a bucket",
            where=address,
            expected="s3://BUCKET/PREFIX, or the same of gs or az",
        )
    return f"{found[1]}://{found[2]}", found[3] or ""


@lru_cache
def _store(bucket: str) -> ObjectStore:
    for name in _ENDPOINTS if bucket.startswith("s3:") else ():
        value = os.environ.get(name, "http://")
        if not value.startswith(("http://", "https://")):  # the client would panic
            raise FileError(
                "the endpoint of the bucket is no address",
                where=name,
                expected="http://HOST[:PORT], or https://",
                found=without_secrets(value) or "nothing",
                fix=f"set {name} to one, or unset it",
            )
    return from_url(bucket, client_options=_CLIENT, retry_config=_RETRIES)


def _asked(bucket: str, key: str) -> Any:  # noqa: ANN401 - the client's own dictionary
    """What is known of an object."""
    return _done(lambda: obstore.head(_store(bucket), key))


def _done(call: Callable[[], _Result]) -> _Result:
    """What the client says; where it panics, as it does of odd settings, that is an error."""
    try:
        return heard(call)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which has no other name in Python
            raise
        raise ValueError(str(error)) from None


def _exists(bucket: str, key: str) -> bool:
    try:
        _asked(bucket, key)
    except FileNotFoundError:
        return False
    except (BaseError, OSError, ValueError) as error:
        raise _failed(error, f"{bucket}/{key}") from error
    return True


def _entry(item: Any, where: str) -> Entry:  # noqa: ANN401 - the client's own dictionary
    version = (_etag(item), item.get("version"))
    if version == (None, None):
        raise FileError(
            "the place has no version of an object, so that nobody knows when it changes",
            where=where,
            fix="copy the model to a place that has ETags",
        )
    return Entry(item["size"], version)


def _etag(item: Any) -> str | None:  # noqa: ANN401
    """In quotes (RFC 9110, 8.8.3): Azure's listings leave them out."""
    etag = item.get("e_tag")
    return f'"{etag}"' if etag and not etag.endswith('"') else etag


def _get(bucket: str, key: str, entry: Entry, start: int, stop: int) -> Iterator[Buffer]:
    """Bytes of an object, on the condition that it is that of the entry; see `remote.Ask`."""
    where = f"{bucket}/{key}"
    etag, version = entry.version if isinstance(entry.version, tuple) else (None, None)
    options: Any = {"range": (start, stop)}
    if etag is not None:
        options["if_match"] = etag
    if version is not None:
        options["version"] = version
    try:
        answer = _done(lambda: obstore.get(_store(bucket), key, options=options))
    except (BaseError, OSError, ValueError) as error:
        raise _failed(error, where) from error
    found = (_etag(answer.meta), answer.meta.get("size"))
    if entry.version is not None and found != (etag or found[0], entry.size):
        raise remote.changed(where, f"{etag}, {entry.size} bytes", f"{found[0]}, {found[1]} bytes")
    try:
        # What is `heard` costs a thread.
        coming = iter(answer.stream(remote.ROOM if hears() else _MEMORY))
        while (data := _done(partial(next, coming, None))) is not None:
            yield memoryview(data)
    except (BaseError, OSError, ValueError) as error:  # in the middle
        raise remote.TemporaryError(_failed(error, where)) from error


def _failed(error: Exception, where: str) -> FileError:
    """What the client's errors mean; its texts begin with one line, and go on with its inside."""
    said = without_secrets(_XML.sub("", str(error).partition("\n")[0].strip()))
    status = _STATUS.search(said)
    if _METADATA.search(said):
        return FileError(
            "no credentials for the bucket are set, and no cloud's machine lends some",
            where=where,
            found=said[-300:],
            fix="set them (AWS_ACCESS_KEY_ID ...); of a public bucket AWS_SKIP_SIGNATURE=true, or "
            "what the other clouds' clients call that",
        )
    if isinstance(error, FileNotFoundError) or status:
        refusal = remote.failure(int(status[1]) if status else 404, where, said=said[-300:])
        return refusal.refusal if isinstance(refusal, remote.TemporaryError) else refusal
    return FileError(
        "the bucket cannot be read or written",
        where=where,
        found=said[-300:] or repr(error),
        fix="check the network, and what is set for the client (AWS_..., GOOGLE_..., AZURE_...)",
    )
