"""What actions/attest does with a predicate of one's own. For demonstrations and tests only."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.github.stand_ins.artifacts import find_files
from sandbox.github.stand_ins.commands import StepError, run, set_output, value
from sandbox.github.stand_ins.signing import sign

MAX_SUBJECTS = 1024


def main() -> None:
    """Signs a statement about the subjects, with the given predicate."""
    given = [name for name in ("PATH", "DIGEST", "CHECKSUMS") if value(f"SUBJECT_{name}")]
    if len(given) != 1:
        raise StepError(
            "One of subject-path, subject-digest, or subject-checksums must be provided"
        )
    subjects = list({json.dumps(subject): subject for subject in _subjects()}.values())
    if not 0 < len(subjects) <= MAX_SUBJECTS:
        raise StepError(f"Between 1 and {MAX_SUBJECTS} subjects are possible, not {len(subjects)}")
    if bool(value("PREDICATE")) == bool(value("PREDICATE_PATH")):
        raise StepError("Either predicate or predicate-path must be provided")
    text = value("PREDICATE") or Path(value("PREDICATE_PATH")).read_text(encoding="utf-8")
    bundle = sign(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": value("PREDICATE_TYPE"),
            "predicate": json.loads(text),
        }
    )
    folder = tempfile.mkdtemp(dir=os.environ["RUNNER_TEMP"])
    path = Path(folder) / "attestation.json"
    path.write_text(bundle + "\n", encoding="utf-8")
    number = str(zlib.crc32(bundle.encode()))
    set_output("bundle-path", str(path))
    set_output("attestation-id", number)
    repository = f"{value('GITHUB_SERVER_URL')}/{value('GITHUB_REPOSITORY')}"
    set_output("attestation-url", f"{repository}/attestations/{number}")


def _subjects() -> Iterator[dict[str, Any]]:
    if value("SUBJECT_PATH"):
        files, _ = find_files(value("SUBJECT_PATH").splitlines(), hidden=True)
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            yield {"name": value("SUBJECT_NAME") or file.name, "digest": {"sha256": digest}}
    elif value("SUBJECT_DIGEST"):
        algorithm, _, digest = value("SUBJECT_DIGEST").partition(":")
        if algorithm != "sha256" or not value("SUBJECT_NAME"):
            raise StepError("subject-digest takes sha256:HEX, and needs subject-name")
        yield {"name": value("SUBJECT_NAME"), "digest": {"sha256": digest}}
    else:
        checksums = value("SUBJECT_CHECKSUMS")
        if "\n" not in checksums and Path(checksums).is_file():
            checksums = Path(checksums).read_text(encoding="utf-8")
        for line in filter(None, map(str.strip, checksums.splitlines())):
            digest, _, name = line.partition(" ")
            yield {"name": name.lstrip(" *"), "digest": {"sha256": digest}}


if __name__ == "__main__":
    run(main)
