"""A model in an OCI registry: `oci://HOST[:PORT]/NAME:TAG` or `oci://HOST[:PORT]/NAME@sha256:...`.

A tag is resolved once, to the digest of a manifest; what the registry sends is never more than
that digest, and those in the manifest, say. How tools lay out models there:

- one layer a file, named by `org.opencontainers.image.title` (oras and what is built on it) or by
  `org.cncf.model.filepath` (CNCF ModelPack, raw layers);
- tar layers (KitOps, ModelPack, modelcar images), as they are or compressed by gzip. They are read
  as a whole to find the files and their digests; and once more, file by file, for a copy or for
  other digests than SHA-256.

The config that a manifest names is no file of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn

from model_signing.errors import FileError
from model_signing.oms import strict_json
from model_signing.oms.names import GIT_PATHS, HUB_PATH, Selection, covered
from model_signing.sources import Buffer, Entry, oci_referrers, oci_tar, remote
from model_signing.sources.oci_registry import DIGEST, Address, Repository

_NAMES = ("org.opencontainers.image.title", "org.cncf.model.filepath")
_UNPACK = "io.deis.oras.content.unpack"  # oras: a folder, as a tar layer with the folder's name
_ORAS_FILE = "application/vnd.oci.image.layer.v1.tar"  # oras' type of any file, which is no tar
_TARS = (".tar", "/tar")
_GZIP = ("+gzip", ".gzip", ".gz")
_OTHER = ("+zstd", ".zstd")
_IMAGES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_MODELCAR = "models/"  # where such an image has its model
_WHITEOUT = oci_tar.WHITEOUT
_MAX_LAYERS = 100_000
_MAX_SIZE = 1 << 62  # bytes
_SHOWN = 10
_OTHER_BYTES = "the registry sends other bytes than the digest names"


class _Layer(NamedTuple):
    """A blob that a manifest names."""

    number: int
    kind: str  # media type
    digest: str
    size: int  # bytes
    name: str
    unpack: bool  # whether oras unpacks it

    def __str__(self) -> str:
        return f"layer {self.number}, {self.name or self.digest} ({self.kind})"

    @property
    def packing(self) -> str | None:
        """How it is compressed; None: as we cannot read it."""
        if self.kind.endswith(_OTHER):
            return None
        return "gzip" if self.unpack or self.kind.endswith(_GZIP) else ""

    @property
    def is_tar(self) -> bool:
        if self.name and self.kind == _ORAS_FILE:
            return self.unpack
        plain = self.kind
        for ending in (*_GZIP, *_OTHER):
            plain = plain.removesuffix(ending)
        return self.unpack or plain.endswith(_TARS)


class _Place(NamedTuple):
    """Where the bytes of a file are: the version of its `Entry`."""

    blob: str  # digest
    start: int
    gzipped: int | None = None  # bytes of the blob, if what it holds is to be found by unpacking it


@dataclass(frozen=True)
class OciSource:
    """A model in a registry.

    Attributes:
        host: The registry, with its port.
        repository: Its name there.
        digest: Of the manifest, which names all that belongs to the model.
        manifest: Its bytes.
        kind: Its media type.
    """

    host: str
    repository: str
    digest: str
    manifest: bytes
    kind: str

    def __str__(self) -> str:
        return str(Address(self.host, self.repository, self.digest))

    @property
    def name(self) -> str:
        """That of its only file; else the last part of its repository."""
        return next(iter(self._files)) if self.single else self.repository.rpartition("/")[2]

    @property
    def single(self) -> bool:
        """Whether it has one file, and no folder."""
        return len(self._files) == 1 and "/" not in next(iter(self._files))

    def entries(self, selection: Selection) -> tuple[Mapping[str, Entry], Collection[str]]:
        """Its files, by the names that the manifest or a tar gives them; see `Source`."""
        return remote.listed(self._files.items(), selection, str(self))

    def read(self, name: str, entry: Entry, start: int, stop: int) -> Iterator[Buffer]:
        """These bytes of a file; see `Source`. Whoever hashes them compares with `Entry.sha256`."""
        place = entry.version or self._files[name].version
        if not isinstance(place, _Place):
            raise FileError("no such file in the registry's model", where=f"{self}, {name}")
        where = f"{self}, {name}"
        start, stop = place.start + start, place.start + stop
        if place.gzipped is None:
            yield from self.at.blob(place.blob, start, stop, where)
            return
        try:
            packed = self.at.blob(place.blob, 0, place.gzipped, where)
            yield from oci_tar.unpacked(packed, start, stop)
        except ValueError as error:
            raise FileError(_OTHER_BYTES, where=where, found=str(error)) from error

    def signatures(self) -> Iterable[tuple[str, bytes]]:
        """The signatures of models that were attached to the manifest; see `RemoteSource`."""
        return self.attached({oci_referrers.OMS})

    def inside(self, address: str) -> str | None:
        """None: a signature in a registry is never a file of a model."""

    @property
    def known_as(self) -> tuple[str, str]:
        """The repository, and the manifest's digest; see `AttachingSource`."""
        return f"{self.host}/{self.repository}", self.digest.partition(":")[2]

    def attached(self, predicate_types: Collection[str]) -> Iterable[tuple[str, bytes]]:
        """The bundles that were attached to the manifest, by the type of their statements."""
        return oci_referrers.bundles(self.at, self.digest, predicate_types)

    def check_attach(self) -> None:
        """Stores what every referrer needs, which says nothing."""
        self.at.put_blob(oci_referrers.EMPTY, str(self))

    def attach(self, bundle: bytes) -> str:
        """Attaches a signature or an attestation to the manifest; the address that it gets."""
        subject = {"mediaType": self.kind, "digest": self.digest, "size": len(self.manifest)}
        return oci_referrers.attach(self.at, subject, bundle)

    def remark(self, missing: Mapping[str, str]) -> str | None:
        """What explains that names (and digests) were signed that are not there, if it is known."""
        config = self._document.get("config")
        digest = config.get("digest") if isinstance(config, dict) else None
        if f"sha256:{missing.get('config.json')}" != digest:
            return None
        return "config.json is the manifest's config, no file of the model: another tool signed it"

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection: another process makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "at"}

    @cached_property
    def at(self) -> Repository:
        """Where it lies."""
        return Repository(Address(self.host, self.repository, self.digest))

    @cached_property
    def _document(self) -> dict[str, Any]:
        document = strict_json.loads(self.manifest, FileError, "the manifest")
        if not isinstance(document, dict):
            self._refuse("the manifest is no JSON object")
        return document

    def around(self, files: Collection[str]) -> list[str]:
        """What the manifest brings beside these files; see `AttachingSource`."""
        model, around = self._found
        notes = (*GIT_PATHS, HUB_PATH)
        return [*around, *(one for one in model if one not in files and not covered(one, notes))]

    @property
    def _files(self) -> dict[str, Entry]:
        """Name -> file. Names were not looked at yet, but no two files have one."""
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[dict[str, Entry], list[str]]:
        """The files of the model, and what an image has around them."""
        config = self._document.get("config")
        image = isinstance(config, dict) and config.get("mediaType") in _IMAGES
        layers = list(self.layers())
        image = image and not any(layer.name for layer in layers)
        found: dict[str, Entry] = {}
        left = remote.MAX_LISTED_BYTES
        for layer in layers:
            for name, entry in self._in_tar(layer) if layer.is_tar else self._as_file(layer):
                if name in found and not image:  # a layer of an image is laid over those below
                    self._refuse("a name is listed twice", name)
                found[name] = entry
                left -= len(name)
                if len(found) > remote.MAX_LISTED or left < 0:
                    self._refuse("the place lists too many files")
        around: list[str] = []
        if image:
            everything, found = found, self._modelcar(found)
            if len(found) < len(everything):
                around = [name for name in everything if not name.startswith(_MODELCAR)]
        unusable = next((name for name, entry in found.items() if entry.version is None), None)
        if unusable is not None:
            self._refuse("a link, a device or a removal in a tar layer is no file", unusable)
        return found, around

    def _modelcar(self, found: dict[str, Entry]) -> dict[str, Entry]:
        """Of an image with such a folder, what is in it; else all there is.

        Whoever unpacks the image must not find something else there: by a name that leads there in
        another way, by a link in the folder's place, or by its removal.
        """
        if not any(name.startswith(_MODELCAR) for name in found):
            return found
        odd = next((name for name in found if {"", ".", ".."} & set(name.split("/"))), None)
        if odd is not None:
            self._refuse("a name in a layer of an image is not canonical", odd)
        folder = _MODELCAR.rstrip("/")
        covers = {folder, f"{_WHITEOUT}{folder}", f"{_WHITEOUT}{_WHITEOUT}.opq"} & found.keys()
        if covers:
            self._refuse(
                "a layer of an image has something else in place of its model", covers.pop()
            )
        return {
            name.removeprefix(_MODELCAR): entry
            for name, entry in found.items()
            if name.startswith(_MODELCAR)
        }

    def layers(self) -> Iterator[_Layer]:
        """What the manifest names, checked one after the other."""
        if "manifests" in self._document:
            self._refuse_index(self._document["manifests"])
        layers = self._document.get("layers")
        if not isinstance(layers, list) or not 0 < len(layers) <= _MAX_LAYERS:
            self._refuse("the manifest has no list of layers, which are the files of a model")
        for number, layer in enumerate(layers, 1):
            where = f"layers.{number}"
            fields = strict_json.fields(layer, FileError, where, "mediaType digest size", None)
            notes = fields.get("annotations") or {}
            named = [notes.get(key) for key in _NAMES] if isinstance(notes, dict) else [0]
            name = next(filter(None, named), "")
            kind, digest, size = fields["mediaType"], fields["digest"], fields["size"]
            if not isinstance(kind, str) or not isinstance(name, str):
                self._refuse("a layer has a type or a name that is no text", where)
            if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
                self._refuse("a layer is not named by a SHA-256 digest", where)
            if type(size) is not int or not 0 <= size < _MAX_SIZE:
                self._refuse("a layer has no size", where)
            unpack = isinstance(notes, dict) and notes.get(_UNPACK) == "true"
            yield _Layer(number, kind.lower(), digest, size, name, unpack)

    def _as_file(self, layer: _Layer) -> Iterator[tuple[str, Entry]]:
        if not layer.name:
            raise FileError(
                "a layer has no name, so that nobody knows which file it is",
                where=str(self),
                expected=" or ".join(_NAMES),
                found=str(layer),
            )
        entry = Entry(layer.size, _Place(layer.digest, 0), layer.digest.partition(":")[2])
        yield layer.name, entry

    def _in_tar(self, layer: _Layer) -> Iterator[tuple[str, Entry]]:
        """The files of a tar layer, of which not one byte was read unchecked."""
        if layer.packing is None:
            raise FileError(
                "this compression of a layer is not known",
                where=str(self),
                found=str(layer),
                expected="none, or gzip",
                fix="push the model again in another way; or pull it, and name the folder",
            )
        where = f"{self}, {layer}"
        gzipped = layer.packing == "gzip"
        archive = oci_tar.Layer(self.at.blob(layer.digest, 0, layer.size, where), gzipped=gzipped)
        try:
            for member in archive.members():
                place = _Place(layer.digest, member.start, layer.size if gzipped else None)
                version = place if member.sha256 else None
                yield member.name, Entry(member.size, version, member.sha256, measured=True)
        except ValueError as error:
            found = str(error)
            raise FileError("a layer is no tar archive", where=where, found=found) from error
        if (found := f"sha256:{archive.digest()}") != layer.digest:
            raise FileError(
                _OTHER_BYTES,
                where=where,
                expected=layer.digest,
                found=found,
            )

    def _refuse_index(self, manifests: object) -> NoReturn:
        named = manifests if isinstance(manifests, list) else []
        digests = [one["digest"] for one in named if isinstance(one, dict) and "digest" in one]
        raise FileError(
            "the address names a list of manifests, of which one is the model",
            where=str(self),
            found=", ".join(map(str, digests[:_SHOWN])) or "an empty list",
            fix=f"name the one: {Address(self.host, self.repository, 'sha256:...')}",
        )

    def _refuse(self, message: str, found: str | None = None) -> NoReturn:
        raise FileError(message, where=str(self), found=found)


def open_address(address: str) -> OciSource:
    """The model at an address; a tag is resolved here, once.

    Raises:
        FileError: The address is malformed, there is nothing, or the registry does not answer.
    """
    asked = Address.parse(address)
    at = Repository(asked)
    found = at.manifest(asked.reference)
    if found is None:
        raise remote.failure(HTTPStatus.NOT_FOUND, str(asked))
    digest = f"sha256:{sha256(found.data).hexdigest()}"
    source = OciSource(asked.host, asked.repository, digest, found.data, found.kind)
    vars(source)["at"] = at  # who we are was asked already
    return source


def read_file(address: str, most: int) -> bytes | None:
    """The only blob of what is at an address, of which at most so many bytes are read.

    Raises:
        FileError: There is something else; or the registry does not answer.
    """
    asked = Address.parse(address)
    at = Repository(asked)
    found = at.manifest(asked.reference)
    if found is None:
        return None
    layers = list(OciSource(asked.host, asked.repository, asked.reference, *found[:2]).layers())
    if len(layers) != 1:
        raise FileError("a model, or something else, is at this address", where=str(asked))
    if layers[0].size > most:
        return bytes(most)
    return at.whole_blob(layers[0].digest, layers[0].size, str(asked))


def write_file(address: str, data: bytes) -> None:
    """Stores a signature under a tag.

    Raises:
        FileError: The address has a digest, which nobody can choose; or the registry refuses.
    """
    asked = Address.parse(address)
    if ":" in asked.reference:
        raise FileError(
            "a signature cannot be written to an address with a digest",
            where=address,
            fix="give it a tag; --attach stores it with the model, without a name",
        )
    oci_referrers.store(Repository(asked), data, tag=asked.reference)
