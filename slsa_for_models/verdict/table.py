"""One table of steps: what was checked, by which clause, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from model_signing.errors import Error, FileError

T = TypeVar("T")
Outcome = Literal["passed", "refused", "info", "not checked"]

# Where checks are specified. Clauses are appended: f"{SLSA}, 1.2".
OMS = "OMS v1.0, 8"
SLSA = "SLSA v1.2 verifying-artifacts"
UNFORGEABLE = "SLSA v1.2 build-requirements, unforgeable provenance"
VSA = "SLSA v1.2 VSA, how to verify"
POLICY = "docs/policy"
TRAIN = "docs/buildtypes/train-v1"

TOGETHER = "together"
"""The subject of steps about all evidence."""


@dataclass(frozen=True)
class Step:
    """One check and how it ended.

    Attributes:
        subject: What was looked at: a file's name, or "together".
        title: The check, in a manager's words.
        clause: Where it is specified.
        outcome: passed; refused; info, which was compared with nothing; or not checked.
        found: What was found, or why it was not checked.
        error: The refusal.
    """

    subject: str
    title: str
    clause: str
    outcome: Outcome
    found: str
    error: Error | None = None


@dataclass
class Table:
    """Collects steps in order; `step` turns an `Error` into a refused step and goes on.

    What cannot be read (`FileError`) says nothing about the model: it is raised, not a refusal.
    """

    steps: list[Step] = field(default_factory=list)

    def step(
        self,
        subject: str,
        title: str,
        clause: str,
        check: Callable[[], T],
        show: Callable[[T], str] = str,
        *,
        compared: bool = True,
        unless: str = "",
    ) -> T | None:
        """Runs a check. Returns its result, or None if it refused or was not run.

        `show` says the result in words. Where nothing was `compared` with, a pass is only `info`.
        `unless` says why it cannot be run, if it cannot: the evidence it rests on was refused.
        """
        if unless:
            self.not_checked(subject, title, clause, f"not checked: {unless}")
            return None
        try:
            result = check()
        except FileError:
            raise
        except Error as error:
            # It is kept as long as the verdict, and the frames that it came through with it.
            self.refused(subject, title, clause, error.with_traceback(None))
            return None
        outcome: Outcome = "passed" if compared else "info"
        self.steps.append(Step(subject, title, clause, outcome, show(result)))
        return result

    def refused(self, subject: str, title: str, clause: str, error: Error) -> None:
        """Records a refusal."""
        self.steps.append(Step(subject, title, clause, "refused", error.message, error))

    def note(self, subject: str, title: str, clause: str, found: str) -> None:
        """Says what was found, and compared with nothing."""
        self.steps.append(Step(subject, title, clause, "info", found))

    def not_checked(self, subject: str, title: str, clause: str, why: str) -> None:
        """Says what was not checked; nothing is left out in silence."""
        self.steps.append(Step(subject, title, clause, "not checked", why))

    @property
    def refusal(self) -> Error | None:
        """The first one, if any of the steps refused."""
        return next((step.error for step in self.steps if step.error is not None), None)


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
