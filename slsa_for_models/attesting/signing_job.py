"""The signing job: statement from artifact, record and context; signed; checked; only then written.

It recomputes every digest from the artifact, never loads the model, and treats the training record
as hostile.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from model_signing.errors import UsageError
from model_signing.methods import Signer
from model_signing.methods.fulcio import certificate_claims
from model_signing.methods.sigstore import authenticate_sigstore, sigstore_signer
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle, statement
from model_signing.safe_files import read_bounded
from slsa_for_models.attesting import train_statement
from slsa_for_models.attesting.build_context import BuildContext
from slsa_for_models.attesting.train_statement import BaseModel, Lock
from slsa_for_models.cifar10 import plan as recipes
from slsa_for_models.errors import RecordError, SubjectError
from slsa_for_models.evidence import claims, kinds, subjects, training_plan
from slsa_for_models.evidence.training_plan import Plan
from slsa_for_models.evidence.training_record import TrainingRecord
from slsa_for_models.evidence.training_record import parse as parse_record

MAX_LOCK_BYTES = 16 * 1024 * 1024


def ambient_token() -> str:
    """This job's own OpenID Connect token, audience `sigstore`.

    Raises:
        SigningError: There is none, or it cannot be fetched.
    """
    from model_signing.methods import identity_tokens, services

    return identity_tokens.ambient("sigstore", services.Patience())


def signer(token: str | None, trust: SigstoreTrust) -> Signer:
    """A keyless signer that prepares itself while the model is hashed."""
    return sigstore_signer(trust, identity_token=token, ambient=token is None)


def make_statement(
    model: Path,
    record_bytes: bytes,
    context: BuildContext,
    *,
    expected: str | None = None,
    expected_sha256: str | None = None,
    source: Path | None = None,
    locks: Iterable[Path] = (),
    base_signatures: Iterable[Path] = (),
) -> bytes:
    """The provenance statement of a model, encoded.

    Args:
        model: A file or a directory.
        record_bytes: The training record as it was found.
        context: What the control plane knows.
        expected: The subjects another job reported, from `subjects.encode`.
        expected_sha256: The model's one digest that another job reported, hexadecimal.
        source: This job's own checkout of the caller's commit, where its command was run.
        locks: Locked requirements; the training of a recipe has to name one of them.
        base_signatures: OMS signatures of the models that training started from.

    Raises:
        SubjectError: The model is not the one expected.
        RecordError: The record is malformed, about another model, or says that something else was
            done than the inputs ask for.
        UsageError: The inputs ask for what cannot be.
        FileError, BundleError, StatementError: A file cannot be read or is malformed.
    """
    # 1. The artifact, as it is here and now.
    measured = subjects.measure(model)
    about = subjects.of_model(measured)
    if expected is not None:
        subjects.check_encoded(expected, about)
    if expected_sha256 is not None and expected_sha256 != measured.sha256:
        raise SubjectError(
            "the model is not the one that was reported",
            where=str(model),
            expected=expected_sha256,
            found=measured.sha256,
            fix="do not use it: it changed between two jobs",
        )
    # 2. What training says about itself has to be about this artifact.
    record = parse_record(record_bytes)
    subjects.check_record(record, measured)
    # 3. What was asked for, by the inputs and the caller's commit; that has to be what was done.
    plan, lock = _asked_for(context, source)
    known = [_lock(path) for path in locks]
    if plan is not None:
        _check_done(plan, lock, record)
    if lock is None and known and not context.inputs.get("command"):
        lock = train_statement.lock_of(record, known)
    return train_statement.encode(
        train_statement.build(
            about,
            record,
            record_bytes,
            context,
            plan=plan,
            lock=lock,
            base_models=[
                *_started_from(plan, source),
                *(_base_model(path) for path in base_signatures),
            ],
        )
    )


def _asked_for(context: BuildContext, source: Path | None) -> tuple[Plan | None, Lock | None]:
    """The plan in the inputs, and the lock that it names, hashed in the caller's commit."""
    if not context.inputs.get("command"):
        return recipes.from_inputs(context.inputs), None
    plan = training_plan.read(context.inputs, source)
    named = (*(base.signature for base in plan.base_models), plan.requirements, plan.data_file)
    if source is None and any(named):
        raise UsageError(
            "the inputs name files of the caller's commit, and there is no checkout of it",
            expected="--source DIR",
            found=", ".join(filter(None, named)),
        )
    if source is None or not plan.requirements:
        return plan, None
    lock = training_plan.in_source(source, plan.requirements)
    data = read_bounded(lock, training_plan.MAX_LOCK_BYTES)
    digest = training_plan.check_lock(data, plan.requirements)
    return plan, Lock(plan.requirements, digest, in_source=True)


def _started_from(plan: Plan | None, source: Path | None) -> Iterator[BaseModel]:
    """The models that the inputs name by signatures in the caller's commit."""
    for base in plan.base_models if plan is not None and source is not None else ():
        found = _base_model(training_plan.in_source(source or Path(), base.signature))
        yield replace(found, in_source=True, uri=base.uri)


def _check_done(plan: Plan, lock: Lock | None, record: TrainingRecord) -> None:
    """Training says that it did what it was asked for.

    Raises:
        RecordError: It says that it did something else.
    """
    environment, network = record.environment, "allowed" if plan.network else "none"
    for what, expected, found in (
        ("model.name", PurePosixPath(plan.model).name, record.model.name),
        ("command", shlex.join(plan.words), shlex.join(record.command)),
        ("parameters", dict(plan.parameters), dict(record.parameters)),
        ("dataset.sha256", plan.dataset_sha256, record.dataset.sha256 if plan.data else None),
        ("environment.network", network, environment.network),
        (
            "environment.requirements_sha256",
            lock and lock.sha256,
            environment.requirements_sha256 if lock else None,
        ),
    ):
        if expected != found:
            raise RecordError(
                "training says that it did something else than it was asked for",
                where=what,
                expected=str(expected)[:1000],
                found=str(found)[:1000],
            )


def predicate_of(encoded: bytes) -> bytes:
    """The bare predicate of a statement, as indented JSON."""
    predicate: Any = json.loads(encoded)["predicate"]
    return (json.dumps(predicate, indent=2) + "\n").encode()


def sign_provenance(encoded: bytes, sign: Signer, trust: SigstoreTrust) -> bytes:
    """Signs a statement, and checks that the certificate says what the predicate says.

    Raises:
        SigningError: It could not be signed.
        CertificateClaimError: Another identity signed than the one described.
    """
    data = sign(encoded)
    authenticated = authenticate_sigstore(data, trust)
    facts = claims.certified_facts(certificate_claims(authenticated.certificate or b""))
    claims.check_claims(facts, kinds.read(authenticated.payload))
    return data


def _lock(path: Path) -> Lock:
    data = read_bounded(path, MAX_LOCK_BYTES)
    return Lock(f"{path.parent.name}/{path.name}", sha256(data).hexdigest())


def _base_model(path: Path) -> BaseModel:
    """Only its digest is taken; whoever verifies the provenance verifies the signature."""
    payload = bundle.parse(read_bounded(path)).payload
    return BaseModel(statement.decode(payload).model_name, sha256(payload).hexdigest())
