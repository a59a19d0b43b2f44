"""Runs workflows of this repository, and of consumers of it, with the sandbox."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandbox import github
from sandbox.github.repositories import Repository
from sandbox.sigstore import LocalSigstore

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = "model-transparency/model-transparency"
CONSUMER = "octo-org/models"


def git_files() -> list[str]:
    """The files of this repository that are there and not ignored, as paths from its root."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@dataclass
class Sandbox:
    """A Sigstore and a place for runs."""

    sigstore: LocalSigstore
    folder: Path

    def product(self, edit: Callable[[Path], None] | None = None) -> Repository:
        """This repository at its tag v1, or a copy of it with an edit."""
        root = ROOT
        if edit is not None:
            root = self._new("product")
            for name in git_files():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
            edit(root)
        return Repository(PRODUCT, root, "refs/tags/v1")

    def consumer(self, workflow: str, name: str = CONSUMER) -> Repository:
        """A repository with one workflow, `.github/workflows/consume.yml`."""
        root = self._new("consumer")
        (root / ".github/workflows").mkdir(parents=True)
        (root / ".github/workflows/consume.yml").write_text(workflow, encoding="utf-8")
        return Repository(name, root)

    def run(self, workflow: str, repository: Repository, **options: Any) -> github.Run:
        """Runs `.github/workflows/WORKFLOW`."""
        path = f".github/workflows/{workflow}"
        return github.run(path, repository, self.sigstore, self._new("run"), **options)

    def consume(
        self, workflow: str, *, product: Repository | None = None, **options: Any
    ) -> github.Run:
        """Runs a workflow's text from a consumer's repository, by default on a push."""
        others = [product or self.product(), *options.pop("others", ())]
        options.setdefault("event_name", "push")
        consumer = replace(self.consumer(workflow), visibility=options.pop("visibility", "public"))
        return self.run("consume.yml", consumer, others=others, **options)

    def _new(self, kind: str) -> Path:
        folder = self.folder / f"{kind}-{sum(1 for _ in self.folder.iterdir())}"
        folder.mkdir()
        return folder
