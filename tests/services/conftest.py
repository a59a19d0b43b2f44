"""The real services, and the real clients beside ours. Collected only with `--sigstore=real`."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.services.programs import programs
from sandbox.sigstore import LocalSigstore
from tests.support.crafted import Workshop


@dataclass(frozen=True)
class Cosign:
    """The real cosign, which knows nothing but the files that it is given."""

    program: Path
    home: Path

    def __call__(self, *arguments: object, **environment: str) -> tuple[int, str]:
        """Exit code of a command, and what it printed."""
        done = subprocess.run(
            [self.program, *map(str, arguments)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **environment},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="session")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    return Cosign(programs(["cosign"])["cosign"], tmp_path_factory.mktemp("cosign"))


def write_root(trust_config: Path, folder: Path) -> Path:
    """The trusted root of a client trust config, as cosign takes it."""
    path = folder / "trusted-root.json"
    path.write_text(json.dumps(json.loads(trust_config.read_text())["trustedRoot"]))
    return path


@pytest.fixture
def workshop(sigstore: LocalSigstore, trust_config: Path, tmp_path: Path) -> Workshop:
    """Makes and verifies evidence in a folder of its own."""
    return Workshop(sigstore, trust_config, tmp_path)
