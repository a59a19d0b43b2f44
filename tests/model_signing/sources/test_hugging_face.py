"""A model where Hugging Face's client puts it: in its cache of links, or in a folder with notes."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.errors import FileError, MismatchError
from model_signing.oms.names import GIT_PATHS
from tests.support.material import new_key, private_pem, public_pem

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not tested: symbolic links of POSIX")
KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
LINKS = HashOptions(allow_symlinks=True)
FILES = {"config.json": b"{}", "weights/model.safetensors": b"0" * 5000}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "copy"


@pytest.fixture(params=["models--org--copy", "datasets--org--copy", "spaces--org--copy"])
def snapshot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """As `snapshot_download` leaves it."""
    cached = tmp_path / "hub" / request.param
    (cached / "blobs").mkdir(parents=True)
    root = cached / "snapshots" / "1a2b"
    for name, data in FILES.items():
        blob = cached / "blobs" / sha256(data).hexdigest()
        blob.write_bytes(data)
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return root


def test_one_signature_is_for_the_cache_and_for_a_copy(
    copy: Path, snapshot: Path, signature: Path
) -> None:
    signed = model_signing.sign(copy, signature, SIGN)
    model_signing.verify(snapshot, signature, VERIFY, allow_symlinks=True)
    here = model_signing.sign(snapshot, signature, SIGN, LINKS)
    assert here.manifest.digests == signed.manifest.digests
    model_signing.verify(snapshot, signature, VERIFY)  # as it was signed
    model_signing.verify(copy, signature, VERIFY)


def test_links_are_followed_only_if_signer_or_verifier_wants_it(
    copy: Path, snapshot: Path, signature: Path
) -> None:
    model_signing.sign(copy, signature, SIGN)
    with pytest.raises(FileError, match="not part of a model") as refusal:
        model_signing.verify(snapshot, signature, VERIFY)
    assert "cp -rL" in (refusal.value.fix or "")
    with pytest.raises(FileError, match="not part of a model"):
        model_signing.sign(snapshot, signature, SIGN)


def test_a_changed_blob_is_a_changed_file(copy: Path, snapshot: Path, signature: Path) -> None:
    model_signing.sign(copy, signature, SIGN)
    with (snapshot / "config.json").open("ab") as file:
        file.write(b"x")
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(snapshot, signature, VERIFY, allow_symlinks=True)


@pytest.mark.parametrize("target", ["outside", "sibling", "refs", "by way of blobs"])
def test_links_elsewhere_stay_refused(
    copy: Path, snapshot: Path, signature: Path, tmp_path: Path, target: str
) -> None:
    cached = snapshot.parent.parent
    places = {
        "outside": tmp_path / "secret",
        "sibling": snapshot.parent / "other" / "secret",
        "refs": cached / "refs" / "main",
        "by way of blobs": tmp_path / "secret",
    }
    place = places[target]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"{}")  # as signed
    if target == "by way of blobs":
        place = cached / "blobs" / "hop"
        place.symlink_to(tmp_path / "secret")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(place)
    model_signing.sign(copy, signature, SIGN)
    with pytest.raises(FileError, match="leads out of the model") as refusal:
        model_signing.verify(snapshot, signature, VERIFY, allow_symlinks=True)
    assert "cp -rL" in (refusal.value.fix or "")
    with pytest.raises(FileError, match="leads out of the model"):
        model_signing.sign(snapshot, signature, SIGN, LINKS)


def test_only_a_snapshot_may_lead_to_blobs(copy: Path, tmp_path: Path, signature: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "aa").write_bytes(b"")
    (copy / "link").symlink_to("../blobs/aa")
    with pytest.raises(FileError, match="leads out of the model"):
        model_signing.sign(copy, signature, SIGN, LINKS)


@pytest.mark.parametrize("unsigned", [False, True])
def test_the_notes_of_a_download_are_left_out_and_excused(
    copy: Path, signature: Path, unsigned: bool
) -> None:
    before = model_signing.sign(copy, signature, SIGN)
    assert before.manifest.serialization.ignore_paths == GIT_PATHS
    notes = copy / ".cache/huggingface/download/config.json.metadata"
    notes.parent.mkdir(parents=True)
    notes.write_text("commit")
    verified = model_signing.verify(copy, signature, VERIFY, ignore_unsigned_files=unsigned)
    assert verified.unsigned == ((".cache",) if unsigned else (".cache/huggingface",))
    signed = model_signing.sign(copy, signature, SIGN)
    assert signed.manifest.digests == before.manifest.digests
    assert signed.manifest.serialization.ignore_paths == (*GIT_PATHS, ".cache/huggingface")
    (copy / ".cache/other").write_text("not signed")
    with pytest.raises(MismatchError, match="files that were signed"):
        model_signing.verify(copy, signature, VERIFY)
