"""What actions/checkout does, for the repositories of the sandbox. For demos and tests only."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sandbox.github.repositories import checkout
from sandbox.github.stand_ins.commands import StepError, run, set_output, value


def main() -> None:
    """Checks out the commit of the run, or another ref that the sandbox has."""
    workspace = Path(os.environ["GITHUB_WORKSPACE"]).resolve()
    target = (workspace / (value("TARGET") or ".")).resolve()
    if not target.is_relative_to(workspace):
        raise StepError(f"Repository path '{target}' is not under '{workspace}'")
    name = value("REPOSITORY")
    ref = value("REF")
    is_own = name == os.environ["GITHUB_REPOSITORY"]
    if is_own and not ref:
        ref = os.environ["GITHUB_SHA"]
    known = json.loads((Path(os.environ["SANDBOX_RUN"]) / "repositories.json").read_text())
    for repository in known:
        short = repository["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/")
        if repository["name"] == name and ref in (
            "",
            short,
            repository["ref"],
            repository["commit"],
        ):
            checkout(Path(repository["path"]), repository["commit"], target)
            set_output("ref", ref or repository["ref"])
            set_output("commit", repository["commit"])
            print(f"{name} at {repository['commit']}")
            return
    raise StepError(f"The sandbox has no repository '{name}' at '{ref}'")


if __name__ == "__main__":
    run(main)
