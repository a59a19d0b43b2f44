"""Attestation files: what is read, what is no attestation, and whose signature it is."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from sandbox.sigstore import LocalSigstore
from tests.support.crafted import SOURCE, TRAIN, Workshop, new_key, refusals

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", "BundleError"),
        (b"{}", "BundleError"),
        (b"[]", "BundleError"),
        (b"\x00\xff", "BundleError"),
        (b"{" * 100_000, "BundleError"),
        (b'{"a":1,"a":1}', "BundleError"),
        (b"{}\n" * 1_001, "BundleError"),
    ],
    ids=["empty", "object", "list", "binary", "nested", "duplicate", "lines"],
)
def test_files_that_are_no_attestation(workshop: Workshop, content: bytes, refusal: str) -> None:
    provenance = workshop.write("p.json", content)
    code, verdict = workshop.verify(workshop.model(), "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_pretty_printed_and_base64_bundles_are_read(workshop: Workshop) -> None:
    model = workshop.model()
    data = workshop.train_provenance(model).read_bytes()
    for form in (json.dumps(json.loads(data), indent=2).encode(), base64.b64encode(data) + b"\n"):
        provenance = workshop.write("p.json", form)
        assert workshop.verify(model, "--provenance", provenance, *EXPECTED)[0] == 0


def test_flipped_payload(workshop: Workshop) -> None:
    model = workshop.model()
    document = json.loads(workshop.train_provenance(model).read_bytes())
    payload = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
    payload[-20] ^= 1
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    provenance = workshop.write("p.json", json.dumps(document).encode())
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SignatureError")


def test_foreign_sigstore(workshop: Workshop) -> None:
    model = workshop.model()
    with LocalSigstore() as foreign:
        config = foreign.write_trust_config(workshop.folder / "foreign.json")
        other = Workshop(foreign, config, workshop.folder)
        provenance = other.train_provenance(model)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert code == 1
    assert refusals(verdict)[0] in ("CertificateError", "LogError", "SignatureError")


def test_a_certificate_chain_of_ones_own_is_not_provenance(workshop: Workshop) -> None:
    model = workshop.model()
    document = json.loads(workshop.train_provenance(model).read_bytes())
    material = document["verificationMaterial"]
    material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    provenance = workshop.write("p.json", json.dumps(document).encode())
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["UnsupportedError"])


def test_a_bundle_of_another_instance_says_whose(workshop: Workshop) -> None:
    """GitHub signs for private repositories with its own Sigstore, which has no public log."""
    model, key = workshop.model(), new_key()
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "GitHub, Inc."),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "Fulcio Intermediate l2"),
        ]
    )
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(1))
    der = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    document = json.loads(workshop.train_provenance(model).read_bytes())
    material = document["verificationMaterial"]
    material["certificate"]["rawBytes"] = base64.b64encode(der).decode()
    for logged in (True, False):
        material["tlogEntries"] = material["tlogEntries"] if logged else []
        provenance = workshop.write("p.json", json.dumps(document).encode())
        code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
        assert (code, "'GitHub, Inc.'" in verdict["refusal"]["found"]) == (1, True)
        assert "gh attestation verify" in verdict["refusal"]["fix"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_keyless_bundle_of_an_older_version_has_a_chain(workshop: Workshop, version: str) -> None:
    model = workshop.model()
    for path in (workshop.train_provenance(model), workshop.sign_model(model)):
        document = json.loads(path.read_bytes())
        document["mediaType"] = f"application/vnd.dev.sigstore.bundle+json;version=0.{version}"
        material = document["verificationMaterial"]
        chain = [material.pop("certificate")] * 2  # others in the chain are not relied on
        material["x509CertificateChain"] = {"certificates": chain}
        path.write_text(json.dumps(document))
    evidence = ("--provenance", workshop.folder / "p.json", "--signature", path)
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (0, [])
    material["tlogEntries"] = []
    path.write_text(json.dumps(document))
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["UnsupportedError"])
