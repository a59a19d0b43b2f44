"""D. All the evidence of a model together: that it is about the same run, commit and signature.

To add a check of what all evidence says together, write it here and call it in `examine`; one of
the training record or the data set belongs to `training_claims.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import partial

from slsa_for_models.errors import BuilderError, ChainError, DependencyMismatchError, ParameterError
from slsa_for_models.evidence.training_plan import INPUTS
from slsa_for_models.verdict import checks
from slsa_for_models.verdict.choice import Found
from slsa_for_models.verdict.expectations import Expected, matches
from slsa_for_models.verdict.result import Accepted, claimed_by, dependencies
from slsa_for_models.verdict.table import POLICY, SLSA, TOGETHER, Table

COMPARED_ELSEWHERE = frozenset(
    {
        *("issuer", "runners", "signer", "builders"),  # with whoever signed the model
        *("dataset_sha256", "data", "dependencies", "metrics", "runner_labels"),
        *("minimum_level", "required", "base_models", "base_policies"),
        *("verifiers", "resource_uri", "summary_age"),  # with a verification summary
        "code",  # with the model itself
    }
)
"""Expectations that mean something without provenance too. All others only provenance can meet."""


def examine(table: Table, found: Found) -> Mapping[str, int]:
    """Adds the steps; what rests on evidence that was refused is not refused again.

    Returns:
        The SLSA Build level that each builder's provenance earns, by the builder's short name.
    """
    accepted, expected, levels = found.accepted, found.expected, levels_of(found)
    lost = "" if accepted else found.lost
    # What was required, and the level.
    required = bool(expected.evidence or expected.minimum_level)
    check = partial(check_required, found, max(levels.values(), default=0))
    refused = "evidence was refused" if required and table.refusal else ""
    table.step(TOGETHER, "Required evidence", POLICY, check, compared=required, unless=refused)
    # 2. Expectations that no provenance can meet on its own.
    if not found.evidence.provenance:
        check = partial(check_no_build, found)
        table.step(TOGETHER, "Expected of the build", f"{SLSA}, 2", check, compared=False)
    elif accepted or expected.inputs:
        check = partial(check_inputs, expected.inputs, accepted)
        compared = bool(expected.inputs)
        table.step(TOGETHER, "Inputs", f"{SLSA}, 2", check, compared=compared, unless=lost)
    # All of it is about one run, and no piece is there twice.
    _add_same(table, found)
    if len(accepted) > 1:
        table.step(TOGETHER, "Independent provenance", POLICY, partial(check_distinct, accepted))
    made = {item.provenance.signature.sha256 for item in accepted if item.provenance.signature}
    if made and found.signature is not None:
        check = partial(check_signature, found.signature, made)
        table.step(TOGETHER, "Same signature", POLICY, check)
    # 3. Dependencies.
    if expected.dependencies:
        check = partial(check_dependencies, expected.dependencies, accepted)
        table.step(TOGETHER, "Dependencies", f"{SLSA}, 3", check, unless=lost)
    return levels


def levels_of(found: Found) -> dict[str, int]:
    """The SLSA Build level that each builder's provenance earns, by the builder's short name."""
    levels = {} if found.vouched is None else {"verification summary": found.vouched.level}
    for item in found.accepted:
        name = item.provenance.builder_id.partition("@")[0]
        if item.provenance.kind.only_builder is not None:
            name = item.provenance.kind.name
        elif "/.github/workflows/" in name:
            name = name.rpartition("/")[2]
        levels[name] = max(item.level, levels.get(name, 0))
    # A training on a machine of somebody's own is one, whoever else attests it.
    labels = found.expected.runner_labels
    highest = min(
        (checks.highest_level(item.provenance, labels) for item in found.accepted), default=3
    )
    return {name: min(level, highest) for name, level in levels.items()}


def check_required(found: Found, level: int) -> str:
    """The evidence asked for is there and accepted, and the level is reached.

    Raises:
        ChainError: Not all of it.
        BuilderError: The level is too low.
    """
    expected, needed = found.expected, found.expected.evidence
    kinds = {item.provenance.kind.name for item in found.accepted}
    kinds |= {name for name, one in (("signature", found.signer), ("vsa", found.vouched)) if one}
    said = ", ".join(sorted(kinds)) or "none"
    if not needed <= kinds:
        raise ChainError(
            "required evidence is missing or refused",
            expected=", ".join(sorted(needed)),
            found=f"accepted: {said}",
            fix="give all of it: --signature where a signer is expected, --vsa where a resource is",
        )
    if level < expected.minimum_level:
        raise BuilderError(
            "the SLSA Build level is too low",
            expected=f"L{expected.minimum_level} or more",
            found=f"L{level}",
        )
    return said if needed or expected.minimum_level else f"none was required; accepted: {said}"


def check_no_build(found: Found) -> str:
    """Without provenance nothing may be expected that only provenance says.

    The source is said by the certificate, too, if a workflow signed; it was compared there. A
    verification summary says nothing of it: its verifier's policy did. But it was signed in a run,
    which one of the events expected has to have started.

    Raises:
        ChainError: Something is.
    """
    expected, elsewhere = found.expected, COMPARED_ELSEWHERE
    if found.signer is not None and found.signer.facts.get("repository"):
        elsewhere = elsewhere | {"source_uri", *checks.OF_RUN.values()}
    if found.vouched is not None and found.vouched.event in expected.events:
        elsewhere = elsewhere | {"events"}
    missing = [name.replace("_", " ") for name in expected.chosen() if name not in elsewhere]
    if missing:
        raise ChainError(
            "no accepted provenance says what is expected of the build",
            expected=", ".join(missing),
            found="no accepted provenance",
            fix="give the provenance with --provenance, or expect nothing of the build",
        )
    return "nothing"


def check_inputs(wanted: Mapping[str, Expected], accepted: Sequence[Accepted]) -> str:
    """What the caller of the workflow chose, as the provenance says that states it.

    A workflow that was called has inputs of its own, and only the one that trained states them; the
    event that started the run may have had others, by the same names, for the workflow that calls.

    Args:
        wanted: Name -> value, of each input expected.
        accepted: At least one.

    Raises:
        ParameterError: An input is stated otherwise, or by nobody.
    """
    stated = {
        item.signed.label: item.provenance.inputs for item in accepted if item.provenance.inputs
    }
    called = {item.signed.label for item in accepted if _was_called(item)}
    for name, value in wanted.items():
        said = {label: inputs[name] for label, inputs in stated.items() if name in inputs}
        if called and (name in INPUTS or called & said.keys()):
            said = {label: said[label] for label in said if label in called}
        if not said:
            raise ParameterError(
                "no accepted provenance states an input that is expected",
                where=f"input {name}",
                expected=str(value),
                found=f"inputs {', '.join(sorted(set().union(*stated.values())))}"
                if stated
                else "no inputs",
            )
        for label, found in said.items():
            if not matches(value, found):
                raise ParameterError(
                    "the workflow was given another input",
                    where=f"{label}: input {name}",
                    expected=str(value),
                    found=found,
                )
    lines = {label: _in_words(inputs) for label, inputs in stated.items()}
    if len(set(lines.values())) == 1:
        return next(iter(lines.values()))
    return "; ".join(f"{label}: {words}" for label, words in lines.items()) or "none"


def _was_called(item: Accepted) -> bool:
    """Whether it is of a training by a workflow that another one called."""
    facts, provenance = item.signed.facts, item.provenance
    started = f"{facts.get('repository')}/{facts.get('workflow path')}"
    return provenance.kind.trains and provenance.builder_id.partition("@")[0] != started


def _in_words(inputs: Mapping[str, str]) -> str:
    """All inputs in a line; of a value of several lines their number."""
    lines = {name: len(value.strip().split("\n")) for name, value in inputs.items()}
    return ", ".join(
        f"{name}={value if lines[name] == 1 else f'({lines[name]} lines)'}"
        for name, value in sorted(inputs.items())
    )


def _add_same(table: Table, found: Found) -> None:
    # Pairs, not a mapping: two files may have the same name.
    runs = [(item.signed.label, item.run) for item in found.accepted]
    commits = [(item.signed.label, item.provenance.source_commit) for item in found.accepted]
    if found.signer is not None:
        runs.append((found.signer.label, found.signer.run))
        commits.append((found.signer.label, found.signer.facts.get("commit") or ""))
    for what, said in (("run", runs), ("commit", commits)):
        known = [(label, value) for label, value in said if value]
        if len(known) > 1:
            table.step(TOGETHER, f"Same {what}", POLICY, partial(check_same, known))
        else:
            pieces = "only one piece of" if known else "no accepted"
            why = f"nothing to compare: {pieces} evidence names a {what}"
            table.not_checked(TOGETHER, f"Same {what}", POLICY, why)


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
        by = item.witness
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
        named = {resource.sha256 for resource in dependencies(accepted, name)}
        if named != {digest}:
            raise DependencyMismatchError(
                "made with another dependency than the one expected"
                if named
                else "no accepted provenance names a dependency that is expected",
                where=f"resolvedDependencies, {name}",
                expected=digest,
                found=", ".join(sorted(map(str, named))) or "none of that name",
            )
    return ", ".join(
        f"{name} {digest[:12]}{claimed_by(dependencies(accepted, name))}"
        for name, digest in wanted.items()
    )
