"""Signing and verifying with stock sigstore-python, for the sandbox's tests."""

from __future__ import annotations

import json

from sigstore.dsse import Statement
from sigstore.models import Bundle, ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
from sigstore.verify import Verifier, policy

from sandbox.sigstore import LocalSigstore

STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "model.bin", "digest": {"sha256": "ab" * 32}}],
    "predicateType": "https://example.test/predicate",
    "predicate": {"made": "for a test"},
}
PAYLOAD = json.dumps(STATEMENT).encode()


def sign(
    sigstore: LocalSigstore,
    token: str | None = None,
    payload: bytes = PAYLOAD,
    trust_config: dict | None = None,
) -> Bundle:
    """A bundle of a statement, by sigstore-python; by default as a person, trusting what it is."""
    config = ClientTrustConfig.from_json(json.dumps(trust_config or sigstore.trust_config()))
    context = SigningContext.from_trust_config(config)
    with context.signer(IdentityToken(token or sigstore.oidc.token())) as signer:
        return signer.sign_dsse(Statement(payload))


def verify(bundle: Bundle, trust_config: dict, identity: str, issuer: str) -> bytes:
    """The payload of a bundle, verified by sigstore-python with no check left out."""
    config = ClientTrustConfig.from_json(json.dumps(trust_config))
    verifier = Verifier(trusted_root=config.trusted_root)
    expected = policy.Identity(identity=identity, issuer=issuer)
    return verifier.verify_dsse(bundle, expected)[1]
