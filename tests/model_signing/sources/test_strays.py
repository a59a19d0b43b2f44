"""What lies in a model by accident is named; a private key is not signed at all."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

import model_signing
from model_signing import HashOptions
from model_signing.errors import FileError, MismatchError
from tests.support.material import new_key, private_pem, public_pem

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def pointer(data: bytes) -> bytes:
    """As the Git LFS specification describes it."""
    return POINTER.format(sha256(data).hexdigest(), len(data)).encode()


@pytest.mark.parametrize(
    "many",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["few files", "many files"],
)
def test_a_pointer_of_git_lfs_is_named(model: Path, signature: Path, many: bool) -> None:
    for index in range(1001 if many else 0):
        (model / f"{index}.txt").write_text("a small file")
    model_signing.sign(model, signature, SIGN)
    (model / "b.bin").write_bytes(pointer((model / "b.bin").read_bytes()))
    with pytest.raises(MismatchError) as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert refusal.value.where == "b.bin"
    assert "pointer of Git LFS" in (refusal.value.found or "")
    assert "git lfs pull" in (refusal.value.fix or "")
    signed = model_signing.sign(model, signature, SIGN)
    (warning,) = signed.warnings
    assert "Git LFS" in warning
    assert "b.bin" in warning


def test_a_pointer_in_place_of_shards_is_named(model: Path, signature: Path) -> None:
    model_signing.sign(model, signature, SIGN, HashOptions(method="shards", shard_size=1000))
    (model / "b.bin").write_bytes(pointer((model / "b.bin").read_bytes()))
    with pytest.raises(MismatchError, match="size") as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert "pointer of Git LFS" in (refusal.value.found or "")


def private_keys() -> dict[str, bytes]:
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    old = serialization.PrivateFormat.TraditionalOpenSSL
    openssh = serialization.PrivateFormat.OpenSSH
    others = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    return {
        "PKCS #8": private_pem(KEY),
        "encrypted": private_pem(KEY, b"secret"),
        "SEC 1": KEY.private_bytes(pem, old, plain),
        "encrypted as OpenSSL did": KEY.private_bytes(
            pem, old, serialization.BestAvailableEncryption(b"secret")
        ),
        "RSA": others[0].private_bytes(pem, old, plain),
        "OpenSSH": others[1].private_bytes(pem, openssh, plain),
        "after a certificate": public_pem(KEY) + private_pem(KEY),
    }


@pytest.mark.parametrize("kind", private_keys())
def test_a_private_key_is_not_signed_unless_ignored(
    model: Path, signature: Path, kind: str
) -> None:
    (model / "sub/notes").write_bytes(private_keys()[kind])
    with pytest.raises(FileError, match="private key is in the model") as refusal:
        model_signing.sign(model, signature, SIGN)
    assert refusal.value.where == "sub/notes"
    assert not signature.exists()
    model_signing.sign(model, signature, SIGN, HashOptions(ignore_paths=("sub/notes",)))


def test_what_only_speaks_of_keys_is_signed(model: Path, signature: Path) -> None:
    text = "Put it between -----BEGIN PRIVATE KEY----- and -----END PRIVATE KEY-----\n"
    (model / "README.md").write_text(text + "-----BEGIN PRIVATE KEY-----\n...\n")
    (model / "key.pub").write_bytes(public_pem(KEY))
    assert model_signing.sign(model, signature, SIGN).warnings == ()


LEFTOVERS = [
    "__pycache__/model.cpython-311.pyc",
    ".ipynb_checkpoints/train-checkpoint.ipynb",
    ".DS_Store",
    "Thumbs.db",
    "config.json~",
    ".config.json.swp",
    "#config.json#",
    "._config.json",
]


@pytest.mark.parametrize("folder", ["", "sub/"])
@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftovers_of_tools_are_named(model: Path, signature: Path, name: str, folder: str) -> None:
    path = model / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    signed = model_signing.sign(model, signature, SIGN)
    named = folder + name.partition("/")[0]
    assert f"{folder}{name}" in signed.manifest.files
    (warning,) = signed.warnings
    assert f"--ignore-paths {named}" in warning
    again = model_signing.sign(model, signature, SIGN, HashOptions(ignore_paths=(named,)))
    assert again.warnings == ()


@pytest.mark.parametrize("name", ["a~b", "x.bakery", "swp", "DS_Store", "c#", "issue#1"])
def test_other_names_are_not(model: Path, signature: Path, name: str) -> None:
    (model / name).write_text("x")
    assert model_signing.sign(model, signature, SIGN).warnings == ()


def test_ignored_paths_that_are_not_there_are_named(model: Path, signature: Path) -> None:
    options = HashOptions(ignore_paths=("sub", "sub/deep", "nothing", "weights.bin"))
    signed = model_signing.sign(model, signature, SIGN, options)
    assert [warning.split()[-1] for warning in signed.warnings] == ["nothing", "weights.bin"]
    (model / "extra").write_text("x")
    given = ["extra", "nothing", str(signature.relative_to(signature.parent))]
    verified = model_signing.verify(model, signature, VERIFY, ignore_paths=given)
    assert [warning.split()[-1] for warning in verified.warnings] == ["model.sig", "nothing"]
    assert verified.unsigned == ()
