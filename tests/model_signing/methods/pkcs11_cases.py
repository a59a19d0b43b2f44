"""PKCS#11: URIs by the letter of RFC 7512, and signing with SoftHSM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from model_signing.cli import main
from model_signing.errors import (
    CertificateError,
    DependencyError,
    FileError,
    SigningError,
    UsageError,
)
from model_signing.methods import pkcs11 as ours
from model_signing.methods.certificate import certificate_verifier
from model_signing.methods.key import key_verifier
from model_signing.methods.pkcs11 import pkcs11_certificate_signer, pkcs11_key_signer
from tests.support import debian
from tests.support.material import (
    CODE_SIGNING,
    NOT_CA,
    ROOT,
    authority,
    key_usage,
    leaf,
    make_model,
    pem,
    public_pem,
    statement,
)

PIN = "1234"
KEY_ID = b"\x01\x20\xff"


def test_uris_are_read_as_rfc_7512_writes_them() -> None:
    uri = (
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;"
        "serial=0123;object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91"
        "?pin-source=file:/etc/token_pin&module-name=mypkcs11"
    )  # RFC 7512 section 3
    assert ours.parse_uri(uri) == {
        "token": b"The Software PKCS#11 Softtoken",
        "manufacturer": b"Snake Oil, Inc.",
        "serial": b"0123",
        "object": b"my-certificate",
        "type": b"private",
        "id": bytes.fromhex("69953E5CF4BDEC91"),
        "pin-source": b"file:/etc/token_pin",
        "module-name": b"mypkcs11",
    }


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "pkcs11",
        "pkcs11:",
        "http://example.test/",
        "PKCS12:object=a",
        "pkcs11:token=a",
        "pkcs11:object=a;object=b",
        "pkcs11:object=a;colour=blue",
        "pkcs11:object=a?pin-value=1&pin-source=/p",
        "pkcs11:object=a?object=b",
        "pkcs11:object=a?module-path=/m&module-path=/n",
        "pkcs11:object=a;type=cert",
        "pkcs11:object=a?pin-command=rm",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="PKCS #11 URI"):
        ours.parse_uri(uri)


def test_a_missing_module_is_named() -> None:
    pytest.importorskip("pkcs11", reason="not tested: python-pkcs11 is not installed")
    with pytest.raises(DependencyError, match="not installed") as refusal:
        pkcs11_key_signer("pkcs11:object=a?module-path=/nonexistent/module.so")
    assert "/nonexistent/module.so" in (refusal.value.found or "")
    with pytest.raises(DependencyError, match="not installed"):
        pkcs11_key_signer("pkcs11:object=a?module-name=nonexistent")
    for no_name in ("", "?module-name=../../tmp/evil"):
        with pytest.raises(UsageError, match="names no module"):
            pkcs11_key_signer(f"pkcs11:object=a{no_name}")


def test_a_module_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pkcs11", reason="not tested: python-pkcs11 is not installed")
    module = tmp_path / "module.so"
    module.write_bytes(b"\x7fELF junk")
    with pytest.raises(SigningError, match="token refused"):
        pkcs11_key_signer(f"pkcs11:object=a?module-path={module}")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(DependencyError, match="python-pkcs11") as refusal:
        pkcs11_key_signer("pkcs11:object=a?module-name=softhsm2")
    assert "pip install" in (refusal.value.fix or "")


@dataclass(frozen=True)
class Hsm:
    """A SoftHSM with two tokens; the first has two keys."""

    module: str
    public: dict[str, bytes]

    def uri(self, name: str, pin: str = f"&pin-value={PIN}") -> str:
        return f"pkcs11:token=first%20token;{name}?module-path={self.module}{pin}"


def _softhsm() -> tuple[str, str]:
    """SoftHSM's module and tool: installed, or Debian's packages unpacked into the cache."""
    module = Path("/usr/lib/softhsm/libsofthsm2.so")
    tool = shutil.which("softhsm2-util")
    if module.exists() and tool:
        return str(module), tool
    folder = debian.unpacked("softhsm2", "libsofthsm2")
    found = [next(folder.rglob(name), None) for name in ("libsofthsm2.so", "softhsm2-util")]
    if None in found:
        pytest.skip("not tested: SoftHSM is not installed and apt-get cannot download it")
    return str(found[0]), str(found[1])


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Hsm:
    pkcs11 = pytest.importorskip("pkcs11", reason="not tested: python-pkcs11 is not installed")
    module, tool = _softhsm()
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")  # read when the module is loaded
    for label in ("first token", "second"):
        command = [tool, "--module", module, "--init-token", "--free", "--label", label]
        subprocess.run(
            [*command, "--pin", PIN, "--so-pin", PIN],
            check=True,
            capture_output=True,
            timeout=300,
        )
    library = pkcs11.lib(module)
    session = library.get_token(token_label="first token").open(user_pin=PIN, rw=True)
    public = {}
    for label, curve, key_id in (("p256", "secp256r1", KEY_ID), ("p384", "secp384r1", b"\2")):
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters(curve)},
            local=True,
        )
        pair = parameters.generate_keypair(store=True, label=label, id=key_id)
        public[label] = pkcs11.util.ec.encode_ec_public_key(pair[0])
    session.close()
    return Hsm(module, public)


def public_key(hsm: Hsm, label: str) -> Any:
    return load_der_public_key(hsm.public[label])


class _Public:
    """Something with a public key, for the helper that writes PEM."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def public_key(self) -> Any:
        return self._key


@pytest.mark.parametrize("name", ["object=p256", "id=%01%20%ff", "object=p384;id=%02"])
def test_a_key_on_a_token_signs(hsm: Hsm, name: str) -> None:
    data = pkcs11_key_signer(hsm.uri(name))(statement())
    key = _Public(public_key(hsm, "p384" if "p384" in name else "p256"))
    assert key_verifier(public_pem(key))(data).payload == statement()


def test_a_certified_key_on_a_token_signs(hsm: Hsm) -> None:
    root = authority()
    key = public_key(hsm, "p256")
    certificate = leaf(root, key=_Public(key)).certificate
    signer = pkcs11_certificate_signer(hsm.uri("object=p256"), pem(certificate))
    authenticated = certificate_verifier([pem(root.certificate)])(signer(statement()))
    assert authenticated.identity == "CN=signer"
    # The certificate of another key: nothing is signed.
    signer = pkcs11_certificate_signer(hsm.uri("object=p384"), pem(certificate))
    with pytest.raises(SigningError, match="does not match"):
        signer(statement())
    other = leaf(root, extensions=[NOT_CA, key_usage("key_agreement"), CODE_SIGNING]).certificate
    with pytest.raises(CertificateError):
        pkcs11_certificate_signer(hsm.uri("object=p256"), pem(other))


def test_pins_from_file_option_and_nowhere(hsm: Hsm, tmp_path: Path) -> None:
    bare = hsm.uri("object=p256", pin="")
    (tmp_path / "pin").write_text(f"{PIN}\n")
    for source in (f"{tmp_path}/pin", f"file:{tmp_path}/pin", f"file://{tmp_path}/pin"):
        assert pkcs11_key_signer(f"{bare}&pin-source={source}")
    assert pkcs11_key_signer(bare, pin=PIN)
    with pytest.raises(FileError, match="cannot read the file"):
        pkcs11_key_signer(f"{bare}&pin-source={tmp_path}/absent")


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("object=absent", "NoSuchKey"),
        ("object=p256;id=%02", "NoSuchKey"),
        ("object=p256;serial=00", "one token"),
        ("object=p256;slot-id=77", "one token"),
        ("object=p256;manufacturer=Snake%20Oil", "one token"),
    ],
)
def test_what_the_token_does_not_have_is_named(hsm: Hsm, attribute: str, words: str) -> None:
    with pytest.raises(SigningError) as refusal:
        pkcs11_key_signer(hsm.uri(attribute))
    assert words in f"{refusal.value.message} {refusal.value.found}"


def test_an_unclear_token_is_refused(hsm: Hsm) -> None:
    with pytest.raises(SigningError, match="one token") as refusal:
        pkcs11_key_signer(f"pkcs11:object=p256?module-path={hsm.module}")
    assert refusal.value.found == "2"


def test_a_wrong_pin_is_refused(hsm: Hsm, tmp_path: Path) -> None:
    # In another process: a login holds for all of a process.
    uri = hsm.uri("object=p256", pin="&pin-value=9999")
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "sign",
        "pkcs11-key",
        str(make_model(tmp_path)),
    ]
    command += ["--pkcs11-uri", uri, "--signature", str(tmp_path / "model.sig")]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    assert run.returncode == 1
    assert "PinIncorrect" in run.stderr
    assert not (tmp_path / "model.sig").exists()


def test_the_command_line(hsm: Hsm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, signature = make_model(tmp_path), tmp_path / "model.sig"
    (tmp_path / "key.pub").write_bytes(public_pem(_Public(public_key(hsm, "p256"))))
    command = ["sign", "pkcs11-key", str(model), "--signature", str(signature)]
    assert main([*command, "--pkcs11_uri", hsm.uri("object=p256")]) == 0
    verify = ["verify", "key", str(model), "--signature", str(signature)]
    assert main([*verify, "--public-key", str(tmp_path / "key.pub")]) == 0
    assert "verified" in capsys.readouterr().out
