"""D. What training says of itself: its record, and the data set that decides what a model is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence, Set
from functools import partial
from hashlib import sha256

from model_signing.safe_files import read_bounded
from slsa_for_models.errors import DependencyMismatchError, RecordError
from slsa_for_models.evidence import subjects
from slsa_for_models.evidence.kinds import tekton
from slsa_for_models.evidence.statement_names import DATASET, DATASET_FILE, REQUIREMENTS
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.evidence.training_plan import dataset_digest
from slsa_for_models.evidence.training_record import MAX_BYTES, TrainingRecord, parse
from slsa_for_models.verdict.choice import Found
from slsa_for_models.verdict.expectations import Bounds
from slsa_for_models.verdict.result import (
    Accepted,
    builders_word,
    claimed,
    claimed_by,
    dependencies,
    inputs_of,
    with_command,
)
from slsa_for_models.verdict.table import POLICY, SLSA, TOGETHER, TRAIN, Table, counted

_RECORD, _DATASET = "Training record", "Data set"
_NETWORKS = {
    "none": "none: what it read is the commit, the data and the locked packages",
    "allowed": "allowed: what it read from there nobody knows",
}
_SHOWN = 500


def examine(table: Table, found: Found) -> tuple[TrainingRecord | None, str]:
    """Adds the steps for the training record and for the data set.

    Returns:
        The record, if an accepted provenance vouches for it; and the data set's SHA-256,
        hexadecimal, as far as it is known, else "".

    Raises:
        FileError: The record cannot be read.
    """
    record = _add_record(table, found)
    _add_what_ran(table, found, record)
    dataset = _add_dataset(table, found, record)
    if found.expected.metrics:
        check = partial(check_metrics, found.expected.metrics, record)
        table.step(TOGETHER, "Metrics", POLICY, check, unless="" if record else found.lost)
    return record, dataset


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

    def check() -> tuple[TrainingRecord, str]:
        data = embedded or b"" if path is None else read_bounded(path, MAX_BYTES)
        return check_record(data, listed, model), sha256(data).hexdigest()

    checked = table.step(
        TOGETHER,
        _RECORD,
        TRAIN,
        check,
        lambda said: f"claimed by the training job: {claimed(said[0])}, SHA-256 {said[1]}",
        unless="" if attested else found.lost,
    )
    return checked and checked[0]


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


def _add_what_ran(table: Table, found: Found, record: TrainingRecord | None) -> None:
    """Command, network and packages: stated by the workflow's inputs, claimed, or unknown."""
    stated = with_command(found.accepted)
    inputs = stated.provenance.inputs if stated else {}
    network = _NETWORKS.get(inputs.get("network") or "none")
    locks = [one for one in dependencies(found.accepted, REQUIREMENTS) if one.sha256]
    lock = ", ".join(f"{one.uri.partition('#')[2]} {one.sha256}".strip() for one in locks)
    unlocked = "not locked"
    for title, words, claim in (
        ("Command", inputs.get("command", "").strip(), record and shlex.join(record.command)),
        (
            "Network",
            f"{network}{builders_word(stated)}" if stated and network else "",
            record and record.environment.network,
        ),
        (
            "Requirements",
            f"{lock}{claimed_by(locks)}" or (unlocked if stated else ""),
            record and (record.environment.requirements_sha256 or unlocked),
        ),
    ):
        said = words or (f"{claim}, claimed by the training job" if claim else "")
        if said:
            table.note(TOGETHER, title, TRAIN, said[:_SHOWN])
        else:
            table.not_checked(TOGETHER, title, TRAIN, "not named by any accepted evidence")


def check_metrics(wanted: Mapping[str, Bounds], record: TrainingRecord | None) -> str:
    """The figures that training claims, within the bounds expected.

    Raises:
        RecordError: There is no such figure, or it is outside of them.
    """
    for name, bounds in wanted.items():
        found = None if record is None else record.metrics.get(name)
        if found is None:
            raise RecordError(
                "no accepted training record has a metric that is expected",
                where=f"metric {name}",
                expected=str(bounds),
                found="no training record" if record is None else "no metric of that name",
            )
        if not bounds.hold(found):
            raise RecordError(
                "training claims another figure than expected",
                where=f"metric {name}",
                expected=str(bounds),
                found=f"{found:g}",
            )
    shown = (f"{name} {record.metrics[name]:g}" for name in wanted) if record else ()
    return f"{', '.join(shown)}, claimed by the training job"


def _add_dataset(table: Table, found: Found, record: TrainingRecord | None) -> str:
    """Step 3 for the one dependency that decides what a model is: its training data."""
    expected, sets = found.expected, dependencies(found.accepted, DATASET)
    named = {one.sha256 or "no SHA-256" for one in sets}
    inputs = {one.sha256 for one in dependencies(found.accepted, tekton.INPUT) if one.sha256}
    recorded = None if record is None else record.dataset.sha256
    wanted = expected.dataset_sha256 or dataset_digest(expected.data.items())
    if expected.data:
        check = partial(check_files, expected.data, found.accepted)
        title, unless = "Data set, file by file", "" if found.accepted else found.lost
        table.step(TOGETHER, title, f"{SLSA}, 3", check, unless=unless)
    if not (wanted or named or inputs or recorded):
        why = "not named by any accepted evidence"
        table.not_checked(TOGETHER, _DATASET, f"{SLSA}, 3", why)
        return ""
    name = f"{inputs_of(record)} " if record and record.dataset.files else ""
    says = claimed_by(sets) if named or inputs else ", claimed by the training job"
    pinned = [item for item in found.accepted if item.provenance.kind.trains and _pins(item)]
    if pinned and not says:
        says = f", checked before the command started{builders_word(pinned[0])}"
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


def check_files(wanted: Mapping[str, str], accepted: Sequence[Accepted]) -> str:
    """The data set is exactly these files.

    Raises:
        DependencyMismatchError: Another file, or one less or more; or nobody names them.
    """
    whole = dataset_digest(wanted.items())
    is_named = False
    for item in accepted:
        files = _pins(item)
        named = {one.sha256 or "" for one in dependencies([item], DATASET) if not one.claimed_by}
        if not files and not named:
            continue
        odd = sorted(path for path in {*wanted, *files} if wanted.get(path) != files.get(path))
        if (files and odd) or named != {whole}:
            path = odd[0] if odd else "the data set as a whole"
            raise DependencyMismatchError(
                "trained on other data than those expected",
                where=f"{item.signed.label}: {path}",
                expected=wanted.get(path, "no such file") if odd else whole,
                found=files.get(path, "no such file") if odd else ", ".join(sorted(named)),
            )
        is_named = True
    if not is_named:
        raise DependencyMismatchError(
            "no accepted provenance names the files of the data set, and they are expected",
            where=f"resolvedDependencies, {DATASET_FILE}PATH",
            expected=counted(len(wanted), "file"),
            found="none",
        )
    return f"{counted(len(wanted), 'file')}, and no other"


def _pins(item: Accepted) -> dict[str, str]:
    """The files that a provenance names as the data set, not as somebody's claim."""
    return {
        resource.name.removeprefix(DATASET_FILE): resource.sha256 or ""
        for resource in item.provenance.dependencies
        if resource.name.startswith(DATASET_FILE) and not resource.claimed_by
    }


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
    where, known = "resolvedDependencies, training record", {*(named or inputs)}
    if recorded is not None:
        known.add(recorded)
    if wanted is not None and not known:
        raise DependencyMismatchError(
            "no evidence names a data set, and one is expected",
            where=where,
            expected=wanted,
            found="no data set",
            fix="give the provenance of the training, and its record if it has one",
        )
    for digest, message in (
        (recorded, "the provenance names another data set than training recorded"),
        (wanted, "trained on another data set than the one expected"),
    ):
        agrees = named == {digest} if named else not inputs or digest in inputs
        if digest is not None and not (agrees and recorded in (None, digest)):
            found = ", ".join(sorted(known))
            raise DependencyMismatchError(message, where=where, expected=digest, found=found)
    return wanted or recorded or ", ".join(sorted(named or inputs))
