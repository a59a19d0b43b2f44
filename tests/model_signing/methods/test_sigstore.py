"""Method `sigstore`: every way to sign, everything that must hold, every failure in plain words."""

from __future__ import annotations

import base64
import json
import webbrowser
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from model_signing.errors import (
    BundleError,
    CertificateError,
    Error,
    FileError,
    IdentityError,
    LogError,
    SignatureError,
    SigningError,
    UsageError,
)
from model_signing.methods import services, sigstore, sigstore_trust
from model_signing.methods.fulcio import certificate_claims
from model_signing.methods.key import key_verifier
from model_signing.methods.sigstore import (
    SigstoreSigning,
    authenticate_sigstore,
    sigstore_signer,
    sigstore_verifier,
)
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from sandbox.sigstore import fulcio as authorities
from tests.support import stock
from tests.support.material import (
    CODE_SIGNING,
    NOW,
    authority,
    base64_of,
    certificate_bundle,
    certify,
    der,
    edited,
    key_bundle,
    leaf,
    new_key,
    statement,
)

PERSON = "dev@example.test"
GITHUB = "https://token.actions.githubusercontent.com"
ENTRY = ("verificationMaterial", "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[LocalSigstore, Path]]:
    """A Sigstore for one test to turn the knobs of, and its trust config from before that."""
    with LocalSigstore() as running:
        yield running, running.write_trust_config(tmp_path / "own.json")


def sign_unchecked(instance: LocalSigstore, config: Path, **claims: Any) -> bytes:
    """Signs with sigstore-python and none of our checks: what an attacker could publish."""
    token = instance.oidc.token(PERSON, **claims)
    made = stock.sign(instance, token, statement(), json.loads(config.read_text()))
    return made.to_json().encode()


@pytest.fixture(scope="module")
def good(sigstore: LocalSigstore, trust_config: Path) -> bytes:
    return sign_unchecked(sigstore, trust_config)


class TestSigning:
    """Every credential flow, against the sandbox."""

    @pytest.mark.services
    def test_a_given_token(self, sigstore: LocalSigstore, trust_config: Path) -> None:
        options = SigstoreSigning(trust_config, identity_token=sigstore.oidc.token(PERSON))
        data = sigstore_signer(options)(statement())
        found = authenticate_sigstore(data, SigstoreTrust(trust_config))
        assert (found.payload, found.method) == (statement(), "sigstore")
        assert (found.identity, found.issuer) == (PERSON, sigstore.url)
        assert found.time_source == "timestamp authority"
        assert found.signed_at is not None
        assert abs(found.signed_at - datetime.now(timezone.utc)) < timedelta(minutes=10)
        assert found.log is not None
        assert (found.log.origin, found.log.log_id) == ("localhost", sigstore.rekor.log_id.hex())
        entry = json.loads(data)["verificationMaterial"]["tlogEntries"][0]
        assert str(found.log.log_index) == entry["logIndex"]

    @pytest.mark.services
    def test_the_credential_of_a_github_job(
        self, sigstore: LocalSigstore, trust_config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bearer = sigstore.oidc.request_token_for({"repository": "acme/widget"})
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", sigstore.job_token_url)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer)
        data = sigstore_signer(SigstoreTrust(trust_config), ambient=True)(statement())
        found = authenticate_sigstore(data, SigstoreTrust(trust_config))
        assert found.issuer == GITHUB
        claims = certificate_claims(found.certificate or b"")
        assert claims.source_repository_uri == "https://github.com/acme/widget"
        assert claims.runner_environment == "github-hosted"

    @pytest.mark.services
    def test_a_browser(
        self, sigstore: LocalSigstore, trust_config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def browse(url: str) -> bool:
            return requests.get(url, timeout=10).ok

        monkeypatch.setattr(webbrowser, "open", browse)
        data = sigstore_signer(SigstoreTrust(trust_config))(statement())
        assert authenticate_sigstore(data, SigstoreTrust(trust_config)).issuer == sigstore.url

    @pytest.mark.services
    def test_a_code_by_hand(
        self,
        sigstore: LocalSigstore,
        trust_config: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def person(_: str) -> str:
            link = capsys.readouterr().err.split("\n\n\t")[1].strip()
            return requests.get(link, timeout=10).text

        monkeypatch.setattr("builtins.input", person)
        data = sigstore_signer(SigstoreTrust(trust_config), oob=True)(statement())
        assert authenticate_sigstore(data, SigstoreTrust(trust_config)).issuer == sigstore.url

    def test_preparation_needs_no_waiting_for_the_statement(
        self, own: tuple[LocalSigstore, Path]
    ) -> None:
        instance, config = own
        ready = sigstore_trust.in_background
        results: list[Callable[[], object]] = []

        def watched(work: Callable[[], Any]) -> Callable[[], Any]:
            results.append(ready(work))
            return results[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sigstore_trust, "in_background", watched)
            signer = sigstore_signer(
                SigstoreTrust(config), identity_token=instance.oidc.token(PERSON)
            )
        results[0]()
        assert instance.requests == ["POST /api/v2/signingCert"]  # before there is anything to sign
        signer(statement())
        assert instance.requests.count("POST /api/v2/signingCert") == 1

    def test_a_certificate_that_grew_old_while_hashing_is_replaced(
        self, own: tuple[LocalSigstore, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance, config = own
        monkeypatch.setattr(sigstore, "_SESSION_SECONDS", -1)
        options = SigstoreSigning(config, identity_token=instance.oidc.token(PERSON))
        sigstore_signer(options)(statement())
        assert instance.requests.count("POST /api/v2/signingCert") == 2


class TestSigningFailures:
    """Each names what failed; none leaves a signature."""

    @staticmethod
    def refusal(config: Path, **options: Any) -> Error:
        with pytest.raises(Error) as refusal:
            sigstore_signer(SigstoreTrust(config), **options)(statement())
        assert refusal.value.message
        assert refusal.value.found != ""
        return refusal.value

    @pytest.mark.services
    def test_tokens(self, sigstore: LocalSigstore, trust_config: Path) -> None:
        oidc = sigstore.oidc
        forged = oidc.token(key=ec.generate_private_key(ec.SECP256R1()))
        for token, words in (
            ("junk", "Not enough segments"),
            (oidc.token(lifetime=timedelta(minutes=-5)), "expired"),
            (oidc.token(audience="somebody else"), "audience"),
            (oidc.token(issuer="https://evil.example"), "issuer https://evil.example"),
            (oidc.token(email_verified=False), "HTTP 4"),
            (forged, "HTTP 4"),
        ):
            refusal = self.refusal(trust_config, identity_token=token)
            assert isinstance(refusal, SigningError)
            assert words.lower() in (refusal.found or "").lower()
            assert token not in str(refusal)

    def test_no_ambient_credential(
        self, trust_config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("GITHUB_ACTIONS", "BUILDKITE", "GITLAB_CI", "CIRCLECI"):
            monkeypatch.delenv(name, raising=False)
        refusal = self.refusal(trust_config, ambient=True)
        assert "no ambient credential" in refusal.message
        assert "id-token: write" in (refusal.fix or "")

    def test_a_job_without_the_permission(
        self, trust_config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        for name in ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        refusal = self.refusal(trust_config, ambient=True)
        assert isinstance(refusal, SigningError)
        assert "permission" in (refusal.found or "")

    def test_nobody_at_the_terminal(
        self, trust_config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nobody(_: str) -> str:
            raise EOFError("EOF when reading a line")

        monkeypatch.setattr("builtins.input", nobody)
        refusal = self.refusal(trust_config, oob=True)
        assert "person at a terminal" in refusal.message

    def test_services_that_are_not_there(
        self, sigstore: LocalSigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services, "_PAUSES", (0.01,))
        config = tmp_path / "config.json"
        dead = "http://127.0.0.1:1"
        for service, words in (
            ("caUrls", "cannot be reached"),
            ("rekorTlogUrls", "cannot be reached"),
            ("tsaUrls", "timestamp authority cannot be reached"),
        ):
            document = sigstore.trust_config()
            document["signingConfig"][service][0]["url"] = dead
            config.write_text(json.dumps(document))
            refusal = self.refusal(config, identity_token=sigstore.oidc.token(PERSON))
            assert isinstance(refusal, SigningError)
            assert words in refusal.message
        document = sigstore.trust_config()
        document["signingConfig"]["oidcUrls"][0]["url"] = dead
        config.write_text(json.dumps(document))
        assert "cannot be reached" in self.refusal(config, oob=True).message

    def test_services_that_answer_something_else(
        self, sigstore: LocalSigstore, tmp_path: Path
    ) -> None:
        config = tmp_path / "config.json"
        for service, option in (("caUrls", "identity_token"), ("oidcUrls", "oob")):
            document = sigstore.trust_config()
            document["signingConfig"][service][0]["url"] = f"{sigstore.url}/keys"
            config.write_text(json.dumps(document))
            token = sigstore.oidc.token(PERSON)
            value = {"identity_token": token} if option == "identity_token" else {"oob": True}
            if service == "caUrls":  # the path is joined to the host: make it another host's
                with LocalSigstore() as other:
                    document["signingConfig"][service][0]["url"] = other.url
                    config.write_text(json.dumps(document))
                    refusal = self.refusal(config, **value)
            else:
                refusal = self.refusal(config, **value)
            assert isinstance(refusal, SigningError)

    def test_what_the_services_return_is_verified(self, own: tuple[LocalSigstore, Path]) -> None:
        instance, config = own
        instance.rekor.key = ed25519.Ed25519PrivateKey.generate()
        refusal = self.refusal(config, identity_token=instance.oidc.token(PERSON))
        assert isinstance(refusal, LogError)

    @pytest.mark.parametrize("service", ["fulcio", "tsa"])
    @pytest.mark.parametrize("hours", [-1, 1])
    def test_clocks_that_disagree(
        self, service: str, hours: int, own: tuple[LocalSigstore, Path]
    ) -> None:
        instance, config = own
        changed = getattr(instance, service)
        clock = changed.clock
        changed.clock = lambda: clock() + timedelta(hours=hours)
        refusal = self.refusal(config, identity_token=instance.oidc.token(PERSON))
        assert isinstance(refusal, CertificateError | SigningError)
        assert (
            "outside the certificate's validity" in refusal.message or "expired" in refusal.message
        )
        assert "<" not in str(refusal)

    def test_trust_configurations(self, sigstore: LocalSigstore, tmp_path: Path) -> None:
        config = tmp_path / "config.json"
        document = sigstore.trust_config()
        no_log = {**document["signingConfig"], "rekorTlogUrls": []}
        for content in (
            b"",
            b"{}",
            b"\xff",
            b"[1]",
            json.dumps(document["trustedRoot"]).encode(),
            json.dumps({**document, "signingConfig": no_log}).encode(),
        ):
            config.write_bytes(content)
            token = sigstore.oidc.token(PERSON)
            assert isinstance(self.refusal(config, identity_token=token), FileError | SigningError)
        assert isinstance(self.refusal(tmp_path / "absent", identity_token="x"), FileError)
        with pytest.raises(UsageError):
            sigstore_signer(SigstoreTrust(config, staging=True), identity_token="x")(statement())


class TestIdentity:
    """A valid signature by somebody else."""

    def test_the_right_one(self, good: bytes, sigstore: LocalSigstore, trust_config: Path) -> None:
        verifier = sigstore_verifier(PERSON, sigstore.url, None, SigstoreTrust(trust_config))
        assert verifier(good).payload == statement()

    @pytest.mark.parametrize(
        "identity",
        [
            "",
            "dev",
            "dev@example.tes",
            "dev@example.test2",
            "xdev@example.test",
            "Dev@example.test",
            "dev@example.test ",
            "dev@example.test\n",
            "dev@example.test/",
            "dev@example.test@example.test",
            ".*",
            "dev@example[.]test",
            "dev@example*",
            "d?v@example.test",
            "d\u0435v@example.test",
        ],
    )
    def test_look_alikes(
        self, identity: str, good: bytes, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        verifier = sigstore_verifier(identity, sigstore.url, None, SigstoreTrust(trust_config))
        with pytest.raises(IdentityError, match="another identity") as refusal:
            verifier(good)
        assert refusal.value.found == PERSON

    @pytest.mark.parametrize("change", ["{}/", "{}.evil.test", "https{}", "", ".*"])
    def test_other_issuers(
        self, change: str, good: bytes, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        issuer = change.format(sigstore.url)
        verifier = sigstore_verifier(PERSON, issuer, None, SigstoreTrust(trust_config))
        with pytest.raises(IdentityError, match="another identity provider"):
            verifier(good)

    def test_a_private_instance_is_not_the_public_one(self, good: bytes) -> None:
        with pytest.raises(LogError, match="another Sigstore instance"):
            authenticate_sigstore(good, SigstoreTrust(offline=True))

    def test_the_same_name_at_a_foreign_instance(
        self, sigstore: LocalSigstore, trust_config: Path, own: tuple[LocalSigstore, Path]
    ) -> None:
        instance, config = own
        data = sign_unchecked(instance, config)
        with pytest.raises(LogError, match="another Sigstore instance"):
            authenticate_sigstore(data, SigstoreTrust(trust_config))
        # Even with the trusted instance's timestamps and log, its certificates are foreign.
        document = json.loads(trust_config.read_text())
        document["trustedRoot"]["timestampAuthorities"] = instance.trusted_root()[
            "timestampAuthorities"
        ]
        mixed = config.with_name("mixed.json")
        mixed.write_text(json.dumps(document))
        with pytest.raises(CertificateError, match="not issued by a trusted CA"):
            authenticate_sigstore(data, SigstoreTrust(mixed))

    @pytest.mark.parametrize(
        ("repository", "same"),
        [
            ("acme/widget", True),
            ("github.com/acme/widget", True),
            ("https://github.com/acme/widget", True),
            ("acme/widget2", False),
            ("acme/widge", False),
            ("acme/Widget", False),
            ("evil/widget", False),
            ("https://github.com.evil.test/acme/widget", False),
            ("https://gitlab.com/acme/widget", False),
            ("acme/widget.git", False),
        ],
    )
    def test_a_workflow_that_others_may_call(
        self, repository: str, same: bool, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        workflow = "tools/shared/.github/workflows/sign.yml@refs/tags/v1.0.0"
        token = sigstore.oidc.github_token(repository="acme/widget", job_workflow_ref=workflow)
        data = sigstore_signer(SigstoreTrust(trust_config), identity_token=token)(statement())
        identity, where = f"https://github.com/{workflow}", SigstoreTrust(trust_config)
        with pytest.raises(IdentityError, match="which anyone may call") as refusal:
            sigstore_verifier(identity, GITHUB, None, where)(data)
        assert refusal.value.found == "https://github.com/acme/widget"
        verifier = sigstore_verifier(identity, GITHUB, repository, where)
        if same:
            assert verifier(data).identity == identity
        else:
            with pytest.raises(IdentityError, match="another source repository"):
                verifier(data)

    def test_a_workflow_of_which_nothing_says_who_called_it(
        self, sigstore: LocalSigstore, trust_config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = authorities.certificate_extensions

        def extensions(claims: authorities.Claims) -> dict[int, bytes]:
            return {arc: value for arc, value in known(claims).items() if arc != 12}

        monkeypatch.setattr(authorities, "certificate_extensions", extensions)
        workflow = "tools/shared/.github/workflows/sign.yml@refs/tags/v1.0.0"
        token = sigstore.oidc.github_token(repository="acme/widget", job_workflow_ref=workflow)
        data = sigstore_signer(SigstoreTrust(trust_config), identity_token=token)(statement())
        identity, where = f"https://github.com/{workflow}", SigstoreTrust(trust_config)
        with pytest.raises(IdentityError, match="which anyone may call"):
            sigstore_verifier(identity, GITHUB, None, where)(data)

    def test_a_person_has_no_repository(
        self, good: bytes, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        where = SigstoreTrust(trust_config)
        with pytest.raises(IdentityError, match="source repository") as refusal:
            sigstore_verifier(PERSON, sigstore.url, "acme/widget", where)(good)
        assert refusal.value.found == "none"

    @pytest.mark.parametrize("text", ["widget", "acme/", "/widget", "https://github.com", "a//b"])
    def test_what_is_no_repository(self, text: str) -> None:
        with pytest.raises(UsageError, match="not a repository"):
            sigstore_verifier(PERSON, GITHUB, text)


class TestEnvelope:
    """What is signed, and by which method."""

    def refuse(
        self,
        data: bytes,
        config: Path,
        kind: type[Error] = SignatureError,
        words: str | None = None,
    ) -> Error:
        with pytest.raises(kind, match=words) as refusal:
            authenticate_sigstore(data, SigstoreTrust(config))
        assert refusal.value.message
        return refusal.value

    def test_an_altered_payload_or_signature(self, good: bytes, trust_config: Path) -> None:
        payload = base64_of(statement("another model"))
        self.refuse(edited(good, "dsseEnvelope", "payload", to=payload), trust_config)
        signature = ("dsseEnvelope", "signatures", 0, "sig")
        self.refuse(edited(good, *signature, to=base64_of(b"0" * 70)), trust_config)

    def test_methods_are_not_mixed_up(self, good: bytes, trust_config: Path) -> None:
        for other in (key_bundle(new_key()), certificate_bundle(leaf(authority()))):
            self.refuse(other, trust_config, BundleError, "another method")
        from tests.support.material import public_pem

        with pytest.raises(BundleError, match="another method"):
            key_verifier(public_pem(new_key()))(good)
        # The same certificate dressed up as a chain is no Sigstore signature.
        material = json.loads(good)["verificationMaterial"]
        material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
        self.refuse(edited(good, "verificationMaterial", to=material), trust_config, BundleError)

    def test_another_certificate(
        self, good: bytes, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        other = json.loads(sign_unchecked(sigstore, trust_config))
        certificate = other["verificationMaterial"]["certificate"]
        self.refuse(
            edited(good, "verificationMaterial", "certificate", to=certificate), trust_config
        )
        junk = {"rawBytes": base64_of(b"junk")}
        self.refuse(edited(good, "verificationMaterial", "certificate", to=junk), trust_config)
        own = certify("nobody", authority(), [CODE_SIGNING])
        forged = {"rawBytes": base64_of(der(own.certificate))}
        self.refuse(edited(good, "verificationMaterial", "certificate", to=forged), trust_config)


class TestLog:
    """Rekor's entry, its inclusion, its checkpoint; SCT; trusted time."""

    refuse = TestEnvelope.refuse

    def test_no_entry(self, good: bytes, trust_config: Path) -> None:
        for entries in ([], None, ...):
            data = edited(good, "verificationMaterial", "tlogEntries", to=entries)
            self.refuse(data, trust_config, BundleError, "log entry")

    def test_two_entries(self, good: bytes, trust_config: Path) -> None:
        entries = json.loads(good)["verificationMaterial"]["tlogEntries"] * 2
        data = edited(good, "verificationMaterial", "tlogEntries", to=entries)
        self.refuse(data, trust_config, BundleError)

    @pytest.mark.parametrize("field", ["inclusionProof", "canonicalizedBody", "kindVersion"])
    def test_a_missing_part(self, field: str, good: bytes, trust_config: Path) -> None:
        self.refuse(edited(good, *ENTRY, field, to=...), trust_config, BundleError)

    @pytest.mark.parametrize("field", ["checkpoint", "rootHash", "treeSize", "hashes"])
    def test_a_missing_part_of_the_proof(self, field: str, good: bytes, trust_config: Path) -> None:
        self.refuse(edited(good, *PROOF, field, to=...), trust_config, Error)

    def test_a_wrong_proof(self, good: bytes, trust_config: Path) -> None:
        wrong = base64_of(b"0" * 32)
        for field, value in (
            ("rootHash", wrong),
            ("hashes", [wrong] * 7),
            ("treeSize", "100000"),
        ):
            self.refuse(edited(good, *PROOF, field, to=value), trust_config, LogError, "log entry")
        beyond = edited(good, *PROOF, "logIndex", to="99999")
        assert "{" not in str(self.refuse(beyond, trust_config, BundleError))

    def test_a_wrong_checkpoint(self, good: bytes, trust_config: Path) -> None:
        envelope = json.loads(good)["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
        text = envelope["checkpoint"]["envelope"]
        head, signature = text.split("\n\n")
        name, size, root = head.split("\n")
        for checkpoint in (
            "",
            head,
            f"{head}\n\n",
            f"{name}\n{int(size) + 1}\n{root}\n\n{signature}",
            f"evil\n{size}\n{root}\n\n{signature}",
            f"{head}\n\n{signature[:-20]}AAAAAAAAAAAAAAAAAA==\n",
        ):
            data = edited(good, *PROOF, "checkpoint", "envelope", to=checkpoint)
            self.refuse(data, trust_config, Error)

    def test_the_entry_of_another_artifact(
        self, good: bytes, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        other = json.loads(sign_unchecked(sigstore, trust_config))
        entry = other["verificationMaterial"]["tlogEntries"][0]
        self.refuse(edited(good, *ENTRY, to=entry), trust_config, LogError, "log entry")

    def test_the_entry_of_another_log(self, own: tuple[LocalSigstore, Path]) -> None:
        instance, config = own
        instance.rekor.key = ed25519.Ed25519PrivateKey.generate()
        self.refuse(sign_unchecked(instance, config), config, LogError, "log entry")

    def test_fields_that_nothing_proves_are_not_believed(
        self, good: bytes, trust_config: Path
    ) -> None:
        foreign = b"\1" * 32
        envelope = json.loads(good)["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
        head, signature = envelope["checkpoint"]["envelope"].split("\n\n")
        name, raw = signature.split()[1:]
        raw = base64_of(foreign[:4] + base64.b64decode(raw)[4:])  # sigstore-python is content
        data = edited(good, *ENTRY, "logId", "keyId", to=base64_of(foreign))
        data = edited(data, *PROOF, "checkpoint", "envelope", to=f"{head}\n\n\u2014 {name} {raw}\n")
        self.refuse(data, trust_config, LogError, "not trusted")

    @pytest.mark.parametrize(
        ("field", "value"), [("logIndex", "123456"), ("integratedTime", "1700000000")]
    )
    def test_fields_that_contradict_the_proof(
        self, field: str, value: str, good: bytes, trust_config: Path
    ) -> None:
        lying = edited(good, *ENTRY, field, to=value)
        refusal = self.refuse(lying, trust_config, LogError, "contradicts its proof")
        assert field in (refusal.where or "")
        assert refusal.found == value

    @pytest.mark.parametrize("path", [("logIndex",), ("inclusionProof", "treeSize")])
    @pytest.mark.parametrize("form", [" {}", "{} ", "0{}", "+{}", "{}\n", "{}_0", "{}.0", "-{}"])
    def test_numbers_are_read_strictly(
        self, path: tuple[str, ...], form: str, good: bytes, trust_config: Path
    ) -> None:
        value = json.loads(good)["verificationMaterial"]["tlogEntries"][0]
        for name in path:
            value = value[name]
        for lax in (form.format(value), int(value)):
            refusal = self.refuse(edited(good, *ENTRY, *path, to=lax), trust_config, BundleError)
            assert refusal.message == "not a whole number"
            assert path[-1] in (refusal.where or "")

    @pytest.mark.parametrize(
        "path",
        [("logId", "keyId"), ("canonicalizedBody",), ("inclusionProof", "rootHash")],
    )
    @pytest.mark.parametrize("junk", ["\n", " ", "=", "!"])
    def test_base64_is_read_strictly(
        self, path: tuple[str, ...], junk: str, good: bytes, trust_config: Path
    ) -> None:
        value = json.loads(good)["verificationMaterial"]["tlogEntries"][0]
        for name in path:
            value = value[name]
        self.refuse(
            edited(good, *ENTRY, *path, to=value + junk), trust_config, BundleError, "base64"
        )

    @pytest.mark.parametrize("what", ["of an unknown log", "absent"])
    def test_a_certificate_timestamp(
        self, what: str, own: tuple[LocalSigstore, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance, config = own
        monkeypatch.setattr("sigstore.sign.verify_sct", lambda *_: None)
        if what == "absent":
            monkeypatch.setattr(
                "sandbox.sigstore.fulcio.SCT_LIST",
                x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.99"),
            )
        else:
            instance.fulcio.log_key = ec.generate_private_key(ec.SECP256R1())
        data = sign_unchecked(instance, config)
        refusal = self.refuse(data, config)
        assert isinstance(refusal, LogError | SignatureError)
        assert "certificate-transparency" in refusal.message or "SCT" in (refusal.found or "")

    def test_no_trusted_time(self, good: bytes, trust_config: Path) -> None:
        for times in (..., {}, {"rfc3161Timestamps": []}):
            data = edited(good, "verificationMaterial", "timestampVerificationData", to=times)
            self.refuse(data, trust_config, Error, "complete Sigstore bundle|trusted time")

    def test_a_claimed_time_without_promise(self, good: bytes, trust_config: Path) -> None:
        data = edited(good, "verificationMaterial", "timestampVerificationData", to=...)
        data = edited(data, *ENTRY, "integratedTime", to=str(int(NOW.timestamp())))
        self.refuse(data, trust_config, Error)

    def test_the_timestamp_of_another_signature(
        self, good: bytes, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        other = json.loads(sign_unchecked(sigstore, trust_config))
        times = other["verificationMaterial"]["timestampVerificationData"]
        data = edited(good, "verificationMaterial", "timestampVerificationData", to=times)
        self.refuse(data, trust_config, LogError, "no trusted time")

    def test_the_timestamp_of_an_untrusted_authority(self, own: tuple[LocalSigstore, Path]) -> None:
        instance, config = own
        with LocalSigstore() as other:
            instance.tsa = other.tsa
            data = sign_unchecked(instance, config)
        self.refuse(data, config, LogError, "no trusted time")

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_a_timestamp_outside_the_certificates_validity(
        self, hours: int, own: tuple[LocalSigstore, Path]
    ) -> None:
        instance, config = own
        clock = instance.tsa.clock
        instance.tsa.clock = lambda: clock() + timedelta(hours=hours)
        data = sign_unchecked(instance, config)
        self.refuse(data, config, (CertificateError, LogError))  # type: ignore[arg-type]
