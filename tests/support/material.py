"""Keys, certificates and models for the tests, made fresh; and the shared data, where it lies."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from model_signing.methods import keys
from model_signing.oms import bundle

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime.now(timezone.utc).replace(microsecond=0)
DAY = timedelta(days=1)
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def shared(*parts: str) -> Path:
    """A path in the data that others made; skips the test where it is absent."""
    base = Path(os.environ.get("MODEL_TRANSPARENCY_SHARED", ROOT.parent / "shared"))
    path = base.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(f"not tested: {'/'.join(parts)} is not on this machine")
    return path


def new_key(curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve])


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Holder:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


CODE_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
TLS_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
CA = x509.BasicConstraints(ca=True, path_length=None)
NOT_CA = x509.BasicConstraints(ca=False, path_length=None)


def key_usage(*uses: str) -> x509.KeyUsage:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    names += ["key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: name in uses for name in names})


def certify(
    name: str,
    issuer: Holder | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
    start: datetime = NOW - DAY,
    end: datetime = NOW + 365 * DAY,
    key: Any = None,
) -> Holder:
    """A certificate of `name`, self-signed without an issuer."""
    key = key or new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints))
    signer = issuer.key if issuer else key
    return Holder(key, builder.sign(signer, hashes.SHA256()))


def authority(name: str = "root", issuer: Holder | None = None, **options: Any) -> Holder:
    return certify(name, issuer, [CA, key_usage("key_cert_sign")], **options)


def leaf(issuer: Holder, **options: Any) -> Holder:
    extensions = options.pop("extensions", [NOT_CA, key_usage("digital_signature"), CODE_SIGNING])
    return certify(options.pop("name", "signer"), issuer, extensions, **options)


def statement(name: str = "model") -> bytes:
    """An in-toto statement of some kind; what it says is no matter to signatures."""
    digest = "cd372fb85148700fa88095e3492d3f9f5beb43e555e5ff26d95f5a6adc36f8e6"
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": digest}}],
            "predicateType": "https://example.test/predicate/v1",
            "predicate": {},
        }
    ).encode()


def sign_raw(key: ec.EllipticCurvePrivateKey, payload: bytes) -> bytes:
    """A DSSE signature made without the package's signers."""
    kind = "application/vnd.in-toto+json"
    encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    algorithm = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.key_size]
    return key.sign(encoded, ec.ECDSA(algorithm))


def certificate_bundle(
    signer: Holder, others: Sequence[x509.Certificate] = (), timestamps: Sequence[bytes] = ()
) -> bytes:
    """A validly signed bundle of method `certificate`, whatever the certificate is worth."""
    payload = statement()
    return bundle.encode(
        payload,
        sign_raw(signer.key, payload),
        certificates=[der(signer.certificate), *map(der, others)],
        timestamps=timestamps,
    )


def key_bundle(key: ec.EllipticCurvePrivateKey, payload: bytes | None = None) -> bytes:
    payload = statement() if payload is None else payload
    hint = keys.fingerprints(key.public_key())[0]
    return bundle.encode(payload, sign_raw(key, payload), key_hint=hint)


def edited(data: bytes, *path: str | int, to: Any) -> bytes:
    """A bundle with one field of its JSON replaced; `...` removes it."""
    document = json.loads(data)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(document).encode()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def make_model(folder: Path) -> Path:
    model = folder / "model"
    (model / "weights").mkdir(parents=True)
    (model / "config.json").write_text('{"layers": 2}')
    (model / "weights" / "0.bin").write_bytes(bytes(range(256)) * 8)
    return model
