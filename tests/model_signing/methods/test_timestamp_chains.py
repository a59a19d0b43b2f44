"""RFC 3161 responses as OpenSSL makes them: certificates in any order, or left out."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_signing.errors import LogError
from model_signing.methods import Authenticated
from model_signing.methods.key import key_verifier
from model_signing.methods.timestamps import decode
from model_signing.oms import bundle
from tests.support.material import key_bundle, new_key, public_pem

KEY = new_key()
EXTENSIONS = {
    "root": "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign",
    "middle": "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign",
    "stamper": "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping",
}
CONFIG = """
[tsa]
default_tsa = t
[t]
serial = ./serial
signer_cert = ./stamper.pem
certs = ./chain.pem
signer_key = ./stamper.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
"""


def openssl(folder: Path, line: str) -> None:
    subprocess.run(
        ["openssl", *line.split()], cwd=folder, check=True, capture_output=True, timeout=300
    )


@dataclass
class Authority:
    """A timestamp authority of OpenSSL's, in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        issuer = ""
        for name, extensions in EXTENSIONS.items():
            (self.folder / f"{name}.ext").write_text(extensions)
            openssl(self.folder, f"ecparam -name prime256v1 -genkey -noout -out {name}.key")
            openssl(self.folder, f"req -new -key {name}.key -subj /CN={name} -out {name}.csr")
            by = f"-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"
            by = by if issuer else f"-signkey {name}.key"
            openssl(
                self.folder,
                f"x509 -req -in {name}.csr {by} -days 30 -extfile {name}.ext -out {name}.pem",
            )
            issuer = name
        chain = self.folder / "chain.pem"
        chain.write_bytes(self.pem("middle") + self.pem("root"))
        (self.folder / "tsa.cnf").write_text(CONFIG)
        (self.folder / "serial").write_text("01\n")

    def pem(self, name: str) -> bytes:
        return (self.folder / f"{name}.pem").read_bytes()

    def stamp(self, data: bytes, *, certificates: bool) -> bytes:
        """The response for the signature of a bundle."""
        (self.folder / "data").write_bytes(bundle.parse(data).signature)
        wanted = "-cert" if certificates else ""
        openssl(self.folder, f"ts -query -data data -sha256 {wanted} -out query")
        openssl(self.folder, "ts -reply -config tsa.cnf -queryfile query -out reply")
        return (self.folder / "reply").read_bytes()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def verified(data: bytes, stamp: bytes, *trusted: bytes) -> Authenticated:
    document = json.loads(data)
    stamps = [{"signedTimestamp": base64.b64encode(stamp).decode()}]
    document["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
    return key_verifier(public_pem(KEY), trusted)(json.dumps(document).encode())


@pytest.mark.parametrize("turn", range(4))  # the keys, and so the order, are by chance
def test_certificates_in_any_order(authority: Authority, turn: int) -> None:
    data = key_bundle(KEY)
    stamp = authority.stamp(data, certificates=True)
    assert verified(data, stamp, authority.pem("root")).time_source == "timestamp authority"


@pytest.mark.parametrize("files", ["one file", "several files"])
def test_a_response_without_certificates_verifies_with_the_chain_given(
    authority: Authority, files: str
) -> None:
    data = key_bundle(KEY)
    stamp = authority.stamp(data, certificates=False)
    chain = [authority.pem(name) for name in EXTENSIONS]
    given = [b"".join(chain)] if files == "one file" else chain
    found = verified(data, stamp, *given)
    assert found.signed_at == decode(stamp).tst_info.gen_time
    with pytest.raises(LogError, match="not from a trusted authority"):
        verified(data, stamp, authority.pem("root"))


def test_certificates_that_are_given_make_nobody_else_trusted(
    authority: Authority, tmp_path: Path
) -> None:
    data = key_bundle(KEY)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    for certificates in (False, True):
        stamp = other.stamp(data, certificates=certificates)
        with pytest.raises(LogError, match="not from a trusted authority"):
            verified(data, stamp, *(authority.pem(name) for name in EXTENSIONS))


def test_the_purpose_of_the_stamper_is_still_asked_for(authority: Authority) -> None:
    """A key that the authority certified for something else stamps nothing."""
    data = key_bundle(KEY)
    stamp = authority.stamp(data, certificates=False)
    (authority.folder / "stamper.ext").write_text("extendedKeyUsage=critical,codeSigning")
    by = "-CA middle.pem -CAkey middle.key -set_serial 5"
    openssl(
        authority.folder,
        f"x509 -req -in stamper.csr {by} -days 30 -extfile stamper.ext -out stamper.pem",
    )
    with pytest.raises(LogError, match="not from a trusted authority"):
        verified(data, stamp, *(authority.pem(name) for name in EXTENSIONS))


def test_nothing_else_of_a_response_is_changed(authority: Authority) -> None:
    stamp = authority.stamp(key_bundle(KEY), certificates=False)
    (authority.folder / "reply").write_bytes(stamp)
    assert decode(stamp).as_bytes() == stamp
    openssl(authority.folder, "verify -CAfile root.pem -untrusted middle.pem stamper.pem")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_response_that_is_cut_off_is_refused(authority: Authority, cut: int) -> None:
    data = key_bundle(KEY)
    stamp = authority.stamp(data, certificates=True)
    for broken in (stamp[:-cut], stamp[cut:], b"", b"\x30\x80", b"\x30\x84" + stamp):
        if broken:
            with pytest.raises(LogError):
                verified(data, broken, authority.pem("root"))
        with pytest.raises(ValueError, match=r"."):
            decode(broken)
