"""Base models, recursively (SLSA v1.2 verifying-artifacts, step 3).

A provenance names a base model by the digest of its signed OMS statement. Where the base model's
files are given, it is verified like the model itself, with its own expectations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from model_signing.oms import bundle
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import LineageError
from slsa_for_models.report.plain import Table, Verdict
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.verification import SLSA, Evidence, Result, verify

BASE_MODEL = "base-model"


@dataclass(frozen=True)
class Base:
    """A base model's evidence, and what is expected of it."""

    evidence: Evidence
    expected: Expectations


@dataclass(frozen=True)
class Lineage:
    """A model's result, its verdict including all base models, and their levels.

    False unless that verdict is accepted.

    Attributes:
        result: The model's own result.
        verdict: Its steps and those of every base model.
        levels: The SLSA Build level of each base model verified; None if one was not given.
    """

    result: Result
    verdict: Verdict
    levels: tuple[int, ...] | None

    def __bool__(self) -> bool:
        return bool(self.verdict)


def find_evidence(model: Path, like: Evidence) -> Evidence:
    """A base model's evidence by the names our workflow gives it, next to the model.

    `MODEL.sig`, `MODEL.provenance.sigstore.json` and `MODEL.intoto.jsonl`.

    Raises:
        LineageError: It has no signature, or no provenance.
    """
    beside = {
        suffix: model.with_name(model.name + suffix)
        for suffix in (".sig", ".provenance.sigstore.json", ".intoto.jsonl")
    }
    signature, *provenance = beside.values()
    found = tuple(path for path in provenance if path.is_file())
    if not signature.is_file() or not found:
        raise LineageError(
            "a base model's evidence is not beside it",
            where=str(model),
            expected=f"{signature.name}, and {' or '.join(path.name for path in provenance)}",
        )
    return Evidence(model=model, provenance=found, signature=signature, trust=like.trust)


def verify_lineage(
    evidence: Evidence, expected: Expectations, bases: Sequence[Base] = ()
) -> Lineage:
    """Verifies a model and every base model that is named and given.

    Raises:
        FileError, BundleError: A model, or a base model's signature, cannot be read.
        LineageError: Two of `bases` are the same model.
    """
    given = {payload_digest(base.evidence): base for base in bases}
    if len(given) != len(bases):
        raise LineageError("two base models are the same", fix="give each --base-model once")
    result = verify(evidence, expected)
    table = Table(list(result.verdict.steps))
    levels: dict[str, int] = {}
    complete = True

    def descend(from_result: Result, path: tuple[str | None, ...]) -> None:
        nonlocal complete
        for digest in base_models(from_result):
            name = f"base model {digest[:12]}"
            if not digest:
                table.refused(BASE_MODEL, "Base model", f"{SLSA}, 3", _no_digest())
            elif digest in path:
                table.refused(name, "Lineage", f"{SLSA}, 3", _cycle(digest))
            elif digest in levels:
                continue
            elif digest in given:
                base = given[digest]
                name = base.evidence.model.name
                inner = verify(base.evidence, base.expected)
                levels[digest] = inner.verdict.chain.level
                # The digest chose the evidence before it was verified: it must still be its own.
                if inner.signed is not None and inner.model.payload_sha256 != digest:
                    table.refused(name, "Base model", f"{SLSA}, 3", _changed(inner, digest))
                table.steps += [
                    replace(step, subject=f"{name}: {step.subject}") for step in inner.verdict.steps
                ]
                descend(inner, (*path, digest))
            elif expected.base_models:
                table.refused(name, "Base model", f"{SLSA}, 3", _absent(digest))
            else:
                complete = False
                table.not_checked(name, "Base model", f"{SLSA}, 3", "its files were not given")

    descend(result, (result.model.payload_sha256 if result.signed else None,))
    for digest in given.keys() - levels.keys():
        name = given[digest].evidence.model.name
        if not result.accepted and result.verdict.refusal:
            why = "not checked: no provenance was accepted"
            table.not_checked(name, "Base model", f"{SLSA}, 3", why)
            continue
        table.refused(name, "Base model", f"{SLSA}, 3", _not_named(name, digest))
    return Lineage(
        result,
        Verdict(tuple(table.steps), result.verdict.chain),
        tuple(levels.values()) if complete else None,
    )


def base_models(result: Result) -> list[str]:
    """The digests of the base models that accepted provenance names, each once, in order.

    "" stands for one that is named without a SHA-256.
    """
    named = [
        resource.sha256 or ""
        for item in result.accepted
        for resource in item.provenance.dependencies
        if resource.name == BASE_MODEL
    ]
    return list(dict.fromkeys(named))


def payload_digest(evidence: Evidence) -> str:
    """SHA-256 of the OMS statement in a model's signature file, hexadecimal; not yet verified.

    Raises:
        FileError, BundleError: There is no well-formed signature.
        LineageError: None was given.
    """
    if evidence.signature is None:
        raise LineageError("a base model needs a signature", where=str(evidence.model))
    return sha256(bundle.parse(read_bounded(evidence.signature)).payload).hexdigest()


def _no_digest() -> LineageError:
    return LineageError(
        "a base model is named without a SHA-256, so that none can be compared with it",
        where=f"resolvedDependencies, {BASE_MODEL}",
        expected="the SHA-256 of its OMS statement",
        found="other digests, or none",
    )


def _cycle(digest: str) -> LineageError:
    return LineageError(
        "a model is named as its own ancestor",
        where="resolvedDependencies",
        expected="base models that came before",
        found=digest,
    )


def _absent(digest: str) -> LineageError:
    return LineageError(
        "a base model has to be verified, and its files were not given",
        expected=digest,
        found="nothing",
        fix="give it with --base-model",
    )


def _changed(result: Result, digest: str) -> LineageError:
    return LineageError(
        "the base model's signature changed while it was verified",
        where=result.model.name,
        expected=digest,
        found=result.model.payload_sha256,
        fix="wait until nothing writes to it, then try again",
    )


def _not_named(name: str, digest: str) -> LineageError:
    return LineageError("no accepted provenance names this base model", where=name, found=digest)
