"""Signs a statement with the identity of the running job. For demonstrations and tests only.

By sigstore-python, so that what the stand-ins make owes nothing to the code that verifies it.
"""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from sigstore import dsse
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext

from sandbox.github.stand_ins.commands import StepError


class _AnyStatement(dsse.Statement):
    """Statement bytes as they are; sigstore-python itself makes those of in-toto v1 only."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents


def identity_token(audience: str) -> str:
    """An identity token of this job.

    Raises:
        StepError: The job has no `id-token: write`.
    """
    url, bearer = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{part}") for part in ("URL", "TOKEN"))
    if not url or not bearer:
        raise StepError(
            "Unable to get ACTIONS_ID_TOKEN_REQUEST_URL env variable: no id-token: write"
        )
    request = urllib.request.Request(
        f"{url}&audience={urllib.parse.quote(audience)}",
        headers={"Authorization": f"bearer {bearer}"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["value"])


def sign(statement: dict[str, Any], trust_config: str = "MODEL_TRANSPARENCY_TRUST_CONFIG") -> str:
    """A Sigstore bundle of the statement, JSON on one line, signed as this job.

    Args:
        statement: What is signed.
        trust_config: The variable with the path of the Sigstore's client trust configuration.
    """
    config = Path(os.environ[trust_config]).read_text(encoding="utf-8")
    context = SigningContext.from_trust_config(ClientTrustConfig.from_json(config))
    token = IdentityToken(identity_token("sigstore"))
    payload = json.dumps(statement, separators=(",", ":")).encode()
    with context.signer(token) as signer:
        return signer.sign_dsse(_AnyStatement(payload)).to_json()
