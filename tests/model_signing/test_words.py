"""A refusal says what people can act on: mistakes that were seen, and the words for them."""

from __future__ import annotations

import json
import subprocess
import unicodedata
from pathlib import Path

import pytest

import model_signing
from model_signing.cli import main
from model_signing.errors import BundleError, CertificateError, FileError, MismatchError
from model_signing.oms import bundle
from tests.support.material import (
    authority,
    base64_of,
    certificate_bundle,
    leaf,
    new_key,
    pem,
    private_pem,
    public_pem,
)

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))


def test_a_refusal_in_json_names_every_file(
    model: Path, signature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(15):
        (model / f"{index:02}").write_text("x")
    model_signing.sign(model, signature, SIGN)
    (tmp_path / "key.pub").write_bytes(public_pem(KEY))
    line = ["verify", "key", str(model), "--signature", str(signature), "--format", "json"]
    line += ["--public-key", str(tmp_path / "key.pub")]
    names = [f"{index:02}" for index in range(15)]
    for name in names:
        (model / name).write_text("y")
    assert main(line) == 1
    assert json.loads(capsys.readouterr().out)["files"] == {"changed": names}
    for name in names:
        (model / name).rename(model / f"new {name}")
    assert main(line) == 1
    assert json.loads(capsys.readouterr().out)["files"] == {
        "missing": names,
        "unsigned": [f"new {name}" for name in names],
    }


@pytest.mark.parametrize(
    ("signed", "there", "words"),
    [
        ("é.bin", unicodedata.normalize("NFD", "é.bin"), r"Unicode form: \xe9.bin was signed"),
        (unicodedata.normalize("NFD", "é.bin"), "é.bin", r"\xe9.bin is there"),
        ("README.md", "readme.md", "lower case: README.md was signed, readme.md is there"),
    ],
)
def test_names_that_look_alike_are_told_apart(
    model: Path, signature: Path, signed: str, there: str, words: str
) -> None:
    (model / signed).write_text("x")
    model_signing.sign(model, signature, SIGN)
    (model / signed).rename(model / there)
    with pytest.raises(MismatchError, match="files that were signed") as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert words in (refusal.value.found or "")


@pytest.mark.parametrize(
    ("content", "message", "fix"),
    [
        (b"{}", "no signature", "model_signing sign"),
        (b"[]", "no signature", "model_signing sign"),
        (b"hello", "this file is no signature", "model_signing sign"),
        (public_pem(KEY), "this file is no signature", "model_signing sign"),
        (
            b'{"mediaType": "%s", "verificationMaterial": {}, "messageSignature": {}}'
            % bundle.MEDIA_TYPE.encode(),
            "one file's bytes",
            "cosign verify-blob",
        ),
    ],
)
def test_what_is_no_signature_of_a_model_is_called_so(
    model: Path, signature: Path, content: bytes, message: str, fix: str
) -> None:
    signature.write_bytes(content)
    with pytest.raises(BundleError, match=message) as refusal:
        model_signing.verify(model, signature, VERIFY)
    assert fix in (refusal.value.fix or "")


@pytest.mark.parametrize(
    ("address", "fix"),
    [
        ("pkcs11:token=t;object=k", "--pkcs11-uri"),
        ("awskms:///alias/signing", "digest_signer"),
        ("gcpkms://projects/p", "digest_signer"),
        ("https://example.com/key.pub", "download"),
        ("file:///key.pem", "path"),
    ],
)
def test_an_address_in_place_of_a_key_file(address: str, fix: str) -> None:
    for read in (model_signing.key_signer, model_signing.key_verifier):
        with pytest.raises(FileError, match="this is an address") as refusal:
            read(address)
        assert fix in (refusal.value.fix or "")


@pytest.mark.parametrize("before", [[], ["--log-level", "error"]])
@pytest.mark.parametrize("option", ["--private-key=k", "--private_key=k", "--private-key k"])
def test_a_method_that_was_forgotten_is_named(
    model: Path, capsys: pytest.CaptureFixture[str], before: list[str], option: str
) -> None:
    assert main([*before, "sign", str(model), *option.split()]) == 2
    assert "model_signing sign key ..." in capsys.readouterr().err
    assert main([*before, "verify", str(model), "--signature", "s", "--public-key", "k"]) == 2
    assert "model_signing verify key ..." in capsys.readouterr().err


def test_a_link_to_a_model_is_named_with_what_it_leads_to(model: Path, signature: Path) -> None:
    link = model.with_name("latest")
    link.symlink_to("model")
    with pytest.raises(FileError, match="own path is a symbolic link") as refusal:
        model_signing.sign(link, signature, SIGN)
    assert str(model) in (refusal.value.fix or "")
    options = model_signing.HashOptions(allow_symlinks=True)
    assert model_signing.sign(link, signature, SIGN, options).files == 4


def test_a_chain_that_ends_elsewhere_says_where() -> None:
    ours, theirs = authority("our root"), authority("their root")
    middle = authority("their middle", theirs)
    for others in ([middle.certificate], [middle.certificate, theirs.certificate]):
        data = certificate_bundle(leaf(middle), others)
        with pytest.raises(CertificateError, match="trusted root") as refusal:
            model_signing.certificate_verifier([pem(ours.certificate)])(data)
        assert "their root" in (refusal.value.found or "")
        assert "our root" in (refusal.value.expected or "")


def test_a_certificate_as_openssl_makes_it_is_not_for_signing(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(KEY))
    command = "openssl req -x509 -key key.pem -subj /CN=me -days 9 -out cert.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=300, capture_output=True)
    with pytest.raises(CertificateError, match="for signing") as refusal:
        model_signing.certificate_signer(tmp_path / "key.pem", tmp_path / "cert.pem")
    assert "openssl req" in (refusal.value.fix or "")
    fixed = f"{command} -addext keyUsage=critical,digitalSignature"
    subprocess.run(
        [*fixed.split(), "-addext", "extendedKeyUsage=codeSigning"],
        cwd=tmp_path,
        check=True,
        timeout=300,
        capture_output=True,
    )
    model_signing.certificate_signer(tmp_path / "key.pem", tmp_path / "cert.pem")


def test_base64_is_no_bundle(model: Path, signature: Path) -> None:
    signature.write_text(base64_of(model_signing.sign(model, None, SIGN).bundle))
    with pytest.raises(BundleError, match="this file is no signature"):
        model_signing.verify(model, signature, VERIFY)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (private_pem(KEY), "PEM, a key or a certificate"),
        (b"weights", None),
        (b"\x7fELF\xff", None),
        (b"{}", "other JSON"),
        (b"", "nothing: the file is empty"),
        (b"a1b2  model.bin\n", None),
    ],
)
def test_a_file_of_another_kind_is_no_signature(
    model: Path, content: bytes, found: str | None
) -> None:
    given = model.with_name("given.sig")
    given.write_bytes(content)
    with pytest.raises(BundleError, match="this file is no signature") as refusal:
        model_signing.verify(model, given, VERIFY)
    assert "model_signing sign" in (refusal.value.fix or "")
    assert refusal.value.found == found


def test_where_a_dangling_link_leads_is_said(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sig"
    link.symlink_to("not there/model.sig")
    with pytest.raises(FileError, match="cannot write to the directory") as refusal:
        model_signing.sign(model, link, SIGN)
    assert refusal.value.where == str(tmp_path / "not there")


def test_an_address_of_a_key_says_what_to_do_for_both(model: Path) -> None:
    for address in ("awskms:///alias/x", "gcpkms://projects/x", "k8s://ns/key"):
        with pytest.raises(FileError, match="this is an address") as refusal:
            model_signing.key_verifier(address)
        assert "export the public key" in (refusal.value.fix or "")
        with pytest.raises(FileError, match="this is an address") as refusal:
            model_signing.key_signer(address)
        assert "digest_signer" in (refusal.value.fix or "")
