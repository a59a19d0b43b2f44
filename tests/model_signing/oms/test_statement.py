"""Manifest: which signed statements are read, which are refused (OMS 5, 6.4-6.6, 8.3)."""

from __future__ import annotations

import base64
import copy
import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing

import model_signing
from model_signing.errors import ManifestError, StatementError
from model_signing.oms import statement, strict_json
from model_signing.oms.manifest import Manifest, Serialization
from tests.support.material import key_bundle, new_key, public_pem, shared

A, B, C = ("aa" * 32, "bb" * 32, "cc" * 32)
KEY = new_key()


@functools.cache
def root_of(*digests: str) -> str:
    """The root digest (OMS 6.5.1) as OpenSSL computes it."""
    raw = bytes.fromhex("".join(digests))
    run = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r"],
        input=raw,
        capture_output=True,
        check=True,
        timeout=300,
    )
    return run.stdout.decode().split()[0]


def document(*names: str, digests: tuple[str, ...] = (), **serialization: Any) -> dict[str, Any]:
    """A statement that lists `names`, in that order."""
    digests = digests or tuple(f"{index:02x}" * 32 for index in range(len(names)))
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, **serialization}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": root_of(*digests)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": [
                {"name": name, "digest": digest, "algorithm": how["hash_type"]}
                for name, digest in zip(names, digests, strict=True)
            ],
            "serialization": how,
        },
    }


def shards(*names: str, size: Any = 10) -> dict[str, Any]:
    return document(*names, method="shards", shard_size=size)


def decode(value: Any, **options: Any) -> statement.Statement:
    return statement.decode(json.dumps(value).encode(), **options)


def manifest(**digests: str) -> Manifest:
    how = Serialization("files", "sha256", None, False, (".git",))
    return Manifest(how, digests, dict.fromkeys(digests))


# What is written ---------------------------------------------------------------------------------


def test_a_statement_is_read_as_it_was_written() -> None:
    written = manifest(a=A, b=B)
    read = statement.decode(statement.encode("model", written))
    assert read == statement.Statement("model", root_of(A, B), written)


def test_the_same_manifest_gives_the_same_bytes() -> None:
    assert statement.encode("m", manifest(a=A, b=B)) == statement.encode("m", manifest(a=A, b=B))


def test_a_statement_is_valid_by_the_published_schemas() -> None:
    folder = shared("oms", "schemas")
    schemas = [json.loads(path.read_text()) for path in sorted(folder.rglob("*.schema.json"))]
    registry = referencing.Registry().with_resources(
        [(schema["$id"], referencing.Resource.from_contents(schema)) for schema in schemas]
    )
    (schema,) = [schema for schema in schemas if schema["title"] == "OMS in-toto Statement"]
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    sharded = Serialization("shards", "blake3", 5, True, ("x",))
    for written in (manifest(a=A), Manifest(sharded, {"f:0:5": A}, {"f": 5})):
        validator.validate(json.loads(statement.encode("model", written)))


def vectors() -> list[Path]:
    return sorted(shared("oms", "test-vectors").glob("v1.0/valid/*.json"))


def test_the_specifications_test_vectors_are_read() -> None:
    assert len(vectors()) == 3
    for path in vectors():
        payload = base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"])
        stated = json.loads(payload)
        read = statement.decode(payload)
        assert read.root_digest == stated["subject"][0]["digest"]["sha256"]
        assert list(read.manifest.digests) == ["signme-1", "signme-2"]


def test_the_test_vector_with_another_predicate_is_refused() -> None:
    path = shared("oms", "test-vectors", "v1.0", "invalid-payload", "wrong-predicate.bundle.json")
    payload = base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"])
    with pytest.raises(StatementError, match="not an OMS statement"):
        statement.decode(payload)


# What is accepted --------------------------------------------------------------------------------

ACCEPTED: dict[str, dict[str, Any]] = {
    "one file": document("a"),
    "the specification's order": document("a.b", "a/c"),
    "the peer's order, by path components": document("a/c", "a.b"),
    "shards, the last one shorter": shards("w:0:10", "w:10:20", "w:20:25"),
    "shards in the peer's order, by number": shards(
        *(f"w:{start}:{start + 10}" for start in range(0, 110, 10))
    ),
    "shards sorted as text": shards(
        *sorted(f"w:{start}:{start + 10}" for start in range(0, 110, 10))
    ),
    "the peer's integral float": shards("w:0:10", size=10.0),
    "a shard of a file whose name has colons": shards("a:0:5:0:10"),
    "two names that differ in case": document("Model.bin", "model.bin"),
    "two names that differ in normalization": document("e\u0301", "\u00e9"),
    "unknown fields of a resource (5.2.1)": document("a"),
    "no ignore_paths (11.2.3)": document("a"),
    "a file named with three dots": document("..."),
    "what the Go implementation records as ignored": document(
        "a", ignore_paths=["test/assets/ignore-me", ".git", ".gitmodules"]
    ),
}
ACCEPTED["unknown fields of a resource (5.2.1)"]["predicate"]["resources"][0]["uri"] = "x:y"


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    stated = ACCEPTED[case]
    read = decode(stated)
    assert list(read.manifest.digests) == [r["name"] for r in stated["predicate"]["resources"]]


def test_the_peers_name_for_the_algorithm_of_a_shard_is_understood() -> None:
    stated = shards("w:0:10")
    stated["predicate"]["resources"][0]["algorithm"] = "sha256-sharded-10"
    assert decode(stated).manifest.algorithm == "sha256"
    stated["predicate"]["resources"][0]["algorithm"] = "sha256-sharded-11"
    with pytest.raises(ManifestError, match="not the manifest's hash_type"):
        decode(stated)


def test_shards_tell_the_size_of_their_file() -> None:
    assert decode(shards("v:0:3", "w:0:10", "w:10:12")).manifest.files == {"v": 3, "w": 12}


@pytest.mark.parametrize("name", [".", ".:0:10"])
def test_old_single_file_models_are_named_with_a_dot(name: str) -> None:
    stated = document(name) if name == "." else shards(name)
    assert list(decode(stated).manifest.files) == ["."]


# What is refused ---------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], object]


def at(*path: str | int, to: Any) -> Edit:
    """Replaces one field; `...` removes it."""

    def edit(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        if to is ...:
            del value[path[-1]]
        else:
            value[path[-1]] = to

    return edit


RESOURCES = ("predicate", "resources")
FIRST = (*RESOURCES, 0)
HOW = ("predicate", "serialization")

STATEMENTS: dict[str, Edit] = {
    "no _type": at("_type", to=...),
    "_type of v0.1": at("_type", to="https://in-toto.io/Statement/v0.1"),
    "_type null": at("_type", to=None),
    "predicateType of another": at("predicateType", to="https://slsa.dev/provenance/v1"),
    "predicateType with a suffix": at("predicateType", to=statement.PREDICATE_TYPE + "/"),
    "predicateType a list": at("predicateType", to=[statement.PREDICATE_TYPE]),
    "legacy predicate without consent": at("predicateType", to=statement.LEGACY_PREDICATE_TYPE),
    "unknown statement field": at("extra", to=1),
    "no subject": at("subject", to=...),
    "empty subject": at("subject", to=[]),
    "two subjects": lambda d: d["subject"].append(d["subject"][0]),
    "subject no list": at("subject", to={}),
    "subject no object": at("subject", 0, to="model"),
    "subject without name": at("subject", 0, "name", to=...),
    "subject with empty name": at("subject", 0, "name", to=""),
    "subject named with a number": at("subject", 0, "name", to=1),
    "subject without digest": at("subject", 0, "digest", to=...),
    "subject without sha256": at("subject", 0, "digest", to={"sha512": A + A}),
    "subject digest too short": at("subject", 0, "digest", "sha256", to="aa"),
    "subject digest in capitals": at("subject", 0, "digest", "sha256", to=A.upper()),
    "subject digest no text": at("subject", 0, "digest", "sha256", to=7),
}
MANIFESTS: dict[str, Edit] = {
    "wrong root digest": at("subject", 0, "digest", "sha256", to=C),
    "predicate no object": at("predicate", to=[]),
    "predicate null": at("predicate", to=None),
    "extra predicate key": at("predicate", "lineage", to={}),
    "no resources": at("predicate", "resources", to=...),
    "empty resources": at("predicate", "resources", to=[]),
    "resources no list": at("predicate", "resources", to={"a": A}),
    "resource no object": at(*FIRST, to="a"),
    "resource without name": at(*FIRST, "name", to=...),
    "resource with empty name": at(*FIRST, "name", to=""),
    "resource named null": at(*FIRST, "name", to=None),
    "resource without digest": at(*FIRST, "digest", to=...),
    "digest in capitals": at(*FIRST, "digest", to="AA" * 32),
    "digest too short": at(*FIRST, "digest", to="aa"),
    "digest too long": at(*FIRST, "digest", to=A + "aa"),
    "digest with a line break": at(*FIRST, "digest", to=A[:-1] + "\n"),
    "digest no text": at(*FIRST, "digest", to=[A]),
    "resource without algorithm": at(*FIRST, "algorithm", to=...),
    "algorithm other than hash_type": at(*FIRST, "algorithm", to="blake3"),
    "algorithm of sharded files": at(*FIRST, "algorithm", to="sha256-sharded-10"),
    "algorithm no text": at(*FIRST, "algorithm", to=["sha256"]),
    "duplicate name": at(*RESOURCES, 1, "name", to="a"),
    "unsorted": lambda d: d["predicate"]["resources"].reverse(),
    "no serialization": at(*HOW, to=...),
    "serialization no object": at(*HOW, to="files"),
    "unknown serialization key": at(*HOW, "compression", to="none"),
    "no method": at(*HOW, "method", to=...),
    "unknown method": at(*HOW, "method", to="tensors"),
    "method a list": at(*HOW, "method", to=["files"]),
    "no hash_type": at(*HOW, "hash_type", to=...),
    "unknown hash": at(*HOW, "hash_type", to="md5"),
    "hash_type a list": at(*HOW, "hash_type", to=["sha256"]),
    "hash_type that fits no digest": at(*HOW, "hash_type", to="blake2b"),
    "no allow_symlinks": at(*HOW, "allow_symlinks", to=...),
    "allow_symlinks as text": at(*HOW, "allow_symlinks", to="false"),
    "allow_symlinks as number": at(*HOW, "allow_symlinks", to=0),
    "shard_size with files": at(*HOW, "shard_size", to=10),
    "shard_size null with files": at(*HOW, "shard_size", to=None),
    "shards without shard_size": at(*HOW, "method", to="shards"),
    "ignore_paths no list": at(*HOW, "ignore_paths", to="cache"),
    "ignore_paths null": at(*HOW, "ignore_paths", to=None),
    "ignored number": at(*HOW, "ignore_paths", to=[1]),
}
for bad in (".", "/", "..", "", "./", "a/../..", "../model", "/model", "*", "a?", "w[0]", "a/.."):
    MANIFESTS[f"ignored {bad!r}"] = at(*HOW, "ignore_paths", to=[bad])
for bad in (
    *("/a", "../a", "a/../b", "a/..", "..", ".", "./a", "a/.", "a/./b", "a//b", "a/", "/", "//a"),
    *("a\nb", "a\x00", "a\x1b[2J", "\x85"),
):
    MANIFESTS[f"named {bad!r}"] = lambda d, bad=bad: d.update(document(*sorted([bad, "zz"])))
SHARDS: dict[str, dict[str, Any]] = {
    **{
        f"shard_size {size!r}": shards("w:0:10", size=size)
        for size in (0, -1, -10.0, 10.5, 1e300, 2**63, "10", None, True, [10])
    },
    "gap": shards("w:0:10", "w:20:30"),
    "gap at the start": shards("w:10:20"),
    "overlap": shards("w:0:10", "w:0:5"),
    "overlap in the middle": shards("w:0:10", "w:10:20", "w:5:15"),
    "longer than shard_size": shards("w:0:11"),
    "a short one before the last": shards("w:0:9", "w:9:19"),
    "empty": shards("w:0:0"),
    "backwards": shards("w:10:0"),
    "negative": shards("w:-10:0"),
    "leading zero": shards("w:00:10"),
    "plus sign": shards("w:+0:10"),
    "hexadecimal": shards("w:0:0xa"),
    "other digits": shards("w:0:\u0661\u0660"),
    "huge": shards("w:0:" + "9" * 30),
    "no range": shards("w"),
    "half a range": shards("w:0"),
    "no file": shards(":0:10"),
    "unsorted": shards("w:10:20", "w:0:10"),
    "outside": shards("../w:0:10"),
    "absolute": shards("/w:0:10"),
    "aliased": shards("./w:0:10"),
    "a dot beside others": shards(".:0:10", "w:0:10"),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_refused_statement(case: str) -> None:
    stated = document("a", "b")
    STATEMENTS[case](stated)
    with pytest.raises(StatementError) as refusal:
        decode(stated)
    assert not isinstance(refusal.value, ManifestError)
    assert refusal.value.where


@pytest.mark.parametrize("case", MANIFESTS)
def test_refused_manifest(case: str) -> None:
    stated = document("a", "b")
    MANIFESTS[case](stated)
    with pytest.raises(ManifestError) as refusal:
        decode(stated)
    assert refusal.value.where


@pytest.mark.parametrize("case", SHARDS)
def test_refused_shards(case: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        decode(SHARDS[case])
    assert refusal.value.where


RAW: dict[str, bytes] = {
    "nothing": b"",
    "binary": bytes(range(256)),
    "no object": b"[]",
    "a number": b"7",
    "null": b"null",
    "two documents": b"{}{}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a lone surrogate": b'{"_type": "\\ud800"}',
    "a duplicate key": b'{"_type": 1, "_type": 1}',
    "not a number": b'{"_type": NaN}',
    "infinity": b'{"_type": -Infinity}',
    "an overflowing number": b'{"_type": 1e999}',
    "a huge number": b'{"_type": ' + b"9" * 5000 + b"}",
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
}


@pytest.mark.parametrize("case", RAW)
def test_refused_bytes(case: str) -> None:
    with pytest.raises(StatementError):
        statement.decode(RAW[case])


def test_a_duplicate_key_inside_a_resource_is_refused() -> None:
    payload = json.dumps(document("a")).replace('"name": "a"', '"name": "a", "name": "a"')
    with pytest.raises(StatementError, match="duplicate key"):
        statement.decode(payload.encode())


def test_the_last_of_many_keys_is_found_twice_without_delay() -> None:
    keys = [f'"{number}":1' for number in range(150_000)]
    with pytest.raises(StatementError, match="duplicate key") as refusal:
        statement.decode(f"{{{','.join([*keys, keys[-1]])}}}".encode())
    assert refusal.value.found == '"149999"'


def legacy(*names: str) -> dict[str, Any]:
    """What model-signing v0.2.0 signed (OMS 11)."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": A}} for name in names],
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }


def test_a_legacy_statement_is_read_with_consent_only() -> None:
    read = decode(legacy("a", "b"), allow_legacy_predicate=True)
    assert read.manifest.digests == {"a": A, "b": A}
    with pytest.raises(StatementError, match="not an OMS statement") as refusal:
        decode(legacy("a", "b"))
    assert "--allow-legacy-predicate" in str(refusal.value.fix)


@pytest.mark.parametrize("names", [(), ("../a",), ("a", "a"), ("b", "a"), ("a", "a/../b")])
def test_legacy_statements_are_checked_as_strictly(names: tuple[str, ...]) -> None:
    with pytest.raises(StatementError):
        decode(legacy(*names), allow_legacy_predicate=True)


# The same through the front door: validly signed, and still refused ------------------------------


# (The legacy predicate was signed in another way: see the conformance suite's v0.2.0 bundle.)
SIGNED = [*STATEMENTS, *MANIFESTS, *SHARDS]
SIGNED.remove("legacy predicate without consent")


@pytest.mark.parametrize("case", SIGNED)
def test_validly_signed_and_refused(case: str, tmp_path: Path) -> None:
    stated = copy.deepcopy(SHARDS.get(case) or document("a", "b"))
    {**STATEMENTS, **MANIFESTS}.get(case, lambda _: None)(stated)
    (tmp_path / "a").write_bytes(b"")
    signature = tmp_path / "model.sig"
    signature.write_bytes(key_bundle(KEY, json.dumps(stated).encode()))
    verifier = model_signing.key_verifier(public_pem(KEY))
    with pytest.raises(StatementError):
        model_signing.verify(tmp_path, signature, verifier, ignore_unsigned_files=True)


def test_an_escape_that_json_does_not_have_is_none_in_a_long_text_either() -> None:
    """Long texts are parsed with their characters escaped, which must not mend anything."""
    for size in (0, 2 << 20):
        for count in (0, 1, 2, 3, 64, 65, 100, 101):
            text, accepted = "\\" * count + "é", count % 2 == 0
            payload = f'{{"a":"{text}","b":"{"x" * size}"}}'.encode()
            try:
                found = strict_json.loads(payload, StatementError, "it")["a"]
            except StatementError:
                found = None
            assert (found == text.replace("\\\\", "\\")) is accepted, (count, size)
