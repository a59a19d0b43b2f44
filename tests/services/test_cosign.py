"""cosign verifies what we sign: signature, both provenances, verdict; and we what it signs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.checkout import PRODUCT
from sandbox.demo import WORKFLOW
from sandbox.sigstore.oidc import GITHUB_ISSUER
from tests.services.conftest import Cosign, write_root
from tests.support.crafted import GENERATOR, REF, SOURCE, TRAIN, Workshop

GATE = "octo-org/gate/.github/workflows/verify.yml@refs/heads/main"
VERIFIER, RESOURCE = "https://gate.example.test/verifier", "https://models.example.test/model"
SUMMARY = "https://slsa.dev/verification_summary/v1"
PREDICATES = {
    "signature": "https://model_signing/signature/v1.0",
    "train.yml": "https://slsa.dev/provenance/v1",
    "generator": "https://slsa.dev/provenance/v0.2",
    "verdict": SUMMARY,
}
PUBLISHER = f"""
version = 1
[source]
uri = "{SOURCE}"
[[builder]]
id = "{TRAIN}"
level = 3
"""
CONSUMER = f"""
version = 1
[require]
evidence = ["vsa"]
[vsa]
resource_uri = "{RESOURCE}"
[[vsa.verifier]]
id = "{VERIFIER}"
identity = "https://github.com/{GATE}"
source_uri = "github.com/octo-org/gate"
"""
Judge = Callable[..., tuple[int, str]]


def subject(bundle: Path) -> str:
    payload = json.loads(bundle.read_text())["dsseEnvelope"]["payload"]
    digest: str = json.loads(base64.b64decode(payload))["subject"][0]["digest"]["sha256"]
    return digest


def gate_token(workshop: Workshop) -> str:
    return workshop.token(
        repository="octo-org/gate", workflow_ref=GATE, job_workflow_ref=GATE, run_id="78"
    )


def verdict(workshop: Workshop, model: Path) -> Path:
    """The gate's VSA about a model with provenance, signed keyless."""
    summary = workshop.folder / "vsa.json"
    code, said = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", workshop.write("publisher.toml", PUBLISHER.encode())),
        *("--attest-verdict", summary, "--verifier-id", VERIFIER, "--resource-uri", RESOURCE),
        *("--identity-token", gate_token(workshop)),
    )
    assert code == 0, said
    return summary


def made(workshop: Workshop, what: str) -> tuple[Path, Path, str]:
    """A model, a bundle about it, and who signed that."""
    model = workshop.model()
    train = f"{TRAIN}@{REF}"
    if what == "signature":
        return model, workshop.sign_model(model), train
    if what == "train.yml":
        return model, workshop.train_provenance(model), train
    if what == "generator":
        return model, workshop.generator_provenance(model), f"https://github.com/{GENERATOR}"
    return model, verdict(workshop, model), f"https://github.com/{GATE}"


@pytest.fixture
def judge(cosign: Cosign, tmp_path: Path) -> Judge:
    """cosign's word on a bundle: of which type, about which digest, by whom."""

    def run(
        bundle: Path,
        trust_config: Path,
        kind: str,
        digest: str,
        identity: str,
        issuer: str = GITHUB_ISSUER,
    ) -> tuple[int, str]:
        return cosign(
            "verify-blob-attestation",
            *("--bundle", bundle, "--trusted-root", write_root(trust_config, tmp_path)),
            *("--type", kind, "--digest", digest, "--digestAlg", "sha256"),
            *("--certificate-identity", identity, "--certificate-oidc-issuer", issuer),
            "--use-signed-timestamps",
        )

    return run


@pytest.mark.parametrize("what", PREDICATES)
def test_cosign_verifies_it(what: str, workshop: Workshop, judge: Judge) -> None:
    model, bundle, identity = made(workshop, what)
    kind, digest = PREDICATES[what], subject(bundle)
    if what != "signature":  # that one is about the digest of a list of digests
        assert digest == hashlib.sha256(model.read_bytes()).hexdigest()
    code, said = judge(bundle, workshop.trust_config, kind, digest, identity)
    assert (code, "Verified OK" in said) == (0, True), said
    for wrong in (
        (kind, digest, identity + "1"),
        (kind, hashlib.sha256(b"another").hexdigest(), identity),
        ("https://example.test/another", digest, identity),
        (kind, digest, identity, workshop.sigstore.url),
    ):
        code, said = judge(bundle, workshop.trust_config, *wrong)
        assert code != 0, (wrong, said)


@pytest.mark.parametrize("how", ["predicate", "statement"])
def test_we_verify_a_verdict_that_cosign_signed(
    how: str, workshop: Workshop, cosign: Cosign, tmp_path: Path
) -> None:
    """With `--predicate` cosign writes the statement around it, as in-toto v0.1."""
    model = workshop.model()
    summary = verdict(workshop, model)
    statement = json.loads(
        base64.b64decode(json.loads(summary.read_text())["dsseEnvelope"]["payload"])
    )
    config = json.loads(workshop.trust_config.read_text())["signingConfig"]
    given = workshop.write("given.json", json.dumps(statement).encode())
    options: tuple[object, ...] = ("--statement", given)
    if how == "predicate":
        given = workshop.write("given.json", json.dumps(statement["predicate"]).encode())
        options = ("--predicate", given, "--type", SUMMARY, model)
    theirs = tmp_path / "theirs.json"
    code, said = cosign(
        *("attest-blob", "--yes", "--bundle", theirs),
        *("--signing-config", workshop.write("signing.json", json.dumps(config).encode())),
        *("--trusted-root", write_root(workshop.trust_config, tmp_path)),
        *("--identity-token", workshop.write("token", gate_token(workshop).encode()), *options),
    )
    assert code == 0, said
    policy = workshop.write("consumer.toml", CONSUMER.encode())
    code, found = workshop.verify(model, "--vsa", theirs, "--policy", policy)
    assert code == 0, found
    other = workshop.model(b"other weights", "model.pth")
    assert workshop.verify(other, "--vsa", theirs, "--policy", policy)[0] == 1


@pytest.mark.full
def test_cosign_verifies_what_the_demonstration_leaves(
    demonstration: tuple[str, Path], judge: Judge
) -> None:
    """`make demo SIGSTORE=real`: train.yml from its start to its verdict."""
    printed, out = demonstration
    model = "tensorflow_model.keras"
    assert f"VERIFIED {model}" in printed
    train = f"https://github.com/{PRODUCT}/{WORKFLOW}@refs/heads/main"
    for suffix, what, identity in (
        ("sig", "signature", train),
        ("provenance.sigstore.json", "train.yml", train),
        ("intoto.jsonl", "generator", f"https://github.com/{GENERATOR}"),
    ):
        bundle = out / f"{model}.{suffix}"
        known = (PREDICATES[what], subject(bundle), identity)
        code, said = judge(bundle, out / "trust-config.json", *known)
        assert (code, "Verified OK" in said) == (0, True), said
