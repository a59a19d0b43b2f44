"""D. What training says of itself: its record, and the data set that decides what a model is."""

from __future__ import annotations

from collections.abc import Set
from functools import partial
from hashlib import sha256

from model_signing.safe_files import read_bounded
from slsa_for_models.errors import DependencyMismatchError, RecordError
from slsa_for_models.evidence import subjects
from slsa_for_models.evidence.kinds import tekton
from slsa_for_models.evidence.statement_names import DATASET
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.evidence.training_record import MAX_BYTES, TrainingRecord, parse
from slsa_for_models.verdict.expectations import CIFAR10_SHA256, Expectations
from slsa_for_models.verdict.result import Found, claimed, claimed_by
from slsa_for_models.verdict.table import SLSA, TOGETHER, TRAIN, Table

_RECORD, _DATASET = "Training record", "Data set"


def examine(
    table: Table, found: Found, expected: Expectations
) -> tuple[TrainingRecord | None, str]:
    """Adds the steps for the training record and for the data set.

    Returns:
        The record, if an accepted provenance vouches for it; and the data set's SHA-256,
        hexadecimal, as far as it is known, else "".

    Raises:
        FileError: The record cannot be read.
    """
    record = _add_record(table, found)
    return record, _add_dataset(table, found, expected, record)


def _add_record(table: Table, found: Found) -> TrainingRecord | None:
    """From the file given, or else from the provenance."""
    accepted, model = found.accepted, found.model
    attested = [item.provenance.record for item in accepted if item.provenance.record is not None]
    path = found.evidence.training_record
    embedded = next((record.content for record in attested if record.content is not None), None)
    if path is None and embedded is None:
        table.not_checked(TOGETHER, _RECORD, TRAIN, "none was given")
        return None
    listed = {record.sha256 for record in attested}
    listed |= {subject.sha256 for item in accepted for subject in item.provenance.subjects}
    listed -= {None, model.sha256, model.root, *model.files.values()}  # the model is no record

    def check() -> TrainingRecord:
        data = embedded or b"" if path is None else read_bounded(path, MAX_BYTES)
        return check_record(data, listed, model)

    return table.step(
        TOGETHER,
        _RECORD,
        TRAIN,
        check,
        lambda record: f"claimed by the training job: {claimed(record)}",
        unless="" if attested else found.lost,
    )


def check_record(data: bytes, listed: Set[str | None], model: ModelDigests) -> TrainingRecord:
    """The record is one that was attested, and is about this model.

    Raises:
        RecordError: Malformed, not attested, or about another model.
    """
    digest = sha256(data).hexdigest()
    if digest not in listed:
        raise RecordError(
            "no accepted provenance names this training record",
            expected=", ".join(sorted(filter(None, listed)))[:200]
            or "a record that a provenance names",
            found=digest,
            fix=None
            if listed
            else f"give the provenance {model.name}.provenance.sigstore.json too",
        )
    record = parse(data)
    subjects.check_record(record, model)
    return record


def _add_dataset(
    table: Table, found: Found, expected: Expectations, record: TrainingRecord | None
) -> str:
    """Step 3 for the one dependency that decides what a model is: its training data."""
    sets, sources = (
        [
            resource
            for item in found.accepted
            for resource in item.provenance.dependencies
            if resource.name == name and (resource.sha256 or name == DATASET)
        ]
        for name in (DATASET, tekton.INPUT)
    )
    named, inputs = ({one.sha256 or "no SHA-256" for one in which} for which in (sets, sources))
    recorded = None if record is None else record.dataset.sha256
    wanted = expected.dataset_sha256
    if wanted is None and record is not None and record.dataset.name == "cifar10":
        wanted = CIFAR10_SHA256
    if not (wanted or named or inputs or recorded):
        why = "not named by any accepted evidence"
        table.not_checked(TOGETHER, _DATASET, f"{SLSA}, 3", why)
        return ""
    name = f"{record.dataset.name} " if record else ""
    says = claimed_by(sets) if named or inputs else ", claimed by the training job"
    unexpected = f"{says[2:] or 'as the provenance says'}; expect it with --dataset-digest"
    checked = table.step(
        TOGETHER,
        _DATASET,
        f"{SLSA}, 3",
        partial(check_dataset, wanted, named, inputs, recorded),
        lambda digest: f"{name}{digest} {f'as expected{says}' if wanted else unexpected}",
        compared=wanted is not None,
        unless="" if named or inputs or recorded else found.lost,
    )
    return checked or ""


def check_dataset(
    wanted: str | None, named: Set[str], inputs: Set[str], recorded: str | None
) -> str:
    """The data set's digest: expected, named by provenance, recorded by training; as far as known.

    Args:
        wanted: The digest expected, hexadecimal.
        named: Digests of the dependencies called `dataset`: this data set, and no other.
        inputs: Digests of Tekton's inputs, which have no names: one of them has to be it.
        recorded: What the training record says.

    Raises:
        DependencyMismatchError: Two of them differ, or one is expected and nobody names any.
    """
    for digest, message in (
        (recorded, "the provenance names another data set than training recorded"),
        (wanted, "trained on another data set than the one expected"),
    ):
        agree = (
            named == {digest} if named else not inputs or digest in inputs,
            recorded is None or recorded == digest,
            bool(named or inputs or recorded),
        )
        if digest is not None and not agree[-1]:
            raise DependencyMismatchError(
                "no evidence names a data set, and one is expected",
                where="resolvedDependencies, training record",
                expected=digest,
                found="no data set",
                fix="give the provenance of the training, and its record if it has one",
            )
        if digest is not None and not all(agree):
            raise DependencyMismatchError(
                message,
                where="resolvedDependencies, training record",
                expected=digest,
                found=", ".join(sorted({*(named or inputs), *filter(None, [recorded])})),
            )
    return wanted or recorded or ", ".join(sorted(named or inputs))
