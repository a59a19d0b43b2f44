"""What a bundle says about itself. Nothing here is verified: anybody can write such a file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from model_signing.errors import BundleError
from model_signing.oms import bundle, strict_json
from model_signing.safe_files import read_bounded


def claims(path: Path) -> dict[str, Any]:
    """The claims of a signature file, without any verification.

    Returns:
        `method`, `identity`, `issuer`, `certificate_validity`, of Sigstore also
        `certificate_claims` (the names of `fulcio.Claims`), `timestamps`, `log_entries`,
        `predicate_type`, `subject`, `root_digest`, `payload_digest`, `files` (the number of
        entries), `serialization`.

    Raises:
        FileError: It cannot be read.
        BundleError: It is not a bundle around a JSON object.
        CertificateError: Its certificate cannot be read.
    """
    parsed = bundle.parse(read_bounded(path))
    statement = strict_json.loads(parsed.payload, BundleError, "the payload")
    if not isinstance(statement, dict):
        raise BundleError("the payload is not an in-toto statement", where=str(path))
    predicate, subjects = statement.get("predicate"), statement.get("subject")
    predicate = predicate if isinstance(predicate, dict) else {}
    subjects = subjects if isinstance(subjects, list) else []
    subjects = [subject for subject in subjects if isinstance(subject, dict)]
    names = [str(subject.get("name")) for subject in subjects]
    roots = re.findall(r'"sha256": "([0-9a-f]{64})"', json.dumps(subjects))
    resources = predicate.get("resources")
    return {
        **signer(parsed),
        **_certified(parsed),
        "timestamps": [_time(stamp) for stamp in parsed.timestamps],
        "log_entries": [str(entry.get("logIndex")) for entry in parsed.log_entries],
        "predicate_type": str(statement.get("predicateType")),
        "subject": names[:10],
        "root_digest": roots[0] if len(roots) == 1 else None,
        "payload_digest": sha256(parsed.payload).hexdigest(),
        "files": len(resources) if isinstance(resources, list) else len(names),
        "serialization": predicate.get("serialization"),
    }


def signer(parsed: bundle.Bundle) -> dict[str, Any]:
    """Whom a bundle claims to be from: `method`, `identity`, `issuer`, `certificate_validity`.

    Raises:
        CertificateError: Its certificate cannot be read.
    """
    if parsed.method == "key":
        from model_signing.methods import dsse, keys

        hint = parsed.key_hint
        identity = hint and keys.hinted(hint, parsed.signature, dsse.signed(parsed))
        return {"method": "key", "identity": identity, "issuer": None}
    from model_signing.methods import fulcio, x509  # X.509 takes time to import

    leaf = x509.parse(parsed.certificates[0])
    identity, issuer = x509.holder(leaf), leaf.issuer.rfc4514_string()
    if parsed.method == "sigstore":
        claimed = fulcio.certificate_claims(parsed.certificates[0])
        identity, issuer = claimed.identity, claimed.issuer
    validity = [leaf.not_valid_before_utc.isoformat(), leaf.not_valid_after_utc.isoformat()]
    who = {"method": parsed.method, "identity": identity, "issuer": issuer}
    return {**who, "certificate_validity": validity}


def _certified(parsed: bundle.Bundle) -> dict[str, Any]:
    """Everything that a Fulcio certificate says of its holder."""
    if parsed.method != "sigstore":
        return {}
    from model_signing.methods import fulcio

    claimed = asdict(fulcio.certificate_claims(parsed.certificates[0]))
    stated = {name: value for name, value in claimed.items() if value is not None}
    return {"certificate_claims": stated}


def _time(stamp: bytes) -> str:
    from rfc3161_client import decode_timestamp_response

    try:
        return decode_timestamp_response(stamp).tst_info.gen_time.isoformat()
    except ValueError:
        return "malformed"
