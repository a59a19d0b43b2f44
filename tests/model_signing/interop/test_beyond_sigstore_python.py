"""What sigstore-python accepts and we refuse: docs/beyond-sigstore-python.md.

A test that fails here is good news: sigstore-python has the check now. Then ours, its row in that
page and its test go.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sigstore.models import Bundle

from model_signing.errors import SignatureError
from model_signing.methods.sigstore import authenticate_sigstore
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from tests.support import stock
from tests.support.material import statement


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
    with pytest.raises(SignatureError):
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
