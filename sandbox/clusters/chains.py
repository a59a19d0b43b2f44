"""The attestation that Tekton Chains would make of a finished PipelineRun, signed with a key.

Formatter slsa/v2alpha4, storage of the kinds `gcs` and `tekton`. Sources: tektoncd/chains,
docs/predicate/slsa/v2.md (build type), docs/slsa-provenance.md (type hinting, `isBuildArtifact`),
docs/config.md (`builder.id`, `builddefinition.buildtype`); where those are silent, its source.

For demonstrations and tests only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.clusters.tekton import PipelineRun, Value

Json = dict[str, Any]

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://tekton.dev/chains/v2/slsa"
BUILDER_ID = "https://tekton.dev/chains/v2"  # unless `builder.id` is configured
PAYLOAD_TYPE = "application/vnd.in-toto+json"
# Of the controller's many flags, those that the guide sets or relies on.
FEATURE_FLAGS = {
    "EnableAPIFields": "beta",
    "EnableParamEnum": True,
    "EnableProvenanceInStatus": True,
    "ResultExtractionMethod": "termination-message",
    "MaxResultSize": 4096,
}
_DIGEST = re.compile(r"(sha1|sha256|sha384|sha512):([0-9a-f]+)")


def statement(run: PipelineRun, *, builder_id: str = BUILDER_ID) -> Json:
    """The in-toto statement of a run: its artifact results are subjects and dependencies."""
    pipeline = run.reference
    return {
        "_type": STATEMENT,
        "predicateType": PREDICATE,
        "subject": [
            {"name": value["uri"], "digest": _digest(value)}
            for value in _artifacts(run.results, "ARTIFACT_OUTPUTS")
            if value.get("isBuildArtifact") == "true"
        ],
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "buildConfigSource": {
                        "ref": f"sha1:{pipeline.commit}",
                        "repository": pipeline.uri,
                        "path": pipeline.path,
                    },
                    "runSpec": run.spec,
                },
                "internalParameters": {"tekton-pipelines-feature-flags": FEATURE_FLAGS},
                "resolvedDependencies": _dependencies(run),
            },
            "runDetails": {
                "builder": {"id": builder_id},
                "metadata": {
                    "invocationId": run.uid,
                    "startedOn": run.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "finishedOn": run.finished.strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                "byproducts": [
                    {
                        "name": f"pipelineRunResults/{run.name}/{name}",
                        "mediaType": "application/json",
                        "content": base64.b64encode(
                            json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
                        ).decode(),
                    }
                    for name, value in run.results.items()
                    if not (isinstance(value, dict) and value.get("isBuildArtifact") == "true")
                ],
            },
        },
    }


def _dependencies(run: PipelineRun) -> list[Json]:
    """Pipeline, Tasks, their images, inputs; of equal URI and digest only the first."""
    found: list[Json] = [_reference("pipeline", run.reference.uri, run.reference.commit)]
    for task in run.tasks:
        found.append(_reference("pipelineTask", task.reference.uri, task.reference.commit))
        for image in task.images:
            name, _, digest = image.partition("@sha256:")
            found.append({"uri": f"oci://{name}", "digest": {"sha256": digest}})
    found += [
        {"name": "inputs/result", "uri": value["uri"], "digest": _digest(value)}
        for value in _artifacts(run.results, "ARTIFACT_INPUTS")
    ]
    first: dict[str, Json] = {}
    for entry in found:
        first.setdefault(json.dumps([entry["uri"], entry["digest"]]), entry)
    return list(first.values())


def _reference(name: str, uri: str, commit: str) -> Json:
    return {"name": name, "uri": uri, "digest": {"sha1": commit}}


def _artifacts(results: Mapping[str, Value], suffix: str) -> Iterator[Mapping[str, str]]:
    """Object results of that suffix with a URI and a digest; Chains passes over others, too."""
    for name, value in results.items():
        if (
            name.endswith(suffix)
            and isinstance(value, dict)
            and value.get("uri")
            and _DIGEST.fullmatch(value.get("digest", ""))
        ):
            yield value


def _digest(value: Mapping[str, str]) -> dict[str, str]:
    algorithm, _, digest = value["digest"].partition(":")
    return {algorithm: digest}


def envelope(document: Json, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A statement in a DSSE envelope, signed as Chains' signer x509 does: ECDSA with SHA-256."""
    payload = json.dumps(document, separators=(",", ":")).encode()
    header = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode()
    signature = key.sign(header + payload, ec.ECDSA(hashes.SHA256()))
    # The key's name is its SSH fingerprint.
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    fingerprint = base64.b64encode(hashlib.sha256(base64.b64decode(public)).digest()).decode()
    return json.dumps(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [
                {
                    "keyid": f"SHA256:{fingerprint.rstrip('=')}",
                    "sig": base64.b64encode(signature).decode(),
                }
            ],
        }
    ).encode()


def bucket_objects(run: PipelineRun, signed: bytes) -> dict[str, bytes]:
    """What the storage `gcs` writes: object name -> content."""
    folder = f"pipelinerun-{run.namespace}-{run.name}"
    payload = base64.b64decode(json.loads(signed)["payload"])
    return {
        f"{folder}/pipelinerun-{run.uid}.signature": signed,
        f"{folder}/pipelinerun-{run.uid}.payload": payload,
    }


def annotation(signed: bytes) -> bytes:
    """What the storage `tekton` writes, and `tkn` and `kubectl` print: base64 of the envelope."""
    return base64.b64encode(signed)
