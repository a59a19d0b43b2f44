"""`slsa_for_models provenance`: the statement field by field, and what the signing job refuses."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model_signing.errors import Error, UsageError
from model_signing.oms import bundle
from slsa_for_models.attesting import build_context, signing_job
from slsa_for_models.errors import CertificateClaimError, ContextError
from slsa_for_models.evidence import json_schema
from tests.support.crafted import (
    BUILDER_COMMIT,
    COMMIT,
    DATASET,
    REF,
    SOURCE,
    TRAIN,
    Json,
    Workshop,
    claims,
    refusals,
)

INPUTS = '{"model": "pytorch_model.pth", "epochs": 6, "unset": null}'


def make(workshop: Workshop, model: Path, *options: object, **on: str) -> tuple[int, Json]:
    record = workshop.folder / "training.json"
    if not record.exists():
        workshop.record_file(model)
    return workshop.run(
        *("provenance", model, "--training-record", record),
        *("--output", workshop.folder / "out.json", "--workflow-inputs", INPUTS),
        *("--identity-token", workshop.token(**on), *options),
    )


def statement_of(workshop: Workshop) -> Json:
    data = (workshop.folder / "out.json").read_bytes()
    statement: Json = json.loads(bundle.parse(data).payload)
    return statement


SOURCE_URL, BUILDER_URL = f"https://{SOURCE}", "https://github.com/builders/mt"


def expected_definition(lock_digest: str, base_digest: str) -> dict[str, Any]:
    return {
        "buildType": "https://model-transparency.dev/buildtypes/train/v1",
        "externalParameters": {
            "workflow": {
                "repository": SOURCE_URL,
                "ref": "refs/heads/main",
                "path": ".github/workflows/release.yml",
            },
            "inputs": {"model": "pytorch_model.pth", "epochs": 6},
        },
        "internalParameters": {
            "github": {
                "event_name": "workflow_dispatch",
                "repository_id": "1001",
                "repository_owner_id": "2002",
                "runner_environment": "github-hosted",
            }
        },
        "resolvedDependencies": [
            {
                "name": "source",
                "uri": f"git+{SOURCE_URL}@refs/heads/main",
                "digest": {"gitCommit": COMMIT},
            },
            {
                "name": "workflow",
                "uri": f"git+{BUILDER_URL}@{REF}",
                "digest": {"gitCommit": BUILDER_COMMIT},
            },
            {
                "name": "requirements",
                "digest": {"sha256": lock_digest},
                "annotations": {"claimedBy": "training job", "name": "requirements/pytorch.txt"},
            },
            {
                "name": "dataset",
                "digest": {"sha256": DATASET},
                "annotations": {"claimedBy": "training job"},
            },
            {
                "name": "base-model",
                "digest": {"sha256": base_digest},
                "annotations": {"claimedBy": "caller", "name": "base.pth"},
            },
        ],
    }


def expected_details(record_bytes: bytes) -> dict[str, Any]:
    return {
        "builder": {"id": f"{TRAIN}@{REF}"},
        "metadata": {
            "invocationId": f"{SOURCE_URL}/actions/runs/77/attempts/1",
            "startedOn": "2026-11-22T19:59:58Z",
        },
        "byproducts": [
            {
                "name": "training.json",
                "digest": {"sha256": sha256(record_bytes).hexdigest()},
                "mediaType": "application/json",
                "content": base64.b64encode(record_bytes).decode(),
                "annotations": {"claimedBy": "training job"},
            }
        ],
    }


def test_every_field(workshop: Workshop) -> None:
    model = workshop.model()
    lock = workshop.folder / "requirements" / "pytorch.txt"
    lock.parent.mkdir()
    lock.write_text("torch==2.13.0 --hash=sha256:...\n")
    lock_digest = sha256(lock.read_bytes()).hexdigest()
    record = json.loads(workshop.record(model))
    record["environment"]["requirements_sha256"] = lock_digest
    record_bytes = json.dumps(record).encode()
    (workshop.folder / "training.json").write_bytes(record_bytes)
    base = workshop.model(b"base", "base.pth")
    signature = workshop.sign_model(base)
    base_payload = bundle.parse(signature.read_bytes()).payload

    code, _ = make(
        workshop,
        model,
        *("--requirements", lock, "--base-model", signature),
        *("--started-on", "2026-11-22T19:59:58+00:00"),
    )

    assert code == 0
    statement = statement_of(workshop)
    schema = json_schema.load("buildtype-train.v1.json")
    jsonschema.validate(statement["predicate"], schema)
    json_schema.check(statement["predicate"], schema, Error, "The predicate")
    finished = statement["predicate"]["runDetails"]["metadata"].pop("finishedOn")
    made = datetime.fromisoformat(finished.replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - made).total_seconds()) < 600
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model.pth", "digest": {"sha256": sha256(b"weights").hexdigest()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": expected_definition(lock_digest, sha256(base_payload).hexdigest()),
            "runDetails": expected_details(record_bytes),
        },
    }


def test_what_is_made_verifies(workshop: Workshop) -> None:
    model = workshop.model()
    assert make(workshop, model)[0] == 0
    options = ("--provenance", workshop.folder / "out.json", "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--builder-id", TRAIN)
    assert (code, refusals(verdict)) == (0, [])


def test_predicate_for_another_attester(workshop: Workshop) -> None:
    model = workshop.model()
    requests = len(workshop.sigstore.requests)
    assert make(workshop, model, "--predicate-only")[0] == 0
    assert len(workshop.sigstore.requests) == requests  # nothing was signed
    predicate = json.loads((workshop.folder / "out.json").read_bytes())
    assert predicate["runDetails"]["builder"]["id"] == f"{TRAIN}@{REF}"


def test_ambient_identity(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = workshop.sigstore.oidc.request_token_for(claims())
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", workshop.sigstore.job_token_url)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer)
    model = workshop.model()
    output = workshop.folder / "out.json"
    options = ("provenance", model, "--training-record", workshop.record_file(model))
    assert workshop.run(*options, "--output", output)[0] == 0
    assert statement_of(workshop)["predicate"]["runDetails"]["builder"]["id"] == f"{TRAIN}@{REF}"
    output.unlink()
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "revoked")
    assert workshop.run(*options, "--output", output)[0] == 1
    for name in ("URL", "TOKEN"):
        monkeypatch.delenv(f"ACTIONS_ID_TOKEN_REQUEST_{name}")
    assert workshop.run(*options, "--output", output)[0] == 1
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert workshop.run(*options, "--output", output)[0] == 1
    assert not output.exists()


# Refusals: exit 1, nothing written


def refused(
    workshop: Workshop,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    *options: object,
    **on: str,
) -> str:
    code, _ = make(workshop, model, *options, **on)
    assert code == 1
    assert not (workshop.folder / "out.json").exists()
    return capsys.readouterr().err


def test_model_changed_since_training(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workshop.model()
    workshop.record_file(model)
    model.write_bytes(b"poisoned")
    error = refused(workshop, capsys, model)
    assert "another model" in error
    assert sha256(b"weights").hexdigest() in error
    assert sha256(b"poisoned").hexdigest() in error


def test_model_other_than_reported(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    model = workshop.model()
    digest = sha256(b"weights").hexdigest()
    lines = base64.b64encode(f"{digest}  model.pth\n".encode()).decode()
    other = base64.b64encode(f"{'e' * 64}  model.pth\n".encode()).decode()
    assert "reported" in refused(workshop, capsys, model, "--expected", other)
    assert "reported" in refused(workshop, capsys, model, "--expected-sha256", "e" * 64)
    code, _ = make(workshop, model, "--expected", lines, "--expected-sha256", digest)
    assert code == 0


def with_field(record: Json, path: str, value: object) -> bytes:
    node: Any = record
    *parents, last = path.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"schema": 1, "schema": 1}',
        b"x" * (1024 * 1024 + 1),
        b"[" * 100_000,
        ("metrics.test_accuracy", "<script>"),
        ("environment.platform", "x" * 100_000),
        ("model.sha256", "../../etc/passwd"),
    ],
    ids=["empty", "list", "twice", "large", "deep", "markup", "long", "path"],
)
def test_hostile_records(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], content: bytes | tuple[str, str]
) -> None:
    model = workshop.model()
    if isinstance(content, tuple):
        content = with_field(json.loads(workshop.record(model)), *content)
    workshop.write("training.json", content)
    assert "error:" in refused(workshop, capsys, model)


@pytest.mark.parametrize("named", [None, "e" * 64])
def test_other_requirements_than_the_workflows_own(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], named: str | None
) -> None:
    model = workshop.model()
    lock = workshop.write("pytorch.txt", b"torch==2.13.0\n")
    record = json.loads(workshop.record(model))
    workshop.write("training.json", with_field(record, "environment.requirements_sha256", named))
    assert "locked requirements" in refused(workshop, capsys, model, "--requirements", lock)


def test_the_model_is_never_loaded(workshop: Workshop) -> None:
    marker = workshop.folder / "loaded"
    pickle = b"cos\nsystem\n(S'touch %s'\ntR." % str(marker).encode()
    assert make(workshop, workshop.model(pickle))[0] == 0
    assert not marker.exists()


@pytest.mark.parametrize(
    "on",
    [
        {"job_workflow_ref": f"builders/mt/.github/workflows/sign.yml@{REF}"},
        {"workflow_ref": "octo-org/other/.github/workflows/release.yml@refs/heads/main"},
        {"workflow_ref": "no workflow"},
        {"job_workflow_ref": "builders/mt/.github/workflows/train.yml@a@b"},
        {"job_workflow_ref": "builders/mt/.github/workflows/train.yml"},
        {"run_id": ""},
        {"sha": "two words"},
    ],
    ids=lambda on: next(iter(on.items()))[1][-30:] or "empty",
)
def test_identities_that_cannot_speak_for_training(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], on: dict[str, str]
) -> None:
    assert "error:" in refused(workshop, capsys, workshop.model(), **on)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.A.c",
        "a.!!!.c",
        "a.bm9uc2Vuc2U.c",
        "a.W10.c",
        "a.e30.c",
        "a." + "A" * 70_000 + ".c",
    ],
)
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(ContextError) as caught:
        build_context.from_token(token, inputs={}, started=None, now=datetime.now(timezone.utc))
    assert caught.value.message


def test_a_token_of_a_person(workshop: Workshop) -> None:
    model = workshop.model()
    code, _ = workshop.run(
        *("provenance", model, "--training-record", workshop.record_file(model)),
        *("--output", workshop.folder / "out.json"),
        *("--identity-token", workshop.sigstore.oidc.token("dev@octo.example")),
    )
    assert code == 1


@pytest.mark.parametrize("text", ["[]", '{"a": [1]}', "{", "\udcff", '{"a":1,"a":2}', " " * 70_000])
def test_workflow_inputs_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        build_context.parse_inputs(text)


def test_times_need_a_zone(workshop: Workshop) -> None:
    for text in ("yesterday", "2026-11-22T20:00:00"):
        assert make(workshop, workshop.model(), "--started-on", text)[0] == 2


def test_certified_otherwise_than_described(workshop: Workshop) -> None:
    """The signer's certificate decides; a statement about another job is not published."""
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    from model_signing.methods.sigstore_trust import SigstoreTrust
    from slsa_for_models.attesting import train_statement

    trust = SigstoreTrust(trust_config=workshop.trust_config)
    with pytest.raises(CertificateClaimError):
        signing_job.sign_provenance(
            train_statement.encode(statement),
            signing_job.signer(workshop.token(run_id="78"), trust),
            trust,
        )
