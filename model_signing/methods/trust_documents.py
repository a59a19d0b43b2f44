"""A trust configuration as people have it: read strictly, without knowing what to trust yet.

Taken are a client trust configuration, a bare trusted root as cosign writes it, and JSON lines of
trusted roots as `gh attestation trusted-root` does (sigstore protobuf-specs: ClientTrustConfig,
TrustedRoot, SigningConfig).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NoReturn

from model_signing.errors import FileError, SigningError
from model_signing.oms import strict_json

_PREFIX = "application/vnd.dev.sigstore."
CONFIG = f"{_PREFIX}clienttrustconfig.v0.1+json"
ROOT = f"{_PREFIX}trustedroot+json;version=0.1"
SERVICES = f"{_PREFIX}signingconfig.v0.2+json"
_NAMES = {CONFIG: "client trust configuration", ROOT: "trusted root", SERVICES: "signing config"}
_MAX_ROOTS = 16

# Kind of service -> its name, what selects, the versions that are known.
_SERVICES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "caUrls": ("certificate authority", "", (1,)),
    "rekorTlogUrls": ("transparency log", "rekorTlogConfig", (1, 2)),
    "tsaUrls": ("timestamp authority", "tsaConfig", (1,)),
}
_AUTHORITIES = {
    "certificateAuthorities": "certificate authority",
    "ctlogs": "certificate log",
    "tlogs": "transparency log",
    "timestampAuthorities": "timestamp authority",
}
_UNVERIFIABLE = "without one nobody could verify what is signed: add it"


@dataclass(frozen=True)
class Documents:
    """The trusted roots, each to be tried alone, and the services that sign, if they are named."""

    roots: tuple[dict[str, Any], ...]
    services: dict[str, Any] | None = None


def parse(data: bytes, where: str) -> Documents:
    """Reads a trust configuration; `where` names it in messages.

    A `FileError` if it is none, or of a version that is not known.
    """
    documents = [_object(text, where) for text in _texts(data)]
    if len(documents) == 1 and "trustedRoot" in documents[0]:
        (config,) = documents
        _require_version(config, CONFIG, where)
        root, services = config["trustedRoot"], config.get("signingConfig")
        _require_version(root, ROOT, f"{where}: trustedRoot")
        if services is not None and not isinstance(services, dict):
            _refuse(f"{where}: signingConfig", "a JSON object")
        return Documents((root,), services)
    if not 1 <= len(documents) <= _MAX_ROOTS:
        _refuse(where, f"one trust configuration, or 1 to {_MAX_ROOTS} trusted roots, a line each")
    for document in documents:
        _require_version(document, ROOT, where)
    return Documents(tuple(documents))


def require_services(found: Documents, where: str) -> dict[str, Any]:
    """What signs, its addresses as clients want them: without a slash at their end.

    A `SigningError` if a service is missing that a signature needs, or a selector cannot be met; a
    `FileError` for services of an unknown version. No service is asked.
    """
    services = found.services
    if services is None:
        raise SigningError(
            "the trust configuration does not say which services sign",
            where=where,
            expected="a client trust configuration, with signingConfig",
            found="a trusted root, which is for verifying",
        )
    _require_version(services, SERVICES, f"{where}: signingConfig")
    now = datetime.now(timezone.utc)
    made: dict[str, Any] = dict(services)
    for kind in (*_SERVICES, "oidcUrls"):
        listed = services.get(kind) or []
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            _refuse(f"{where}: signingConfig.{kind}", "a list of services")
        made[kind] = [{**one, "url": str(one.get("url")).rstrip("/")} for one in listed]
    # Rekor v1 tells the time itself.
    stamped = made["tsaUrls"] or _usable(made["rekorTlogUrls"], (2,), now)
    for kind, (name, selector, versions) in _SERVICES.items():
        usable = _usable(made[kind], versions, now)
        _require_selected(services.get(selector), len(usable), name, f"{where}: {selector}")
        if not usable and (stamped or kind != "tsaUrls"):
            known = " of a known version that is valid now" if made[kind] else ""
            place = f"{where}: signingConfig.{kind}"
            words = f"the trust configuration has no {name}{known}"
            raise SigningError(words, where=place, fix=_UNVERIFIABLE)
    for field, name in _AUTHORITIES.items():
        if not found.roots[0].get(field) and (stamped or field != "timestampAuthorities"):
            words = f"the trust configuration has no {name}"
            place = f"{where}: trustedRoot.{field}"
            raise SigningError(words, where=place, fix=_UNVERIFIABLE)
    return made


def _require_selected(config: Any, usable: int, name: str, where: str) -> None:  # noqa: ANN401
    """One service of a kind is asked (sigstore-python): more cannot be promised."""
    if config is None:
        return
    selector = str(config.get("selector")) if isinstance(config, dict) else ""
    count = config.get("count") or 1 if isinstance(config, dict) else 1
    wanted = {"ANY": 1, "ALL": max(usable, 1), "EXACT": count}.get(selector)
    if not isinstance(wanted, int):
        _refuse(where, "a selector of ALL, ANY and EXACT, with a count")
    # A bundle has one entry of one log, and as many timestamps as one likes.
    possible = min(usable, 1) if name == "transparency log" else usable
    if wanted > max(possible, 1) or (wanted > possible and usable):
        raise SigningError(
            f"the selector of a {name} cannot be met",
            where=where,
            expected=f"{selector}: {wanted}",
            found=f"{usable} that are known and valid now, of which {possible} can be used",
            fix="use the selector ANY, or complete the list",
        )


def _usable(services: list[dict[str, Any]], versions: tuple[int, ...], now: datetime) -> list[str]:
    """The operators with a service of a known version that is valid now."""
    operators = [
        str(one.get("operator"))
        for one in services
        if one.get("majorApiVersion") in versions and _is_valid(one.get("validFor"), now)
    ]
    return list(dict.fromkeys(operators))


def _is_valid(window: object, now: datetime) -> bool:
    if not isinstance(window, dict):
        return True
    start, end = (_time(window.get(name)) for name in ("start", "end"))
    return (start is None or start <= now) and (end is None or now <= end)


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:  # the models of sigstore-python say what is wrong
        return None
    return time if time.tzinfo else None


def _texts(data: bytes) -> list[bytes]:
    """The JSON texts: one, or one a line."""
    lines = [line for line in data.splitlines() if line.strip()]
    objects = [line.strip().startswith(b"{") and line.strip().endswith(b"}") for line in lines]
    return lines if len(lines) > 1 and all(objects) else [data]


def _object(text: bytes, where: str) -> dict[str, Any]:
    document = strict_json.loads(text, FileError, f"the trust configuration {where}")
    if not isinstance(document, dict):
        _refuse(where, "a JSON object")
    return document


def _require_version(document: object, known: str, where: str) -> None:
    found = document.get("mediaType") if isinstance(document, dict) else None
    if found == known:
        return
    name = _NAMES[known]
    family = known.partition("+")[0].partition(".v0")[0]
    if isinstance(found, str) and found.startswith(family):
        raise FileError(
            f"a {name} of an unknown version",
            where=f"{where}, mediaType",
            expected=known,
            found=found[:200],
            fix="use a newer version of this program, or that format",
        )
    raise FileError(
        "not a Sigstore client trust configuration, or a part of it is of another kind",
        where=f"{where}, mediaType",
        expected=known,
        found="nothing" if found is None else str(found)[:200],
    )


def _refuse(where: str, expected: str) -> NoReturn:
    raise FileError("not a Sigstore client trust configuration", where=where, expected=expected)
