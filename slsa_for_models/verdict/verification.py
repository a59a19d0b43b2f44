"""One verdict over a model's bytes, its signature and every provenance it came with.

The steps are those of SLSA v1.2 "Verifying artifacts" (1.1 signature, 1.2 subject, 1.3 predicate
type, 1.4 builder and level, 2 expectations, 3 dependencies), then what no single piece of evidence
can say: that all of it is about the same bytes, run, commit and data set. Every step is run and
shown, also after a refusal, unless there is nothing left that it could truthfully look at: what
rests on evidence that was refused is not refused once more for the same cause.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from model_signing import api
from model_signing.errors import FileError, UsageError
from model_signing.hashing import Progress
from model_signing.methods import Authenticated
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import BuilderError, ChainError, DependencyMismatchError, RecordError
from slsa_for_models.evidence import claims, envelopes, kinds, statement_names, subjects
from slsa_for_models.evidence.envelopes import Attestation
from slsa_for_models.evidence.kinds import tekton
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.evidence.training_record import MAX_BYTES, TrainingRecord
from slsa_for_models.evidence.training_record import parse as parse_record
from slsa_for_models.verdict import base_models as lineage
from slsa_for_models.verdict import expectations, signers
from slsa_for_models.verdict import run_conclusion as conclusion
from slsa_for_models.verdict import vsa as summaries
from slsa_for_models.verdict.base_models import BaseModel
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import (
    OFFLINE,
    Accepted,
    Evidence,
    Signed,
    Verdict,
    claimed,
    logged,
)
from slsa_for_models.verdict.run_conclusion import GitHubApi
from slsa_for_models.verdict.table import (
    OMS,
    POLICY,
    SLSA,
    TRAIN,
    UNFORGEABLE,
    Step,
    Table,
    counted,
)

AnyPath = str | os.PathLike[str]


def verify(
    model: AnyPath,
    expected: Expectations,
    *,
    signature: AnyPath | None = None,
    provenance: Sequence[AnyPath] = (),
    training_record: AnyPath | None = None,
    vsa: AnyPath | None = None,
    base_models: Sequence[BaseModel] = (),
    trust: SigstoreTrust = OFFLINE,
    run_conclusion: GitHubApi | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """One verdict over a model and all that came with it. Refusals are in it, not raised.

    Args:
        model: A file or a directory.
        expected: The expectations; `source_uri` is needed wherever a workflow signed.
        signature: The model's OMS signature. Alone it suffices only where a signer is expected, or
            a policy says what is.
        provenance: Provenance files: bundles, envelopes, or lines of them.
        training_record: The `training.json` that came beside the model.
        vsa: A verification summary by a verifier that `expected` trusts.
        base_models: Models that this one, or one of them, starts from.
        trust: The Sigstore instance; by default the public one, by the trust root on this machine.
        run_conclusion: Asks GitHub, too, whether the run that made the model has succeeded.
        progress: Called with bytes of the model hashed so far and in all.

    Raises:
        UsageError: Nothing to verify against.
        FileError: A file or the trust root cannot be read. That is no verdict.
        BundleError: A base model's signature cannot be read, so that nobody knows which it is of.
        LineageError: Two of `base_models` are the same model.
    """
    evidence = Evidence(
        model=Path(model),
        provenance=tuple(map(Path, provenance)),
        signature=_path(signature),
        vsa=_path(vsa),
        training_record=_path(training_record),
        trust=trust,
    )
    _check_arguments(evidence, expected)
    given = lineage.by_digest(base_models)
    # A. to D. The model itself.
    verdict = verify_one(evidence, expected, progress)
    table = Table(list(verdict.steps))
    # E. The models it starts from.
    verified = lineage.verify_all(
        table,
        verdict,
        given,
        lambda base: verify_one(
            Evidence(base.model, base.provenance, base.signature, trust=trust),
            base.expected or expected,
            progress,
        ),
        required=expected.base_models,
    )
    # F. How the run ended.
    if run_conclusion is not None:
        conclusion.examine(table, verdict, run_conclusion)
    return replace(verdict, steps=tuple(table.steps), base_models=verified)


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)


def _check_arguments(evidence: Evidence, expected: Expectations) -> None:
    signature_alone = evidence.signature is not None and (
        expected.signer is not None or expected.policy_sha256 is not None
    )
    if not evidence.provenance and evidence.vsa is None and not signature_alone:
        raise UsageError(
            "nothing to verify against",
            fix="give --provenance FILE or --vsa FILE, or --signature with --identity",
        )


def verify_one(evidence: Evidence, expected: Expectations, progress: Progress | None) -> Verdict:
    """The verdict over one model, its base models left aside.

    Raises:
        FileError: A file or the trust root cannot be read.
    """
    named = (evidence.signature, evidence.vsa, evidence.training_record)
    for path in (evidence.model, *evidence.provenance, *named, evidence.trust.trust_config):
        if path is not None and not path.exists():  # before a large model is hashed
            raise FileError("there is no such file", where=str(path))
    table = Table()
    # A. The model's bytes, by its signature where there is one.
    signer, model, signature = _signature(table, evidence, expected, progress)
    # B. Each provenance on its own.
    read: list[tuple[str, str]] = []
    found = [
        _file(table, path, model, expected, evidence.trust, read) for path in evidence.provenance
    ]
    if evidence.signature is not None and signature is not None:
        read.append((evidence.signature.name, signature))
    accepted = tuple(item for item in found if item is not None)
    # C. A trusted verifier's summary.
    vouched = None
    if evidence.vsa is not None:
        vouched = summaries.examine(table, evidence.vsa, model, expected, evidence.trust, read)
    # D. All of it together.
    levels, record, dataset = _together(
        table, evidence, expected, signer, model, accepted, vouched, signature
    )
    return Verdict(
        model=model,
        steps=tuple(table.steps),
        signer=signer,
        accepted=accepted,
        levels=levels,
        dataset=dataset,
        record=record,
        evidence=tuple(read),
    )


# A. The signature ---------------------------------------------------------------------------------


def _signature(
    table: Table, evidence: Evidence, expected: Expectations, progress: Progress | None
) -> tuple[Signed | None, ModelDigests, str | None]:
    """Who signed, what, and the signature file's SHA-256."""
    path, digest = evidence.signature, None
    if path is None:
        table.not_checked("signature", "Model signature", OMS, "none was given")
        return None, subjects.measure(evidence.model, progress), None
    signer = expected.signer
    keys = [signer.public_key] if signer and signer.public_key else []

    def authenticate(data: bytes) -> Authenticated:
        nonlocal digest
        digest = sha256(data).hexdigest()
        return envelopes.authenticate_bundle(path.name, data, evidence.trust, keys)

    # OMS 8: the envelope, the statement, the same files with the same bytes.
    verified = table.step(
        path.name,
        "Model signature",
        OMS,
        partial(api.verify, evidence.model, path, authenticate, progress=progress),
        lambda result: f"{counted(result.files, 'file')} as signed{_log(result.authenticated)}",
    )
    if verified is None:
        why = "not looked at: the signature was not accepted"
        table.not_checked(path.name, "Who signed the model", f"{OMS}.2", why)
        return None, subjects.measure(evidence.model, progress), digest
    signed = table.step(
        path.name,
        "Who signed the model",
        f"{OMS}.2",
        partial(signers.check_model_signer, path.name, verified.authenticated, expected),
    )
    return signed, subjects.of_verified(evidence.model, verified), digest


# B. One provenance --------------------------------------------------------------------------------


def _file(
    table: Table,
    path: Path,
    model: ModelDigests,
    expected: Expectations,
    trust: SigstoreTrust,
    read: list[tuple[str, str]],
) -> Accepted | None:
    """One attestation of the file has to satisfy everything; the others get a line each."""
    loaded = table.step(
        path.name,
        "File format",
        "DSSE v1, Sigstore bundle",
        partial(envelopes.load, path),
        lambda result: counted(len(result), "attestation"),
    )
    examined = [(item, *examine(item, model, expected, trust)) for item in loaded or ()]
    examined.sort(key=lambda entry: _merit(entry[1]), reverse=True)
    if not examined:
        return None
    first, best, accepted = examined[0]
    read.append((path.name, first.file_sha256))
    table.steps += best
    for item, steps, _ in examined[1:]:
        refusal = next((step.found for step in steps if step.outcome == "refused"), "it holds, too")
        table.not_checked(item.label, "Other attestation", SLSA, f"not relied on: {refusal}")
    return accepted


def _merit(steps: Sequence[Step]) -> tuple[bool, int]:
    outcomes = [step.outcome for step in steps]
    return "refused" not in outcomes, outcomes.count("passed")


def examine(
    attestation: Attestation, model: ModelDigests, expected: Expectations, trust: SigstoreTrust
) -> tuple[Sequence[Step], Accepted | None]:
    """All steps for one attestation; the second result is None unless every one passed."""
    table, label = Table(), attestation.label
    keys = [builder.public_key for builder in expected.builders if builder.public_key]

    # 1.1 The envelope: signature, certificate, log entry, time.
    authenticated = table.step(
        label,
        "Signature and log",
        f"{SLSA}, 1.1",
        partial(envelopes.authenticate, attestation, trust, keys),
        lambda result: f"{result.method}{_log(result)}",
    )
    if authenticated is None:
        why = "not looked at: the signature was not accepted"
        table.not_checked(label, "Everything else", SLSA, why)
        return table.steps, None

    # 1.3 The predicate's type. 2. No external parameter that its build type does not define.
    provenance = table.step(
        label,
        "Kind of provenance",
        f"{SLSA}, 1.3 and 2",
        partial(kinds.read, authenticated.payload),
        lambda result: f"{result.kind} ({result.build_type})",
    )
    if provenance is None:
        table.not_checked(label, "Everything else", SLSA, "not looked at: an unusable statement")
        return table.steps, None

    # 1.2 The subject.
    table.step(
        label,
        "Subject is this model",
        f"{SLSA}, 1.2",
        partial(subjects.check, provenance.subjects, model),
    )

    # 1.1 The signer, and what the certificate says of it. 1.4 The builder and its level.
    signed = table.step(
        label,
        "Signer",
        f"{SLSA}, 1.1",
        partial(signers.check_provenance_signer, label, authenticated, provenance, expected),
    )
    level = 0
    if signed is None:
        table.not_checked(label, "Builder", f"{SLSA}, 1.4", "its signer is refused")
    else:
        table.step(
            label,
            "Certificate against predicate",
            UNFORGEABLE,
            partial(claims.check_claims, signed.facts, provenance),
            compared=bool(provenance.claims),
        )
        builder = table.step(
            label,
            "Builder",
            f"{SLSA}, 1.4",
            partial(expectations.check_builder, expected, provenance, signed.builders),
            lambda found: (
                f"{provenance.builder_id}, Build "
                f"L{expectations.level_of(found, provenance, signed.facts)}"
            ),
        )
        level = expectations.level_of(builder, provenance, signed.facts) if builder else 0
        if builder and builder.pipeline is None and provenance.kind.runs_a_pipeline:
            why = "none was pinned: whoever may start a run may have written what it did"
            table.not_checked(label, "Pipeline", f"{SLSA}, 1.4", why)

    # 2. Expectations.
    ref = (expected.branch, expected.tag, expected.versioned_tag)
    for title, check, wanted in (
        ("Source", expectations.check_source, (expected.source_uri, expected.source_commit)),
        ("Branch or tag", expectations.check_ref, ref),
        ("Inputs", expectations.check_inputs, expected.inputs.values()),
    ):
        compared = any(wanted)
        table.step(
            label, title, f"{SLSA}, 2", partial(check, expected, provenance), compared=compared
        )
    if signed is None or table.any_refused:
        return table.steps, None
    return table.steps, Accepted(signed, provenance, level)


# D. Together --------------------------------------------------------------------------------------


def _together(
    table: Table,
    evidence: Evidence,
    expected: Expectations,
    signed: Signed | None,
    model: ModelDigests,
    accepted: Sequence[Accepted],
    vouched: int | None,
    signature: str | None,
) -> tuple[Mapping[str, int], TrainingRecord | None, str]:
    """All evidence together: the levels, the training record and the data set's digest."""
    # What rests on evidence that was refused is not refused again.
    refused = table.any_refused
    lost = "not every provenance was accepted" if accepted else "no provenance was accepted"
    lost = lost if len(accepted) < len(evidence.provenance) else ""
    levels = _levels(accepted, vouched)
    level = max(levels.values(), default=0)
    given = {item.provenance.kind.name for item in accepted}
    given |= {"signature"} if signed else set()
    given |= {"vsa"} if vouched is not None else set()
    required = bool(expected.required or expected.minimum_level)
    table.step(
        "together",
        "Required evidence",
        POLICY,
        partial(check_required, expected, given, level),
        lambda found: found if required else f"none was required; accepted: {found}",
        compared=required,
        unless="evidence was refused" if required and refused else "",
    )
    if not evidence.provenance:
        table.step(
            "together",
            "Expected of the build",
            f"{SLSA}, 2",
            partial(check_no_build, expected, signed),
            compared=False,
        )
    # Pairs, not a mapping: two files may have the same name.
    runs = [
        (
            item.signed.label,
            item.signed.facts.get("run of repository") or item.provenance.invocation,
        )
        for item in accepted
    ]
    commits = [(item.signed.label, item.provenance.source_commit) for item in accepted]
    if signed is not None:
        runs.append((signed.label, signed.facts.get("run of repository") or ""))
        commits.append((signed.label, signed.facts.get("commit") or ""))
    for title, said in (("Same run", runs), ("Same commit", commits)):
        known = [(label, value) for label, value in said if value]
        if len(known) > 1:
            table.step("together", title, POLICY, partial(check_same, known))
        else:
            what = title.removeprefix("Same ")
            pieces = "only one piece of" if known else "no accepted"
            why = f"nothing to compare: {pieces} evidence names a {what}"
            table.not_checked("together", title, POLICY, why)
    if len(accepted) > 1:
        table.step("together", "Independent provenance", POLICY, partial(check_distinct, accepted))
    made = {item.provenance.signature.sha256 for item in accepted if item.provenance.signature}
    if made and signature is not None:
        table.step("together", "Same signature", POLICY, partial(check_signature, signature, made))
    if expected.dependencies:
        table.step(
            "together",
            "Dependencies",
            f"{SLSA}, 3",
            partial(check_dependencies, expected.dependencies, accepted),
            unless="" if accepted else lost,
        )
    record = _record(table, evidence, model, accepted, lost)
    dataset = _dataset(table, expected, accepted, record, lost)
    return levels, record, dataset


def check_required(expected: Expectations, given: Set[str], level: int) -> str:
    """The evidence asked for is there and accepted, and the level is reached.

    Raises:
        ChainError: Not all of it.
        BuilderError: The level is too low.
    """
    if not set(expected.required) <= given:
        raise ChainError(
            "required evidence is missing or refused",
            expected=", ".join(expected.required),
            found=", ".join(sorted(given)) or "none accepted",
        )
    if level < expected.minimum_level:
        raise BuilderError(
            "the SLSA Build level is too low",
            expected=f"L{expected.minimum_level} or more",
            found=f"L{level}",
        )
    return ", ".join(sorted(given)) or "none"


def check_no_build(expected: Expectations, signed: Signed | None) -> str:
    """Without provenance nothing may be expected that only provenance says.

    The source is said by the certificate, too, if a workflow signed; it was compared there. A
    verification summary says nothing of it: its verifier's policy did.

    Raises:
        ChainError: Something is.
    """
    certified = signed is not None and signed.facts.get("repository")
    named = {
        "source": None if certified else expected.source_uri,
        "branch": expected.branch,
        "tag": expected.tag,
        "versioned tag": expected.versioned_tag,
        "commit": expected.source_commit,
        "inputs": expected.inputs,
    }
    missing = [name for name, value in named.items() if value]
    if missing:
        raise ChainError(
            "no accepted provenance says what is expected of the build",
            expected=", ".join(missing),
            found="no accepted provenance",
            fix="give the provenance with --provenance, or expect nothing of the build",
        )
    return "nothing"


def check_same(said: Sequence[tuple[str, str]]) -> str:
    """All pieces of evidence say the same; attempts of one run may differ.

    Args:
        said: Label and value of each piece that says one; at least one.

    Raises:
        ChainError: They do not.
    """
    if len({value for _, value in said}) != 1:
        raise ChainError(
            "the evidence does not belong together",
            where=", ".join(label for label, _ in said),
            expected="the same of all",
            found=", ".join(f"{label}: {value}" for label, value in said),
        )
    return said[0][1]


def check_distinct(accepted: Sequence[Accepted]) -> str:
    """No two provenances say the same thing twice: each is of another builder or another kind.

    Raises:
        ChainError: Two are of one builder and kind, such as a file and its copy.
    """
    said: dict[tuple[str, str], str] = {}
    for item in accepted:
        by = (item.provenance.builder_id, item.provenance.kind.name)
        if by in said:
            raise ChainError(
                "two provenances are of one builder and kind, so that the second adds nothing",
                where=f"{said[by]}, {item.signed.label}",
                expected="one of each builder and kind",
                found=" as ".join(by),
                fix="give one of them, and for a second opinion the provenance of another builder",
            )
        said[by] = item.signed.label
    return f"{len(said)} of different builders or kinds"


def check_signature(found: str, made: Set[str | None]) -> str:
    """The signature file is the one that the attested run made.

    Args:
        found: SHA-256 of the file that was verified, hexadecimal.
        made: What accepted provenance names.

    Raises:
        ChainError: It is of another run.
    """
    if made != {found}:
        raise ChainError(
            "the signature is not the one that the attested run made",
            where="signature_ARTIFACT_OUTPUTS of the run, SHA-256 of the signature file",
            expected=", ".join(sorted(filter(None, made))),
            found=found,
        )
    return found


def check_dependencies(wanted: Mapping[str, str], accepted: Sequence[Accepted]) -> str:
    """Dependencies expected by name: named by some provenance, with that digest and no other.

    Raises:
        DependencyMismatchError: One is not.
    """
    for name, digest in wanted.items():
        named = {
            resource.sha256
            for item in accepted
            for resource in item.provenance.dependencies
            if resource.name == name
        }
        if named != {digest}:
            raise DependencyMismatchError(
                "made with another dependency than the one expected",
                where=f"resolvedDependencies, {name}",
                expected=digest,
                found=", ".join(sorted(map(str, named))) or "none of that name",
            )
    return ", ".join(f"{name} {digest[:12]}" for name, digest in wanted.items())


def _record(
    table: Table,
    evidence: Evidence,
    model: ModelDigests,
    accepted: Sequence[Accepted],
    lost: str,
) -> TrainingRecord | None:
    """What training says about itself: from the file given, or else from the provenance."""
    attested = [item.provenance.record for item in accepted if item.provenance.record is not None]
    path = evidence.training_record
    embedded = next((record.content for record in attested if record.content is not None), None)
    if path is None and embedded is None:
        table.not_checked("together", "Training record", TRAIN, "none was given")
        return None
    listed = {record.sha256 for record in attested}
    listed |= {subject.sha256 for item in accepted for subject in item.provenance.subjects}
    listed -= {None, model.sha256, model.root, *model.files.values()}  # the model is no record

    def check() -> TrainingRecord:
        data = embedded or b"" if path is None else read_bounded(path, MAX_BYTES)
        return check_record(data, listed, model)

    return table.step(
        "together",
        "Training record",
        TRAIN,
        check,
        lambda record: f"claimed by the training job: {claimed(record)}",
        unless="" if attested else lost,
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
    record = parse_record(data)
    subjects.check_record(record, model)
    return record


def _dataset(
    table: Table,
    expected: Expectations,
    accepted: Sequence[Accepted],
    record: TrainingRecord | None,
    lost: str,
) -> str:
    """Step 3 for the one dependency that decides what a model is: its training data."""
    named, inputs = (
        {
            resource.sha256 or "no SHA-256"
            for item in accepted
            for resource in item.provenance.dependencies
            if resource.name == name and (resource.sha256 or name == statement_names.DATASET)
        }
        for name in (statement_names.DATASET, tekton.INPUT)
    )
    recorded = None if record is None else record.dataset.sha256
    wanted = expected.dataset_sha256
    if wanted is None and record is not None and record.dataset.name == "cifar10":
        wanted = expectations.CIFAR10_SHA256
    if not (wanted or named or inputs or recorded):
        why = "not named by any accepted evidence"
        table.not_checked("together", "Data set", f"{SLSA}, 3", why)
        return ""
    name = f"{record.dataset.name} " if record else ""
    says = "training" if record else "provenance"
    unexpected = f"as the {says} says; expect it with --dataset-digest"
    checked = table.step(
        "together",
        "Data set",
        f"{SLSA}, 3",
        partial(check_dataset, wanted, named, inputs, recorded),
        lambda found: f"{name}{found} {'as expected' if wanted else unexpected}",
        compared=wanted is not None,
        unless="" if named or inputs or recorded else lost,
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
        if digest is not None and not all(agree):
            raise DependencyMismatchError(
                message,
                where="resolvedDependencies, training record",
                expected=digest,
                found=", ".join(sorted({*(named or inputs), *filter(None, [recorded])}))
                or "no data set",
            )
    return wanted or recorded or ", ".join(sorted(named or inputs))


def _levels(accepted: Sequence[Accepted], vouched: int | None) -> dict[str, int]:
    """The SLSA Build level that each builder's provenance earns, by the builder's short name."""
    levels = {} if vouched is None else {"verification summary": vouched}
    for item in accepted:
        found = item.provenance
        name = found.builder_id.partition("@")[0]
        if found.kind.only_builder is not None:
            name = found.kind.name
        elif "/.github/workflows/" in name:
            name = name.rpartition("/")[2]
        levels[name] = max(item.level, levels.get(name, 0))
    # A training on a machine of somebody's own is one, whoever else attests it.
    highest = min((expectations.highest_level(item.provenance) for item in accepted), default=3)
    return {name: min(level, highest) for name, level in levels.items()}


def _log(authenticated: Authenticated) -> str:
    entry = logged(authenticated)
    return f", {entry}" if entry else ""
