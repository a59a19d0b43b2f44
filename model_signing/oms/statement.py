"""OMS 5, 6.5, 6.6, 8.3: the in-toto statement that is signed, and its strict reader.

The reader takes what a signature authenticated, which may still be hostile. It accepts what the
specification describes and the differences that released signers make (OMS 11), nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, NamedTuple, NoReturn

from model_signing.errors import Error, ManifestError, StatementError
from model_signing.oms import strict_json
from model_signing.oms.manifest import DIGEST_SIZES, Manifest, Serialization, is_digest
from model_signing.oms.names import MAX_FILES, canonical, name_problem

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
LEGACY_PREDICATE_TYPE = "https://model_signing/Digests/v0.1"

_ANOTHER = "not an OMS statement (OMS 8.3)"
_RESOURCE = ("name", "digest", "algorithm")  # other fields are ignored (OMS 5.2.1)
_FIELDS = frozenset(_RESOURCE)
_SHORT = 4 << 20  # bytes: of them, 40 MB of objects are made at most
_AT_ONCE = 10_000  # resources that are encoded together
_MAX_SHARD_SIZE = 1 << 62  # bytes
_FEW_PARTS = 200_000  # of JSON, see `strict_json.parts`
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SHARD_NAME = r"(?s)(.+):(0|[1-9][0-9]{0,18}):([1-9][0-9]{0,18})"


class Statement(NamedTuple):
    """What an OMS signature states."""

    model_name: str  # the signer's name for the model; informational (OMS 6.5)
    root_digest: str  # as the function of that name gives it
    manifest: Manifest


def root_digest(digests: Iterable[str]) -> str:
    """OMS 6.5.1: SHA-256 over the raw digests in their recorded order. It does not bind file names.

    Takes and returns lower-case hexadecimal.
    """
    state, each = hashlib.sha256(), iter(digests)
    while some := "".join(islice(each, _AT_ONCE)):
        state.update(bytes.fromhex(some))
    return state.hexdigest()


def encode(model_name: str, manifest: Manifest) -> bytes:
    """The statement about a model (OMS 6.6); the same manifest gives the same bytes.

    `model_name` is the basename of the model's path (OMS 6.5); the manifest is sorted by name.
    """
    how = manifest.serialization
    # Its attributes have the names that the specification gives them.
    serialization = {name: value for name, value in vars(how).items() if value is not None}
    subject = {"name": model_name, "digest": {"sha256": root_digest(manifest.digests.values())}}
    # Only a name needs escaping; a dictionary for each of a million resources would take seconds.
    resources = (
        f'{{"name":{encode_basestring(name)},"digest":"{digest}","algorithm":"{how.hash_type}"}}'
        for name, digest in manifest.digests.items()
    )
    out = io.BytesIO()
    out.write(
        f'{{"_type":"{STATEMENT_TYPE}","subject":[{_dumps(subject)}],'
        f'"predicateType":"{PREDICATE_TYPE}","predicate":{{"resources":['.encode()
    )
    comma = ""
    while some := ",".join(islice(resources, _AT_ONCE)):
        out.write(f"{comma}{some}".encode())
        comma = ","
    out.write(f'],"serialization":{_dumps(serialization)}}}}}'.encode())
    return out.getvalue()


def least_bytes(sizes: Mapping[str, int], how: Serialization) -> int:
    """How long the statement about files of these names and sizes in bytes is, or somewhat longer.

    For whoever has not hashed them yet.
    """
    entry = len('{"name":"","digest":"","algorithm":""},') + len(how.hash_type)
    entry += 2 * DIGEST_SIZES[how.hash_type]
    if how.shard_size is None:
        return sum(map(len, sizes)) + entry * len(sizes)
    entry += len(":0:1")
    shards = ((name, -(-size // how.shard_size)) for name, size in sizes.items())
    return sum(count * (len(name) + entry) for name, count in shards)


def read(payload: bytes, refusal: type[Error], what: str) -> Any:  # noqa: ANN401 - untrusted JSON
    """Parses a payload that may list many files; nothing in it is believed yet.

    Raises:
        Error: As `refusal`: see `strict_json.loads`.
    """
    most_parts = _most_parts(payload)
    # A file's name may be of any script.
    return strict_json.loads(payload, refusal, what, most_parts, most_wide=len(payload))


def _most_parts(payload: bytes) -> int:
    """A file takes 110 bytes and 4 parts at least."""
    return max(_FEW_PARTS, len(payload) // 16)


def decode(payload: bytes, *, allow_legacy_predicate: bool = False) -> Statement:
    """Reads and validates a signed statement (OMS 8.3): the authenticated payload of the envelope.

    `allow_legacy_predicate` also accepts what model-signing v0.2.0 signed (OMS 11.2.4).

    Raises:
        StatementError: Not an in-toto statement with the OMS predicate.
        ManifestError: The predicate breaks a rule of OMS 5.2 or 6.
    """
    # 1. INTOTO-STATEMENT: one JSON object with these fields and no others.
    document, listed = read_listed(payload, StatementError, "the signed statement")
    fields = "_type subject predicateType predicate"
    strict_json.fields(document, StatementError, "statement", fields)
    # 2. OMS 8.3.1 and 8.3.2: the types.
    if document["_type"] != STATEMENT_TYPE:
        _refuse(_ANOTHER, "_type", document["_type"], STATEMENT_TYPE, StatementError)
    predicate_type = document["predicateType"]
    legacy = predicate_type == LEGACY_PREDICATE_TYPE
    if predicate_type != PREDICATE_TYPE and not (legacy and allow_legacy_predicate):
        consent = "verify with --allow-legacy-predicate if you trust model-signing v0.2.0"
        fix = consent if legacy else None
        _refuse(_ANOTHER, "predicateType", predicate_type, PREDICATE_TYPE, StatementError, fix)
    # 3. OMS 6.5: exactly one subject, with the root digest. OMS 11, v0.2.0: one for each file.
    subjects = document["subject"]
    if not isinstance(subjects, list) or (len(subjects) != 1 and not legacy):
        how_many = "a list of subjects" if legacy else "one subject (OMS 6.5)"
        raise StatementError(f"the statement needs {how_many}", where="subject")
    named = [_subject(subject, f"subject[{index}]") for index, subject in enumerate(subjects)]
    if legacy:
        listed = Resources()
        for name, sha in named:
            listed.add({"name": name, "digest": sha, "algorithm": "sha256"})
        manifest = _manifest(listed, Serialization("files", "sha256", None, False, ()))
        return Statement("", root_digest(manifest.digests.values()), manifest)
    # 4. OMS 8.3.3: the predicate.
    predicate = document["predicate"]
    strict_json.fields(predicate, ManifestError, "predicate", "resources serialization")
    how = _serialization(predicate["serialization"])
    if not isinstance(predicate["resources"], list):
        _refuse("not a list of resources", "predicate.resources", predicate["resources"], "a list")
    manifest = _manifest(listed, how)
    # 5. OMS 6.5.1: the root digest, in the recorded order.
    ((model_name, stated),) = named
    computed = root_digest(manifest.digests.values())
    if stated != computed:
        message = "the root digest does not match the resources (OMS 6.5.1)"
        _refuse(message, "subject[0].digest.sha256", stated, computed)
    return Statement(model_name, computed, manifest)


class Resources:
    """The entries of a manifest as they are read: a million dictionaries would take 250 MB.

    Attributes:
        malformed: The number of the first that is none, and what it is; nothing follows it.
    """

    def __init__(self) -> None:
        self._names: list[Any] = []
        self._digests: list[Any] = []
        self._algorithms: list[Any] = []
        self._known: dict[str, str] = {}
        self.malformed: tuple[int, object] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The entry of this number; an `IndexError` behind the last that is one."""
        columns = zip(_RESOURCE, (self._names, self._digests, self._algorithms), strict=True)
        return {field: column[index] for field, column in columns}

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        return zip(self._names, self._digests, self._algorithms, strict=True)

    def add(self, resource: object) -> None:
        """Notes the next.

        Raises:
            ManifestError: There are too many.
        """
        if self.malformed is not None:
            return
        if type(resource) is not dict or not resource.keys() >= _FIELDS:
            self.malformed = len(self), resource
            return
        algorithm = resource["algorithm"]
        if isinstance(algorithm, str):
            algorithm = self._known.setdefault(algorithm, algorithm)
        self._names.append(resource["name"])
        self._digests.append(resource["digest"])
        self._algorithms.append(algorithm)
        if len(self._names) > MAX_FILES:
            where = "predicate.resources"
            raise ManifestError("too many resources", where=where, expected=f"at most {MAX_FILES}")


def read_listed(payload: bytes, refusal: type[Error], what: str) -> tuple[Any, Resources]:
    """As `read`, with what it lists apart from it.

    Raises:
        ManifestError: It lists too much.
    """
    listed = Resources()
    where = ("predicate", "resources")
    most = _most_parts(payload)
    document = None
    if len(payload) > _SHORT:  # else there is nothing to be saved
        document = strict_json.loads_apart(payload, refusal, what, where, listed.add, most)
    if document is None:
        document, listed = read(payload, refusal, what), Resources()
        inner = document.get("predicate") if isinstance(document, dict) else None
        found = inner.get("resources") if isinstance(inner, dict) else None
        for resource in found if isinstance(found, list) else ():
            listed.add(resource)
    return document, listed


def _subject(subject: object, where: str) -> tuple[str, str]:
    fields = strict_json.fields(subject, StatementError, where, "name digest", None)
    name, digest, at = fields["name"], fields["digest"], f"{where}.digest"
    sha256 = strict_json.fields(digest, StatementError, at, "sha256", None)["sha256"]
    if not isinstance(name, str) or not name:
        raise StatementError("a subject needs a name", where=where)
    if not is_digest(sha256, "sha256"):
        raise StatementError("not a SHA-256 digest", where=f"{at}.sha256")
    return name, sha256


def _serialization(value: object) -> Serialization:
    """OMS 5.2.2, and 6.2.1 for the ignored paths."""
    where = "predicate.serialization"
    fields = strict_json.fields(
        value, ManifestError, where, "method hash_type allow_symlinks", "shard_size ignore_paths"
    )
    method, hash_type, symlinks = fields["method"], fields["hash_type"], fields["allow_symlinks"]
    if method not in ("files", "shards"):
        _refuse("unknown serialization method", f"{where}.method", method, "files or shards")
    if hash_type not in [*DIGEST_SIZES]:  # compared, not looked up: it may be a list
        _refuse("unknown hash algorithm", f"{where}.hash_type", hash_type, ", ".join(DIGEST_SIZES))
    if not isinstance(symlinks, bool):
        _refuse("not true or false", f"{where}.allow_symlinks", symlinks, "true or false")
    size = fields.get("shard_size")
    if ("shard_size" in fields) != (method == "shards"):
        _refuse("shard_size belongs to shards, and to nothing else", where, size)
    if method == "shards":
        # Released signers write their integers as 1000000000.0.
        if isinstance(size, float) and size.is_integer():
            size = int(size)
        if type(size) is not int or not 0 < size <= _MAX_SHARD_SIZE:
            _refuse("not a shard size", f"{where}.shard_size", size, "a positive integer")
    paths = fields.get("ignore_paths", [])
    if not isinstance(paths, list):
        _refuse("not a list of paths", f"{where}.ignore_paths", paths, "a list")
    ignored = []
    for path in paths:
        name, problem = canonical(path) if isinstance(path, str) else ("", "is no text")
        if problem:
            _refuse(f"an ignored path {problem} (OMS 6.2.1)", f"{where}.ignore_paths", path)
        ignored.append(name)
    return Serialization(method, hash_type, size, symlinks, tuple(ignored))


def _manifest(resources: Resources, how: Serialization) -> Manifest:
    """OMS 5.2.1, 6.1.2, 6.3 and 6.4: every resource, and all of them together."""
    where = "predicate.resources"
    if not len(resources) and resources.malformed is None:
        _refuse("there must be at least one resource (OMS 5.2.1)", where, [])
    algorithms = {how.hash_type, f"{how.hash_type}-sharded-{how.shard_size}"}  # as released
    digests: dict[str, str] = {}
    for index, (name, digest, algorithm) in enumerate(resources):
        if not isinstance(algorithm, str) or algorithm not in algorithms:
            _refuse("not the manifest's hash_type", f"{where}[{index}]", algorithm, how.hash_type)
        if not is_digest(digest, how.hash_type):
            _refuse(f"not a {how.hash_type} digest", f"{where}[{index}]", digest)
        if not isinstance(name, str) or not name:
            _refuse("a resource needs a name", f"{where}[{index}]", name)
        if name in digests:
            _refuse("two resources have the same name", where, name)
        digests[name] = digest
    if resources.malformed is not None:
        index, found = resources.malformed
        _refuse("a resource needs name, digest and algorithm", f"{where}[{index}]", found)
    files = _sizes(digests, how.shard_size)
    for name in files:
        # OMS 6.1.2; but v0.3.1 and v1.0.0 named the file of a single-file model ".".
        path = f"/{name}/" if name != "." or len(files) > 1 else ""
        if "//" in path or "/./" in path or "/../" in path:
            _refuse("a resource name must be relative and canonical (OMS 6.1.2)", where, name)
        if problem := name_problem(name):
            _refuse(f"a resource name {problem}", where, name)
    # OMS 6.4: sorted by name; released signers compare path components and then numbers.
    if list(digests) != sorted(digests):
        parts = (_part(name, how.shard_size) for name in digests)
        by_component = [(file.split("/"), start, end) for file, start, end in parts]
        if by_component != sorted(by_component):
            _refuse("the resources are not sorted by name (OMS 6.4)", where, "another order")
    return Manifest(how, digests, files)


def _part(name: str, shard_size: int | None) -> tuple[str, int, int]:
    """OMS 6.3.2: file, start and end; the last two numbers, as file names may have colons."""
    if shard_size is None:
        return name, 0, 0
    match = re.fullmatch(_SHARD_NAME, name)
    if match is None:
        _refuse("not a shard (OMS 6.3.2)", "predicate.resources", name, "FILE:START:END")
    return match[1], int(match[2]), int(match[3])


def _sizes(resources: Iterable[str], shard_size: int | None) -> dict[str, int | None]:
    """OMS 6.3.2: each file's shards join without gap or overlap; only the last may be shorter."""
    if shard_size is None:
        return dict.fromkeys(resources)
    sizes: dict[str, int | None] = {}
    for file, start, end in sorted(_part(name, shard_size) for name in resources):
        before = sizes.get(file) or 0
        if start != before or start % shard_size or not start < end <= start + shard_size:
            _refuse(
                "the shards of a file have a gap, an overlap or a wrong size (OMS 6.3.2)",
                f"{file}:{start}:{end}",
                f"{end - start} bytes after byte {before}",
                f"shards of {shard_size} bytes",
            )
        sizes[file] = end
    return sizes


def _refuse(
    message: str,
    where: str,
    found: object = None,
    expected: str | None = None,
    refusal: type[StatementError] = ManifestError,
    fix: str | None = None,
) -> NoReturn:
    shown = (found if isinstance(found, str) else json.dumps(found))[:200]
    raise refusal(message, where=where, expected=expected, found=shown, fix=fix)
