"""A model that lies elsewhere is signed and verified as one on this machine."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.errors import FileError, MismatchError, SignatureError, UsageError
from model_signing.oms.names import GIT_PATHS
from model_signing.sources import open_source
from tests.support.material import new_key, private_pem, public_pem
from tests.support.memory_source import MemoryPlace, MemorySource

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
FILES = {"config.json": b"{}", "weights/0.bin": b"0" * 5000, "weights/1.bin": b"1" * 3000}
SHARDS = HashOptions(method="shards", shard_size=1000)


@pytest.fixture
def elsewhere() -> MemorySource:
    return MemorySource("model", {**FILES, ".git/config": b"not the model's"}, piece=700)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "model"


@pytest.mark.parametrize("options", [HashOptions(), SHARDS], ids=["files", "shards"])
def test_the_place_does_not_matter(
    here: Path, elsewhere: MemorySource, tmp_path: Path, options: HashOptions
) -> None:
    signature = tmp_path / "model.sig"
    signed = model_signing.sign(elsewhere, signature, SIGN, options)
    assert signed.files == 3
    assert signed.manifest.serialization.ignore_paths == GIT_PATHS
    there = model_signing.verify(elsewhere, signature, VERIFY)
    verified = model_signing.verify(here, signature, VERIFY)
    assert there.manifest == verified.manifest
    assert there.payload_digest == verified.payload_digest
    digest = model_signing.digest(elsewhere, options)
    assert digest == model_signing.digest(here, options) == signed.root_digest
    assert model_signing.digest(open_source(here), options) == digest


@pytest.mark.parametrize("options", [HashOptions(), SHARDS], ids=["files", "shards"])
def test_another_model_is_refused(
    elsewhere: MemorySource, tmp_path: Path, options: HashOptions
) -> None:
    model_signing.sign(elsewhere, tmp_path / "model.sig", SIGN, options)
    elsewhere.files["weights/0.bin"] = b"0" * 4999 + b"!"
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(elsewhere, tmp_path / "model.sig", VERIFY)
    del elsewhere.files["weights/0.bin"]
    with pytest.raises(MismatchError, match="does not have the files") as refusal:
        model_signing.verify(elsewhere, tmp_path / "model.sig", VERIFY)
    assert refusal.value.found == "missing: weights/0.bin"


def test_what_is_not_signed_is_refused_or_named(elsewhere: MemorySource, tmp_path: Path) -> None:
    signature = tmp_path / "model.sig"
    model_signing.sign(elsewhere, signature, SIGN, HashOptions(ignore_paths=("weights/1.bin",)))
    elsewhere.files["weights/extra"] = b"x"
    with pytest.raises(MismatchError, match="does not have the files") as refusal:
        model_signing.verify(elsewhere, signature, VERIFY)
    assert refusal.value.found == "not signed: weights/extra"
    model_signing.verify(elsewhere, signature, VERIFY, ignore_paths=["./weights/extra"])
    verified = model_signing.verify(elsewhere, signature, VERIFY, ignore_unsigned_files=True)
    assert "weights/extra" in verified.unsigned
    with pytest.raises(UsageError, match="outside the model"):  # no absolute path lies in it
        model_signing.verify(elsewhere, signature, VERIFY, ignore_paths=["/weights/extra"])


def test_a_change_between_enumeration_and_hashing_is_refused(
    elsewhere: MemorySource, tmp_path: Path
) -> None:
    def change(_done: int, _total: int) -> None:
        elsewhere.files["weights/1.bin"] = b"2" * 3000

    elsewhere.files["weights/0.bin"] = bytes(9 << 20)  # is hashed first, and alone
    one = HashOptions(jobs=1)
    with pytest.raises(FileError, match="the object changed"):
        model_signing.sign(elsewhere, tmp_path / "model.sig", SIGN, one, progress=change)
    assert not (tmp_path / "model.sig").exists()


@pytest.mark.parametrize("options", [HashOptions(), SHARDS], ids=["files", "shards"])
def test_verified_bytes_are_read_from_where_the_model_lies(
    elsewhere: MemorySource, here: Path, tmp_path: Path, options: HashOptions
) -> None:
    model_signing.sign(elsewhere, tmp_path / "model.sig", SIGN, options)
    for place in (elsewhere, here):
        verified = model_signing.verify(place, tmp_path / "model.sig", VERIFY)
        again = pickle.loads(pickle.dumps(verified))  # as another process gets it
        assert again == verified
        for one in (verified, again):
            with one.open("weights/0.bin") as file:
                assert file.read() == FILES["weights/0.bin"]
    verified = model_signing.verify(elsewhere, tmp_path / "model.sig", VERIFY)
    elsewhere.files["weights/0.bin"] = b"evil" * 1250
    with pytest.raises(MismatchError, match="changed after it was verified"):
        verified.open("weights/0.bin")


def test_a_single_object_is_a_model_too(tmp_path: Path) -> None:
    one = MemorySource("weights.bin", {"weights.bin": b"w" * 10}, single=True)
    model_signing.sign(one, tmp_path / "model.sig", SIGN)
    (tmp_path / "weights.bin").write_bytes(b"w" * 10)
    verified = model_signing.verify(tmp_path / "weights.bin", tmp_path / "model.sig", VERIFY)
    assert list(verified.manifest.files) == ["weights.bin"]


def test_a_source_follows_links_only_where_the_signature_says_so(
    here: Path, tmp_path: Path
) -> None:
    try:
        (here / "link").symlink_to("config.json")
    except OSError:
        pytest.skip("not tested: this system has no symbolic links")
    source = open_source(here, allow_symlinks=True)
    with pytest.raises(FileError, match="symbolic link"):
        model_signing.sign(source, tmp_path / "model.sig", SIGN)
    model_signing.sign(source, tmp_path / "model.sig", SIGN, HashOptions(allow_symlinks=True))
    verified = model_signing.verify(open_source(here), tmp_path / "model.sig", VERIFY)
    with verified.open("link") as file:
        assert file.read() == b"{}"


def test_signatures_lie_beside_the_model_and_the_expected_signers_counts() -> None:
    place = MemoryPlace("m", dict(FILES))
    other = new_key()
    by_other = model_signing.sign(place, None, model_signing.key_signer(private_pem(other))).bundle
    by_us = model_signing.sign(place, None, SIGN).bundle
    with pytest.raises(FileError, match="no signature lies with the model"):
        model_signing.verify(place, None, VERIFY)
    place.files["model.sig"] = by_other
    with pytest.raises(SignatureError) as refusal:
        model_signing.verify(place, None, VERIFY)
    assert refusal.value.where == "memory:model.sig"
    place.files["m.sig"] = by_us
    verified = model_signing.verify(place, None, VERIFY)
    assert (verified.signature, verified.files) == ("memory:m.sig", 3)
    assert verified.other_signatures == ("memory:model.sig",)
    assert verified.resolved == "memory:@1"
    place.files["model.sig"] = b"{}"  # garbage of anybody does no harm
    assert model_signing.verify(place, None, VERIFY).signature == "memory:m.sig"
    place.files["extra"] = b""
    with pytest.raises(MismatchError, match="does not have the files") as mismatch:
        model_signing.verify(place, None, VERIFY)
    assert mismatch.value.found == "not signed: extra"


def test_an_older_signature_by_the_same_signer_is_passed_over() -> None:
    place = MemoryPlace("m", dict(FILES))
    place.files["model.sig"] = model_signing.sign(place, None, SIGN).bundle
    place.files["config.json"] = b"[]"
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(place, None, VERIFY)
    now = MemoryPlace("m", {**FILES, "config.json": b"[]"})
    place.files["m.sig"] = model_signing.sign(now, None, SIGN).bundle
    assert model_signing.verify(place, None, VERIFY).signature == "memory:m.sig"


def test_on_this_machine_the_signature_has_to_be_named(here: Path) -> None:
    with pytest.raises(UsageError, match="--signature is required"):
        model_signing.verify(here, None, VERIFY)
