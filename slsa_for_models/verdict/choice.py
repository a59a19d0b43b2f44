"""Which attestations count, where files hold several: decided over all evidence together.

A file may hold the attestations of many runs, builders and models. What counts is a combination
that belongs to one run, in which every file has its part and every expectation is met. It does not
depend on the order of files and lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from slsa_for_models.evidence.envelopes import Attestation
from slsa_for_models.evidence.statement_names import DATASET
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import NO_PROVENANCE, Accepted, Evidence, Signed, Vouched
from slsa_for_models.verdict.table import Step

MOST_GUESSES = 10
MOST_TRIED = 2_000
"""Combinations; only among contradicting attestations of one run are there more than a few."""


@dataclass(frozen=True, eq=False)
class Examined:
    """One attestation, every step that was run for it, and what was accepted of it if anything.

    Until it is confirmed, its certificate and payload are taken for what they say they are: enough
    to choose by, and never to rely on.

    Attributes:
        file: The number of its file.
        attestation: Itself.
        steps: Its steps.
        accepted: None unless every one passed.
        is_confirmed: Whether it was authenticated.
    """

    file: int
    attestation: Attestation
    steps: Sequence[Step]
    accepted: Accepted | None
    is_confirmed: bool = False

    @property
    def refusal(self) -> str:
        """Why it is not relied on, as far as its own steps say; "" if they all passed."""
        return next((step.found for step in self.steps if step.outcome == "refused"), "")

    @property
    def merit(self) -> tuple[bool, int]:
        """How near it came to being accepted."""
        outcomes = [step.outcome for step in self.steps]
        return "refused" not in outcomes, outcomes.count("passed")

    @property
    def witness(self) -> tuple[str, str]:
        """See `Accepted.witness`."""
        return self.accepted.witness if self.accepted else ("", "")

    @cached_property
    def traits(self) -> tuple[object, ...]:
        """What other evidence may contradict; None where it says nothing."""
        if self.accepted is None:
            return ()
        said = self.accepted.provenance
        named = {one.name: one.sha256 for one in said.dependencies if one.name and one.sha256}
        return (
            said.source_commit or None,
            named.get(DATASET),
            frozenset(named.items()) or None,
            said.record and said.record.sha256,
            said.signature and said.signature.sha256,
            self.witness,
        )


@dataclass(frozen=True, eq=False)
class Found:
    """What each piece of the evidence amounts to, before they are compared with each other.

    Attributes:
        evidence: The files.
        model: The model as it was hashed.
        expected: What is expected of it.
        signature: SHA-256 of the signature file as it was read, hexadecimal.
        vouched: What an accepted verification summary vouches for.
        signer: Who signed the model, of several signatures the one that belongs to it.
        relied_on: The attestations that count, in the order of files.
    """

    evidence: Evidence
    model: ModelDigests
    expected: Expectations
    signature: str | None
    vouched: Vouched | None
    signer: Signed | None = None
    relied_on: tuple[Examined, ...] = ()

    @cached_property
    def accepted(self) -> tuple[Accepted, ...]:
        """The provenances that are relied on: every step of them passed."""
        return tuple(item.accepted for item in self.relied_on if item.accepted is not None)

    @property
    def lost(self) -> str:
        """Why something cannot be checked that provenance would say; "" if all was accepted."""
        if len({item.file for item in self.relied_on}) == len(self.evidence.provenance):
            return ""
        return "not every provenance was accepted" if self.accepted else NO_PROVENANCE


def settle(
    found: Found,
    signers: Sequence[Signed],
    examined: Sequence[Examined],
    refusals: Callable[[Found], int],
    confirm: Callable[[Examined], Examined],
) -> tuple[Found, list[Examined]]:
    """`choose`, until all that was chosen is confirmed: what is not authentic is left out.

    Returns:
        What was chosen; and all attestations, as they are then known.
    """
    known = list(examined)
    for tries in itertools.count():
        chosen = choose(found, signers, known, refusals)
        open_ = [item for item in chosen.relied_on if not item.is_confirmed]
        if not open_:
            break
        if tries == MOST_GUESSES:  # somebody made many that are not authentic
            open_ = [item for item in known if item.accepted]
        now = {id(item): confirm(item) for item in open_}
        known = [now.get(id(item), item) for item in known]
    return chosen, known


def choose(
    found: Found,
    signers: Sequence[Signed],
    examined: Sequence[Examined],
    refusals: Callable[[Found], int],
) -> Found:
    """The combination that satisfies everything; if there is none, the nearest.

    Args:
        found: Of which nothing is chosen yet.
        signers: Those who may have signed the model, one for each signature that holds.
        examined: All attestations of all files.
        refusals: How many checks of all evidence together refuse a combination.
    """
    best, fewest = replace(found, signer=signers[0] if signers else None), -1
    combinations = _combinations(signers, [item for item in examined if item.accepted])
    for signer, relied_on in itertools.islice(combinations, MOST_TRIED):
        tried = replace(found, signer=signer, relied_on=relied_on)
        count = refusals(tried)
        if fewest < 0 or count < fewest:
            best, fewest = tried, count
        if fewest == 0:
            break
    return best


def _combinations(
    signers: Sequence[Signed], pool: Sequence[Examined]
) -> Iterator[tuple[Signed | None, tuple[Examined, ...]]]:
    """Of each run those that agree with one of its attestations; then each a little changed."""
    runs: dict[str, list[Examined]] = {}
    for item in pool:
        runs.setdefault(item.accepted.run if item.accepted else "", []).append(item)
    if not runs:
        yield from ((signer, ()) for signer in signers)
    signed_runs = {signer.run for signer in signers}
    # First what a signature belongs to, and what most files have a part in.
    for run in sorted(
        runs, key=lambda run: (run not in signed_runs, -len({item.file for item in runs[run]}))
    ):
        mine = runs[run]
        elsewhere = [item for item in pool if item.file not in {one.file for one in mine}]
        signing: list[Signed | None] = [one for one in signers if one.run == run]
        signing = signing or list(signers) or [None]
        for anchor in {item.traits: item for item in mine}.values():
            nearest = sorted(mine, key=partial(_agreement, anchor), reverse=True)
            picked = _one_for_each(nearest, elsewhere)
            for signer in signing:
                yield signer, picked
            # A file needs one of them; what more it holds may speak against it.
            for left_out in picked:
                rest = tuple(item for item in picked if item is not left_out)
                if any(item.file == left_out.file for item in rest):
                    yield signing[0], rest


def _one_for_each(
    nearest: Sequence[Examined], elsewhere: Sequence[Examined]
) -> tuple[Examined, ...]:
    """One of each builder and kind, such that every file has its part, if that can be."""
    files = sorted({item.file for item in nearest})
    taken: dict[tuple[str, str], Examined] = {}

    def place(file: int, tried: set[tuple[str, str]]) -> bool:
        for item in nearest:
            key = item.witness
            if item.file != file or key in tried:
                continue
            tried.add(key)
            if key not in taken or place(taken[key].file, tried):
                taken[key] = item
                return True
        return False

    alone = [file for file in files if not place(file, set())]
    for item in nearest:
        taken.setdefault(item.witness, item)
    picked = list(taken.values())
    # A copy of another file's: shown, and refused as that.
    picked += [next(item for item in nearest if item.file == file) for file in alone]
    seen = {item.file for item in picked}
    for item in elsewhere:  # of another run: shown, and refused as that
        if item.file not in seen:
            seen.add(item.file)
            picked.append(item)
    return tuple(sorted(picked, key=lambda item: item.file))


def _agreement(anchor: Examined, item: Examined) -> tuple[int, int]:
    pairs = zip(item.traits, anchor.traits, strict=True)
    alike = sum(mine is not None and mine == its for mine, its in pairs)
    return alike, item.accepted.level if item.accepted else 0
