"""Signatures that lie in a registry with what they are about: referrers (OCI 1.1, `subject`).

A registry that keeps no list of them has it under a tag made of the digest (distribution-spec,
"Referrers Tag Schema"). The annotations are those by which cosign and policy engines find bundles;
nothing is believed because of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any, NoReturn
from urllib.parse import quote

from model_signing.errors import BundleError, FileError
from model_signing.oms import bundle as bundles_of
from model_signing.oms import statement, strict_json
from model_signing.sources.oci_registry import DIGEST, INDEX, MANIFEST, Repository

OMS = statement.PREDICATE_TYPE
_BUNDLE = bundles_of.MEDIA_TYPE
_PREDICATE = "dev.sigstore.bundle.predicateType"
EMPTY = b"{}"  # image-spec, "Guidance for an Empty Descriptor"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_MAX_REFERRERS = 1000
_MAX_PAGES = 100
_ATTEMPTS = 5


def attach(at: Repository, subject: Mapping[str, Any], bundle: bytes) -> str:
    """Stores a bundle as a referrer.

    Args:
        at: Where.
        subject: The descriptor of what it is about.
        bundle: A Sigstore bundle.

    Returns:
        The referrer's address.

    Raises:
        BundleError: It is none.
        FileError: The registry does not take it.
    """
    descriptor, listed = store(at, bundle, subject=subject)
    if not listed:
        _add_to_list(at, str(subject["digest"]), descriptor)
    return f"{at}@{descriptor['digest']}"


def store(
    at: Repository,
    bundle: bytes,
    *,
    subject: Mapping[str, Any] | None = None,
    tag: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Stores a bundle, by its digest or under a tag.

    Returns:
        Its descriptor, and whether the registry itself lists what refers to the subject.

    Raises:
        As `attach`.
    """
    notes = {
        "org.opencontainers.image.created": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "dev.sigstore.bundle.content": "dsse-envelope",
        _PREDICATE: _predicate_type(bundle),
    }
    where = f"{at}:{tag}" if tag else f"{at}@{subject['digest']}" if subject else str(at)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": _BUNDLE,
        "config": _descriptor(_EMPTY_TYPE, at.put_blob(EMPTY, where), len(EMPTY)),
        "layers": [_descriptor(_BUNDLE, at.put_blob(bundle, where), len(bundle))],
        **({"subject": subject} if subject else {}),
        "annotations": notes,
    }
    data = _encoded(manifest)
    digest = f"sha256:{sha256(data).hexdigest()}"
    headers = at.put_manifest(tag or digest, data, MANIFEST, where)
    descriptor = _descriptor(MANIFEST, digest, len(data))
    descriptor |= {"artifactType": _BUNDLE, "annotations": notes}
    return descriptor, "oci-subject" in headers


def bundles(
    at: Repository, digest: str, predicate_types: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    """The bundles about a digest that hold such a statement: address and content of each.

    Raises:
        FileError: The registry does not answer, or sends what it should not.
    """
    left = bundles_of.MAX_BUNDLE_SIZE  # of all together
    for number, one in enumerate(_listed(at, digest), 1):
        if number > _MAX_REFERRERS or left <= 0:
            _too_many(f"{at}@{digest}")
        notes = one.get("annotations") or {}
        said = notes.get(_PREDICATE) if isinstance(notes, dict) else ""
        if said is not None and said not in predicate_types:  # without a word it is looked at
            continue
        where = f"{at}@{one['digest']}"
        data = _content(at, one["digest"], digest, where)
        try:
            if data is not None and _predicate_type(data) in predicate_types:
                left -= len(data)
                yield where, data
        except BundleError:  # of another kind, or nobody's
            continue


def _content(at: Repository, referrer: str, digest: str, where: str) -> bytes | None:
    """The bundle that a referrer holds, if it is about this digest, and a bundle."""
    found = at.manifest(referrer)
    document = strict_json.loads(found.data, FileError, "a referrer") if found else None
    if not isinstance(document, dict):
        return None
    subject, layers = document.get("subject"), document.get("layers")
    if not isinstance(subject, dict) or subject.get("digest") != digest:
        return None  # a list that lies
    layer = layers[0] if isinstance(layers, list) and len(layers) == 1 else None
    if not isinstance(layer, dict) or layer.get("mediaType") not in bundles_of.MEDIA_TYPES:
        return None
    blob, size = layer.get("digest"), layer.get("size")
    if not isinstance(blob, str) or not DIGEST.fullmatch(blob) or type(size) is not int:
        return None
    if not 0 < size <= bundles_of.MAX_BUNDLE_SIZE:
        return None
    return at.whole_blob(blob, size, where)


def _listed(at: Repository, digest: str) -> Iterator[dict[str, Any]]:
    """Descriptors of what refers to a digest and may be a bundle."""
    where = f"{at}@{digest}"
    page = f"referrers/{digest}?artifactType={quote(_BUNDLE, safe='')}"
    for _ in range(_MAX_PAGES):
        answer = at.document(page, where, {"Accept": INDEX})
        if answer is None:  # no such list: OCI 1.0
            break
        yield from _descriptors(answer.data, where)
        if not answer.next_page:
            return
        page = answer.next_page
    else:
        _too_many(where)
    found = at.manifest(_tag(digest))
    if found is not None:
        yield from _descriptors(found.data, where)


def _too_many(where: str) -> NoReturn:
    raise FileError(
        "more lies with the model than anybody reads",
        where=where,
        expected=f"at most {_MAX_REFERRERS} referrers",
        fix="name the one signature by its address, with --signature",
    )


def _descriptors(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    document = strict_json.loads(data, FileError, "the list of referrers")
    listed = document.get("manifests") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise FileError("the list of referrers is none", where=where)
    for one in listed:
        kind = one.get("artifactType") if isinstance(one, dict) else None
        digest = one.get("digest") if isinstance(one, dict) else None
        if kind in bundles_of.MEDIA_TYPES and isinstance(digest, str) and DIGEST.fullmatch(digest):
            yield one


def _add_to_list(at: Repository, digest: str, referrer: dict[str, Any]) -> None:
    """The list under the tag, and one more; again, if somebody else wrote it meanwhile.

    Two who write at the same moment may still lose one: such a registry knows no condition.
    """
    where, tag = f"{at}@{digest}", _tag(digest)
    for _ in range(_ATTEMPTS):
        found = at.manifest(tag)
        data = found.data if found else b"{}"
        index: Any = strict_json.loads(data, FileError, "the list of referrers")
        listed = index.get("manifests", []) if isinstance(index, dict) else None
        if not isinstance(listed, list):
            raise FileError("the list of referrers is none", where=f"{at}:{tag}")
        if any(isinstance(one, dict) and one.get("digest") == referrer["digest"] for one in listed):
            return
        index = {"schemaVersion": 2, "mediaType": INDEX, **index, "manifests": [*listed, referrer]}
        at.put_manifest(tag, _encoded(index), INDEX, where)
    raise FileError(
        "others change the list of referrers all the time",
        where=f"{at}:{tag}",
        fix="attach the signature again",
    )


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _predicate_type(bundle: bytes) -> str:
    """What the statement in a bundle is about, by its own words.

    Raises:
        BundleError: It is no bundle with a statement.
    """
    payload = bundles_of.parse(bundle).payload
    document = strict_json.loads(payload, BundleError, "the statement")
    predicate = document.get("predicateType") if isinstance(document, dict) else None
    if not isinstance(predicate, str):
        raise BundleError("the bundle holds no statement")
    return predicate
