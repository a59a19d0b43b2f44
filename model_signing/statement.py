"""OMS 5, 6.5, 6.6, 8.3: the in-toto statement that is signed, and its strict reader.

The reader takes what a signature authenticated, which may still be wrong or hostile. It accepts
what the specification describes and the differences that released signers are known to make
(OMS 11), and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, NoReturn

from model_signing import strict_json
from model_signing.errors import ManifestError, StatementError
from model_signing.files import MAX_FILES, has_control_characters, ignored_path_problem
from model_signing.manifest import DIGEST_SIZES, Manifest, Serialization

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
LEGACY_PREDICATE_TYPE = "https://model_signing/Digests/v0.1"

_MAX_SHARD_SIZE = 1 << 62  # bytes
_SHARD_NAME = r"(?s)(.+):(0|[1-9][0-9]{0,18}):([1-9][0-9]{0,18})"


@dataclass(frozen=True)
class Statement:
    """What an OMS signature states.

    Attributes:
        model_name: The signer's name for the model; informational (OMS 6.5).
        root_digest: SHA-256, hexadecimal, over the resources' digests (OMS 6.5.1). It does not
            bind file names.
        manifest: Every file or shard.
    """

    model_name: str
    root_digest: str
    manifest: Manifest


def root_digest(digests: Iterable[str]) -> str:
    """OMS 6.5.1: SHA-256 over the concatenated raw digests, as lower-case hexadecimal.

    Args:
        digests: Hexadecimal digests of the resources, in their recorded order.
    """
    return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


def encode(model_name: str, manifest: Manifest) -> bytes:
    """The statement about a model (OMS 6.6); the same manifest gives the same bytes.

    Args:
        model_name: The basename of the model's path (OMS 6.5).
        manifest: Sorted by resource name.
    """
    how = manifest.serialization
    serialization: dict[str, Any] = {"method": how.method, "hash_type": how.hash_type}
    if how.shard_size is not None:
        serialization["shard_size"] = how.shard_size
    serialization["allow_symlinks"] = how.allow_symlinks
    serialization["ignore_paths"] = list(how.ignore_paths)
    subject = {"name": model_name, "digest": {"sha256": root_digest(manifest.digests.values())}}
    # Only a name needs escaping; a dictionary for each of a million resources would take seconds.
    resources = ",".join(
        f'{{"name":{encode_basestring(name)},"digest":"{digest}","algorithm":"{how.hash_type}"}}'
        for name, digest in manifest.digests.items()
    )
    return (
        f'{{"_type":"{STATEMENT_TYPE}","subject":[{_dumps(subject)}],'
        f'"predicateType":"{PREDICATE_TYPE}","predicate":{{"resources":[{resources}],'
        f'"serialization":{_dumps(serialization)}}}}}'
    ).encode()


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def decode(payload: bytes, *, allow_legacy_predicate: bool = False) -> Statement:
    """Reads and validates a signed statement (OMS 8.3).

    Args:
        payload: The authenticated payload of the envelope.
        allow_legacy_predicate: Also accept what model-signing v0.2.0 signed (OMS 11.2.4).

    Raises:
        StatementError: Not an in-toto statement with the OMS predicate.
        ManifestError: The predicate breaks a rule of OMS 5.2 or 6.
    """
    # 1. INTOTO-STATEMENT: one JSON object with these fields and no others.
    document = strict_json.loads(payload, StatementError, "the signed statement")
    strict_json.fields(
        document, StatementError, "statement", "_type subject predicateType predicate"
    )
    # 2. OMS 8.3.1 and 8.3.2: the types.
    if document["_type"] != STATEMENT_TYPE:
        _refuse_type("_type", STATEMENT_TYPE, document["_type"])
    predicate_type = document["predicateType"]
    if predicate_type == LEGACY_PREDICATE_TYPE and allow_legacy_predicate:
        return _decode_legacy(document)
    if predicate_type != PREDICATE_TYPE:
        fix = "verify with --allow-legacy-predicate if you trust model-signing v0.2.0"
        legacy = predicate_type == LEGACY_PREDICATE_TYPE
        _refuse_type("predicateType", PREDICATE_TYPE, predicate_type, fix if legacy else None)
    # 3. OMS 6.5: exactly one subject, with the root digest.
    subjects = document["subject"]
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise StatementError("the statement needs one subject (OMS 6.5)", where="subject")
    model_name, stated_root = _subject(subjects[0], "subject[0]")
    # 4. OMS 8.3.3: the predicate.
    predicate = document["predicate"]
    strict_json.fields(predicate, ManifestError, "predicate", "resources serialization")
    manifest = _manifest(predicate["resources"], _serialization(predicate["serialization"]))
    # 5. OMS 6.5.1: the root digest, in the recorded order.
    computed = root_digest(manifest.digests.values())
    if stated_root != computed:
        raise ManifestError(
            "the root digest does not match the resources (OMS 6.5.1)",
            where="subject[0].digest.sha256",
            expected=computed,
            found=stated_root,
        )
    return Statement(model_name, computed, manifest)


def _decode_legacy(document: dict[str, Any]) -> Statement:
    """OMS 11, v0.2.0: one subject for each file; no serialization, no name, no root digest."""
    subjects = document["subject"]
    if not isinstance(subjects, list):
        raise StatementError("the statement has no list of subjects", where="subject")
    resources = []
    for index, subject in enumerate(subjects):
        name, digest = _subject(subject, f"subject[{index}]")
        resources.append({"name": name, "digest": digest, "algorithm": "sha256"})
    manifest = _manifest(resources, Serialization("files", "sha256", None, False, ()))
    return Statement("", root_digest(manifest.digests.values()), manifest)


def _subject(subject: object, where: str) -> tuple[str, str]:
    fields = strict_json.fields(subject, StatementError, where, "name digest", None)
    digests = strict_json.fields(
        fields["digest"], StatementError, f"{where}.digest", "sha256", None
    )
    if not isinstance(fields["name"], str) or not fields["name"]:
        raise StatementError("a subject needs a name", where=where)
    if not _is_digest(digests["sha256"], "sha256"):
        raise StatementError("not a SHA-256 digest", where=f"{where}.digest.sha256")
    return fields["name"], digests["sha256"]


def _serialization(value: object) -> Serialization:
    """OMS 5.2.2, and 6.2.1 for the ignored paths."""
    where = "predicate.serialization"
    fields = strict_json.fields(
        value, ManifestError, where, "method hash_type allow_symlinks", "shard_size ignore_paths"
    )
    method, hash_type, symlinks = fields["method"], fields["hash_type"], fields["allow_symlinks"]
    if method not in ("files", "shards"):
        _refuse("unknown serialization method", f"{where}.method", "files or shards", method)
    if hash_type not in ("sha256", "blake2b", "blake3"):
        _refuse("unknown hash algorithm", f"{where}.hash_type", ", ".join(DIGEST_SIZES), hash_type)
    if not isinstance(symlinks, bool):
        _refuse("not true or false", f"{where}.allow_symlinks", "true or false", symlinks)
    size = fields.get("shard_size")
    if ("shard_size" in fields) != (method == "shards"):
        _refuse("shard_size belongs to shards, and to nothing else", where, None, size)
    if method == "shards":
        # Released signers write their integers as 1000000000.0.
        if isinstance(size, float) and size.is_integer():
            size = int(size)
        if type(size) is not int or not 0 < size <= _MAX_SHARD_SIZE:
            _refuse("not a shard size", f"{where}.shard_size", "a positive integer", size)
    paths = fields.get("ignore_paths", [])
    if not isinstance(paths, list):
        _refuse("not a list of paths", f"{where}.ignore_paths", "a list", paths)
    for path in paths:
        problem = "is no text" if not isinstance(path, str) else ignored_path_problem(path)
        if problem:
            _refuse(f"an ignored path {problem} (OMS 6.2.1)", f"{where}.ignore_paths", None, path)
    ignored = tuple("/".join(p for p in path.split("/") if p not in ("", ".")) for path in paths)
    return Serialization(method, hash_type, size, symlinks, ignored)


def _manifest(resources: object, how: Serialization) -> Manifest:
    """OMS 5.2.1, 6.1.2, 6.3 and 6.4: every resource, and all of them together."""
    where = "predicate.resources"
    if not isinstance(resources, list) or not resources:
        _refuse("there must be at least one resource (OMS 5.2.1)", where, None, resources)
    if len(resources) > MAX_FILES:
        _refuse("too many resources", where, f"at most {MAX_FILES}", len(resources))
    algorithms = {how.hash_type, f"{how.hash_type}-sharded-{how.shard_size}"}  # as released
    digests: dict[str, str] = {}
    for index, resource in enumerate(resources):
        if type(resource) is not dict or not resource.keys() >= {"name", "digest", "algorithm"}:
            _refuse(
                "a resource needs name, digest and algorithm", f"{where}[{index}]", None, resource
            )
        name, digest, algorithm = resource["name"], resource["digest"], resource["algorithm"]
        if not isinstance(algorithm, str) or algorithm not in algorithms:
            _refuse("not the manifest's hash_type", f"{where}[{index}]", how.hash_type, algorithm)
        if not _is_digest(digest, how.hash_type):
            _refuse(f"not a {how.hash_type} digest", f"{where}[{index}]", None, digest)
        if not isinstance(name, str) or not name:
            _refuse("a resource needs a name", f"{where}[{index}]", None, name)
        if name in digests:
            _refuse("two resources have the same name", where, None, name)
        digests[name] = digest
    names = list(digests)
    if how.shard_size is None:
        files: Mapping[str, int | None] = dict.fromkeys(names)
        parts = [(name, 0, 0) for name in names]
    else:
        parts = [_shard(name) for name in names]
        files = _sizes(parts, how.shard_size)
    for name in files:
        _check_name(name, alone=len(files) == 1)
    _check_order(names, parts)
    return Manifest(how, digests, files)


def _check_name(name: str, *, alone: bool) -> None:
    """OMS 6.1.2; v0.3.1 and v1.0.0 named a single-file model "."."""
    if name == "." and alone:
        return
    path = f"/{name}/"
    if "//" in path or "/./" in path or "/../" in path:
        _refuse(
            "a resource name must be relative and canonical (OMS 6.1.2)",
            "predicate.resources",
            None,
            name,
        )
    if has_control_characters(name):
        _refuse("a resource name has control characters", "predicate.resources", None, name)


def _shard(name: str) -> tuple[str, int, int]:
    """OMS 6.3.2: file, start and end; the last two numbers, as file names may have colons."""
    match = re.fullmatch(_SHARD_NAME, name)
    if match is None:
        _refuse("not a shard (OMS 6.3.2)", "predicate.resources", "FILE:START:END", name)
    return match[1], int(match[2]), int(match[3])


def _sizes(shards: list[tuple[str, int, int]], shard_size: int) -> Mapping[str, int | None]:
    """OMS 6.3.2: each file's shards join without gap or overlap; only the last may be shorter."""
    sizes: dict[str, int] = {}
    for file, start, end in sorted(shards):
        joins = start == sizes.get(file, 0) and start % shard_size == 0
        if not joins or not start < end <= start + shard_size:
            _refuse(
                "the shards of a file have a gap, an overlap or a wrong size (OMS 6.3.2)",
                f"{file}:{start}:{end}",
                f"shards of {shard_size} bytes",
                f"{end - start} bytes after byte {sizes.get(file, 0)}",
            )
        sizes[file] = end
    return sizes


def _check_order(names: list[str], parts: list[tuple[str, int, int]]) -> None:
    """OMS 6.4: sorted by name; released signers compare path components and then numbers."""
    if names != sorted(names):
        by_component = [(file.split("/"), start, end) for file, start, end in parts]
        if by_component != sorted(by_component):
            _refuse("the resources are not sorted by name (OMS 6.4)", "predicate.resources")


def _is_digest(value: object, algorithm: str) -> bool:
    length = 2 * DIGEST_SIZES[algorithm]
    return isinstance(value, str) and len(value) == length and not value.strip("0123456789abcdef")


def _refuse_type(where: str, expected: str, found: object, fix: str | None = None) -> NoReturn:
    raise StatementError(
        "not an OMS statement (OMS 8.3)",
        where=where,
        expected=expected,
        found=_show(found),
        fix=fix,
    )


def _refuse(
    message: str, where: str, expected: str | None = None, found: object = None
) -> NoReturn:
    raise ManifestError(message, where=where, expected=expected, found=_show(found))


def _show(value: object) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:200]
