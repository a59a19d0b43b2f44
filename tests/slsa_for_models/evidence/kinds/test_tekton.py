"""Tekton Chains: DSSE envelopes by a key, from a file or an annotation; keyless by a service."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from model_signing import api
from model_signing.methods.key import key_signer
from model_signing.oms import bundle
from slsa_for_models.attesting import train_statement
from tests.support.crafted import (
    CHAINS,
    COMMIT,
    DATASET,
    SOURCE,
    Json,
    Key,
    Workshop,
    changed,
    envelope,
    github_statement,
    new_key,
    private_pem,
    public_pem,
    refusals,
    tekton_statement,
)

RUN_SPEC = "predicate.buildDefinition.externalParameters.runSpec"
SOURCE_OF_PIPELINE = "predicate.buildDefinition.externalParameters.buildConfigSource"
DEPENDENCIES = "predicate.buildDefinition.resolvedDependencies"


def expectations(workshop: Workshop, key: Key, *more: object) -> tuple[object, ...]:
    public = workshop.write("cosign.pub", public_pem(key))
    return ("--public-key", public, "--builder-id", CHAINS, "--source-uri", SOURCE, *more)


def write(workshop: Workshop, document: Json, name: str = "chains.json") -> Path:
    return workshop.write(name, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["P-256", "P-384 in KMS", "P-384 in Chains", "Ed25519"],
)
def test_signed_with_a_key(
    workshop: Workshop, key: Key, algorithm: hashes.HashAlgorithm | None
) -> None:
    model = workshop.model()
    attestation = write(workshop, envelope(tekton_statement(model), key, algorithm=algorithm))
    code, verdict = workshop.verify(
        model, "--provenance", attestation, *expectations(workshop, key)
    )
    assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 1)
    unpinned = next(step for step in verdict["steps"] if step["check"] == "Pipeline")
    assert unpinned["outcome"] == "not checked"
    certificate = next(s for s in verdict["steps"] if s["check"].startswith("Certificate"))
    assert certificate["outcome"] == "info"
    assert certificate["found"].startswith("no certificate")


def test_all_that_can_be_expected(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    attestation = write(workshop, envelope(tekton_statement(model), key))
    more = (
        *("--build-workflow-input", "model=pytorch_model.pth"),
        *("--build-workflow-input", "formats=a,b"),
        *("--source-commit", COMMIT, "--dataset-digest", DATASET),
    )
    code, verdict = workshop.verify(
        model, "--provenance", attestation, *expectations(workshop, key, *more)
    )
    assert (code, refusals(verdict)) == (0, [])


def test_annotation_as_tkn_prints_it(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    document = json.dumps(envelope(tekton_statement(model), key)).encode()
    annotation = workshop.write("annotation", base64.b64encode(document) + b"\n")
    options = expectations(workshop, key)
    assert workshop.verify(model, "--provenance", annotation, *options)[0] == 0


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_signature_as_two_numbers_of_the_curves_length(
    workshop: Workshop, curve: ec.EllipticCurve
) -> None:
    """IEEE P1363, as JSON Web Signatures and hardware write ECDSA signatures."""
    model, key = workshop.model(), ec.generate_private_key(curve)
    document, size = envelope(tekton_statement(model), key), (curve.key_size + 7) // 8
    r, s = utils.decode_dss_signature(base64.b64decode(document["signatures"][0]["sig"]))
    options = expectations(workshop, key)
    for numbers, expected in (((r, s), 0), ((s, r), 1), ((r, s ^ 1), 1), ((0, 0), 1)):
        raw = b"".join(number.to_bytes(size, "big") for number in numbers)
        document["signatures"][0]["sig"] = base64.b64encode(raw).decode()
        code, _ = workshop.verify(model, "--provenance", write(workshop, document), *options)
        assert code == expected


def test_a_bundle_by_a_key(workshop: Workshop) -> None:

    key, model = new_key(), workshop.model()
    pem = private_pem(key)
    data = key_signer(pem)(train_statement.encode(tekton_statement(model)))
    attestation = workshop.write("bundle.json", data)
    options = ("--provenance", attestation, *expectations(workshop, key))
    assert workshop.verify(model, *options)[0] == 0
    code, verdict = workshop.verify(model, "--provenance", attestation, "--source-uri", SOURCE)
    assert (code, refusals(verdict)) == (1, ["SignatureError"])


def test_a_directory_by_its_signed_list(workshop: Workshop) -> None:
    key, model = new_key(), workshop.directory()
    attestation = write(workshop, envelope(tekton_statement(model), key))
    options = expectations(workshop, key)
    assert workshop.verify(model, "--provenance", attestation, *options)[0] == 0


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("subject.0.digest.sha256", "e" * 64, "SubjectError"),
        ("predicate.runDetails.builder.id", f"{CHAINS}/", "BuilderError"),
        ("predicate.runDetails.builder.id", "https://tekton.dev/chains", "BuilderError"),
        ("predicate.runDetails.builder", None, "ProvenanceError"),
        ("predicate.runDetails.metadata", None, "ProvenanceError"),
        (f"{DEPENDENCIES}.0", None, "ProvenanceError"),
        (f"{DEPENDENCIES}.0.digest", None, "ProvenanceError"),
        (f"{DEPENDENCIES}.0.digest", {}, "ProvenanceError"),
        (f"{DEPENDENCIES}.2", None, "ProvenanceError"),
        (f"{DEPENDENCIES}.2.uri", "gs://bucket/source", "ProvenanceError"),
        (f"{DEPENDENCIES}.2.uri", "git+https://github.com/evil/models.git", "SourceError"),
        (f"{DEPENDENCIES}.3.digest.sha1", COMMIT, "ProvenanceError"),
        (f"{RUN_SPEC}.taskRef", {"name": "x"}, "ProvenanceError"),
        (f"{RUN_SPEC}.pipelineSpec", {"tasks": [{"taskRef": {}}]}, "ProvenanceError"),
        (f"{RUN_SPEC}.pipelineSpec", {"finally": [{"taskRef": {}}]}, "ProvenanceError"),
        (f"{RUN_SPEC}.pipelineSpec", {"tasks": 7}, "ProvenanceError"),
        (f"{RUN_SPEC}.pipelineSpec", {"tasks": ["x"]}, "ProvenanceError"),
        (f"{RUN_SPEC}.unknown", 1, "ParameterError"),
        (f"{RUN_SPEC}.params", {}, "ProvenanceError"),
        (f"{RUN_SPEC}.params", [{"value": "x"}], "ProvenanceError"),
        ("predicate.buildDefinition.externalParameters.other", 1, "ParameterError"),
        ("predicate.buildDefinition.externalParameters.runSpec", None, "ProvenanceError"),
        ("predicate.buildDefinition.buildType", "https://tekton.dev/x", "UnsupportedError"),
    ],
)
def test_crafted(workshop: Workshop, field: str, value: object, refusal: str) -> None:
    key, model = new_key(), workshop.model()
    attestation = write(workshop, envelope(changed(tekton_statement(model), field, value), key))
    code, verdict = workshop.verify(
        model, "--provenance", attestation, *expectations(workshop, key)
    )
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_resolved_tasks_of_an_inline_pipeline(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    statement = tekton_statement(model)
    definition = statement["predicate"]["buildDefinition"]
    definition["externalParameters"]["runSpec"] = {
        "pipelineSpec": {"tasks": [{"taskRef": {"resolver": "git"}}, {"taskSpec": {}}]}
    }
    definition["resolvedDependencies"][0]["name"] = "pipelineTask"
    attestation = write(workshop, envelope(statement, key))
    options = expectations(workshop, key)
    assert workshop.verify(model, "--provenance", attestation, *options)[0] == 0


@pytest.mark.parametrize(
    ("option", "value", "refusal"),
    [
        ("--source-uri", "github.com/evil/models", "SourceError"),
        ("--source-commit", "e" * 40, "SourceError"),
        ("--source-branch", "main", "SourceError"),
        ("--source-tag", "v1.0.0", "SourceError"),
        ("--builder-id", "https://tekton.dev/other", "BuilderError"),
        ("--build-workflow-input", "model=other", "ParameterError"),
        ("--dataset-digest", "e" * 64, "DependencyMismatchError"),
        ("--minimum-level", "2", "BuilderError"),
    ],
)
def test_another_expectation(workshop: Workshop, option: str, value: str, refusal: str) -> None:
    key, model = new_key(), workshop.model()
    attestation = write(workshop, envelope(tekton_statement(model), key))
    public = workshop.write("cosign.pub", public_pem(key))
    stated = {"--builder-id": CHAINS, "--source-uri": SOURCE, option: value}
    arguments = [word for pair in stated.items() for word in pair]
    code, verdict = workshop.verify(
        model, "--provenance", attestation, "--public-key", public, *arguments
    )
    assert (code, refusals(verdict)[0]) == (1, refusal)


INLINE = {"pipelineSpec": {"tasks": [{"name": "evil", "taskSpec": {}}]}}
PINNED = f"git+https://{SOURCE}@sha1:{COMMIT}#pipeline.yaml"


@pytest.mark.parametrize(
    ("pin", "field", "value", "code"),
    [
        (f'"{PINNED}"', None, None, 0),
        ('{ pattern = "git[+]https://github[.]com/octo-org/models@.*" }', None, None, 0),
        (f'"{PINNED}"', "ref", f"sha1:{'e' * 40}", 1),
        (f'"{PINNED}"', "ref", f"sha256:{COMMIT}", 1),
        (f'"{PINNED}"', "repository", "git+https://github.com/evil/models", 1),
        (f'"{PINNED}"', "path", "other.yaml", 1),
        (f'"{PINNED}"', "path", None, 1),
        (f'"{PINNED}"', "", None, 1),
        (f'"{PINNED}"', "inline", None, 1),
        (f'"{PINNED}"', "both", None, 1),
    ],
)
def test_a_pipeline_that_is_pinned(
    workshop: Workshop, pin: str, field: str | None, value: str | None, code: int
) -> None:
    key, model = new_key(), workshop.model()
    statement = tekton_statement(model)
    external = statement["predicate"]["buildDefinition"]["externalParameters"]
    if field in ("", "inline"):
        del external["buildConfigSource"]
    elif field not in (None, "both"):
        statement = changed(statement, f"{SOURCE_OF_PIPELINE}.{field}", value)
    if field in ("inline", "both"):  # by whoever may start a run in the cluster
        del external["runSpec"]["pipelineRef"]
        external["runSpec"].update(INLINE)
    attestation = write(workshop, envelope(statement, key))
    workshop.write("chains.pub", public_pem(key))
    text = f"""version = 1
[[builder]]
id = "{CHAINS}"
public_key = "chains.pub"
pipeline = {pin}
level = 3
"""
    options = ("--policy", workshop.write("policy.toml", text.encode()), "--source-uri", SOURCE)
    found, verdict = workshop.verify(model, "--provenance", attestation, *options)
    assert (found, verdict["slsaBuildLevel"]) == (code, 0 if code else 3)
    assert refusals(verdict)[:1] in ([], ["BuilderError"], ["ProvenanceError"])
    assert "Pipeline" not in {step["check"] for step in verdict["steps"]}


def test_a_training_record_that_the_run_reports(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    record = workshop.record_file(model)
    digest = sha256(record.read_bytes()).hexdigest()
    options = (*expectations(workshop, key), "--training-record", record)
    for stated, refused in (
        (f"sha256:{digest}", []),
        (f"sha256:{'e' * 64}", ["RecordError"]),
        ("md5:x", ["RecordError"]),
    ):
        value = json.dumps({"uri": "gs://bucket/training.json", "digest": stated}).encode()
        reported = {
            "name": "taskRunResults/upload/record_ARTIFACT_OUTPUTS",
            "content": base64.b64encode(value).decode(),
            "mediaType": "application/json",
        }
        statement = tekton_statement(model)
        statement["predicate"]["runDetails"]["byproducts"] = [{"name": "other"}, reported]
        attestation = write(workshop, envelope(statement, key))
        _, verdict = workshop.verify(model, "--provenance", attestation, *options)
        assert refusals(verdict) == refused


def test_a_signature_that_the_run_reports(workshop: Workshop) -> None:
    """A signature of the same bytes by the same signer, but from another run."""
    key, model = new_key(), workshop.model()
    pem = workshop.write("cosign.pub", public_pem(key))
    signatures = []
    for name in ("one.sig", "two.sig"):
        signatures.append(workshop.folder / name)
        api.sign(model, signatures[-1], key_signer(private_pem(key)))
    value = {
        "uri": "gs://bucket/model.sig",
        "digest": f"sha256:{sha256(signatures[0].read_bytes()).hexdigest()}",
    }
    statement = tekton_statement(model)
    statement["predicate"]["runDetails"]["byproducts"] = [
        {
            "name": "taskRunResults/upload/signature_ARTIFACT_OUTPUTS",
            "content": base64.b64encode(json.dumps(value).encode()).decode(),
            "mediaType": "application/json",
        }
    ]
    attestation = write(workshop, envelope(statement, key))
    for signature, refused in zip(signatures, ([], ["ChainError"]), strict=True):
        options = ("--builder-id", CHAINS, "--source-uri", SOURCE, "--public-key", pem)
        _, verdict = workshop.verify(
            model, "--provenance", attestation, "--signature", signature, *options
        )
        assert refusals(verdict) == refused
    assert "Same signature" in {step["check"] for step in verdict["steps"]}


def test_wrong_key_and_no_key(workshop: Workshop) -> None:
    model = workshop.model()
    attestation = write(workshop, envelope(tekton_statement(model), new_key()))
    for options in (
        expectations(workshop, new_key()),
        ("--builder-id", CHAINS, "--source-uri", SOURCE),
    ):
        code, verdict = workshop.verify(model, "--provenance", attestation, *options)
        assert (code, refusals(verdict)) == (1, ["SignatureError"])
    wrong = expectations(workshop, ed25519.Ed25519PrivateKey.generate())
    assert workshop.verify(model, "--provenance", attestation, *wrong)[0] == 1


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("signatures", [], "BundleError"),
        ("signatures", None, "BundleError"),
        ("signatures", ["x"], "SignatureError"),
        ("signatures.0.sig", "no base64!", "BundleError"),
        ("signatures.0.sig", "AAAA", "SignatureError"),
        ("payload", "no base64!", "BundleError"),
        ("payload", base64.b64encode(b"{}").decode(), "SignatureError"),
        ("payloadType", "text/plain", "BundleError"),
        ("payloadType", 7, "BundleError"),
    ],
)
def test_malformed_envelopes(workshop: Workshop, field: str, value: object, refusal: str) -> None:
    key, model = new_key(), workshop.model()
    attestation = write(workshop, changed(envelope(tekton_statement(model), key), field, value))
    code, verdict = workshop.verify(
        model, "--provenance", attestation, *expectations(workshop, key)
    )
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_two_signatures(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    document = envelope(tekton_statement(model), key)
    document["signatures"] *= 2
    code, verdict = workshop.verify(
        model, "--provenance", write(workshop, document), *expectations(workshop, key)
    )
    assert (code, refusals(verdict)) == (1, ["BundleError"])


def test_a_payload_of_another_type_signed_as_such(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    document = envelope(tekton_statement(model), key, payload_type="application/json")
    code, verdict = workshop.verify(
        model, "--provenance", write(workshop, document), *expectations(workshop, key)
    )
    assert (code, refusals(verdict)) == (1, ["BundleError"])
    document["payloadType"] = bundle.PAYLOAD_TYPE
    code, verdict = workshop.verify(
        model, "--provenance", write(workshop, document), *expectations(workshop, key)
    )
    assert (code, refusals(verdict)) == (1, ["SignatureError"])


def test_a_key_does_not_speak_for_github(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    attestation = write(workshop, envelope(github_statement(model), key))
    builder = github_statement(model)["predicate"]["runDetails"]["builder"]["id"]
    public = workshop.write("cosign.pub", public_pem(key))
    code, verdict = workshop.verify(
        model,
        *("--provenance", attestation, "--public-key", public),
        *("--builder-id", builder, "--builder-id", CHAINS, "--source-uri", SOURCE),
    )
    assert (code, refusals(verdict)) == (1, ["SignerError"])


def test_a_github_workflow_does_not_speak_for_tekton(workshop: Workshop) -> None:
    """Otherwise any workflow could name a trusted builder in a predicate that has no claims."""
    model = workshop.model()
    statement = tekton_statement(model)
    trusted = "https://github.com/builders/mt/.github/workflows/train.yml"
    statement["predicate"]["runDetails"]["builder"]["id"] = f"{trusted}@refs/tags/v1.0.0"
    attestation = workshop.write("t.json", workshop.sign(statement, workshop.token()))
    code, verdict = workshop.verify(
        model,
        *("--provenance", attestation, "--builder-id", trusted, "--source-uri", SOURCE),
    )
    assert (code, refusals(verdict)) == (1, ["SignerError"])


def test_keyless_by_the_clusters_service(workshop: Workshop) -> None:
    model = workshop.model()
    token = workshop.sigstore.oidc.token("chains@cluster.example")
    data = workshop.sign(tekton_statement(model), token)
    attestation = workshop.write("keyless.json", data)
    policy = workshop.folder / "policy.toml"
    for identity, code in (("chains@cluster.example", 0), ("other@cluster.example", 1)):
        policy.write_text(
            f"""version = 1
[[builder]]
id = "{CHAINS}"
level = 2
identity = "{identity}"
issuer = "{workshop.sigstore.url}"
"""
        )
        options = ("--provenance", attestation, "--policy", policy, "--source-uri", SOURCE)
        found, verdict = workshop.verify(model, *options)
        assert found == code
    assert refusals(verdict) == ["SignerError"]
