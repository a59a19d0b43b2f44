"""GitHub Actions on this machine: one run of one workflow, by `act`, without a network.

For demonstrations and tests only. There is no isolation: jobs are processes of the user who starts
the sandbox, on this machine. `act` (github.com/nektos/act) runs jobs and steps and evaluates
expressions; `runner` does what GitHub does around them: it checks the workflow, gives each job
its identity, serves artifacts and other people's actions (`stand_ins/`), and reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.github.repositories import Repository
from sandbox.github.result import Annotation, Event, JobResult, Run

if TYPE_CHECKING:
    from sandbox.github.runner import run
    from sandbox.github.workflows import WorkflowError

__all__ = ["Annotation", "Event", "JobResult", "Repository", "Run", "WorkflowError", "run"]


def __getattr__(name: str) -> object:
    """What runs workflows, once it is asked for: many a step is a process that needs none of it."""
    if name == "run":
        from sandbox.github.runner import run

        return run
    if name == "WorkflowError":
        from sandbox.github.workflows import WorkflowError

        return WorkflowError
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
