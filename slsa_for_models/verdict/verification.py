"""One verdict over a model's bytes, its signature and every provenance it came with.

The steps are those of SLSA v1.2 "Verifying artifacts" (1.1 signature, 1.2 subject, 1.3 predicate
type, 1.4 builder and level, 2 expectations, 3 dependencies), then what no single piece of evidence
can say: that all of it is about the same bytes, run, commit and data set. Every step is run and
shown, also after a refusal, unless there is nothing left that it could truthfully look at: what
rests on evidence that was refused is not refused once more for the same cause.

A. `model_signature`, B. `one_provenance`, C. `vsa`, D. `together` and `training_claims`,
E. `base_models`, F. `run_conclusion`, G. `contents`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import FileError, UsageError
from model_signing.hashing import Means, Progress
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.safe_files import read_bounded
from model_signing.sources import AnyPath, Source, open_source
from model_signing.sources.local import LocalSource
from slsa_for_models.evidence import beside
from slsa_for_models.verdict import base_models as lineage
from slsa_for_models.verdict import (
    contents,
    model_signature,
    one_provenance,
    together,
    training_claims,
)
from slsa_for_models.verdict import run_conclusion as conclusion
from slsa_for_models.verdict import vsa as summaries
from slsa_for_models.verdict.base_models import BaseModel
from slsa_for_models.verdict.choice import Examined, Found, settle
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import OFFLINE, Evidence, Verdict
from slsa_for_models.verdict.run_conclusion import GitHubApi
from slsa_for_models.verdict.table import Table

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from model_signing.sources.copying import Copy


def verify(
    model: AnyPath | Source,
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
    copy_to: AnyPath | Copy | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    attached: bool = False,
) -> Verdict:
    """One verdict over a model and all that came with it. Refusals are in it, not raised.

    Args:
        model: A file or a directory, or where else it lies; see `model_signing.sources`.
        expected: The expectations; `source_uri` is needed wherever a workflow signed.
        signature: The model's OMS signature, or its address; with no evidence at all, what lies
            with a model elsewhere. Alone it suffices only where a signer is expected, or a policy
            says what is.
        provenance: Provenance files, or their addresses: bundles, envelopes, or lines of them.
        training_record: The `training.json` that came beside the model, or its address.
        vsa: A verification summary by a verifier that `expected` trusts, or its address.
        base_models: Models that this one, or one of them, starts from.
        trust: The Sigstore instance; by default the public one, by the trust root on this machine.
        run_conclusion: Asks GitHub, too, whether the run that made the model has succeeded.
        progress: Called with bytes of the model hashed so far and in all.
        copy_to: A folder that is not there yet, or is empty. It gets the model's bytes as they are
            hashed, and appears when the model is verified.
        jobs: Threads for hashing; by default as many cores as this process may use.
        executor: See `model_signing.hashing.hash_model`.
        attached: Take what was attached to a model in its registry, too: its signature; provenance,
            where a source or builder is expected; summaries, where a verifier is trusted.

    Raises:
        UsageError: Nothing to verify against; nothing can be attached there; the copy would lie in
            the model.
        FileError: A file or the trust root cannot be read, or the copy not written. That is no
            verdict.
        BundleError: A base model's signature cannot be read, so that nobody knows which it is of.
        LineageError: Two of `base_models` are the same model.
    """
    source = open_source(model)
    look = attached or (not provenance and vsa is None)
    with ExitStack() as stack:
        enter = stack.enter_context
        found = enter(beside.fetched(source, signature, look=look))
        more = beside.Attached()
        if attached:
            wanted = expected.source_uri is not None or "builders" in expected.stated
            more = enter(beside.attached(source, provenance=wanted, vsa=bool(expected.verifiers)))
        evidence = Evidence(
            model=source,
            provenance=(*enter(beside.at_hand(*provenance)), *more.provenance),
            signature=found.path,
            inside=found.inside,
            vsa=(*enter(beside.at_hand(vsa)), *more.vsa),
            training_record=next(iter(enter(beside.at_hand(training_record))), None),
            trust=trust,
        )
        _check_arguments(evidence, expected)
        given = enter(lineage.at_hand(base_models, trust))
        for base in given.values():
            for policy in base.policies(expected):
                _check_arguments(base.evidence, policy)
        if copy_to is not None:
            evidence = replace(evidence, copy=enter(_copy(source, copy_to)))
        return _verify(evidence, expected, given, run_conclusion, Means(jobs, executor, progress))


def _verify(
    evidence: Evidence,
    expected: Expectations,
    given: Mapping[str, lineage.Given],
    run_conclusion: GitHubApi | None,
    means: Means,
) -> Verdict:
    def base_verdict(base: lineage.Given) -> Verdict:
        for wanted in base.policies(expected):
            verdict = verify_one(base.evidence, wanted, means)
            if verdict.verified:
                break
        return verdict

    # A. to D. The model itself.
    verdict = verify_one(evidence, expected, means)
    table = Table(list(verdict.steps))
    # E. The models it starts from.
    required = expected.base_models or bool(expected.base_policies)
    verified = lineage.verify_all(table, verdict, given, base_verdict, required=required)
    # F. How the run ended.
    if run_conclusion is not None:
        conclusion.examine(table, verdict, run_conclusion)
    # G. What it holds.
    contents.examine(table, verdict.model, evidence, expected)
    verdict = replace(verdict, steps=tuple(table.steps), base_models=verified)
    if evidence.copy is not None and verdict.verified:
        evidence.copy.keep()
    return verdict


def _copy(model: Source, copy_to: AnyPath | Copy) -> Copy:
    from model_signing.sources import copying

    copy = copy_to if isinstance(copy_to, copying.Copy) else copying.Copy(copy_to)
    copying.check_outside(copy.folder, model)
    return copy


def _trust_root(trust: SigstoreTrust) -> str:
    """A rehearsal, or a private instance, never looks like the public one."""
    if trust.trust_config is not None:
        name = Path(trust.trust_config).name
        config = read_bounded(Path(trust.trust_config), 16 * 1024 * 1024)
        return f"NOT the public Sigstore: {name}, SHA-256 {sha256(config).hexdigest()}"
    instance = "Sigstore's public staging instance" if trust.staging else "the public Sigstore"
    return f"{instance}, {'as known on this machine' if trust.offline else 'refreshed'}"


def _check_arguments(evidence: Evidence, expected: Expectations) -> None:
    signature_alone = evidence.signature is not None and (
        expected.signer is not None or expected.policy_sha256 is not None
    )
    if not evidence.provenance and not evidence.vsa and not signature_alone:
        raise UsageError(
            "nothing to verify against",
            where=str(evidence.model),
            fix="give --provenance FILE or --vsa FILE, or --signature with --identity",
        )


def verify_one(evidence: Evidence, expected: Expectations, means: Means) -> Verdict:
    """The verdict over one model, its base models left aside.

    Raises:
        FileError: A file or the trust root cannot be read.
    """
    named = (evidence.signature, *evidence.vsa, evidence.training_record)
    model_path = evidence.model.path if isinstance(evidence.model, LocalSource) else None
    for path in (model_path, *evidence.provenance, *named, evidence.trust.trust_config):
        if path is not None and not Path(path).exists():  # before a large model is hashed
            raise FileError("there is no such file", where=str(path))
    table, trust = Table(), evidence.trust
    if not isinstance(evidence.model, LocalSource):
        table.note(evidence.model.name, "Read from", "", str(evidence.model))
    # A. The model's bytes, by its signature where there is one.
    model, signers, signature = model_signature.examine(table, evidence, expected, means)
    # B. Each provenance on its own.
    files, examined = one_provenance.examine_files(evidence.provenance, model, expected, trust)
    # C. A trusted verifier's summary.
    summary = summaries.examine_all(evidence.vsa, model, expected, trust)
    found = Found(evidence, model, expected, signature, summary and summary.vouched)

    def refusals(chosen: Found) -> int:
        tried = Table()
        together.examine(tried, chosen)
        training_claims.examine(tried, chosen)
        return sum(step.outcome == "refused" for step in tried.steps)

    def confirm(item: Examined) -> Examined:
        if item.is_confirmed:
            return item
        return one_provenance.examine(item.file, item.attestation, model, expected, trust)

    # Which of all that count.
    found, examined = settle(found, signers, examined, refusals, confirm)
    model_signature.show(table, signers, found.signer, expected)
    for number, (steps, _) in enumerate(files):
        table.steps += steps
        mine = [item for item in examined if item.file == number]
        shown = [item for item in mine if item in found.relied_on]
        nearest = sorted(mine, key=lambda item: item.merit, reverse=True)[:1]
        one_provenance.show_file(table, mine, shown or list(map(confirm, nearest)))
    table.steps += summary.steps if summary else ()
    # D. All of it together.
    levels = together.examine(table, found)
    record, dataset = training_claims.examine(table, found)
    read = [(path, sha256) for path, (_, sha256) in zip(evidence.provenance, files, strict=True)]
    read += [(evidence.signature, signature)] if evidence.signature else []
    read += [(summary.path, summary.sha256)] if summary else []
    return Verdict(
        model=model,
        steps=tuple(table.steps),
        signer=found.signer,
        accepted=found.accepted,
        levels=levels,
        dataset=dataset,
        record=record,
        evidence=tuple((path.name, digest) for path, digest in read if digest),
        expected=expected,
        trust_root=_trust_root(trust),
    )
