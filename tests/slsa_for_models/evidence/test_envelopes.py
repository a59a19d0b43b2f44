"""Attestation files: what is read, what is no attestation, and whose signature it is."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from sandbox.sigstore import LocalSigstore
from tests.support.crafted import SOURCE, TRAIN, Workshop, new_key, public_pem, refusals

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


ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
TEXT = b"A" * (4 * MIB)


def enveloped(payload: bytes) -> bytes:
    signed = {"payload": base64.b64encode(payload).decode(), "signatures": [{"sig": "AAAA"}]}
    return json.dumps({"payloadType": "application/vnd.in-toto+json", **signed}).encode()


def bundled(payload: bytes) -> bytes:
    material = {"publicKey": {"hint": "0" * 64}, "tlogEntries": []}
    kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    envelope = json.loads(enveloped(payload))
    whole = {"mediaType": kind, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(whole).encode()


HOSTILE = {
    "wide": b'{"payloadType":[' + b"{}," * MIB + b"{}]}",
    "nested": b"[" * (4 * MIB),
    "nested objects": b'{"a":' * MIB,
    "many lines": b"{}\n" * MIB,
    "many empty lines": b"{}" + b"\n" * (4 * MIB) + b"{}",
    "one text": b'{"payloadType":"' + TEXT + b'"}',
    "an emoji": b'{"payloadType":"\xf0\x9f\x98\x80' + TEXT + b'"}',
    "an emoji elsewhere": b'{"a":"\xf0\x9f\x98\x80","payloadType":"' + TEXT + b'"}',
    "a dash": b'{"payloadType":"' + TEXT + b'\xe2\x80\x94"}',
    "an umlaut": b'{"payloadType":"' + TEXT + b'\xc3\xa4"}',
    "an escaped emoji": b'{"payloadType":"\\ud83d\\ude00' + TEXT + b'"}',
    "an escaped dash": b'{"payloadType":"\\u2014' + TEXT + b'"}',
    "a dash behind a quotation mark": b'{"payloadType":"' + TEXT + b'\\"\xe2\x80\x94"}',
    "emoji in many texts": b"["
    + b",".join([b'"\xf0\x9f\x98\x80' + TEXT[:99] + b'"'] * 40_000)
    + b"]",
    "dashes": b'{"payloadType":"' + b"\xe2\x80\x94" * MIB + b'"}',
    "quotation marks": b"{" + b'"\xc3\xa4' * MIB + b"}",
    "closing": b"{" + b"}" * (16 * MIB),
    "one behind the other": b"{}" * 60_000 + b" " * (15 * MIB) + b"{",
    "escapes": b'{"payloadType":"' + b"\\n" * (2 * MIB) + b'"}',
    "escaped quotation marks": b'{"payloadType":"\xc3\xa4' + b'\\"' * (2 * MIB) + b'"}',
    "base64": base64.b64encode(b"[" + b"{}," * MIB + b"{}]"),
    "payload: wide": enveloped(b"[" + b"{}," * MIB + b"{}]"),
    "payload: an emoji": enveloped(b'{"_type":"\xf0\x9f\x98\x80' + TEXT[: 3 * MIB] + b'"}'),
    "payload: a dash": enveloped(b'{"_type":"' + TEXT[: 3 * MIB] + b'\xe2\x80\x94"}'),
    "bundle: wide": bundled(b"[" + b"{}," * MIB + b"{}]"),
    "bundle: an emoji": bundled(b'{"_type":"\xf0\x9f\x98\x80' + TEXT[: 3 * MIB] + b'"}'),
    "two bundles": b"\n".join([bundled(b"[" + b"{}," * (MIB // 2) + b"{}]")] * 2),
}
PROGRAM = (
    "import resource, sys; from slsa_for_models import cli; code = cli.main(sys.argv[1:]); "
    "it = resource.getrusage(resource.RUSAGE_SELF); "
    "print(code, it.ru_maxrss // 1024, it.ru_utime + it.ru_stime)"
)
POLICY = """version = 1
[[vsa.verifier]]
id = "x"
public_key = "key.pub"
"""


def used(*arguments: object) -> tuple[int, int, float]:
    """The exit code of a command; MiB and seconds of a core that it took, as the kernel counts."""
    # Started by a small process: what this one uses would count as the child's.
    starter = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
    command = (sys.executable, "-c", PROGRAM, *map(str, arguments))
    done = subprocess.run(
        [sys.executable, "-c", starter, *command],
        capture_output=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    code, megabytes, seconds = done.stdout.split()[-3:]
    return int(code), int(megabytes), float(seconds)


# What the same command takes with a small file of the same kind: exit code, MiB and seconds.
WITH_A_SMALL_FILE: dict[tuple[str, object], tuple[int, int, float]] = {}
EVERYWHERE = ("wide", "an emoji elsewhere", "escapes", "payload: an emoji", "bundle: an emoji")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "name"),
    [
        *(("--provenance", name) for name in HOSTILE),
        *(("--signature", name) for name in (*EVERYWHERE, "bundle: wide", "two bundles")),
        *(("--vsa", name) for name in EVERYWHERE),
    ],
)
def test_a_hostile_file_costs_no_more_than_four_times_its_size(
    workshop: Workshop, option: str, name: str
) -> None:
    """Measured by the kernel, beside the same command with a small file of the same kind."""
    kind = bundled if "bundle" in name else enveloped if "payload" in name else bytes
    model, large = workshop.model(), workshop.write("large.json", HOSTILE[name])
    key = workshop.write("key.pub", public_pem(new_key()))
    expected = [*EXPECTED, "--public-key", key, "--offline"]
    if option == "--vsa":
        expected += ["--policy", workshop.write("policy.toml", POLICY.encode())]
    if (option, kind) not in WITH_A_SMALL_FILE:
        small = workshop.write("small.json", kind(b"{}"))
        WITH_A_SMALL_FILE[option, kind] = used("verify", model, option, small, *expected)
    code, megabytes, seconds = used("verify", model, option, large, *expected)
    assert code == WITH_A_SMALL_FILE[option, kind][0] == 1
    assert megabytes - WITH_A_SMALL_FILE[option, kind][1] <= 4 * len(HOSTILE[name]) / MIB
    assert seconds < 10


def test_a_list_of_many_files_with_names_of_any_script_is_read(workshop: Workshop) -> None:
    """What is refused in attestations is no reason to refuse a large model's own names."""
    model, names = workshop.model(), [f"模型/权重-{number}-{'ж' * 50}" for number in range(20_000)]
    about = [{"name": name, "digest": {"sha256": "0" * 64}} for name in names]
    about.append({"name": "model.pth", "digest": {"sha256": sha256(b"weights").hexdigest()}})
    statement = {**workshop.train_statement(model, workshop.record(model)), "subject": about}
    payload = json.dumps(statement, ensure_ascii=False).encode()
    assert len(payload) > 4 * MIB
    provenance = workshop.write("p.json", workshop.sign(payload, workshop.token()))
    assert workshop.verify(model, "--provenance", provenance, *EXPECTED)[0] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04", "ZIP"),
        (b"\x1f\x8b\x08", "gzip"),
        ('{"mediaType": "x"}'.encode("utf-16"), "UTF-16"),
        (b'{"attestations": [{"bundle": null, "bundle_url": "https://x"}]}', "bundle_url"),
        (b'{"attestations": []}', "0"),
        (b"[[[[{}]]]]", None),
        (b"\x28\xb5\x2f\xfd\0", "zstd"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"-----BEGIN PUBLIC KEY-----\n", "PEM"),
        (b'{"message": "Not Found", "status": "404"}', "an answer that says: Not Found"),
        (b'{"base64Signature": "AA==", "cert": ""}', "base64Signature"),
    ],
)
def test_what_cannot_be_read_is_named(workshop: Workshop, content: bytes, said: str | None) -> None:
    provenance = workshop.write("p.json", content)
    code, verdict = workshop.verify(workshop.model(), "--provenance", provenance, *EXPECTED)
    assert (code, verdict["refusal"]["error"]) == (1, "BundleError")
    assert said is None or said in verdict["refusal"]["found"]
    assert said is None or verdict["refusal"]["fix"]


def test_the_forms_in_which_registries_and_tools_hand_out_attestations(workshop: Workshop) -> None:
    model = workshop.model()
    bundle = json.loads(workshop.train_provenance(model).read_bytes())
    other = {"mediaType": "application/octet-stream"}
    forms: dict[str, object] = {
        "array": [other, bundle],
        "GitHub's REST answer": {
            "attestations": [
                {"bundle": other, "repository_id": 1, "bundle_url": "https://x"},
                {"bundle": bundle, "repository_id": 1, "bundle_url": "https://y"},
            ]
        },
        "npm's": {"attestations": [{"predicateType": "https://x", "bundle": bundle}]},
        "gh attestation verify": [{"attestation": {"bundle": bundle}, "verificationResult": {}}],
    }
    for name, form in forms.items():
        for indent in (None, 2):
            text = json.dumps(form, indent=indent).encode("utf-8-sig")
            options = ("--provenance", workshop.write("p.json", text), *EXPECTED)
            code, verdict = workshop.verify(model, *options)
            assert (code, refusals(verdict)) == (0, []), name
    folded = base64.encodebytes(json.dumps(bundle).encode())
    options = ("--provenance", workshop.write("p.json", folded), *EXPECTED)
    assert workshop.verify(model, *options)[0] == 0


def test_several_documents_however_they_are_put_together(workshop: Workshop) -> None:
    """Lines of lists, pages of an API one behind the other, jq's indented output."""
    model, other = workshop.model(), workshop.model(b"other", "other.pth")
    one, two = (workshop.train_provenance(path).read_bytes().strip() for path in (other, model))
    indented = [json.dumps(json.loads(data), indent=2).encode() for data in (one, two)]
    pages = [b'{"attestations":[{"bundle":%b}]}' % data for data in (one, two)]
    for text in (
        one + two,
        b"%b \r\n\t%b" % (one, two),
        b"[%b]\n[%b]" % (one, two),
        b"[%b][%b]" % (one, two),
        b"\n".join(indented),
        b"".join(pages),
        b"%b\n%b\n" % (one, b"".join(pages)),
    ):
        provenance = workshop.write("p.json", text)
        code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
        assert (code, refusals(verdict)) == (0, []), text[:40]
    for text in (one + b"," + two, one + two + b"{", one + b"x" + two):
        provenance = workshop.write("p.json", text)
        code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
        assert (code, refusals(verdict)[0]) == (1, "BundleError")


def test_a_signature_may_come_in_what_a_registry_puts_around_it(workshop: Workshop) -> None:
    model = workshop.model()
    data = workshop.sign_model(model).read_bytes().strip()
    evidence = ("--provenance", workshop.train_provenance(model), *EXPECTED)
    for text in (
        b"[%b]" % data,
        b'{"attestations":[{"bundle":%b}]}' % data,
        base64.b64encode(data),
        b"\xef\xbb\xbf" + data,
    ):
        signature = workshop.write("s.json", text)
        code, verdict = workshop.verify(model, *evidence, "--signature", signature)
        assert (code, refusals(verdict)) == (0, []), text[:40]
        model.write_bytes(b"other")
        code, verdict = workshop.verify(model, *evidence, "--signature", signature)
        assert (code, refusals(verdict)[0]) == (1, "MismatchError")
        model.write_bytes(b"weights")


def test_a_large_file_of_real_attestations(workshop: Workshop) -> None:
    """Their checkpoints have a dash that is not ASCII."""
    model = workshop.model()
    data = workshop.train_provenance(model).read_bytes()
    assert not data.isascii()
    provenance = workshop.write("p.json", b" " * 2 * MIB + data.replace(b"{", b"{" + b" " * MIB, 1))
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
