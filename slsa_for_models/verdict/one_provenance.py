"""B. All steps for one provenance: a table, in the order of SLSA v1.2 "Verifying artifacts".

To add a check of what one provenance says, write it in `checks.py` and give it a row in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from model_signing.methods import Authenticated
from model_signing.methods.sigstore_trust import SigstoreTrust
from slsa_for_models.evidence import claims, envelopes, kinds, subjects
from slsa_for_models.evidence.envelopes import Attestation
from slsa_for_models.evidence.provenance import Provenance
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.verdict import checks, signers
from slsa_for_models.verdict.choice import Examined
from slsa_for_models.verdict.expectations import Builder, Expectations
from slsa_for_models.verdict.result import Accepted, Signed, logged
from slsa_for_models.verdict.table import POLICY, SLSA, UNFORGEABLE, Outcome, Step, Table, counted


@dataclass(eq=False, repr=False)  # not all of it is set
class Case:
    """One attestation under examination; `believed` to choose among many, see `Examined`.

    What is not set from the beginning is found by the steps, in this order. A step names what it
    `needs`, and is not run where that was not found.
    """

    attestation: Attestation
    model: ModelDigests
    expected: Expectations
    trust: SigstoreTrust
    believed: bool = False
    authenticated: Authenticated = field(init=False)
    provenance: Provenance = field(init=False)
    signed: Signed = field(init=False)
    builder: Builder = field(init=False)
    level: int = field(init=False)


@dataclass(frozen=True)
class Row:
    """One step.

    Attributes:
        title: See `Step`, as `clause`.
        clause: As there.
        check: Says what it found, or raises its refusal; what later steps need, it sets.
        needs: The attribute of the case without which it cannot be run.
        lost: What to say where it cannot be run; "" where another step says it.
        compared: Whether there is anything to compare with.
        ends: Why nothing else is looked at where this refuses; "" if the rest is.
        remark: A line besides, if there is one: how it ended, its title, what is to be said.
    """

    title: str
    clause: str
    check: Callable[[Case], str]
    needs: str = ""
    lost: str = ""
    compared: Callable[[Case], bool] = lambda _: True
    ends: str = ""
    remark: Callable[[Case], tuple[Outcome, str, str] | None] = lambda _: None


def _authenticate(case: Case) -> str:
    keys = [builder.public_key for builder in case.expected.builders if builder.public_key]
    read = envelopes.claimed if case.believed else envelopes.authenticate
    case.authenticated = read(case.attestation, case.trust, keys)
    return f"{case.authenticated.method}{logged(case.authenticated, ', ')}"


def _read(case: Case) -> str:
    case.provenance = kinds.read(case.authenticated.payload)
    return f"{case.provenance.kind} ({case.provenance.build_type})"


def _signer(case: Case) -> str:
    case.signed = signers.check_provenance_signer(
        case.attestation.label, case.authenticated, case.provenance, case.expected
    )
    if not case.provenance.builder_id:  # what ran is the workflow that signed
        builder = case.signed.facts.get("builder") or ""
        case.provenance = replace(case.provenance, builder_id=builder)
    return str(case.signed)


def _builder(case: Case) -> str:
    provenance, signed = case.provenance, case.signed
    case.builder = checks.check_builder(case.expected, provenance, signed.builders)
    labels = case.expected.runner_labels
    case.level = checks.level_of(case.builder, provenance, signed.facts, labels)
    return f"{provenance.builder_id}, Build L{case.level}"


def _older(case: Case) -> tuple[Outcome, str, str] | None:
    remark = case.provenance.remark
    return ("info", "Statement", f"{remark}, as cosign writes it") if remark else None


def _unpinned(case: Case) -> tuple[Outcome, str, str] | None:
    if case.builder.pipeline is not None or not case.provenance.kind.runs_a_pipeline:
        return None
    why = "none was pinned: whoever may start a run may have written what it did"
    return "not checked", "Pipeline", why


STEPS = (
    # 1.1 The envelope: signature, certificate, log entry, time.
    Row(
        "Signature and log",
        f"{SLSA}, 1.1",
        _authenticate,
        ends="not looked at: the signature was not accepted",
    ),
    # 1.3 The predicate's type. 2. No external parameter that its build type does not define.
    Row(
        "Kind of provenance",
        f"{SLSA}, 1.3 and 2",
        _read,
        remark=_older,
        ends="not looked at: an unusable statement",
    ),
    # 1.2 The subject.
    Row(
        "Subject is this model",
        f"{SLSA}, 1.2",
        lambda case: subjects.check(case.provenance.subjects, case.model),
    ),
    # 1.1 The signer, and what the certificate says of it. 1.4 The builder and its level.
    Row("Signer", f"{SLSA}, 1.1", _signer),
    Row(
        "Certificate against predicate",
        UNFORGEABLE,
        lambda case: claims.check_claims(case.signed.facts, case.provenance),
        needs="signed",
        compared=lambda case: bool(case.provenance.claims),
    ),
    Row(
        "Run",
        POLICY,
        lambda case: checks.check_run(case.expected, case.signed.facts),
        needs="signed",
        compared=lambda case: bool(case.signed.facts),
    ),
    Row(
        "Builder",
        f"{SLSA}, 1.4",
        _builder,
        needs="signed",
        lost="its signer is refused",
        remark=_unpinned,
    ),
    # 2. Expectations.
    Row(
        "Source",
        f"{SLSA}, 2",
        lambda case: checks.check_source(case.expected, case.provenance),
        compared=lambda case: bool(case.expected.source_uri or case.expected.source_commit),
    ),
    Row(
        "Branch or tag",
        f"{SLSA}, 2",
        lambda case: checks.check_ref(case.expected, case.provenance),
        compared=lambda case: bool(
            case.expected.branch or case.expected.tag or case.expected.versioned_tag
        ),
    ),
)


def examine(case: Case) -> tuple[Sequence[Step], Accepted | None]:
    """All steps for one attestation; the second result is None unless every one passed."""
    table, label, run = Table(), case.attestation.label, 0
    for row in STEPS:
        if row.needs and not hasattr(case, row.needs):
            if row.lost:
                table.not_checked(label, row.title, row.clause, row.lost)
            continue
        found = table.step(
            label, row.title, row.clause, partial(row.check, case), compared=row.compared(case)
        )
        if found is None and row.ends:
            table.not_checked(label, "Everything else", SLSA, row.ends)
            break
        remark = None if found is None else row.remark(case)
        if remark is not None:
            outcome, title, said = remark
            table.steps.append(Step(label, title, row.clause, outcome, said))
        run += 1
    if run < len(STEPS) or table.any_refused:
        return table.steps, None
    return table.steps, Accepted(case.signed, case.provenance, case.level)


def examine_files(
    paths: Sequence[Path], model: ModelDigests, expected: Expectations, trust: SigstoreTrust
) -> tuple[list[tuple[list[Step], str | None]], list[Examined]]:
    """Every attestation of every file on its own; which of them count is not decided here.

    Nothing is authenticated yet, for that is most of the work: see `confirmed`. What is refused
    for what it says itself is refused whoever signed it.

    Returns:
        Of each file the step that read it, and its SHA-256, hexadecimal, if it holds any; and all
        attestations.

    Raises:
        FileError: A file or the trust root cannot be read.
    """
    files: list[tuple[list[Step], str | None]] = []
    examined: list[Examined] = []
    for number, path in enumerate(paths):
        table, left = Table(), envelopes.MAX_ATTESTATIONS - len(examined)
        loaded = table.step(
            path.name,
            "File format",
            "DSSE v1, Sigstore bundle",
            partial(envelopes.load, path, left),
            lambda result: counted(len(result), "attestation"),
        )
        for item in loaded or ():
            steps, accepted = examine(Case(item, model, expected, trust, believed=True))
            examined.append(Examined(number, item, steps, accepted))
        files.append((table.steps, loaded[0].file_sha256 if loaded else None))
    return files, examined


def confirmed(
    item: Examined, model: ModelDigests, expected: Expectations, trust: SigstoreTrust
) -> Examined:
    """The same, authenticated.

    Raises:
        FileError: The trust root cannot be read.
    """
    if item.is_confirmed:
        return item
    steps, accepted = examine(Case(item.attestation, model, expected, trust))
    return Examined(item.file, item.attestation, steps, accepted, is_confirmed=True)


def show_file(table: Table, mine: Sequence[Examined], shown: Sequence[Examined]) -> None:
    """The steps of what counts of one file, or of what came nearest; a line for each other one."""
    for item in shown:
        table.steps += item.steps
    labels = {item.attestation.label for item in shown}
    for item in mine:
        label = item.attestation.label
        if label not in labels:
            why = item.refusal or "nothing more is needed; its signature was not looked at"
            table.not_checked(label, "Other attestation", SLSA, f"not relied on: {why}")
