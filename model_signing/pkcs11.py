"""Keys on a PKCS#11 token, named by a URI (RFC 7512)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from model_signing import keys
from model_signing.errors import DependencyError, FileError, SigningError, UsageError

_PATH_ATTRIBUTES = ("token", "manufacturer", "model", "serial", "slot-id", "object", "id", "type")
_QUERY_ATTRIBUTES = ("pin-value", "pin-source", "module-path", "module-name")
_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")
_MODULE_FOLDERS = tuple(
    folder + machine + kind
    for folder in _FOLDERS
    for machine in ("", "/x86_64-linux-gnu", "/aarch64-linux-gnu")
    for kind in ("", "/pkcs11", "/softhsm")
)


@dataclass(frozen=True)
class Token:
    """A private key behind a session: `sign` takes a digest and returns a DER signature."""

    sign: Callable[[bytes], bytes]
    public_key: Callable[[], ec.EllipticCurvePublicKey]


def parse_uri(uri: str) -> dict[str, bytes]:
    """The attributes of `pkcs11:path;path?query&query`, percent-decoded (RFC 7512 2.3).

    Raises:
        UsageError: Another scheme, an unknown or repeated attribute, both kinds of PIN, or
            neither `object` nor `id`.
    """
    scheme, colon, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    if scheme != "pkcs11" or not colon:
        raise UsageError("not a PKCS #11 URI", expected="pkcs11:…", found=scheme)
    attributes: dict[str, bytes] = {}
    for known, pairs in (
        (_PATH_ATTRIBUTES, path.split(";")),
        (_QUERY_ATTRIBUTES, query.split("&")),
    ):
        for pair in filter(None, pairs):
            name, _, value = pair.partition("=")
            if name not in known or name in attributes:
                raise UsageError(
                    "an attribute of the PKCS #11 URI is unknown or repeated",
                    expected=", ".join(known),
                    found=name,
                )
            attributes[name] = unquote_to_bytes(value)
    if "pin-value" in attributes and "pin-source" in attributes:  # RFC 7512 2.4
        raise UsageError("the PKCS #11 URI has both pin-value and pin-source")
    if not {"object", "id"} & attributes.keys() or attributes.get("type", b"private") != b"private":
        raise UsageError("the PKCS #11 URI must name a private key", expected="object=… or id=…")
    return attributes


def open_key(uri: str, pin: str | None) -> Token:
    """Logs in to the token and finds the private key.

    Args:
        uri: RFC 7512; its PIN goes before `pin`.
        pin: The user's PIN, for a URI without one.

    Raises:
        UsageError, DependencyError, FileError, SigningError: The URI, python-pkcs11, the module or
            PIN file, the token or key.
    """
    attributes = parse_uri(uri)
    try:
        import pkcs11
    except ImportError as error:
        raise DependencyError(
            "PKCS #11 needs the package python-pkcs11",
            found=str(error),
            fix="pip install 'model-transparency[pkcs11]'",
        ) from None
    module = _module(attributes)
    criteria: dict[str, Any] = {}
    if "object" in attributes:
        criteria["label"] = attributes["object"].decode(errors="replace")
    if "id" in attributes:
        criteria["id"] = attributes["id"]
    try:
        token = _token(pkcs11.lib(module), attributes)
        try:
            session = token.open(user_pin=_pin(attributes, pin))
        except pkcs11.UserAlreadyLoggedIn:  # in this process, by another signer
            session = token.open()
        private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, **criteria)
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise _failure(error, module) from None

    def sign(digest: bytes) -> bytes:
        try:
            raw = private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        except pkcs11.PKCS11Error as error:
            raise _failure(error, module) from None
        r, s = raw[: len(raw) // 2], raw[len(raw) // 2 :]
        return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))

    def public_key() -> ec.EllipticCurvePublicKey:
        try:
            public = session.get_key(pkcs11.ObjectClass.PUBLIC_KEY, **criteria)
        except pkcs11.PKCS11Error as error:
            raise _failure(error, module) from None
        der = pkcs11.util.ec.encode_ec_public_key(public)
        return keys.supported(serialization.load_der_public_key(der))

    return Token(sign, public_key)


def _failure(error: Exception, module: str) -> SigningError:
    """python-pkcs11's errors often have a name and no text."""
    text = f"{type(error).__name__} {error}".strip()
    return SigningError("the PKCS #11 token refused", where=module, found=text)


def _module(attributes: dict[str, bytes]) -> str:
    """RFC 7512 2.3: `module-path` is a library, or a folder where `module-name` is."""
    path, name = (attributes.get(key, b"").decode() for key in ("module-path", "module-name"))
    if path and not Path(path).is_dir():
        candidates = [Path(path)]
    elif name and "/" not in name:
        folders = (path,) if path else _MODULE_FOLDERS
        names = (f"lib{name}.so", f"{name}.so", f"lib{name}.dylib")
        candidates = [Path(folder) / file for folder in folders for file in names]
    else:
        raise UsageError("the PKCS #11 URI names no module", expected="module-path or module-name")
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    raise DependencyError(
        "the PKCS #11 module is not installed",
        found=f"no {path or name}",
        fix="install the token's module, or name it with module-path=/…/module.so",
    )


def _token(library: Any, attributes: dict[str, bytes]) -> Any:  # noqa: ANN401 - untyped library
    """The one token that has every attribute of the URI."""
    from pkcs11 import TokenFlag

    found = []
    for slot in library.get_slots(token_present=True):
        token = slot.get_token()
        has = {
            "token": token.label.encode(),
            "manufacturer": token.manufacturer_id.encode(),
            "model": token.model.encode(),
            "serial": token.serial,
            "slot-id": b"%d" % slot.slot_id,
        }
        same = all(attributes.get(name, value) == value for name, value in has.items())
        if same and TokenFlag.TOKEN_INITIALIZED in token.flags:
            found.append(token)
    if len(found) != 1:
        raise SigningError(
            "the PKCS #11 URI must match one token", expected="1", found=str(len(found))
        )
    return found[0]


def _pin(attributes: dict[str, bytes], pin: str | None) -> str | None:
    """RFC 7512 2.4: `pin-source` is a file's path or `file:` URI; a command is not supported."""
    if "pin-value" in attributes:
        return attributes["pin-value"].decode()
    if "pin-source" not in attributes:
        return pin
    source = attributes["pin-source"].decode().removeprefix("file://").removeprefix("file:")
    try:
        return Path(source).read_text().strip()
    except (OSError, ValueError) as error:
        raise FileError("the PIN cannot be read", where=source, found=str(error)) from None
