"""Workflows whose tokens have another issuer than plain GitHub's: an enterprise's own, and GitLab.

Whoever calls a reusable workflow has its identity, there as well: the caller has to be compared.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat import asn1

from model_signing import api
from model_signing.methods.sigstore import SigstoreSigning, sigstore_signer
from sandbox.sigstore import fulcio
from slsa_for_models.attesting import vsa_statement
from slsa_for_models.errors import PolicyError
from slsa_for_models.evidence import subjects
from slsa_for_models.evidence.github import GITHUB_ISSUER, is_github
from slsa_for_models.verdict import policy_file
from tests.support.crafted import CHAINS, REF, SOURCE, TRAIN, Workshop, refusals, tekton_statement

ENTERPRISE, GITLAB = f"{GITHUB_ISSUER}/acme", "https://gitlab.com"
SIGNED_BY = ("--identity", f"{TRAIN}@{REF}", "--identity-provider", ENTERPRISE)
BUILT_BY = ("--builder-id", TRAIN, "--identity-provider", ENTERPRISE)
VERIFIER, RESOURCE = "https://acme.example/gate", "https://acme.example/model"
SHARED_FILE = "https://gitlab.com/acme/ci//gate.yml@refs/heads/main"


@pytest.fixture
def acme(workshop: Workshop) -> Workshop:
    """The sandbox's Sigstore, which also takes the tokens of an enterprise and of GitLab."""
    keys = workshop.sigstore.oidc.keys
    keys[ENTERPRISE] = keys[GITLAB] = keys[GITHUB_ISSUER]
    return workshop


def gitlab_token(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, project: str, *, without: int = 0
) -> str:
    """As Fulcio certifies a GitLab job that runs the CI file of another project."""
    uris = {1: GITLAB, 8: GITLAB, 9: SHARED_FILE, 11: "gitlab-hosted", 12: f"{GITLAB}/{project}"}
    extensions = {
        number: value.encode() if number == 1 else asn1.encode_der(value)
        for number, value in uris.items()
        if number != without
    }
    monkeypatch.setattr(fulcio, "_identity", lambda _: x509.UniformResourceIdentifier(SHARED_FILE))
    monkeypatch.setattr(fulcio, "certificate_extensions", lambda _: extensions)
    return workshop.sigstore.oidc.token(issuer=GITLAB)


def sign(workshop: Workshop, model: Path, token: str) -> Path:
    signature = model.with_name("model.sig")
    options = SigstoreSigning(trust_config=workshop.trust_config, identity_token=token)
    api.sign(model, signature, sigstore_signer(options))
    return signature


def test_a_model_signed_in_an_enterprise_needs_the_right_caller(acme: Workshop) -> None:
    model = acme.model()
    for repository, named, code in (
        ("octo-org/models", SOURCE, 0),
        ("octo-org/intern", SOURCE, 1),
        ("octo-org/intern", None, 1),
    ):
        signature = acme.sign_model(model, iss=ENTERPRISE, repository=repository)
        source = ("--source-uri", named) if named else ()
        found, verdict = acme.verify(model, "--signature", signature, *SIGNED_BY, *source)
        assert (found, refusals(verdict)[:1]) == (code, ["SignerError"][:code])
    assert verdict["refusal"]["fix"].endswith("--source-uri github.com/octo-org/intern")


@pytest.mark.parametrize("issuer", [GITHUB_ISSUER, ENTERPRISE])
def test_a_certificate_that_names_no_repository(
    acme: Workshop, monkeypatch: pytest.MonkeyPatch, issuer: str
) -> None:
    """As GitHub's were until 2023. No pattern takes nothing for a repository."""
    everything = fulcio.certificate_extensions
    monkeypatch.setattr(
        fulcio,
        "certificate_extensions",
        lambda claims: {key: value for key, value in everything(claims).items() if key != 12},
    )
    model = acme.model()
    signature = acme.sign_model(model, iss=issuer)
    text = f'version = 1\n[signer]\nidentity = "{TRAIN}@{REF}"\nissuer = "{issuer}"\n'
    for source in ("", "[source]\nuri = { pattern = '.*' }\n"):
        policy = acme.write("policy.toml", f"{text}{source}".encode())
        code, verdict = acme.verify(model, "--signature", signature, "--policy", policy)
        assert (code, refusals(verdict)[:1]) == (1, ["SignerError"])
        assert verdict["refusal"]["found"] == "no repository"


def test_another_callers_signature_does_not_hide_behind_true_provenance(acme: Workshop) -> None:
    model = acme.model()
    signature = acme.sign_model(model, iss=ENTERPRISE, repository="octo-org/intern")
    provenance = acme.generator_provenance(model, iss=ENTERPRISE)
    code, verdict = acme.verify(
        model,
        *("--signature", signature, "--provenance", provenance, "--source-uri", SOURCE),
        *SIGNED_BY,
    )
    assert (code, refusals(verdict)) == (1, ["SignerError"])


def test_provenance_of_an_enterprise_if_its_issuer_is_named(acme: Workshop) -> None:
    model = acme.model()
    evidence = ("--provenance", acme.train_provenance(model, iss=ENTERPRISE))
    source = ("--source-uri", SOURCE)
    code, verdict = acme.verify(model, *evidence, *source, *BUILT_BY)
    assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 3)
    text = (
        f'version = 1\n[source]\nuri = "{SOURCE}"\nissuer = "ISSUER"\n[[builder]]\nid = "{TRAIN}"'
    )
    for issuer, expected in ((ENTERPRISE, 0), (f"{ENTERPRISE}2", 1), (GITHUB_ISSUER, 1)):
        path = acme.write("policy.toml", text.replace("ISSUER", issuer).encode())
        assert acme.verify(model, *evidence, "--policy", path)[0] == expected
    code, verdict = acme.verify(model, *evidence, *source, "--builder-id", TRAIN)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
    assert "--identity-provider" in verdict["refusal"]["fix"]
    # An enterprise named is not plain GitHub, and a look-alike is neither.
    plain = acme.train_provenance(model)
    assert acme.verify(model, "--provenance", plain, *source, *BUILT_BY)[0] == 1
    alike = ("--builder-id", TRAIN, "--identity-provider", f"{GITHUB_ISSUER}.example")
    assert acme.verify(model, *evidence, *source, *alike)[0] == 2


def test_the_generators_provenance_in_an_enterprise(acme: Workshop) -> None:
    model = acme.model()
    evidence = (
        *("--signature", acme.sign_model(model, iss=ENTERPRISE)),
        *("--provenance", acme.train_provenance(model, iss=ENTERPRISE)),
        *("--provenance", acme.generator_provenance(model, iss=ENTERPRISE)),
    )
    options = (*evidence, "--source-uri", SOURCE, *SIGNED_BY)
    code, verdict = acme.verify(model, *options)
    assert (code, refusals(verdict)) == (0, [])
    made = acme.folder / "made.toml"
    assert acme.run("policy", "init", model, *options, "--output", made)[0] == 0
    assert acme.verify(model, *evidence, "--policy", made)[0] == 0


def test_a_job_of_an_enterprise_may_say_how_it_trained(acme: Workshop) -> None:
    model = acme.model()
    output = acme.folder / "p.json"
    code, _ = acme.run(
        *("provenance", model, "--training-record", acme.record_file(model)),
        *("--identity-token", acme.token(iss=ENTERPRISE), "--output", output),
    )
    assert code == 0
    options = ("--provenance", output, "--source-uri", SOURCE, *BUILT_BY)
    assert acme.verify(model, *options)[0] == 0


def test_issuers_of_github() -> None:
    assert is_github(GITHUB_ISSUER) and is_github(ENTERPRISE)
    for other in ("", "None", f"{GITHUB_ISSUER}.example", f"http{GITHUB_ISSUER[5:]}", "https://a"):
        assert not is_github(other)


# Verifiers that are workflows


def verifier_policy(workshop: Workshop, identity: str, issuer: str, source: str | None) -> Path:
    named = f'source_uri = "{source}"\n' if source else ""
    text = f"""version = 1
[vsa]
resource_uri = "{RESOURCE}"
[[vsa.verifier]]
id = "{VERIFIER}"
identity = "{identity}"
issuer = "{issuer}"
{named}[require]
evidence = ["vsa"]
"""
    return workshop.write("consumer.toml", text.encode())


def summary(workshop: Workshop, model: Path, token: str) -> Path:
    """A verdict, signed by whoever has the token."""
    statement = vsa_statement.build(
        subjects.measure(model),
        1,
        verifier_id=VERIFIER,
        resource_uri=RESOURCE,
        policy_name="policy.toml",
        policy_sha256="0" * 64,
        inputs=[],
        base_levels=None,
        now=datetime.now(timezone.utc),
    )
    return workshop.write("vsa.json", workshop.sign(statement, token))


def test_a_verifier_in_an_enterprise(acme: Workshop) -> None:
    model = acme.model()
    identity = f"{TRAIN}@{REF}"
    with pytest.raises(PolicyError, match="needs source_uri"):
        policy_file.load_policy(verifier_policy(acme, identity, ENTERPRISE, None))
    for caller, code in (("octo-org/models", 0), ("octo-org/intern", 1)):
        verdict_file = summary(acme, model, acme.token(iss=ENTERPRISE, repository=caller))
        consumer = verifier_policy(acme, identity, ENTERPRISE, SOURCE)
        found, verdict = acme.verify(model, "--vsa", verdict_file, "--policy", consumer)
        assert (found, refusals(verdict)[:1]) == (code, ["SignerError"][:code])


@pytest.mark.parametrize(
    ("project", "without", "named", "code"),
    [
        ("acme/gate", 0, "gitlab.com/acme/gate", 0),
        ("attacker/evil", 0, "gitlab.com/acme/gate", 1),
        ("attacker/evil", 0, None, 1),
        ("attacker/evil", 12, "gitlab.com/acme/gate", 1),
    ],
)
def test_a_verifier_on_gitlab(
    acme: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    project: str,
    without: int,
    named: str | None,
    code: int,
) -> None:
    model = acme.model()
    token = gitlab_token(acme, monkeypatch, project, without=without)
    verdict_file = summary(acme, model, token)
    consumer = verifier_policy(acme, SHARED_FILE, GITLAB, named)
    found, verdict = acme.verify(model, "--vsa", verdict_file, "--policy", consumer)
    assert (found, refusals(verdict)[:1]) == (code, ["SignerError"][:code])


def test_a_model_signed_on_gitlab(acme: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    model = acme.model()
    signer = ("--identity", SHARED_FILE, "--identity-provider", GITLAB)
    for project, source, code in (
        ("acme/models", ("--source-uri", "gitlab.com/acme/models"), 0),
        ("attacker/evil", ("--source-uri", "gitlab.com/acme/models"), 1),
        ("attacker/evil", (), 1),
    ):
        signature = sign(acme, model, gitlab_token(acme, monkeypatch, project))
        found, verdict = acme.verify(model, "--signature", signature, *signer, *source)
        assert (found, refusals(verdict)[:1]) == (code, ["SignerError"][:code])


def test_a_job_on_gitlab_does_not_speak_for_tekton(
    acme: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever includes the CI file that a policy names could write any predicate."""
    model = acme.model()
    token = gitlab_token(acme, monkeypatch, "attacker/evil")
    attestation = acme.write("t.json", acme.sign(tekton_statement(model), token))
    text = f'version = 1\n[[builder]]\nid = "{CHAINS}"\nidentity = "{SHARED_FILE}"\n'
    text += f'issuer = "{GITLAB}"\n'
    options = ("--source-uri", SOURCE, "--policy", acme.write("policy.toml", text.encode()))
    code, verdict = acme.verify(model, "--provenance", attestation, *options)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
