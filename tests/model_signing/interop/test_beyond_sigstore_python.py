"""What sigstore-python accepts and we refuse: docs/beyond-sigstore-python.md.

A test that fails here is good news: sigstore-python has the check now. Then ours, its row in that
page and its test go.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from sigstore.models import Bundle, InvalidBundle

from model_signing.errors import Error
from model_signing.methods.sigstore import (
    SigstoreSigning,
    authenticate_sigstore,
    sigstore_signer,
)
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from tests.support import stock
from tests.support.forgery import Issuer, chain
from tests.support.material import base64_of, edited, statement

ENTRY = ("verificationMaterial", "tlogEntries", 0)


@pytest.fixture(scope="module")
def good(sigstore: LocalSigstore) -> bytes:
    return stock.sign(sigstore, payload=statement()).to_json().encode()


def only_we_refuse(
    data: bytes, config: dict[str, Any], folder: Path, sigstore: LocalSigstore
) -> None:
    accepted = stock.verify(Bundle.from_json(data), config, "developer@example.test", sigstore.url)
    assert accepted == statement()
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(Error):
        authenticate_sigstore(data, SigstoreTrust(path))


@pytest.mark.parametrize("kind", ["certificateAuthorities", "ctlogs", "tlogs"])
def test_an_authority_that_ended(
    kind: str, good: bytes, sigstore: LocalSigstore, tmp_path: Path
) -> None:
    now = datetime.now(timezone.utc)
    start, end = (f"{now - timedelta(days=n):%Y-%m-%dT%H:%M:%SZ}" for n in (9, 1))
    config = sigstore.trust_config()
    authority = config["trustedRoot"][kind][0]
    authority.get("publicKey", authority)["validFor"] = {"start": start, "end": end}
    only_we_refuse(good, config, tmp_path, sigstore)


@pytest.mark.parametrize(
    ("kind", "which", "wrong"),
    [
        ("certificateAuthorities", "intermediate", {"foreign": True}),
        ("certificateAuthorities", "root", {"path_length": 0}),
        ("timestampAuthorities", "root", {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}),
    ],
)
def test_a_chain_that_does_not_hold(
    kind: str, which: str, wrong: Any, good: bytes, sigstore: LocalSigstore, tmp_path: Path
) -> None:
    authority = (sigstore.tsa if kind[0] == "t" else sigstore.fulcio).authority
    both = {"intermediate": Issuer(), "root": Issuer(), which: Issuer(**wrong)}
    config = sigstore.trust_config()
    listed = config["trustedRoot"][kind][0]["certChain"]["certificates"]
    listed[-2:] = [{"rawBytes": base64_of(one)} for one in chain(authority, **both)]
    only_we_refuse(good, config, tmp_path, sigstore)


def test_a_log_whose_tree_has_another_hash(
    good: bytes, sigstore: LocalSigstore, tmp_path: Path
) -> None:
    config = sigstore.trust_config()
    config["trustedRoot"]["tlogs"][0]["hashAlgorithm"] = "SHA2_512"
    only_we_refuse(good, config, tmp_path, sigstore)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("logIndex", lambda _: "123456"),
        ("integratedTime", lambda _: "1700000000"),
        ("logIndex", lambda index: f" 0{index}"),
        ("canonicalizedBody", lambda body: f"{body}\n"),
    ],
)
def test_a_field_that_is_not_as_its_proof_or_its_type(
    field: str, change: Callable[[str], str], good: bytes, sigstore: LocalSigstore, tmp_path: Path
) -> None:
    entry = json.loads(good)["verificationMaterial"]["tlogEntries"][0]
    data = edited(good, *ENTRY, field, to=change(entry.get(field, "")))
    only_we_refuse(data, sigstore.trust_config(), tmp_path, sigstore)


def test_an_entry_of_a_log_that_nobody_knows(
    good: bytes, sigstore: LocalSigstore, tmp_path: Path
) -> None:
    checkpoint = ("inclusionProof", "checkpoint", "envelope")
    value: Any = json.loads(good)["verificationMaterial"]["tlogEntries"][0]
    for name in checkpoint:
        value = value[name]
    note, signature = value.split("\n\n")
    name, raw = signature.split()[1:]
    raw = base64_of(b"\1" * 4 + base64.b64decode(raw)[4:])
    data = edited(good, *ENTRY, "logId", "keyId", to=base64_of(b"\1" * 32))
    data = edited(data, *ENTRY, *checkpoint, to=f"{note}\n\n\u2014 {name} {raw}\n")
    only_we_refuse(data, sigstore.trust_config(), tmp_path, sigstore)


def test_a_signature_without_timestamp_is_logged_all_the_same(tmp_path: Path) -> None:
    with LocalSigstore() as instance:
        config = instance.trust_config()
        config["signingConfig"]["tsaUrls"][0]["url"] = f"{instance.url}/nothing-here"
        with pytest.raises(InvalidBundle):
            stock.sign(instance, payload=statement(), trust_config=config)
        assert instance.requests.count("POST /api/v2/log/entries") == 1
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        options = SigstoreSigning(path, identity_token=instance.oidc.token())
        with pytest.raises(Error, match="timestamp authority"):
            sigstore_signer(options)(statement())
        assert instance.requests.count("POST /api/v2/log/entries") == 1
