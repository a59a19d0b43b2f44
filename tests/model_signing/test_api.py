"""sign(), verify() and digest() as a program uses them: Files and Operation (OMS 6, 8)."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.errors import (
    BundleError,
    Error,
    FileError,
    ManifestError,
    MismatchError,
    StatementError,
    UsageError,
)
from model_signing.methods import Authenticated
from model_signing.oms.names import GIT_PATHS
from tests.support.material import key_bundle, new_key, private_pem, public_pem, shared

posix = pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX files only")
KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
SHARDS = HashOptions(method="shards", shard_size=1000)
OPTIONS = {
    "files": HashOptions(),
    "shards": SHARDS,
    "blake2b": HashOptions(algorithm="blake2b"),
    "blake3": HashOptions(algorithm="blake3"),
    "blake3 in shards": dataclasses.replace(SHARDS, algorithm="blake3"),
    "shards of 1 GB": HashOptions(method="shards"),
}


def payload(signature: Path) -> dict[str, object]:
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement: dict[str, object] = json.loads(base64.b64decode(envelope["payload"]))
    return statement


# A model that is as it was signed ----------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_was_signed_verifies(model: Path, signature: Path, options: HashOptions) -> None:
    signed = model_signing.sign(model, signature, SIGN, options)
    verified = model_signing.verify(model, signature, VERIFY)
    assert verified.manifest == signed.manifest
    assert verified.root_digest == signed.root_digest == model_signing.digest(model, options)
    assert verified.payload_digest == signed.payload_digest
    assert (verified.files, verified.bytes) == (signed.files, signed.bytes)
    assert verified.files == 4
    assert verified.bytes == sum(p.stat().st_size for p in model.rglob("*") if p.is_file())
    assert verified.authenticated.method == "key"
    assert verified.unsigned == ()


@posix
def test_paths_may_be_text(model: Path, tmp_path: Path) -> None:
    for name, data in (("key.pem", private_pem(KEY)), ("key.pub", public_pem(KEY))):
        (tmp_path / name).write_bytes(data)
    signer = model_signing.key_signer(str(tmp_path / "key.pem"))
    signed = model_signing.sign(str(model), f"{tmp_path}/text.sig", signer)
    verifier = model_signing.key_verifier(tmp_path / "key.pub")
    assert model_signing.verify(str(model), f"{tmp_path}/text.sig", verifier).files == signed.files
    assert model_signing.digest(str(model)) == signed.root_digest


def test_a_refusal_names_the_signature_file(model: Path, signature: Path) -> None:
    signature.write_bytes(b"{}")
    with pytest.raises(BundleError):
        model_signing.verify(model, signature, VERIFY)
    signature.write_bytes(b"PEM")
    with pytest.raises(BundleError, match="no signature") as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert refusal.value.where == str(signature)


def test_the_root_digest_is_what_coreutils_make_of_it(model: Path) -> None:
    script = (
        "find . -type f | cut -c3- | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum"
        " | cut -d' ' -f1 | tr -d '\\n' | sed 's/../\\\\x&/g' | xargs -0 printf | sha256sum"
    )
    run = subprocess.run(
        ["bash", "-c", script],
        cwd=model,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert model_signing.digest(model) == run.stdout.split()[0]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_single_file_is_a_model(model: Path, signature: Path, options: HashOptions) -> None:
    model_signing.sign(model / "b.bin", signature, SIGN, options)
    verified = model_signing.verify(model / "b.bin", signature, VERIFY)
    assert list(verified.manifest.files) == ["b.bin"]
    assert payload(signature)["subject"][0]["name"] == "b.bin"  # type: ignore[index]


@pytest.mark.parametrize("where", ["model.sig", "sub/model.sig"])
def test_the_signature_may_lie_inside_the_model(model: Path, where: str) -> None:
    signature = model / where
    model_signing.sign(model, signature, SIGN)
    model_signing.sign(model, signature, SIGN)  # again, over the first
    verified = model_signing.verify(model, signature, VERIFY)
    assert where not in verified.manifest.files
    assert where in verified.manifest.serialization.ignore_paths


def test_signing_twice_signs_the_same_bytes(model: Path, signature: Path) -> None:
    first = model_signing.sign(model, signature, SIGN)
    assert model_signing.sign(model, signature, SIGN).payload_digest == first.payload_digest


def test_git_paths_are_left_out_and_recorded(model: Path, signature: Path) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("x")
    signed = model_signing.sign(model, signature, SIGN)
    assert signed.files == 4
    assert signed.manifest.serialization.ignore_paths == GIT_PATHS
    (model / ".git" / "config").write_text("changed")
    model_signing.verify(model, signature, VERIFY)


def test_git_paths_can_be_signed_and_are_then_verified(model: Path, signature: Path) -> None:
    (model / ".gitattributes").write_text("x")
    model_signing.sign(model, signature, SIGN, HashOptions(ignore_git_paths=False))
    assert model_signing.verify(model, signature, VERIFY).files == 5
    (model / ".gitattributes").write_text("y")
    with pytest.raises(MismatchError):
        model_signing.verify(model, signature, VERIFY)


def test_ignored_paths_are_recorded_for_the_verifier(model: Path, signature: Path) -> None:
    options = HashOptions(ignore_paths=("sub/deep", str(model / "a")))
    assert model_signing.sign(model, signature, SIGN, options).files == 2
    (model / "sub" / "deep" / "more").write_text("x")
    (model / "a").unlink()
    verified = model_signing.verify(model, signature, VERIFY)
    assert verified.manifest.serialization.ignore_paths == (*GIT_PATHS, "a", "sub/deep")


def test_what_one_signature_ignores_does_not_leak_into_the_next(
    model: Path, signature: Path, tmp_path: Path
) -> None:
    lax = tmp_path / "lax.sig"
    model_signing.sign(model, lax, SIGN, HashOptions(ignore_paths=("extra",)))
    model_signing.sign(model, signature, SIGN)
    (model / "extra").write_text("x")
    model_signing.verify(model, lax, VERIFY)
    with pytest.raises(MismatchError):
        model_signing.verify(model, signature, VERIFY)


@posix
def test_allowed_links_are_verified_as_signed(model: Path, signature: Path) -> None:
    (model / "link").symlink_to("a")
    (model / "folder").symlink_to("sub")
    signed = model_signing.sign(model, signature, SIGN, HashOptions(allow_symlinks=True))
    assert signed.files == 4 + 1 + 2
    model_signing.verify(model, signature, VERIFY)
    (model / "link").unlink()
    (model / "link").symlink_to("b.bin")
    with pytest.raises(MismatchError) as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert refusal.value.where == "link"


# A model that is not -----------------------------------------------------------------------------


def rename(model: Path, old: str, new: str) -> None:
    (model / old).rename(model / new)


def swap(model: Path) -> None:
    rename(model, "a", "x")
    rename(model, "b.bin", "a")
    rename(model, "x", "b.bin")


def flip(model: Path) -> None:
    data = bytearray((model / "b.bin").read_bytes())
    data[1234] ^= 1
    (model / "b.bin").write_bytes(data)


EVIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip, "b.bin"),
    "truncated": (lambda m: os.truncate(m / "b.bin", 2499), "b.bin"),
    "truncated at a shard's end": (lambda m: os.truncate(m / "b.bin", 2000), "b.bin"),
    "grown": (lambda m: (m / "a").write_bytes(b"a" * 501), "a"),
    "emptied": (lambda m: (m / "a").write_bytes(b""), "a"),
    "missing": (lambda m: (m / "a").unlink(), "missing: a"),
    "extra": (lambda m: (m / "z").write_bytes(b"z"), "not signed: z"),
    "extra deep": (lambda m: (m / "sub/deep/z").write_bytes(b"z"), "not signed: sub/deep/z"),
    "extra and empty": (lambda m: (m / "z").write_bytes(b""), "not signed: z"),
    "extra git path below the top": (
        lambda m: (m / "sub" / ".gitignore").write_bytes(b"z"),
        "not signed: sub/.gitignore",
    ),
    "renamed": (lambda m: rename(m, "a", "z"), "not signed: z; missing: a"),
    "renamed, same order": (lambda m: rename(m, "a", "aa"), "not signed: aa; missing: a"),
    "moved": (lambda m: rename(m, "a", "sub/a"), "not signed: sub/a; missing: a"),
    "swapped": (swap, "a"),
    "case": (lambda m: rename(m, "a", "A"), "not signed: A; missing: a"),
    "Unicode twin": (
        lambda m: rename(m, "sub/deep/é.bin", "sub/deep/" + unicodedata.normalize("NFD", "é.bin")),
        "missing: sub/deep/é.bin",
    ),
    "a directory instead": (lambda m: ((m / "a").unlink(), (m / "a").mkdir()), "missing: a"),
    "all gone": (lambda m: (shutil.rmtree(m), m.mkdir()), "missing: a, b.bin"),
}


@pytest.mark.parametrize("options", [HashOptions(), SHARDS], ids=["files", "shards"])
@pytest.mark.parametrize("case", EVIL)
def test_a_changed_model_is_refused(
    model: Path, signature: Path, case: str, options: HashOptions
) -> None:
    change, shown = EVIL[case]
    model_signing.sign(model, signature, SIGN, options)
    change(model)
    with pytest.raises(MismatchError) as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert shown in f"{refusal.value.where} {refusal.value.found}"


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("a"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a FIFO": lambda path: os.mkfifo(path),
    "a name that is not UTF-8": lambda path: Path(f"{path}\udcff").write_bytes(b"x"),
    "a name with a line break": lambda path: Path(f"{path}\n").write_bytes(b"x"),
}


@posix
@pytest.mark.parametrize("case", SPECIAL)
def test_what_is_no_file_is_refused_when_signing_and_when_verifying(
    model: Path, signature: Path, case: str
) -> None:
    model_signing.sign(model, signature, SIGN)
    try:
        SPECIAL[case](model / "z")
    except OSError:
        pytest.skip("not tested: this file system does not allow such names")
    with pytest.raises(FileError):
        model_signing.verify(model, signature, VERIFY)
    signature.unlink()
    with pytest.raises(FileError):
        model_signing.sign(model, signature, SIGN)
    assert not signature.exists()


@posix
def test_a_signed_file_replaced_by_a_link_to_its_copy_is_refused(
    model: Path, signature: Path, tmp_path: Path
) -> None:
    model_signing.sign(model, signature, SIGN)
    shutil.copy(model / "a", tmp_path / "copy")
    (model / "a").unlink()
    (model / "a").symlink_to(tmp_path / "copy")
    for lax in (False, True):
        with pytest.raises(FileError, match="symbolic link"):
            model_signing.verify(model, signature, VERIFY, ignore_unsigned_files=lax)


@posix
@pytest.mark.parametrize("lax", [False, True])
def test_a_signed_directory_replaced_by_a_link_is_refused(
    model: Path, signature: Path, tmp_path: Path, lax: bool
) -> None:
    model_signing.sign(model, signature, SIGN)
    (model / "sub").rename(tmp_path / "elsewhere")
    (model / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="symbolic link"):
        model_signing.verify(
            model, signature, VERIFY, ignore_unsigned_files=lax, ignore_paths=["sub"]
        )


def test_an_empty_model_is_not_signed(tmp_path: Path, signature: Path) -> None:
    empty = tmp_path / "model"
    (empty / "empty" / "directories").mkdir(parents=True)
    (empty / ".gitignore").write_text("only what is excluded")
    with pytest.raises(FileError, match="has no files"):
        model_signing.sign(empty, signature, SIGN)
    with pytest.raises(FileError, match="has no files"):
        model_signing.digest(empty)
    assert not signature.exists()


def test_an_empty_file_is_not_signed_in_shards(model: Path, signature: Path) -> None:
    (model / "empty").touch()
    with pytest.raises(FileError, match="empty file") as refusal:
        model_signing.sign(model, signature, SIGN, SHARDS)
    assert refusal.value.where == "empty"
    model_signing.sign(model, signature, SIGN)
    (model / "empty").unlink()
    with pytest.raises(MismatchError, match="files that were signed"):
        model_signing.verify(model, signature, VERIFY)


def test_an_empty_file_added_to_shards_is_unsigned(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN, SHARDS)
    (model / "empty").touch()
    with pytest.raises(MismatchError):
        model_signing.verify(model, signature, VERIFY)
    verified = model_signing.verify(model, signature, VERIFY, ignore_unsigned_files=True)
    assert verified.unsigned == ("empty",)


def test_a_signature_of_a_file_is_not_one_of_another_file(model: Path, signature: Path) -> None:
    model_signing.sign(model / "a", signature, SIGN)
    shutil.copy(model / "a", model / "copy")
    with pytest.raises(MismatchError):
        model_signing.verify(model / "copy", signature, VERIFY)
    with pytest.raises(MismatchError):
        model_signing.verify(model, signature, VERIFY)


# What a verifier may excuse (8.5) ----------------------------------------------------------------


def test_unsigned_files_are_excused_and_named_when_asked(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    (model / "extra").write_text("x")
    (model / "more").mkdir()
    (model / "more" / "x").write_text("x")
    verified = model_signing.verify(model, signature, VERIFY, ignore_unsigned_files=True)
    assert verified.unsigned == ("extra", "more")
    with pytest.raises(MismatchError):
        model_signing.verify(model, signature, VERIFY, ignore_paths=["extra"])
    model_signing.verify(model, signature, VERIFY, ignore_paths=["extra", str(model / "more")])


@pytest.mark.parametrize("lax", [False, True])
@pytest.mark.parametrize("ignored", [["b.bin"], ["a", "b.bin", "sub"], [".git"]])
def test_a_listed_file_is_never_excused(
    model: Path, signature: Path, ignored: list[str], lax: bool
) -> None:
    model_signing.sign(model, signature, SIGN)
    flip(model)
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(
            model, signature, VERIFY, ignore_paths=ignored, ignore_unsigned_files=lax
        )
    (model / "b.bin").unlink()
    with pytest.raises(MismatchError, match="files that were signed"):
        model_signing.verify(
            model, signature, VERIFY, ignore_paths=ignored, ignore_unsigned_files=lax
        )


def test_a_signed_manifest_cannot_excuse_what_it_lists(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN)
    stated = payload(signature)
    stated["predicate"]["serialization"]["ignore_paths"] = ["b.bin", "sub"]  # type: ignore[index]
    signature.write_bytes(key_bundle(KEY, json.dumps(stated).encode()))
    assert model_signing.verify(model, signature, VERIFY).files == 4
    flip(model)
    with pytest.raises(MismatchError):
        model_signing.verify(model, signature, VERIFY)


def test_the_name_of_the_signature_cannot_hide_a_signed_file(model: Path, tmp_path: Path) -> None:
    signature = tmp_path / "model.sig"
    model_signing.sign(model, signature, SIGN)
    shutil.copy(signature, model / "a")
    with pytest.raises(MismatchError):
        model_signing.verify(model, model / "a", VERIFY)


@pytest.mark.parametrize("bad", [".", "/", "..", "*", ""])
def test_a_verifier_cannot_excuse_the_whole_model(model: Path, signature: Path, bad: str) -> None:
    model_signing.sign(model, signature, SIGN)
    with pytest.raises(UsageError):
        model_signing.verify(model, signature, VERIFY, ignore_paths=[bad])


# Old signatures (11) -----------------------------------------------------------------------------


def historical(version: str) -> tuple[Path, Path]:
    case = shared("oms", "test-cases", "verify", "historical", f"historical-{version}")
    return case / "model", case / "bundle.sig"


def statement_of(signature: Path) -> Callable[[bytes], Authenticated]:
    """Reads without verifying: these tests are about what the statement says."""
    data = base64.b64decode(json.loads(signature.read_bytes())["dsseEnvelope"]["payload"])
    return lambda _: Authenticated(data, "application/vnd.in-toto+json", "key")


@pytest.mark.parametrize("version", ["v0.3.1-elliptic-key", "v1.0.0-elliptic-key"])
def test_a_single_file_model_named_with_a_dot(version: str, tmp_path: Path) -> None:
    model, signature = historical(version)
    verified = model_signing.verify(model / "signme-1", signature, statement_of(signature))
    assert list(verified.manifest.files) == ["signme-1"]
    with verified.open("signme-1") as file:
        assert file.read() == (model / "signme-1").read_bytes()
    with pytest.raises(MismatchError):  # it says nothing about a directory
        model_signing.verify(model, signature, statement_of(signature))
    (tmp_path / "signme-1").write_text("something else")
    with pytest.raises(MismatchError):
        model_signing.verify(tmp_path / "signme-1", signature, statement_of(signature))


def test_a_legacy_statement_needs_consent() -> None:
    model, signature = historical("v0.2.0-certificate")
    with pytest.raises(StatementError, match="not an OMS statement"):
        model_signing.verify(model, signature, statement_of(signature))
    verified = model_signing.verify(
        model, signature, statement_of(signature), allow_legacy_predicate=True
    )
    assert list(verified.manifest.files) == ["signme-1", "signme-2"]


@pytest.mark.parametrize(
    "options",
    [
        HashOptions(algorithm="md5"),  # type: ignore[arg-type]
        HashOptions(method="tensors"),  # type: ignore[arg-type]
        HashOptions(shard_size=10),
        HashOptions(method="shards", shard_size=0),
        HashOptions(method="shards", shard_size=-1),
        HashOptions(ignore_paths=("..",)),
        HashOptions(jobs=0),
    ],
)
def test_options_that_make_no_sense_are_refused(
    model: Path, signature: Path, options: HashOptions
) -> None:
    with pytest.raises(UsageError) as refusal:
        model_signing.sign(model, signature, SIGN, options)
    assert refusal.value.exit_code == 2
    assert not signature.exists()


def test_every_name_of_the_package_is_there() -> None:
    for name in model_signing.__all__:
        assert getattr(model_signing, name) is not None
    with pytest.raises(AttributeError):
        _ = model_signing.nothing  # type: ignore[attr-defined]
    assert issubclass(ManifestError, Error)
