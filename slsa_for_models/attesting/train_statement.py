"""SLSA v1 provenance of a training run, of the build type in docs/buildtypes/train-v1.md.

Pure: values in, statement out. What the control plane knows (the certified claims of the signing
job, digests it computed itself) and what the training job says about itself (its record) are kept
apart: the latter only ever appears in a dependency or by-product annotated `claimedBy`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from slsa_for_models.attesting.build_context import BuildContext
from slsa_for_models.errors import ContextError, RecordError
from slsa_for_models.evidence import statement_names
from slsa_for_models.evidence.github import GITHUB, SIGNING_WORKFLOW, split_workflow
from slsa_for_models.evidence.kinds import train
from slsa_for_models.evidence.provenance import PREDICATE_V1
from slsa_for_models.evidence.statement import STATEMENT_V1
from slsa_for_models.evidence.subjects import Subject
from slsa_for_models.evidence.training_plan import Plan
from slsa_for_models.evidence.training_record import TrainingRecord

TRAINING_JOB = "training job"
CALLER = "caller"


@dataclass(frozen=True)
class Lock:
    """A hash-locked requirements file.

    Attributes:
        path: Its name.
        sha256: Its digest, hexadecimal, computed by the signing job.
        in_source: Whether it is a file of the caller's commit that the inputs name: then it is the
            one that was used. Else training says so.
    """

    path: str
    sha256: str
    in_source: bool = False


@dataclass(frozen=True)
class BaseModel:
    """A model that the trained one starts from, by its signature.

    Attributes:
        name: The name it was signed with.
        payload_sha256: SHA-256 of its signed OMS statement, hexadecimal. It binds file names, which
            the OMS root digest does not.
        in_source: Whether the inputs name that signature, a file of the caller's commit: then the
            model was verified before training. Else the caller says so.
        uri: Where it was had, or "".
    """

    name: str
    payload_sha256: str
    in_source: bool = False
    uri: str = ""


def lock_of(record: TrainingRecord, locks: Iterable[Lock]) -> Lock:
    """The one of the known locks that training says it was installed from.

    Raises:
        RecordError: It names none of them.
    """
    claimed, known = record.environment.requirements_sha256, {lock.sha256: lock for lock in locks}
    if claimed is None or claimed not in known:
        raise RecordError(
            "training was not installed from this commit's locked requirements",
            where="environment.requirements_sha256",
            expected=", ".join(sorted(known)),
            found=claimed or "none",
        )
    return known[claimed]


def build(
    subjects: Iterable[Subject],
    record: TrainingRecord,
    record_bytes: bytes,
    context: BuildContext,
    *,
    plan: Plan | None = None,
    lock: Lock | None = None,
    base_models: Iterable[BaseModel] = (),
) -> dict[str, Any]:
    """The in-toto statement (in-toto Statement v1, SLSA v1.2 build-provenance).

    Args:
        subjects: What was trained, computed by the signing job from the artifact.
        record: The training record, parsed.
        record_bytes: The same, as it was written.
        context: What the control plane knows.
        plan: What the caller of the workflow asked for, by its inputs.
        lock: The requirements that it says it was installed from, known to the signing job.
        base_models: What the caller says the training started from.

    Raises:
        ContextError: The job is part of `sign.yml`, which trains nothing.
    """
    repository, path, ref = split_workflow(context.workflow, where="workflow_ref")
    builder_repository, builder_path, builder_ref = split_workflow(
        context.builder, where="job_workflow_ref"
    )
    if f"/{builder_path}" == SIGNING_WORKFLOW:
        raise ContextError(
            "the workflow sign.yml signs models of others; it cannot say how they were trained",
            where="job_workflow_ref",
            found=context.builder,
        )
    if repository != context.repository:
        raise ContextError(
            "the run's workflow belongs to another repository than the run",
            where="workflow_ref",
            expected=context.repository,
            found=repository,
        )
    builder_uri = f"git+{GITHUB}{builder_repository}@{builder_ref}"
    source_uri = f"git+{GITHUB}{repository}@{context.ref}"
    definition = {
        "buildType": train.BUILD_TYPE,
        "externalParameters": {
            "workflow": {"repository": GITHUB + repository, "ref": ref, "path": path},
            "inputs": dict(context.inputs),
        },
        "internalParameters": {
            "github": {
                "event_name": context.event,
                "repository_id": context.repository_id,
                "repository_owner_id": context.owner_id,
                "runner_environment": context.runner,
            }
        },
        "resolvedDependencies": [
            _resource("source", source_uri, gitCommit=context.commit),
            _resource("workflow", builder_uri, gitCommit=context.builder_commit),
            *_ingredients(record, source_uri, plan, lock, base_models),
        ],
    }
    return {
        "_type": STATEMENT_V1,
        "subject": [
            {"name": subject.name, "digest": {"sha256": subject.sha256}} for subject in subjects
        ],
        "predicateType": PREDICATE_V1,
        "predicate": {
            "buildDefinition": definition,
            "runDetails": _run_details(context, record_bytes),
        },
    }


def _ingredients(
    record: TrainingRecord,
    source_uri: str,
    plan: Plan | None,
    lock: Lock | None,
    base_models: Iterable[BaseModel],
) -> Iterator[dict[str, Any]]:
    """The dependencies that went into the model, rather than into the run."""
    if lock is not None and lock.in_source:
        uri = f"{source_uri}#{lock.path}"
        yield _resource(statement_names.REQUIREMENTS, uri, sha256=lock.sha256)
    elif lock is not None:  # that it is one of ours does not say that it was used
        resource = _resource(statement_names.REQUIREMENTS, "", sha256=lock.sha256)
        yield _claimed(resource, TRAINING_JOB, name=lock.path)
    if plan is not None and plan.data:
        yield from _pinned(plan)
    elif record.dataset.sha256 is not None:
        resource = _resource(statement_names.DATASET, "", sha256=record.dataset.sha256)
        yield _claimed(resource, TRAINING_JOB)
    for base in base_models:
        resource = _resource(statement_names.BASE_MODEL, base.uri, sha256=base.payload_sha256)
        yield resource if base.in_source else _claimed(resource, CALLER, name=base.name)


def _pinned(plan: Plan) -> Iterator[dict[str, Any]]:
    """The data set that the inputs pin, which the train job checked before it ran the command."""
    yield _resource(statement_names.DATASET, "", sha256=plan.dataset_sha256 or "")
    for pin in plan.data:
        name = f"{statement_names.DATASET_FILE}{pin.path}"
        yield _resource(name, next(iter(pin.uris), ""), sha256=pin.sha256)


def _run_details(context: BuildContext, record_bytes: bytes) -> dict[str, Any]:
    started = {} if context.started is None else {"startedOn": timestamp(context.started)}
    record = {
        "name": statement_names.RECORD,
        "digest": {"sha256": sha256(record_bytes).hexdigest()},
        "mediaType": "application/json",
        "content": base64.b64encode(record_bytes).decode(),
    }
    return {
        "builder": {"id": context.builder_id},
        "metadata": {
            "invocationId": context.invocation,
            **started,
            "finishedOn": timestamp(context.finished),
        },
        "byproducts": [_claimed(record, TRAINING_JOB)],
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """A statement or predicate as JSON bytes; equal documents give equal bytes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as in-toto's Timestamp."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _resource(name: str, uri: str, **digest: str) -> dict[str, Any]:
    resource: dict[str, Any] = {"name": name, "uri": uri, "digest": digest}
    return resource if uri else {"name": name, "digest": digest}


def _claimed(resource: dict[str, Any], by: str, **said: str) -> dict[str, Any]:
    return {**resource, "annotations": {"claimedBy": by, **said}}
