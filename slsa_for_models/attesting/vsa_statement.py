"""The statement that a model was verified, for others to rely on (SLSA v1.2 VSA). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from slsa_for_models.attesting.train_statement import timestamp
from slsa_for_models.evidence import statement_names
from slsa_for_models.evidence.statement import STATEMENT_V1
from slsa_for_models.evidence.subjects import ModelDigests

SLSA_VERSION = "1.2"


def build(
    model: ModelDigests,
    level: int,
    *,
    verifier_id: str,
    resource_uri: str,
    policy_name: str,
    policy_sha256: str,
    inputs: Iterable[tuple[str, str]],
    base_levels: Iterable[int] | None,
    now: datetime,
    known_as: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The statement that a model was verified. Only for a verdict that accepted it.

    Args:
        model: The model as hashed.
        level: The SLSA Build level it reached.
        verifier_id: The URI this verifier goes by; consumers bind it to the signer.
        resource_uri: Where consumers get the model from.
        policy_name: The policy file's name.
        policy_sha256: Its digest, hexadecimal.
        inputs: All the evidence: name and SHA-256, hexadecimal, of each file.
        base_levels: The levels of the base models, if all were verified; None makes no claim.
        now: The current time, with a time zone.
        known_as: The name that the model has in a registry, and the SHA-256 of the manifest there,
            hexadecimal: what admission controllers ask about.
    """
    subjects = [(model.name, model.sha256), *([known_as] if known_as else [])]
    predicate: dict[str, Any] = {
        "verifier": {"id": verifier_id},
        "timeVerified": timestamp(now),
        "resourceUri": resource_uri,
        "policy": {"uri": policy_name, "digest": {"sha256": policy_sha256}},
        "inputAttestations": [
            {"uri": name, "digest": {"sha256": digest}} for name, digest in inputs
        ],
        "verificationResult": "PASSED",
        "verifiedLevels": [f"SLSA_BUILD_LEVEL_{level}"],
        "slsaVersion": SLSA_VERSION,
    }
    if base_levels is not None:
        levels = [f"SLSA_BUILD_LEVEL_{item}" for item in base_levels]
        predicate["dependencyLevels"] = {name: levels.count(name) for name in sorted(set(levels))}
    return {
        "_type": STATEMENT_V1,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects],
        "predicateType": statement_names.VSA,
        "predicate": predicate,
    }
