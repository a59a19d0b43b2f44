"""The package's names: one list, which types, `dir` and attribute access all follow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import model_signing
from model_signing.cli import main

EXPORTED = (
    "Authenticated Compared Error HashOptions Manifest Serialization Signed Signer SigstoreSigning "
    "SigstoreTrust Verified Verifier certificate_signer certificate_verifier compare_listed digest "
    "digest_signer key_signer key_verifier pkcs11_certificate_signer pkcs11_key_signer sign "
    "sigstore_signer sigstore_verifier verify"
)


def test_the_names_promised_are_the_names_there() -> None:
    assert model_signing.__all__ == dir(model_signing)
    assert " ".join(model_signing.__all__) == EXPORTED
    for name in EXPORTED.split():
        assert getattr(model_signing, name) is not None


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(model_signing.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname  # what is exported again, to a type checker
    }
    assert typed == {name: f"model_signing.{home}" for name, home in model_signing._HOME.items()}


def test_the_version_is_that_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"model_signing {model_signing.__version__}\n"


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"'model_signing' has no attribute 'signers'"):
        _ = model_signing.signers
