"""Fulcio's extensions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from cryptography import x509

from model_signing.errors import CertificateError
from model_signing.methods import fulcio
from model_signing.methods.fulcio import certificate_claims
from model_signing.methods.sigstore import authenticate_sigstore
from model_signing.methods.sigstore_trust import SigstoreTrust
from tests.support.material import certify, der, shared

GITHUB = "https://token.actions.githubusercontent.com"


def test_those_of_a_real_workflow() -> None:
    path = shared("slsa", "binary-linux-amd64-push-v14.2.intoto.jsonl")
    found = authenticate_sigstore(path.read_bytes(), SigstoreTrust(offline=True))
    claims = certificate_claims(found.certificate or b"")
    builder = "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/"
    assert claims.identity == f"{builder}generator_generic_slsa3.yml@refs/tags/v2.1.0"
    assert claims.build_signer_uri == claims.identity
    assert claims.issuer == GITHUB
    assert claims.source_repository_uri == "https://github.com/slsa-framework/example-package"
    assert claims.source_repository_ref == "refs/tags/v14.2"
    assert claims.runner_environment == "github-hosted"
    assert claims.build_trigger == "push"
    absent = {name for name, value in asdict(claims).items() if value is None}
    assert absent <= {"deployment_environment", "token_subject"}  # Fulcio has them since 2026


def with_extensions(*values: tuple[str, bytes], names: int = 1) -> bytes:
    san = [x509.RFC822Name(f"{n}@example.test") for n in range(names)]
    extensions: list[Any] = [x509.SubjectAlternativeName(san)] if names else []
    extensions += [
        x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{n}"), value)
        for n, value in values
    ]
    return der(certify("x", None, extensions).certificate)


def test_the_old_issuer_extension() -> None:
    claims = certificate_claims(with_extensions(("1", b"https://issuer")))
    assert claims.issuer == "https://issuer"
    both = with_extensions(("1", b"https://issuer"), ("8", b"\x0c\x02no"))
    with pytest.raises(CertificateError, match="one issuer"):
        certificate_claims(both)


def test_what_is_no_fulcio_certificate() -> None:
    good = ("8", b"\x0c\x02ok")
    long = b"\x0c\x81\xc8" + b"x" * 200
    assert certificate_claims(with_extensions(("8", long))).issuer == "x" * 200
    longer = b"\x0c\x82\x01\x00" + "é".encode() * 128
    assert certificate_claims(with_extensions(("8", longer))).issuer == "é" * 128
    for data, words in (
        (b"junk", "malformed"),
        (with_extensions(good, names=0), "one identity"),
        (with_extensions(good, names=2), "one identity"),
        (with_extensions(), "one issuer"),
        (with_extensions(("8", b"ok")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x03ok")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x01ok")), "UTF8String"),
        (with_extensions(("8", b"\x13\x02ok")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x02\xff\xfe")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x80ok\0\0")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x81\x02ok")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x82\x00\x02ok")), "UTF8String"),
        (with_extensions(("8", b"\x2c\x02ok")), "UTF8String"),
        (with_extensions(("8", b"\x0c\x02ok\0")), "UTF8String"),
        (with_extensions(("8", b"")), "UTF8String"),
        (with_extensions(good, ("12", b"junk")), "UTF8String"),
    ):
        with pytest.raises(CertificateError, match=words):
            certificate_claims(data)


def test_repositories() -> None:
    assert fulcio.repository_uri("a/b") == "https://github.com/a/b"
