"""Evidence made to measure: every field of a statement and of its certificate can be chosen.

Signed by the sandbox's Sigstore, which certifies whatever claims it is told, so that a certificate
and a predicate can be made to disagree in one field at a time.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sigstore import dsse
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext

from model_signing import api
from model_signing.methods.sigstore import sigstore_signer
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle
from sandbox.sigstore import LocalSigstore
from slsa_for_models import cli
from slsa_for_models.attesting import build_context, train_statement
from slsa_for_models.evidence import subjects
from slsa_for_models.evidence import training_record as record
from slsa_for_models.evidence.training_plan import listing_digest
from tests.support.records import RECORD

SOURCE = "github.com/octo-org/models"
TRAIN = "https://github.com/builders/mt/.github/workflows/train.yml"
REF = "refs/tags/v1.2.3"
COMMIT, BUILDER_COMMIT = "a" * 40, "b" * 40
GENERATOR = (
    "slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml"
    "@refs/tags/v2.1.0"
)
CHAINS = "https://tekton.dev/chains/v2"
DATASET = sha256(b"the training data").hexdigest()

Json = dict[str, Any]


class _AnyStatement(dsse.Statement):
    """Payload bytes as they are; sigstore-python itself signs in-toto v1 only."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents


def claims(**changes: str) -> dict[str, str]:
    """A run of `train.yml` at a version, called by octo-org/models from its main branch."""
    return {
        "repository": "octo-org/models",
        "ref": "refs/heads/main",
        "sha": COMMIT,
        "workflow": ".github/workflows/release.yml",
        "event_name": "workflow_dispatch",
        "job_workflow_ref": f"{TRAIN.removeprefix('https://github.com/')}@{REF}",
        "job_workflow_sha": BUILDER_COMMIT,
        "run_id": "77",
        "run_attempt": "1",
        **changes,
    }


@cache
def _signing_context(trust_config: Path) -> SigningContext:
    return SigningContext.from_trust_config(ClientTrustConfig.from_json(trust_config.read_text()))


@dataclass(frozen=True)
class Workshop:
    """Makes evidence in a folder of its own."""

    sigstore: LocalSigstore
    trust_config: Path
    folder: Path

    # The model and its record

    def model(self, content: bytes = b"weights", name: str = "model.pth") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def directory(self, files: int = 3, name: str = "saved_model") -> Path:
        path = self.folder / name
        (path / "variables").mkdir(parents=True)
        for number in range(files):
            (path / "variables" / f"{number:04}").write_bytes(b"%d" % number)
        return path

    def record(self, model: Path, **dataset: Any) -> bytes:
        measured = subjects.measure(model)
        files = tuple(record.File(name, digest, 1) for name, digest in measured.files.items())
        listing = measured.sha256 if measured.single else listing_digest(measured.files.items())
        files = () if measured.single else files[:1000]
        given = {"name": "data.csv", "sha256": DATASET, "size": 17, "uri": None, **dataset}
        made = replace(
            RECORD,
            model=record.Model(model.name, 7, listing, files),
            dataset=record.Dataset(given["sha256"], (record.Input(**given),)),
        )
        return record.encode(made)

    def record_file(self, model: Path, **dataset: Any) -> Path:
        path = self.folder / "training.json"
        path.write_bytes(self.record(model, **dataset))
        return path

    # Signing

    def token(self, **changes: str) -> str:
        return self.sigstore.oidc.github_token(**claims(**changes))

    def sign(self, statement: Json | bytes, token: str) -> bytes:
        """A bundle of any payload, by stock sigstore-python."""
        payload = statement if isinstance(statement, bytes) else train_statement.encode(statement)
        with _signing_context(self.trust_config).signer(IdentityToken(token)) as signer:
            return signer.sign_dsse(_AnyStatement(payload)).to_json().encode()

    def sign_model(self, model: Path, **changes: str) -> Path:
        signature = model.with_name(f"{model.name}.sig")
        trust = SigstoreTrust(self.trust_config)
        api.sign(model, signature, sigstore_signer(trust, identity_token=self.token(**changes)))
        return signature

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    # Statements, each as its builder makes it

    def train_statement(self, model: Path, record_bytes: bytes, **changes: str) -> Json:
        about = subjects.of_model(subjects.measure(model))
        built = build_context.from_token(
            self.token(**changes),
            inputs={
                "model": "pytorch_model.pth",
                "epochs": 6,
                "self_test": True,
                "runner": "ubuntu-latest",
            },
            started=None,
            now=datetime(2026, 11, 22, 21, tzinfo=timezone.utc),
        )
        return train_statement.build(about, record.parse(record_bytes), record_bytes, built)

    def train_provenance(self, model: Path, name: str = "p.json", **changes: str) -> Path:
        statement = self.train_statement(model, self.record(model), **changes)
        return self.write(name, self.sign(statement, self.token(**changes)))

    def generator_provenance(
        self, model: Path, statement: Json | None = None, name: str = "g.intoto.jsonl", **on: str
    ) -> Path:
        on = {"job_workflow_ref": GENERATOR, **on}
        made = statement or generator_statement(model, **on)
        return self.write(name, self.sign(made, self.token(**on)))

    # Verifying

    def verify(self, model: Path, *options: object) -> tuple[int, Json]:
        """Runs `slsa_for_models verify --format json`; returns its exit code and its verdict."""
        return self.run("verify", model, "--format", "json", *options)

    def run(self, *arguments: object) -> tuple[int, Json]:
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = cli.main([*map(str, arguments), "--trust-config", str(self.trust_config)])
        text = out.getvalue()
        return code, json.loads(text) if text.startswith("{") else {"text": text}


def refusals(verdict: Json) -> list[str]:
    """The classes of the refusals in a verdict, in order."""
    return [step["refusal"]["error"] for step in verdict["steps"] if step["refusal"]]


def generator_statement(model: Path, **changes: str) -> Json:
    """What slsa-github-generator v2.1.0 states about one file (compare shared/data/slsa)."""
    on = claims(
        job_workflow_ref=GENERATOR, **{k: v for k, v in changes.items() if k != "job_workflow_ref"}
    )
    source = f"git+https://github.com/{on['repository']}@{on['ref']}"
    is_tag = on["ref"].startswith("refs/tags/")
    event: Json = (
        {"inputs": {"release": "yes", "epochs": "6"}}
        if on["event_name"] == "workflow_dispatch"
        else {}
    )
    if is_tag:
        event["base_ref"] = "refs/heads/main"
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [
            {"name": model.name, "digest": {"sha256": sha256(model.read_bytes()).hexdigest()}}
        ],
        "predicate": {
            "builder": {"id": f"https://github.com/{changes.get('job_workflow_ref', GENERATOR)}"},
            "buildType": "https://github.com/slsa-framework/slsa-github-generator/generic@v1",
            "invocation": {
                "configSource": {
                    "uri": source,
                    "digest": {"sha1": on["sha"]},
                    "entryPoint": on["workflow"],
                },
                "parameters": {"vars": {}},
                "environment": {
                    "github_actor": "octocat",
                    "github_base_ref": "",
                    "github_event_name": on["event_name"],
                    "github_event_payload": event,
                    "github_head_ref": "",
                    "github_ref": on["ref"],
                    "github_ref_type": "tag" if is_tag else "branch",
                    "github_repository_id": "1001",
                    "github_repository_owner": on["repository"].split("/")[0],
                    "github_repository_owner_id": "2002",
                    "github_run_attempt": on["run_attempt"],
                    "github_run_id": on["run_id"],
                    "github_run_number": "1",
                    "github_sha1": on["sha"],
                },
            },
            "metadata": {
                "buildInvocationID": f"{on['run_id']}-{on['run_attempt']}",
                "completeness": {"parameters": True, "environment": False, "materials": False},
                "reproducible": False,
            },
            "materials": [{"uri": source, "digest": {"sha1": on["sha"]}}],
        },
    }


def github_statement(model: Path, **changes: str) -> Json:
    """What actions/attest-build-provenance states about one file."""
    on = claims(**changes)
    repository = f"https://github.com/{on['repository']}"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": model.name, "digest": {"sha256": sha256(model.read_bytes()).hexdigest()}}
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://actions.github.io/buildtypes/workflow/v1",
                "externalParameters": {
                    "workflow": {
                        "ref": on["ref"],
                        "repository": repository,
                        "path": on["workflow"],
                    }
                },
                "internalParameters": {
                    "github": {
                        "event_name": on["event_name"],
                        "repository_id": "1001",
                        "repository_owner_id": "2002",
                        "runner_environment": on.get("runner_environment", "github-hosted"),
                    }
                },
                "resolvedDependencies": [
                    {
                        "uri": f"git+{repository}@{on['ref']}",
                        "digest": {"gitCommit": on["sha"]},
                    }
                ],
            },
            "runDetails": {
                "builder": {"id": f"https://github.com/{on['job_workflow_ref']}"},
                "metadata": {
                    "invocationId": f"{repository}/actions/runs/{on['run_id']}"
                    f"/attempts/{on['run_attempt']}"
                },
            },
        },
    }


def tekton_statement(model: Path) -> Json:
    """What Tekton Chains states about a pipeline run, formatter slsa/v2alpha4."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "gs://bucket/model", "digest": {"sha256": subjects.measure(model).sha256}}
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://tekton.dev/chains/v2/slsa",
                "externalParameters": {
                    "buildConfigSource": {
                        "repository": "git+https://github.com/octo-org/models",
                        "ref": f"sha1:{COMMIT}",
                        "path": "pipeline.yaml",
                    },
                    "runSpec": {
                        "pipelineRef": {"resolver": "git"},
                        "params": [
                            {"name": "model", "value": "pytorch_model.pth"},
                            {"name": "formats", "value": ["a", "b"]},
                        ],
                    },
                },
                "internalParameters": {},
                "resolvedDependencies": [
                    {
                        "name": "pipeline",
                        "uri": "git+https://github.com/octo-org/models.git",
                        "digest": {"sha1": COMMIT},
                    },
                    {"uri": "oci://docker.io/library/python", "digest": {"sha256": "d" * 64}},
                    {
                        "name": "inputs/result",
                        "uri": "git+https://github.com/octo-org/models.git",
                        "digest": {"sha1": COMMIT},
                    },
                    {
                        "name": "inputs/result",
                        "uri": "gs://bucket/data",
                        "digest": {"sha256": DATASET},
                    },
                ],
            },
            "runDetails": {
                "builder": {"id": CHAINS},
                "metadata": {
                    "invocationId": "11111111-2222-3333-4444-555555555555",
                    "startedOn": "2026-11-22T20:00:00Z",
                    "finishedOn": "2026-11-22T20:30:00Z",
                },
            },
        },
    }


# Bare DSSE envelopes, signed with keys

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: Key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def envelope(
    statement: Json | bytes,
    key: Key,
    payload_type: str = bundle.PAYLOAD_TYPE,
    algorithm: hashes.HashAlgorithm | None = None,
) -> Json:
    payload = statement if isinstance(statement, bytes) else train_statement.encode(statement)
    signed = bundle.pae(payload_type, payload)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(signed)
    else:
        signature = key.sign(signed, ec.ECDSA(algorithm or hashes.SHA256()))
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": "SHA256:unused", "sig": base64.b64encode(signature).decode()}],
    }


def changed(document: Mapping[str, Any], path: str, value: object) -> Json:
    """A deep copy with one field replaced; None removes it. Numbers in `path` index lists."""
    result = copy.deepcopy(dict(document))
    *parents, last = path.split(".")
    node: Any = result
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    key = int(last) if isinstance(node, list) else last
    if value is None:
        del node[key]
    else:
        node[key] = value
    return result
