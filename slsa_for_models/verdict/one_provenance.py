"""B. All steps for one provenance, in the order of SLSA v1.2 "Verifying artifacts".

To add a check of what one provenance says, write it in `checks.py` and call it in `examine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Accepted, Signed, logged
from slsa_for_models.verdict.table import POLICY, SLSA, UNFORGEABLE, Step, Table, counted


def examine(
    file: int,
    attestation: Attestation,
    model: ModelDigests,
    expected: Expectations,
    trust: SigstoreTrust,
    *,
    believed: bool = False,
) -> Examined:
    """All steps for one attestation of the file of that number; see `Examined`.

    What is `believed` is not authenticated: to choose among many.

    Raises:
        FileError: The trust root cannot be read.
    """
    table = Table()
    read = envelopes.claimed if believed else envelopes.authenticate
    keys = [builder.public_key for builder in expected.builders if builder.public_key]
    authenticate = partial(read, attestation, trust, keys)
    accepted = _examine(table, attestation.label, authenticate, model, expected)
    return Examined(file, attestation, table.steps, accepted, is_confirmed=not believed)


def _examine(
    table: Table,
    label: str,
    authenticate: Callable[[], Authenticated],
    model: ModelDigests,
    expected: Expectations,
) -> Accepted | None:
    """What was accepted, if every step passed; they are added to the table."""
    # 1.1 The envelope: signature, certificate, log entry, time.
    authenticated = table.step(
        label,
        "Signature and log",
        f"{SLSA}, 1.1",
        authenticate,
        lambda result: f"{result.method}{logged(result, ', ')}",
    )
    if authenticated is None:
        why = "not looked at: the signature was not accepted"
        table.not_checked(label, "Everything else", SLSA, why)
        return None
    # 1.3 The predicate's type. 2. No external parameter that its build type does not define.
    said = table.step(
        label,
        "Kind of provenance",
        f"{SLSA}, 1.3 and 2",
        partial(kinds.read, authenticated.payload),
        lambda result: f"{result.kind} ({result.build_type})",
    )
    if said is None:
        table.not_checked(label, "Everything else", SLSA, "not looked at: an unusable statement")
        return None
    if said.remark:
        older = f"{said.remark}, as cosign writes it"
        table.note(label, "Statement", f"{SLSA}, 1.3 and 2", older)
    # 1.2 The subject.
    about = partial(subjects.check, said.subjects, model)
    table.step(label, "Subject is this model", f"{SLSA}, 1.2", about)
    return _examine_said(table, label, authenticated, said, expected)


def _examine_said(
    table: Table, label: str, by: Authenticated, said: Provenance, expected: Expectations
) -> Accepted | None:
    """The steps from the signer on: what the statement says, compared."""
    # 1.1 The signer.
    may_sign = partial(signers.check_provenance_signer, label, by, said, expected)
    signed, accepted = table.step(label, "Signer", f"{SLSA}, 1.1", may_sign), None
    if signed is None:
        table.not_checked(label, "Builder", f"{SLSA}, 1.4", "its signer is refused")
    else:
        if not said.builder_id:  # what ran is the workflow that signed
            said = replace(said, builder_id=signed.facts.get("builder") or "")
        accepted = _of_builder(table, signed, said, expected)
    # 2. Expectations.
    ref = (expected.branch, expected.tag, expected.versioned_tag)
    for title, check, stated in (
        ("Source", checks.check_source, (expected.source_uri, expected.source_commit)),
        ("Branch or tag", checks.check_ref, ref),
    ):
        compare = partial(check, expected, said)
        table.step(label, title, f"{SLSA}, 2", compare, compared=any(stated))
    return None if table.refusal else accepted


def _of_builder(
    table: Table, signed: Signed, said: Provenance, expected: Expectations
) -> Accepted | None:
    """The run and the builder, as the certificate and the statement have them."""
    label, facts = signed.label, signed.facts
    # 1.1 What the certificate says of the run.
    check = partial(claims.check_claims, facts, said)
    title, compared = "Certificate against predicate", bool(said.claims)
    table.step(label, title, UNFORGEABLE, check, compared=compared)
    check = partial(checks.check_run, expected, facts)
    table.step(label, "Run", POLICY, check, compared=bool(facts))
    # 1.4 The builder and its level.
    level_of = partial(checks.level_of, provenance=said, facts=facts, labels=expected.runner_labels)
    builder = table.step(
        label,
        "Builder",
        f"{SLSA}, 1.4",
        partial(checks.check_builder, expected, said, signed.builders),
        lambda found: f"{said.builder_id}, Build L{level_of(found)}",
    )
    if builder is None:
        return None
    if said.kind.runs_a_pipeline and builder.pipeline is None:
        why = "none was pinned: whoever may start a run may have written what it did"
        table.not_checked(label, "Pipeline", f"{SLSA}, 1.4", why)
    return Accepted(signed, said, level_of(builder))


def examine_files(
    paths: Sequence[Path], model: ModelDigests, expected: Expectations, trust: SigstoreTrust
) -> tuple[list[tuple[list[Step], str | None]], list[Examined]]:
    """Every attestation of every file on its own; which of them count is not decided here.

    Nothing is authenticated yet, for that is most of the work: see `examine`. What is refused
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
        examined += [
            examine(number, item, model, expected, trust, believed=True) for item in loaded or ()
        ]
        files.append((table.steps, loaded[0].file_sha256 if loaded else None))
    return files, examined


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
