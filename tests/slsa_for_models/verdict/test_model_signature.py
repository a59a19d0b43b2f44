"""The model's signature: whose it is, and that these are the bytes."""

from __future__ import annotations

import json
import os

import pytest

from model_signing import api
from model_signing.methods.key import key_signer
from model_signing.methods.sigstore import SigstoreSigning, sigstore_signer
from slsa_for_models.evidence import envelopes
from tests.support.crafted import (
    REF,
    SOURCE,
    TRAIN,
    Workshop,
    new_key,
    private_pem,
    public_pem,
    refusals,
)

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


def test_a_key_of_the_model_is_not_that_of_a_workflow(workshop: Workshop) -> None:
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(key)))
    evidence = ("--signature", signature, "--provenance", workshop.train_provenance(model))
    public, once = str(workshop.write("key.pub", public_pem(key))), ""
    if os.name == "posix":  # as a shell's <(...), which can be read once
        reader, writer = os.pipe()
        os.write(writer, public_pem(key))
        os.close(writer)
        once = f"/dev/fd/{reader}"
    for path, builder in ((public, TRAIN), (once or public, f"{TRAIN}@{REF}")):
        options = ("--public-key", path, "--source-uri", SOURCE, "--builder-id", builder)
        code, verdict = workshop.verify(model, *evidence, *options)
        assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 3)


def test_a_signature_larger_than_files_of_evidence_may_be(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a model of 300,000 files: it is one bundle, and no file of several."""
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(key)))
    monkeypatch.setattr(envelopes, "MAX_FILE_BYTES", 100)
    public = workshop.write("key.pub", public_pem(key))
    assert workshop.verify(model, "--signature", signature, "--public-key", public)[0] == 0


def test_flipped_byte_of_the_model(workshop: Workshop) -> None:
    model = workshop.model()
    signature, provenance = workshop.sign_model(model), workshop.train_provenance(model)
    model.write_bytes(b"Weights")
    code, verdict = workshop.verify(
        model, "--signature", signature, "--provenance", provenance, *EXPECTED
    )
    assert (code, refusals(verdict)) == (1, ["MismatchError", "SubjectError"])
    found = {step["check"]: step["found"] for step in verdict["steps"]}
    assert found["Who signed the model"] == "not looked at: the signature was not accepted"
    assert verdict["refusal"]["where"].endswith("model.pth")
    assert {"expected", "found"} <= verdict["refusal"].keys()


@pytest.mark.parametrize(
    ("options", "changes", "refusal"),
    [
        ((), {"repository": "octo-org/other"}, "SignerError"),
        ((), {"job_workflow_ref": f"evil/mt/.github/workflows/train.yml@{REF}"}, "SignerError"),
        (("--identity", f"{TRAIN}@refs/tags/v1.2.4"), {}, "SignerError"),
        (("--identity", f"{TRAIN}@refs/tags/.*"), {}, "SignerError"),
        (("--identity", f"{TRAIN}@{REF}/"), {}, "SignerError"),
        (
            ("--identity", f"{TRAIN}@{REF}", "--identity-provider", "https://issuer.example"),
            {},
            "SignerError",
        ),
    ],
)
def test_model_signed_by_somebody_else(
    workshop: Workshop, options: tuple[str, ...], changes: dict[str, str], refusal: str
) -> None:
    model = workshop.model()
    signature = workshop.sign_model(model, **changes)
    provenance = workshop.train_provenance(model)
    code, verdict = workshop.verify(
        model, "--signature", signature, "--provenance", provenance, *EXPECTED, *options
    )
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_model_signed_by_a_person(workshop: Workshop) -> None:
    model = workshop.model()
    signature = workshop.folder / "model.sig"
    token = workshop.sigstore.oidc.token("dev@octo.example")
    options = SigstoreSigning(trust_config=workshop.trust_config, identity_token=token)
    api.sign(model, signature, sigstore_signer(options))
    evidence = ("--signature", signature, "--provenance", workshop.train_provenance(model))
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
    person = ("--identity", "dev@octo.example", "--identity-provider", workshop.sigstore.url)
    code, verdict = workshop.verify(model, *evidence, *EXPECTED, *person)
    assert (code, refusals(verdict)) == (0, [])
    same_run = next(step for step in verdict["steps"] if step["check"] == "Same run")
    assert same_run["outcome"] == "not checked"


def test_model_signed_with_a_key(workshop: Workshop) -> None:
    model, key = workshop.model(), new_key()
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(key)))
    public = workshop.write("key.pub", public_pem(key))
    evidence = ("--signature", signature, "--provenance", workshop.train_provenance(model))
    code, verdict = workshop.verify(model, *evidence, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["SignatureError"])  # no key was named
    identity = ("--source-uri", SOURCE, "--identity", f"{TRAIN}@{REF}", "--public-key", public)
    assert workshop.verify(model, *evidence, *identity)[0] == 2
    policy_file = workshop.write(
        "policy.toml",
        f'version = 1\n[[builder]]\nid = "{TRAIN}"\n[signer]\npublic_key = "key.pub"\n'.encode(),
    )
    options = ("--source-uri", SOURCE, "--policy", policy_file)
    code, verdict = workshop.verify(model, *evidence, *options)
    assert (code, refusals(verdict)) == (0, [])
    workshop.write("key.pub", public_pem(new_key()))
    code, verdict = workshop.verify(model, *evidence, *options)
    assert (code, refusals(verdict)) == (1, ["SignatureError"])
    # A keyless signature does not do where a key is expected, nor a bare envelope for a bundle.
    keyless = ("--signature", workshop.sign_model(model), *evidence[2:])
    code, verdict = workshop.verify(model, *keyless, *options)
    assert (code, refusals(verdict)) == (1, ["SignerError"])
    bare = json.loads(signature.read_bytes())["dsseEnvelope"]
    signature.write_text(json.dumps(bare))
    code, verdict = workshop.verify(model, *evidence, *options)
    assert (code, refusals(verdict)) == (1, ["BundleError"])


def test_who_is_expected_to_have_signed_has_signed(workshop: Workshop) -> None:
    """Without a signature only a builder's own provenance shows that."""
    model = workshop.model()
    provenance = ("--provenance", workshop.train_provenance(model), "--source-uri", SOURCE)
    workshop.write("key.pub", public_pem(new_key()))
    who = ("--identity", "dev@example.com", "--identity-provider", "https://accounts.example.com")
    policy = f'version = 1\n[[builder]]\nid = "{TRAIN}"\n[signer]\n'
    named = policy + 'identity = { pattern = ".*" }\nissuer = "https://accounts.example.com"\n'
    for options in (
        (*who, "--builder-id", TRAIN),
        ("--public-key", workshop.folder / "key.pub", "--builder-id", TRAIN),
        ("--policy", workshop.write("key.toml", f'{policy}public_key = "key.pub"'.encode())),
        ("--policy", workshop.write("named.toml", named.encode())),
    ):
        code, verdict = workshop.verify(model, *provenance, *options)
        assert (code, refusals(verdict)) == (1, ["ChainError"])
        (step,) = (one for one in verdict["steps"] if one["outcome"] == "refused")
        assert step["refusal"]["expected"] == "signature"
    assert workshop.verify(model, *provenance, "--identity", f"{TRAIN}@{REF}")[0] == 0


def test_signatures_with_other_digests_are_compared_all_the_same(workshop: Workshop) -> None:
    model = workshop.directory()
    signature = workshop.folder / "blake.sig"
    options = SigstoreSigning(trust_config=workshop.trust_config, identity_token=workshop.token())
    api.sign(model, signature, sigstore_signer(options), api.HashOptions(algorithm="blake2b"))
    code, verdict = workshop.verify(
        model,
        *("--signature", signature, "--provenance", workshop.train_provenance(model), *EXPECTED),
    )
    assert (code, refusals(verdict)) == (0, [])
