"""How a run went: what a progress display may show, and what is left of it.

For demonstrations and tests only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """Something that a progress display may show.

    Attributes:
        job: The job's path, such as `provenance/generator`.
        step: The step's name; None when the job itself starts or ends.
        result: `success`, `failure` or `skipped`; None at the start.
        output: A line that the job printed; the step and the result are None then.
    """

    job: str
    step: str | None = None
    result: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class JobResult:
    """How a job ended: `success`, `failure`, `cancelled` or `skipped`; and its outputs."""

    conclusion: str
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """A `::notice::`, `::warning::` or `::error::` of a job."""

    level: str
    message: str
    title: str
    job: str


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        conclusion: `success` or `failure`.
        jobs: Result of every job by its path; a job that calls a workflow is one, too.
        summaries: Markdown that jobs wrote for the run's page, by job path.
        annotations: In the order of the log.
        log: A file with everything that the jobs printed.
        artifacts: A folder with one zip file per artifact.
        run_id: As in `github.run_id`.
        run_attempt: As in `github.run_attempt`.
        repository: The caller's name, `github.repository`.
        commit: The caller's commit, `github.sha`.
    """

    conclusion: str
    jobs: Mapping[str, JobResult]
    summaries: Mapping[str, str]
    annotations: Sequence[Annotation]
    log: Path
    artifacts: Path
    run_id: str
    run_attempt: int
    repository: str
    commit: str

    def artifact_names(self) -> list[str]:
        """The names of the run's artifacts."""
        return sorted(path.name.removesuffix(".zip") for path in self.artifacts.glob("*.zip"))

    def extract(self, artifact: str, target: Path) -> None:
        """Unpacks an artifact into a folder."""
        with zipfile.ZipFile(self.artifacts / f"{artifact}.zip") as archive:
            archive.extractall(target)
