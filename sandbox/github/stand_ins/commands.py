"""How a step speaks to the runner. For demonstrations and tests only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


class StepError(Exception):
    """The step has failed; the message becomes its error annotation."""


def run(step: Callable[[], None]) -> None:
    """Runs a step; a `StepError` becomes an annotation and exit code 1."""
    try:
        step()
    except StepError as failure:
        message = str(failure).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::error::{message}", flush=True)
        sys.exit(1)


def value(name: str) -> str:
    """An input of the step; empty if it was not given."""
    return os.environ.get(name, "")


def flag(name: str) -> bool:
    """A boolean input, in the spellings of YAML 1.2.

    Raises:
        StepError: It is something else.
    """
    text = value(name)
    if text not in ("true", "True", "TRUE", "false", "False", "FALSE"):
        raise StepError(f"Input does not meet YAML 1.2 'Core Schema': {name.lower()}: '{text}'")
    return text.lower() == "true"


def set_output(name: str, text: str) -> None:
    """Sets an output of the step, a single line."""
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as output:
        output.write(f"{name}={text}\n")
