"""What a verdict rests on, so that it can be read a year later: one list, for all reports."""

from __future__ import annotations

from slsa_for_models.verdict.expectations import Expectations, shown
from slsa_for_models.verdict.result import Verdict


def basis(verdict: Verdict) -> dict[str, object]:
    """What it rests on, by name; lists and mappings of texts within.

    Args:
        verdict: Of a model; of its base models nothing is repeated here.
    """
    expected = verdict.expected
    return {
        "trustRoot": verdict.trust_root,
        "verifier": f"model-transparency {_version()}",
        "policySha256": expected.policy_sha256 or "",
        "expectations": expectations(expected),
        "signed": _signed(verdict),
        "evidence": [{"name": name, "sha256": digest} for name, digest in verdict.evidence],
        "files": dict(verdict.model.files),
    }


def expectations(expected: Expectations) -> dict[str, str]:
    """Every expectation that was applied, also by default; what was not expected is left out."""
    return {name: shown(value) for name, value in expected.applied().items()}


def _signed(verdict: Verdict) -> list[dict[str, str]]:
    """When each accepted piece was signed, by whose clock; "" where only the signer could say."""
    pieces = [verdict.signer] if verdict.signer else []
    pieces += [item.signed for item in verdict.accepted]
    return [
        {
            "name": piece.label,
            "by": piece.authenticated.identity or "",
            "at": when.isoformat() if (when := piece.authenticated.signed_at) else "",
            "clock": piece.authenticated.time_source or "",
        }
        for piece in pieces
    ]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # not what every command needs

    try:
        return version("model-transparency")
    except PackageNotFoundError:
        return "not installed"
