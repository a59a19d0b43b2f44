"""Models of very many files: little memory for each, and a limit that is written down."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

import model_signing
from model_signing import errors
from model_signing.oms import bundle, names, statement, strict_json
from model_signing.sources import local
from tests.support.limits import limited
from tests.support.material import ROOT, new_key, private_pem, public_pem

pytestmark = pytest.mark.slow

FILES = 60_000
BYTES_A_FILE = 700
PEAK = """
import resource, sys
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from model_signing.cli import main
code = main(sys.argv[1:])
print(code, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="the kernel's figure of peak memory")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, key = tmp_path_factory.mktemp("keys"), new_key()
    (folder / "key.pem").write_bytes(private_pem(key))
    (folder / "key.pub").write_bytes(public_pem(key))
    return folder / "key.pem", folder / "key.pub"


@posix
def test_memory_for_each_file(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    model, signature = tmp_path / "model", tmp_path / "model.sig"
    for index in range(FILES):
        if index % 1000 == 0:
            (folder := model / f"part-{index // 1000:03}").mkdir(parents=True)
        (folder / f"{index:06}.bin").write_bytes(b"%06d" % index)
    who = {"sign": ("--private-key", keys[0]), "verify": ("--public-key", keys[1])}
    for line in (
        ("sign", "key", model, "--signature", signature, *who["sign"]),
        ("verify", "key", model, "--signature", signature, *who["verify"]),
        ("inspect", signature, "--format", "json"),
    ):
        command = [sys.executable, "-B", "-c", PEAK, *map(str, line)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with limited(process, 120):
            out, err = process.communicate(timeout=120)
        code, before, peak = map(int, err.split())
        assert code == 0, err
        # What the program itself takes is some 25 MB, here spread over few files.
        assert (peak - before) * 1024 - 25_000_000 < BYTES_A_FILE * FILES, line[0]
    assert len(json.loads(out)["resources"]) == FILES


def test_the_bundle_read_in_pieces_is_the_bundle(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    model, signature = tmp_path / "model", tmp_path / "model.sig"
    model.mkdir()
    for index in range(20_000):
        (model / f"{index:05}").write_bytes(b"")
    signer, verifier = model_signing.key_signer(keys[0]), model_signing.key_verifier(keys[1])
    signed = model_signing.sign(model, signature, signer)
    verified = model_signing.verify(model, signature, verifier)
    assert verified.bundle == signed.bundle == signature.read_bytes()
    assert len(signed.bundle) > 2 << 20
    document = json.loads(signed.bundle)
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    assert bundle.parse(signed.bundle).payload == payload
    # Written otherwise it is the same signature, and kept as it was.
    for text in (
        json.dumps(document, indent=2),
        json.dumps(document).replace("/", "\\/"),
        json.dumps({**document, "dsseEnvelope": dict(reversed(document["dsseEnvelope"].items()))}),
    ):
        signature.write_text(text)
        verified = model_signing.verify(model, signature, verifier)
        assert verified.bundle == text.encode()
        assert verified.authenticated.payload == payload


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:70_000] + "=" + text[70_001:],
        lambda text: text[:70_000] + "\n" + text[70_001:],
        lambda text: text[:-4] + "AB==",
        lambda text: text[: 1 << 20] + "AA==" + text[1 << 20 :],
        lambda text: text + "A",
        lambda text: text[:-1] + "-",
    ],
)
def test_a_long_payload_is_as_strict_as_a_short_one(spoil) -> None:  # type: ignore[no-untyped-def]
    text = base64.b64encode(b"x" * 1_200_000).decode()
    document = {
        "mediaType": bundle.MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": "a"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": text,
            "payloadType": bundle.PAYLOAD_TYPE,
            "signatures": [{"sig": "AAAA"}],
        },
    }
    assert bundle.parse(json.dumps(document).encode()).payload == b"x" * 1_200_000
    document["dsseEnvelope"]["payload"] = spoil(text)  # type: ignore[index]
    with pytest.raises(errors.BundleError):
        bundle.parse(json.dumps(document).encode())


def test_a_long_field_elsewhere_is_not_the_payload() -> None:
    long, apart = "A" * (1 << 17), "(the payload is read apart)"
    for inner in ("", apart):
        document = (
            f'{{"mediaType":"{bundle.MEDIA_TYPE}","verificationMaterial":{{"publicKey":'
            f'{{"hint":"a"}},"tlogEntries":[{{"payload":"{long}"}}]}},"dsseEnvelope":{{"payload":'
            f'"{inner}","payloadType":"{bundle.PAYLOAD_TYPE}","signatures":[{{"sig":"AAAA"}}]}}}}'
        )
        with pytest.raises(errors.BundleError):
            bundle.parse(document.encode())
        data = document.replace(f'"{inner}","payloadType"', '"eHh4","payloadType"').encode()
        assert bundle.parse(data).payload == b"xxx"


def taken(text: str) -> tuple[object, list[object]]:
    """What `loads_apart` makes of a text, and what it gives one by one."""
    items: list[object] = []
    found = strict_json.loads_apart(
        text.encode(), errors.StatementError, "it", ("a", "list"), items.append, 1_000_000
    )
    return found, items


@pytest.mark.parametrize("window", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(
    "items",
    [
        "",
        " ",
        '{"b":1}',
        ' {"b" : [1, 2, {"list": [3]}]} , "é\\u00e9\\ud83d\\ude00😀" ,12.5,null , true\n',
        ",".join(f'{{"name":"é{index}","n":[]}}' for index in range(40)),
    ],
)
def test_a_list_taken_apart_is_what_json_reads(
    monkeypatch: pytest.MonkeyPatch, items: str, window: int
) -> None:
    monkeypatch.setattr(strict_json, "_WINDOW", window)
    text = f'{{"x": [1], "a": {{"list" : [{items}], "z": "é"}}, "y": 2}}'
    expected = json.loads(text)
    found, listed = taken(text)
    assert listed == expected["a"].pop("list")
    assert found == {**expected, "a": {"list": [], "z": "é"}}


@pytest.mark.parametrize("window", [3, 1 << 20])
@pytest.mark.parametrize(
    "items",
    [
        *("1,", ",1", "1 2", "[1", "1]]", '{"a":1,"a":2}', "NaN", "1e999", "01", "1" * 50),
        *('"\\ud800"', '{"b": "\\udc00"}', '{"b" 1}', "'b'", '"b', "nul", "[" * 100_000),
        '"\x01"',
    ],
)
def test_a_list_taken_apart_is_as_strict(
    monkeypatch: pytest.MonkeyPatch, items: str, window: int
) -> None:
    monkeypatch.setattr(strict_json, "_WINDOW", window)
    text = f'{{"a": {{"list": [{items}]}}}}'
    for read in (taken, lambda text: strict_json.loads(text.encode(), errors.StatementError, "it")):
        with pytest.raises(errors.StatementError):
            read(text)
    with pytest.raises(errors.StatementError, match="Unicode"):
        strict_json.loads_apart(
            b'{"a":{"list":["\xff"]}}', errors.StatementError, "it", ("a", "list"), len, 99
        )


@pytest.mark.parametrize(
    "text",
    [
        '{"list": [1], "a": {"list": [2]}}',
        '{"x": {"list": [1]}, "a": {"list": "(the list is taken apart)"}}',
        '{"a\\"list": [1], "a": {"list": [2]}}',
        '{"a": {"other": [1]}}',
        '[{"list": [1]}]',
    ],
)
def test_a_list_of_that_name_elsewhere_is_not_it(text: str) -> None:
    assert taken(text)[0] is None


def test_more_files_than_a_signature_can_list(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names.MAX_FILES < 5_000_000
    for module in (statement, local):
        monkeypatch.setattr(module, "MAX_FILES", 3)
    for index in range(5):
        (tmp_path / str(index)).write_text("x")
    with pytest.raises(errors.FileError, match="too many files") as refusal:
        model_signing.sign(tmp_path, None, model_signing.key_signer(keys[0]))
    assert refusal.value.expected == "at most 3"
    listed = [{"name": str(i), "digest": "0" * 64, "algorithm": "sha256"} for i in range(5)]
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    document = {
        "_type": statement.STATEMENT_TYPE,
        "subject": [{"name": "m", "digest": {"sha256": "0" * 64}}],
        "predicateType": statement.PREDICATE_TYPE,
        "predicate": {"resources": listed, "serialization": serialization},
    }
    with pytest.raises(errors.ManifestError, match="too many resources"):
        statement.decode(json.dumps(document).encode())


@pytest.mark.parametrize("options", [(), ("--shard-size", "2")])
def test_a_signature_that_would_be_too_large_is_refused_before_hashing(
    tmp_path: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    from model_signing.cli import main

    model, signature = tmp_path / "model", tmp_path / "model.sig"
    model.mkdir()
    for index in range(50):
        (model / f"{index:03}").write_bytes(b"12345678")
    line = ["sign", "key", str(model), "--private-key", str(keys[0]), *options]
    line += ["--signature", str(signature), "--quiet", "--largest-signature"]
    assert main([*line, "100000"]) == 0
    size = len(signature.read_bytes())
    assert main([*line, str(size)]) == 0
    signature.unlink()
    assert main([*line, str(size // 2)]) == 1
    assert not signature.exists()
    read: list[str] = []
    monkeypatch.setattr("model_signing.api.hash_model", lambda *_, **__: read.append(""))
    source = local.LocalSource(str(model))
    shards = model_signing.HashOptions(method="shards", shard_size=2) if options else None
    with pytest.raises(errors.FileError, match="too large") as refusal:
        model_signing.sign(
            source,
            signature,
            model_signing.key_signer(keys[0]),
            *([shards] if shards else []),
            largest=size // 2,
        )
    assert read == []
    assert refusal.value.expected == f"at most {size // 2} bytes"
    assert "for 50 files" in (refusal.value.found or "")
