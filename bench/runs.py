"""What a run of `train.yml` and of `sign.yml` costs: time of each job, bytes of its artifacts.

usage: python bench/runs.py [--formats NAME...] [--page FILE]

Each row is a run in the sandbox, on the synthetic set for one epoch, so that what is seen is what
the workflow adds to the training; jobs run one after the other as on GitHub, those that do not wait
for each other at once. The environments are there already; what it takes to install one is
measured by itself, in an empty cache (with the packages that the index serves at the time). What
GitHub adds, a machine for each job and whole minutes, nobody can measure here.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandbox import github  # noqa: E402
from sandbox.github.repositories import Repository  # noqa: E402
from sandbox.sigstore import LocalSigstore  # noqa: E402
from slsa_for_models.models.formats import FORMATS  # noqa: E402

MARKS = ("<!-- figures: written by `make bench-runs` -->", "<!-- end of figures -->")
PRODUCT = "model-transparency/model-transparency"
GROUPS = {
    "train": ("train",),
    "who attests": ("provenance", "attest"),
    "sign": ("sign",),
    "verify": ("verify",),
}


@dataclass(frozen=True)
class Row:
    """One run: seconds of each job that ran, by its path; bytes of each artifact, by its name.

    The processor's seconds are the kernel's figure for all jobs together, which other work on the
    machine changes less.
    """

    name: str
    seconds: dict[str, float]
    processor: float
    artifacts: dict[str, int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one after the other and prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), metavar="NAME")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into this page")
    args = parser.parse_args(argv)
    rows = []
    with LocalSigstore() as sigstore, tempfile.TemporaryDirectory() as scratch:
        for model in args.formats:
            inputs = {"model": model, "dataset": "synthetic", "epochs": "1"}
            rows.append(measured(model, "train.yml", Path(scratch), sigstore, inputs))
            print(table(rows[-1:]), file=sys.stderr, flush=True)
        rows.append(measured("sign.yml", "sign.yml", Path(scratch), sigstore, {}))
    text = f"{table(rows)}\n{environments(('base', 'pytorch', 'tensorflow'))}"
    print(text)
    if args.page:
        before, rest = args.page.read_text().split(MARKS[0])
        args.page.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.split(MARKS[1])[1]}")
    return 0


def measured(
    name: str, workflow: str, scratch: Path, sigstore: LocalSigstore, inputs: dict[str, str]
) -> Row:
    """One run: `train.yml` as it is dispatched, or the example that signs."""
    product = Repository(PRODUCT, ROOT, "refs/tags/v1")
    repository, others, event = product, [], "workflow_dispatch"
    if workflow == "sign.yml":
        folder = scratch / "consumer/.github/workflows"
        folder.mkdir(parents=True)
        example = (ROOT / "examples/sign.yml").read_text(encoding="utf-8")
        (folder / workflow).write_text(example.partition("  verify:\n")[0], encoding="utf-8")
        repository, others = Repository("octo-org/models", folder.parents[1]), [product]
        event = "push"
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def watch(seen: github.Event) -> None:
        job = seen.job.removeprefix("sign/") if workflow == "sign.yml" else seen.job
        if seen.step is None and seen.output is None:
            if seen.result is None:
                started[job] = time.monotonic()
            elif job in started and seen.result != "skipped":
                seconds[job] = time.monotonic() - started[job]

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = github.run(
        f".github/workflows/{workflow}",
        repository,
        sigstore,
        scratch / name,
        others=others,
        event_name=event,
        inputs=inputs,
        on_event=watch,
    )
    if run.conclusion != "success":
        raise SystemExit(run.log.read_text(encoding="utf-8"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds.pop("build", None)  # the consumer's own
    sizes = {path.stem: path.stat().st_size for path in run.artifacts.glob("*.zip")}
    return Row(name, seconds, processor, sizes)


def table(rows: Sequence[Row]) -> str:
    """Seconds by kind of job, number of jobs, and bytes of artifacts."""
    times = (*(f"{group}, s" for group in GROUPS), "Processor, s")
    head = ("Run", *times, "Jobs", "Model, KB", "Evidence, KB")
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    for row in rows:
        cells = []
        for first in GROUPS.values():
            spent = [s for job, s in row.seconds.items() if job.split("/")[0] in first]
            cells.append(f"{sum(spent):.0f}" if spent else "-")
        model = row.artifacts[min(row.artifacts, key=len)]  # the others add to its name
        evidence = sum(row.artifacts.values()) - model
        cells += [f"{row.processor:.0f}", str(len(row.seconds))]
        cells += [f"{model / 1e3:,.0f}", f"{evidence / 1e3:,.0f}"]
        lines.append(f"| `{row.name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def environments(roles: Sequence[str]) -> str:
    """How long each environment takes to install into an empty cache, and its size."""
    lines = ["| Environment | Installed in, s | On disk, MB |", "|---|--:|--:|"]
    for role in roles:
        with tempfile.TemporaryDirectory() as cache:
            start = time.monotonic()
            subprocess.run(
                [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), role],
                env={**os.environ, "MODEL_TRANSPARENCY_CACHE": cache},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            seconds = time.monotonic() - start
            sizes = {
                (status.st_dev, status.st_ino): status.st_blocks * 512
                for path in Path(cache).rglob("*")
                if (status := path.lstat())
            }
            lines.append(f"| `{role}` | {seconds:.0f} | {sum(sizes.values()) / 1e6:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
