"""Stands for `gh run download RUN --repo ORG/REPO --dir DIR` while the documents' commands run.

The run is the demonstration's, whose files lie in `out/`. As gh does, it makes a folder of each
artifact. Nothing else of gh is here: any other command fails.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

NO_ARTIFACTS = ("run", "trust-config.json")


def main() -> None:
    match sys.argv[1:]:
        case ["run", "download", run, "--repo", _, "--dir", folder] if run.isdecimal():
            target = Path(folder)
        case other:
            sys.exit(f"this stand-in downloads the artifacts of a run, and nothing else: {other}")
    (model,) = (path.with_suffix("") for path in Path("out").glob("*.sig"))
    for path in Path("out").iterdir():
        if path.name in NO_ARTIFACTS:
            continue
        # The model's artifact holds its training record, too.
        artifact = target / (model.name if path.name == "training.json" else path.name)
        artifact.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, artifact / path.name)


if __name__ == "__main__":
    main()
