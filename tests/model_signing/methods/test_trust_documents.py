"""Trust configurations as people have them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_signing.errors import Error, FileError, SignatureError, SigningError
from model_signing.methods.sigstore import (
    SigstoreSigning,
    authenticate_sigstore,
    sigstore_signer,
)
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from tests.support import stock
from tests.support.material import statement

Json = dict[str, Any]


@pytest.fixture(scope="module")
def good(sigstore: LocalSigstore) -> bytes:
    return stock.sign(sigstore, payload=statement()).to_json().encode()


@pytest.fixture
def instance() -> Iterator[LocalSigstore]:
    with LocalSigstore() as running:
        yield running


def verified(data: bytes, content: str | bytes, folder: Path) -> bytes:
    path = folder / "trust"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return authenticate_sigstore(data, SigstoreTrust(path)).payload


def refused(data: bytes, content: str | bytes, folder: Path) -> Error:
    with pytest.raises(FileError) as refusal:
        verified(data, content, folder)
    assert str(folder / "trust") in str(refusal.value)
    assert "internal" not in str(refusal.value)
    assert "validation error" not in str(refusal.value)
    return refusal.value


class TestVerifying:
    def test_a_bare_trusted_root(
        self, good: bytes, sigstore: LocalSigstore, tmp_path: Path
    ) -> None:
        for indent in (None, 2):
            content = json.dumps(sigstore.trusted_root(), indent=indent)
            assert verified(good, content, tmp_path) == statement()

    def test_json_lines_of_trusted_roots(
        self, good: bytes, sigstore: LocalSigstore, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        lines = [json.dumps(one.trusted_root()) for one in (sigstore, instance)]
        theirs = stock.sign(instance, payload=statement()).to_json().encode()
        for order in (lines, lines[::-1]):
            for end in ("", "\n", "\n\n"):
                content = "\n".join(order) + end
                assert verified(good, content, tmp_path) == statement()
                assert verified(theirs, content, tmp_path) == statement()

    def test_the_roots_of_two_lines_are_not_mixed(
        self, good: bytes, sigstore: LocalSigstore, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        one, other = sigstore.trusted_root(), instance.trusted_root()
        one["tlogs"], other["tlogs"] = other["tlogs"], one["tlogs"]
        with pytest.raises(SignatureError):
            verified(good, "\n".join(map(json.dumps, (one, other))), tmp_path)

    def test_the_path_may_be_text(self, good: bytes, trust_config: Path) -> None:
        found = authenticate_sigstore(good, SigstoreTrust(str(trust_config)))
        assert found.payload == statement()

    def test_services_do_not_matter(
        self, good: bytes, sigstore: LocalSigstore, tmp_path: Path
    ) -> None:
        config = sigstore.trust_config()
        for services in ({"mediaType": "application/vnd.dev.sigstore.signingconfig.v9+json"}, None):
            config["signingConfig"] = services
            assert verified(good, json.dumps(config), tmp_path) == statement()

    def test_an_unknown_version_is_named(
        self, good: bytes, sigstore: LocalSigstore, tmp_path: Path
    ) -> None:
        config = sigstore.trust_config()
        root = {**config["trustedRoot"], "mediaType": "application/vnd.dev.sigstore.trustedroot.v9"}
        later = "application/vnd.dev.sigstore.clienttrustconfig.v0.9+json"
        for content, version in (
            (root, "v9"),
            ({**config, "trustedRoot": root}, "v9"),
            ({**config, "mediaType": later}, "v0.9"),
        ):
            refusal = refused(good, json.dumps(content), tmp_path)
            assert "unknown version" in refusal.message
            assert version in (refusal.found or "")

    def test_an_unknown_field_is_named_in_a_warning(
        self,
        good: bytes,
        sigstore: LocalSigstore,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        config = sigstore.trust_config()
        root = config["trustedRoot"]
        root["newThing"] = {"a": 1}
        root["tlogs"][0]["publicKey"]["shade"] = "blue"
        for number, content in enumerate((config, root)):
            caplog.clear()
            folder = tmp_path / str(number)  # it is said once of each file
            folder.mkdir()
            with caplog.at_level(logging.WARNING):
                assert verified(good, json.dumps(content), folder) == statement()
            for name in ("newThing", "tlogs.0.publicKey.shade"):
                assert name in caplog.text

    @pytest.mark.parametrize(
        "change",
        [
            lambda root: root["tlogs"][0].pop("publicKey"),
            lambda root: root["certificateAuthorities"][0]["validFor"].pop("start"),
            lambda root: root["ctlogs"][0]["publicKey"]["validFor"].update(
                start="2020-01-01T00:00:00"
            ),
            lambda root: root["ctlogs"][0]["publicKey"]["validFor"].update(start="yesterday"),
            lambda root: root["tlogs"][0].update(hashAlgorithm="SHA2_512"),
            lambda root: root["ctlogs"][0].update(hashAlgorithm="SHA3_256"),
            lambda root: root.update(tlogs="none"),
            lambda root: root.update(tlogs=[[]]),
            lambda root: root.update(mediaType=7),
        ],
    )
    def test_what_is_malformed(
        self,
        change: Callable[[Json], object],
        good: bytes,
        sigstore: LocalSigstore,
        tmp_path: Path,
    ) -> None:
        root = sigstore.trusted_root()
        change(root)
        refused(good, json.dumps(root), tmp_path)

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"[]", b"null", b"\xff", b"{}\n{}", b'{"a":1,"a":2}', b"{" * 9999]
    )
    def test_what_is_none(self, content: bytes, good: bytes, tmp_path: Path) -> None:
        refused(good, content, tmp_path)


class TestSigning:
    """What is wrong shows before anything is hashed or sent."""

    @staticmethod
    def refusal(instance: LocalSigstore, folder: Path, change: Callable[[Json], object]) -> Error:
        config = instance.trust_config()
        change(config)
        path = folder / "config.json"
        path.write_text(json.dumps(config))
        token = instance.oidc.token()
        with pytest.raises((SigningError, FileError)) as refusal:
            sigstore_signer(SigstoreSigning(path, identity_token=token))  # nothing is signed yet
        assert instance.requests == []
        return refusal.value

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("caUrls", "certificate authority"),
            ("rekorTlogUrls", "transparency log"),
            ("tsaUrls", "timestamp authority"),
        ],
    )
    def test_a_service_that_is_not_there(
        self, kind: str, name: str, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        def absent(config: Json) -> None:
            config["signingConfig"].pop(kind)

        def ended(config: Json) -> None:
            valid = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
            config["signingConfig"][kind][0]["validFor"] = valid

        def newer(config: Json) -> None:
            config["signingConfig"][kind][0]["majorApiVersion"] = 9

        for change, words in ((absent, ""), (ended, "valid now"), (newer, "known version")):
            refusal = self.refusal(instance, tmp_path, change)
            assert f"has no {name}" in refusal.message
            assert words in refusal.message
            assert kind in (refusal.where or "")

    @pytest.mark.parametrize(("kind", "name"), [("rekorTlog", "log"), ("tsa", "authority")])
    def test_a_selector_that_cannot_be_met(
        self, kind: str, name: str, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        def two(config: Json) -> None:
            config["signingConfig"][f"{kind}Config"] = {"selector": "EXACT", "count": 2}

        refusal = self.refusal(instance, tmp_path, two)
        assert "cannot be met" in refusal.message
        assert name in refusal.message
        assert f"{kind}Config" in (refusal.where or "")
        assert refusal.expected == "EXACT: 2"

        def unknown(config: Json) -> None:
            config["signingConfig"][f"{kind}Config"] = {"selector": "SOME"}

        assert f"{kind}Config" in (self.refusal(instance, tmp_path, unknown).where or "")

    def test_a_trusted_root_is_not_for_signing(
        self, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        def bare(config: Json) -> None:
            root = config.pop("trustedRoot")
            config.clear()
            config.update(root)

        refusal = self.refusal(instance, tmp_path, bare)
        assert "signingConfig" in (refusal.expected or "")

    def test_an_unknown_version_is_named(self, instance: LocalSigstore, tmp_path: Path) -> None:
        def newer(config: Json) -> None:
            kind = "application/vnd.dev.sigstore.signingconfig.v0.9+json"
            config["signingConfig"]["mediaType"] = kind

        refusal = self.refusal(instance, tmp_path, newer)
        assert "signing config of an unknown version" in refusal.message
        assert "v0.9" in (refusal.found or "")

    def test_addresses_may_end_with_a_slash(self, instance: LocalSigstore, tmp_path: Path) -> None:
        config = instance.trust_config()
        for kind in ("caUrls", "rekorTlogUrls", "tsaUrls", "oidcUrls"):
            config["signingConfig"][kind][0]["url"] += "/"
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        token = instance.oidc.token()
        assert sigstore_signer(SigstoreSigning(path, identity_token=token))(statement())


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_keyless_bundle_of_an_older_version(
    version: str, good: bytes, trust_config: Path
) -> None:
    document = json.loads(good)
    document["mediaType"] = f"application/vnd.dev.sigstore.bundle+json;version=0.{version}"
    material = document["verificationMaterial"]
    material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    found = authenticate_sigstore(json.dumps(document).encode(), SigstoreTrust(trust_config))
    assert (found.method, found.payload) == ("sigstore", statement())
