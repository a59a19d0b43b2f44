"""What a bundle says about itself. Nothing here is verified: anybody can write such a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from typing import Any, overload

from model_signing.errors import BundleError
from model_signing.oms import bundle
from model_signing.oms.statement import Resources, read_listed
from model_signing.sources import signatures
from model_signing.sources.signatures import Where


def claims(path: Where) -> dict[str, Any]:
    """The claims of a signature file, here or at an address, without any verification.

    Returns:
        `method`, `identity`, `issuer`, `certificate_validity`, of Sigstore also
        `certificate_claims` (the names of `fulcio.Claims`), `signed_at` (the earliest time that
        some clock claims), `timestamps`, `log_entries` (indices), `predicate_type`, `subject`,
        `root_digest`, `payload_digest`, `files` (the number of entries), `serialization`,
        `resources` (the entries: `name`, `digest`, `algorithm`, of a shard also `size` in bytes).

    Raises:
        FileError: It cannot be read.
        BundleError: It is not a bundle around a JSON object.
        CertificateError: Its certificate cannot be read.
    """
    try:
        parsed = bundle.parse(signatures.read(path))
        statement, listed = read_listed(parsed.payload, BundleError, "the payload")
    except BundleError as error:
        error.where = error.where or str(path)
        raise
    if not isinstance(statement, dict):
        raise BundleError("the payload is not an in-toto statement", where=str(path))
    predicate, subjects = statement.get("predicate"), statement.get("subject")
    predicate = predicate if isinstance(predicate, dict) else {}
    subjects = subjects if isinstance(subjects, list) else []
    subjects = [subject for subject in subjects if isinstance(subject, dict)]
    names = [str(subject.get("name")) for subject in subjects]
    roots = re.findall(r'"sha256": "([0-9a-f]{64})"', json.dumps(subjects))
    if listed.malformed is not None:
        where = f"predicate.resources[{listed.malformed[0]}]"
        raise BundleError("an entry of the manifest is malformed", where=where)
    resources: Sequence[dict[str, Any]] = _Listed(listed)
    if not isinstance(predicate.get("resources"), list):
        resources = list(map(_resource, subjects))
    stamps = [_time(stamp) for stamp in parsed.timestamps]
    return {
        **signer(parsed),
        **_certified(parsed),
        "signed_at": min(
            [*_logged(parsed), *(one for one in stamps if one != "malformed")], default=None
        ),
        "timestamps": stamps,
        "log_entries": [str(entry.get("logIndex")) for entry in parsed.log_entries],
        "predicate_type": str(statement.get("predicateType")),
        "subject": names[:10],
        "root_digest": roots[0] if len(roots) == 1 else None,
        "payload_digest": sha256(parsed.payload).hexdigest(),
        "files": len(resources),
        "serialization": predicate.get("serialization"),
        "resources": resources,
    }


class _Listed(Sequence[dict[str, Any]]):
    """The entries of a manifest: a million dictionaries would take 400 MB."""

    def __init__(self, listed: Resources) -> None:
        self._listed = listed

    def __len__(self) -> int:
        return len(self._listed)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """One entry, or some."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return _resource(self._listed[index])


def _resource(claimed: dict[str, Any]) -> dict[str, Any]:
    """An entry of the manifest; or of a statement by v0.2.0, which has the files as subjects."""
    digest, algorithm = claimed.get("digest"), claimed.get("algorithm")
    if isinstance(digest, dict):
        algorithm, digest = "sha256", digest.get("sha256")
    name = str(claimed.get("name"))
    found: dict[str, Any] = {"name": name, "digest": str(digest), "algorithm": str(algorithm)}
    if shard := re.fullmatch(r"(?s).+:([0-9]{1,19}):([0-9]{1,19})", name):
        found["size"] = int(shard[2]) - int(shard[1])
    return found


def _logged(parsed: bundle.Bundle) -> Iterator[str]:
    """When logs say that they had it; newer ones leave the time to timestamp authorities."""
    from datetime import datetime, timezone  # takes time to import: not to sign with a key

    for entry in parsed.log_entries:
        with suppress(ValueError, TypeError, OverflowError, OSError):
            seconds = int(entry.get("integratedTime") or 0)
            if seconds > 0:
                yield datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def signer(parsed: bundle.Bundle) -> dict[str, Any]:
    """Whom a bundle claims to be from: `method`, `identity`, `issuer`, `certificate_validity`.

    Raises:
        CertificateError: Its certificate cannot be read.
    """
    if parsed.method == "key":
        from model_signing.methods import keys

        hint = parsed.key_hint
        identity = hint and keys.hinted(hint, parsed.signature, parsed.payload)
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
    from model_signing.methods import timestamps

    try:
        return timestamps.decode(stamp).tst_info.gen_time.isoformat()
    except ValueError:
        return "malformed"
