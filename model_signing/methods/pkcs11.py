"""OMS methods `key` and `certificate` with a key on a PKCS#11 token, named by a URI (RFC 7512)."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from model_signing.errors import DependencyError, FileError, SigningError, UsageError
from model_signing.methods import Signer, dsse, keys
from model_signing.safe_files import Pem, read_bounded

_MAX_PIN_BYTES = 4096
_PATH_NAMES = ("token", "manufacturer", "model", "serial", "slot-id", "object", "id", "type")
_QUERY_NAMES = ("pin-value", "pin-source", "module-path", "module-name")
_ROOTS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")
_MACHINES = ("", "/x86_64-linux-gnu", "/aarch64-linux-gnu")
_FOLDERS = list(map("".join, product(_ROOTS, _MACHINES, ("", "/pkcs11", "/softhsm"))))


def pkcs11_key_signer(uri: str, pin: str | None = None, timestamp_url: str | None = None) -> Signer:
    """Signs as `key_signer`, with a key on a PKCS#11 token.

    The arguments and errors besides are those of `open_key`.
    """
    sign, public_key = open_key(uri, pin)
    return dsse.signer(sign, public_key(), timestamp_url)


def pkcs11_certificate_signer(
    uri: str,
    signing_certificate: Pem,
    certificate_chain: Sequence[Pem] = (),
    pin: str | None = None,
    timestamp_url: str | None = None,
) -> Signer:
    """Signs as `certificate_signer`, with a key on a PKCS#11 token (see `pkcs11_key_signer`).

    The token needs no public key; a certificate of another key shows when the first signature
    does not verify.
    """
    from model_signing.methods import x509  # X.509 takes time to import: not for keys

    certified, ders = x509.signing_chain(signing_certificate, certificate_chain)
    return dsse.signer(open_key(uri, pin)[0], keys.supported(certified), timestamp_url, ders)


def parse_uri(uri: str) -> dict[str, bytes]:
    """The attributes of `pkcs11:path;path?query&query`, percent-decoded (RFC 7512 2.3).

    A `UsageError` for another scheme, an unknown or repeated attribute, both kinds of PIN, or
    neither `object` nor `id`.
    """
    scheme, _, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    if scheme != "pkcs11":
        raise UsageError("not a PKCS #11 URI", expected="pkcs11:…", found=scheme)
    attributes: dict[str, bytes] = {}
    for known, pairs in ((_PATH_NAMES, path.split(";")), (_QUERY_NAMES, query.split("&"))):
        for pair in filter(None, pairs):
            name, _, value = pair.partition("=")
            if name not in known or name in attributes:
                words = "an attribute of the PKCS #11 URI is unknown or repeated"
                raise UsageError(words, expected=", ".join(known), found=name)
            attributes[name] = unquote_to_bytes(value)
    if "pin-value" in attributes and "pin-source" in attributes:  # RFC 7512 2.4
        raise UsageError("the PKCS #11 URI has both pin-value and pin-source")
    if not {"object", "id"} & attributes.keys() or attributes.get("type", b"private") != b"private":
        raise UsageError("the PKCS #11 URI must name a private key", expected="object=… or id=…")
    return attributes


def open_key(
    uri: str, pin: str | None
) -> tuple[Callable[[bytes], bytes], Callable[[], ec.EllipticCurvePublicKey]]:
    """Logs in to the token and finds the private key; `pin` is for a URI (RFC 7512) without one.

    Returns functions from a digest to its DER signature, and to the public key if the token has
    it. Errors: UsageError (the URI), DependencyError (python-pkcs11, the module), FileError (the
    PIN file), SigningError (the token or key).
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
    label = attributes["object"].decode(errors="replace") if "object" in attributes else None
    criteria: dict[str, Any] = {"label": label, "id": attributes.get("id")}
    found: list[Any] = []  # tokens that have every attribute of the URI
    with _refusals(module):
        library = pkcs11.lib(module)
        for token in library.get_tokens(token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED):
            has = {
                "token": token.label.encode(),
                "manufacturer": token.manufacturer_id.encode(),
                "model": token.model.encode(),
                "serial": token.serial,
                "slot-id": b"%d" % token.slot.slot_id,
            }
            if all(attributes.get(name, value) == value for name, value in has.items()):
                found.append(token)
        if len(found) != 1:
            count = str(len(found))
            raise SigningError("the PKCS #11 URI must match one token", expected="1", found=count)
        (token,) = found
        try:
            session = token.open(user_pin=_pin(attributes, pin))
        except pkcs11.UserAlreadyLoggedIn:  # in this process, by another signer
            session = token.open()
        private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, **criteria)

    one_at_a_time = threading.Lock()  # a session has one operation (PKCS #11 v2.40, 2.6.3)

    @_refusals(module)
    def sign(digest: bytes) -> bytes:
        with one_at_a_time:
            raw = private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        return pkcs11.util.ec.encode_ecdsa_signature(raw)

    @_refusals(module)
    def public_key() -> ec.EllipticCurvePublicKey:
        public = session.get_key(pkcs11.ObjectClass.PUBLIC_KEY, **criteria)
        return keys.supported(load_der_public_key(pkcs11.util.ec.encode_ec_public_key(public)))

    return sign, public_key


@contextmanager
def _refusals(module: str) -> Iterator[None]:
    """python-pkcs11's errors are all RuntimeErrors, and often have a name and no text."""
    try:
        yield
    except RuntimeError as error:
        found = f"{type(error).__name__} {error}".strip()
        raise SigningError("the PKCS #11 token refused", where=module, found=found) from None


def _module(attributes: dict[str, bytes]) -> str:
    """RFC 7512 2.3: `module-path` is a library, or a folder where `module-name` is."""
    path, name = (os.fsdecode(attributes.get(key, b"")) for key in ("module-path", "module-name"))
    if path and not Path(path).is_dir():
        candidates = [Path(path)]
    elif name and "/" not in name:
        names = (f"lib{name}.so", f"{name}.so", f"lib{name}.dylib")
        candidates = [Path(*place) for place in product([path] if path else _FOLDERS, names)]
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


def _pin(attributes: dict[str, bytes], pin: str | None) -> str | None:
    """RFC 7512 2.4: `pin-source` is a file's path or `file:` URI; a command is not supported."""
    if "pin-value" in attributes:
        return attributes["pin-value"].decode(errors="replace")
    if "pin-source" not in attributes:
        return pin
    source = os.fsdecode(attributes["pin-source"]).removeprefix("file://").removeprefix("file:")
    try:
        return read_bounded(Path(source), _MAX_PIN_BYTES).decode().strip()
    except ValueError:
        raise FileError("the PIN is not UTF-8", where=source) from None
