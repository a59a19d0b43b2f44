"""What there is to verify, and the one value that comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import Error
from model_signing.methods.sigstore_trust import SigstoreTrust
from slsa_for_models.evidence.claims import Facts
from slsa_for_models.evidence.github import GITHUB
from slsa_for_models.evidence.provenance import Provenance
from slsa_for_models.evidence.statement import Resource
from slsa_for_models.evidence.statement_names import BASE_MODEL
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.evidence.training_record import TrainingRecord
from slsa_for_models.verdict.expectations import Builder, Expectations
from slsa_for_models.verdict.table import Step

if TYPE_CHECKING:
    from model_signing.methods import Authenticated
    from model_signing.sources import Source
    from model_signing.sources.copying import Copy

OFFLINE = SigstoreTrust(offline=True)
"""The public Sigstore instance, by the trust root that is on this machine."""
MOST_METRICS_SHOWN = 4
NO_PROVENANCE = "no provenance was accepted"


@dataclass(frozen=True)
class Evidence:
    """The files of one model, and the Sigstore instance to verify them against.

    Attributes:
        model: Where it lies.
        provenance: Provenance files.
        signature: The OMS signature.
        vsa: Verification summaries, of which one by a trusted verifier has to hold.
        training_record: The record that came beside the model.
        inside: Names in the model of what the signature was fetched from, which it cannot cover.
        trust: The Sigstore instance.
        copy: Gets the model's bytes as they are hashed.
    """

    model: Source
    provenance: tuple[Path, ...] = ()
    signature: Path | None = None
    vsa: tuple[Path, ...] = ()
    training_record: Path | None = None
    inside: tuple[str, ...] = ()
    trust: SigstoreTrust = OFFLINE
    copy: Copy | None = None


@dataclass(frozen=True)
class Signed:
    """Who signed a file, once it is settled that they may.

    Attributes:
        label: The file.
        authenticated: The signer.
        facts: What a workflow's certificate says, see `claims.certified_facts`; empty for others.
        builders: The roots of trust that this signer may speak for.
    """

    label: str
    authenticated: Authenticated
    facts: Facts
    builders: tuple[Builder, ...] = ()

    @property
    def run(self) -> str:
        """The run that a workflow's certificate names, without the number of its attempt; or ""."""
        return self.facts.get("run of repository") or ""

    def __str__(self) -> str:
        if self.authenticated.method == "key":
            return f"key {(self.authenticated.identity or '')[:16]}"
        repository = self.facts.get("repository")
        return f"{self.authenticated.identity}{f' for {repository}' if repository else ''}"


@dataclass(frozen=True)
class Vouched:
    """What an accepted verification summary vouches for.

    Attributes:
        level: The SLSA Build level.
        event: What started the run that signed the summary, as its certificate says.
    """

    level: int
    event: str | None


def logged(authenticated: Authenticated, before: str = "") -> str:
    """Where a signature stands in a transparency log, after `before`; "" if in none."""
    log = authenticated.log
    return f"{before}{log.origin} entry {log.log_index}" if log else ""


def claimed(record: TrainingRecord) -> str:
    """What training says of how well it went: its first metrics, but those of single epochs."""
    shown = [name for name in record.metrics if not name.startswith("epoch.")]
    said = [f"{name} {record.metrics[name]:.4g}" for name in shown[:MOST_METRICS_SHOWN]]
    return ", ".join([*said, f"finished {record.finished}"])


def inputs_of(record: TrainingRecord) -> str:
    """What training says that it read, in a word or two."""
    files = record.dataset.files
    return files[0].name if len(files) == 1 else f"{len(files)} files" if files else ""


def claimed_by(resources: Iterable[Resource]) -> str:
    """`, claimed by the training job`, where the builder only passes on what others say; or ""."""
    said = sorted({f"the {resource.claimed_by}" for resource in resources if resource.claimed_by})
    return f", claimed by {' and '.join(said)}" if said else ""


@dataclass(frozen=True)
class Accepted:
    """A provenance of which every step passed, its signer, and the SLSA Build level it earns."""

    signed: Signed
    provenance: Provenance
    level: int

    @property
    def run(self) -> str:
        """The run, as its certificate names it, or else its builder."""
        return self.signed.run or self.provenance.invocation

    @property
    def witness(self) -> tuple[str, str]:
        """The builder and the kind: a second one of both adds nothing."""
        return self.provenance.builder_id, self.provenance.kind.name


def dependencies(accepted: Iterable[Accepted], name: str) -> list[Resource]:
    """What provenances name as a dependency of that name, in their order."""
    return [one for item in accepted for one in item.provenance.dependencies if one.name == name]


def with_command(accepted: Iterable[Accepted]) -> Accepted | None:
    """The first that is of a training by a command of its caller's own, and states that."""
    trained = (item for item in accepted if item.provenance.kind.trains)
    return next((item for item in trained if item.provenance.inputs.get("command")), None)


def builders_word(item: Accepted) -> str:
    """`, says OWNER/NAME/PATH`: what a trusted builder checked, nobody else has seen."""
    name = item.provenance.builder_id.removeprefix(GITHUB).partition("@")[0]
    where = "" if item.level > 1 else ", on a machine that may be its caller's"
    return f", says {name}{where}"


@dataclass(frozen=True)
class Verdict:
    """Every step, and what the accepted evidence says. False unless the model is verified.

    Attributes:
        model: The model as it was hashed.
        steps: Every check, in order, also those that were not run.
        signer: Who signed the model, if that was accepted.
        accepted: The provenances of which every step passed.
        levels: The SLSA Build level that each builder's accepted provenance earns, by the builder's
            short name; that of a verification summary by those words.
        dataset: SHA-256 of the training data, hexadecimal, as far as it is known; else "".
        record: What training says of itself, if an accepted provenance vouches for that.
        base_models: SHA-256 of a base model's signed statement, hexadecimal -> its own verdict; of
            every base model that was given and is named, in all generations.
        evidence: Name and SHA-256, hexadecimal, of each file as it was read.
        expected: What it was compared with.
        trust_root: The Sigstore instance that was believed: the public one, or by name and digest.
    """

    model: ModelDigests
    steps: tuple[Step, ...]
    signer: Signed | None = None
    accepted: tuple[Accepted, ...] = ()
    levels: Mapping[str, int] = field(default_factory=dict)
    dataset: str = ""
    record: TrainingRecord | None = None
    base_models: Mapping[str, Verdict] = field(default_factory=dict)
    evidence: tuple[tuple[str, str], ...] = ()
    expected: Expectations = field(default_factory=Expectations)
    trust_root: str = ""

    def __bool__(self) -> bool:
        return self.verified

    @property
    def verified(self) -> bool:
        """Whether at least one check passed and none refused."""
        outcomes = {step.outcome for step in self.steps}
        return "passed" in outcomes and "refused" not in outcomes

    @property
    def level(self) -> int:
        """The highest SLSA Build level of all evidence; 0 unless verified."""
        return max(self.levels.values(), default=0) if self.verified else 0

    @property
    def refusal(self) -> Error | None:
        """The first refusal, which decides the exit code."""
        return next((step.error for step in self.steps if step.error is not None), None)

    @property
    def exit_code(self) -> int:
        """0, or what the first refusal asks for."""
        return 0 if self.verified else self.refusal.exit_code if self.refusal else 1

    @property
    def named_base_models(self) -> tuple[str, ...]:
        """The digests of the base models that accepted provenance names, each once, in order.

        "" stands for one that is named without a SHA-256.
        """
        named = (resource.sha256 or "" for resource in dependencies(self.accepted, BASE_MODEL))
        return tuple(dict.fromkeys(named))

    @property
    def base_levels(self) -> tuple[int, ...] | None:
        """The SLSA Build level of each base model; None if one that is named was not given."""
        generations = (self, *self.base_models.values())
        named = {digest for one in generations for digest in one.named_base_models}
        if not named <= self.base_models.keys():
            return None
        return tuple(one.level for one in self.base_models.values())

    def require(self) -> Verdict:
        """Itself, if the model is verified.

        Raises:
            Error: The first refusal; or that nothing could be checked.
        """
        if self.verified:
            return self
        raise self.refusal or Error("nothing could be checked", where=self.model.name)
