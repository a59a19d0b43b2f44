"""The whole chain on one machine: `train.yml` as GitHub runs it, then the verdict once more.

For demonstrations only. What it signs proves nothing to anybody else: the Sigstore behind it is
made at start, and gone at the end.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.checkout import PRODUCT, ROOT, SetupError, framework_of, programs_of
from sandbox.github import Event, Repository, Run, WorkflowError, run
from sandbox.services import sigstore_of_kind
from sandbox.sigstore.oidc import GITHUB_ISSUER

REF = "refs/heads/main"
WORKFLOW = ".github/workflows/train.yml"
STAGES = {
    "train": "train the model; this job can neither sign nor publish",
    "provenance/generator": "slsa-github-generator states what was built, from which commit",
    "sign": "state how the model was trained, and sign the model; without any key to keep",
    "verify": "verify all of it: one verdict",
}

# Lines of the runner's own in its log; the others are what the jobs printed.
RUNNER_MARKS = (
    "⭐",
    "✅",
    "❌",
    "⚙",
    "❓",
    "❗",
    "🏁",
    "🧪",
    "LocalRepo",
    "Cleaning up",
    "exit status",
)


@dataclass
class Display:
    """Prints a line as each stage of the chain starts and ends.

    Attributes:
        started: When the demonstration began, in seconds of `time.monotonic`.
    """

    started: float

    def __post_init__(self) -> None:
        self._stage_started: dict[str, float] = {}
        self._failed: list[str] = []

    def line(self, text: str) -> None:
        """Prints a line with the time since the start."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def __call__(self, event: Event) -> None:
        """Takes in an event of the run."""
        if event.job not in STAGES:
            return
        name = event.job.partition("/")[0]
        if event.output is not None:
            # What takes long says how far it is.
            if event.output.startswith(("epoch ", "environment: ", "test accuracy")):
                self.line(f"  {'':11}{event.output}")
        elif event.step is not None:
            if event.result == "failure":
                self.line(f"  {name:11}failed at the step: {event.step}")
        elif event.result is None:
            self._stage_started[event.job] = time.monotonic()
            self.line(f"> {name:11}{STAGES[event.job]}")
        else:
            took = time.monotonic() - self._stage_started.pop(event.job, self.started)
            word = "done" if event.result == "success" else event.result.upper()
            self.line(f"  {name:11}{word} ({took:.1f} s)")


def demo(
    model: str,
    dataset: str,
    data_dir: Path | None,
    epochs: int | None,
    output: Path,
    sigstore_kind: str = "stand-in",
) -> int:
    """Trains, proves, signs and verifies one model; exit code 0 if it is verified.

    Args:
        model: The format, such as `pytorch_model.pth`.
        dataset: `synthetic` or `cifar10`.
        data_dir: A folder with CIFAR-10's binary batches, instead of a download.
        epochs: Passes over the training set; by default few, as for a demonstration.
        output: Where the model and all that belongs to it is left.
        sigstore_kind: The sandbox's own Sigstore, or the real programs (`sandbox.services.KINDS`).
    """
    display = Display(time.monotonic())
    inputs = {"model": model, "dataset": "cifar10" if data_dir else dataset}
    inputs["epochs"] = str(epochs or (1 if inputs["dataset"] == "cifar10" else 3))
    if data_dir is not None:
        inputs["data-dir"] = str(data_dir.resolve())
    print(f"{WORKFLOW}, as on GitHub, on this machine. Nothing leaves it, except for packages.\n")
    try:
        with alone_in(output):
            # Before the workflow asks for them: what fails here needs no log to be looked at.
            for role in filter(None, (framework_of(model), "base")):
                programs_of(role)
            with sigstore_of_kind(sigstore_kind) as sigstore:
                where = " ".join(sorted({url.partition("/api")[0] for url in sigstore.addresses}))
                display.line(f"> {'sigstore':11}certificates, log and timestamps at {where}")
                result = run(
                    WORKFLOW,
                    Repository(PRODUCT, ROOT, REF),
                    sigstore,
                    output / "run",
                    inputs=inputs,
                    on_event=display,
                )
                if result.conclusion != "success":
                    explain_failure(result)
                    return 1
                collect(result, model, output)
                sigstore.write_trust_config(output / "trust-config.json")
            return verify_again(display, model, output)
    except (SetupError, WorkflowError) as error:
        print(f"\nNot started: {error}", file=sys.stderr)
        return 1


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Keeps other demonstrations out of a folder, until this one ends, however it does.

    Raises:
        WorkflowError: Another one is at work there.
    """
    import fcntl  # not on Windows, where nothing of this runs

    output.mkdir(parents=True, exist_ok=True)
    folder = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise WorkflowError(
            f"another demonstration is at work in {output}/: wait for it, or choose another "
            "folder (make demo OUTPUT=...)"
        ) from None
    finally:
        os.close(folder)


def explain_failure(result: Run) -> None:
    """Says which jobs failed, why, and where everything is that they printed."""
    failed = [path for path, job in sorted(result.jobs.items()) if job.conclusion == "failure"]
    print(f"\nThe run failed, in: {', '.join(failed)}", file=sys.stderr)
    for annotation in result.annotations:
        if annotation.level == "error":
            title = f"{annotation.title}: " if annotation.title else ""
            print(f"  {annotation.job}: {title}{annotation.message}", file=sys.stderr)
    printed = [
        line
        for line in result.log.read_text(encoding="utf-8").splitlines()
        if line.startswith(tuple(f"[{job}] " for job in failed))
        and not line.partition("] ")[2].lstrip().startswith(RUNNER_MARKS)
    ]
    print("The last lines of the log:", file=sys.stderr)
    for line in printed[-8:]:
        print(f"  {line}", file=sys.stderr)
    print(f"All of it: {result.log}", file=sys.stderr)


def collect(result: Run, model: str, output: Path) -> None:
    """Replaces the model and what belongs to it in `output` by those of the run."""
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        for artifact in result.artifact_names():
            result.extract(artifact, Path(scratch))
        for item in sorted(Path(scratch).iterdir()):
            target = output / item.name
            if target.is_dir():
                shutil.rmtree(target)
            item.replace(target)
    shutil.rmtree(result.artifacts)
    summary = "\n".join(result.summaries.values())
    (output / "run/summary.md").write_text(summary, encoding="utf-8")
    missing = [name for name in (model, "training.json") if not (output / name).exists()]
    if missing:
        raise RuntimeError(f"the run succeeded without {', '.join(missing)}")


def verify_command(model: str, output: Path) -> list[str]:
    """The command with which anybody verifies the model that the demonstration made."""
    identity = f"https://github.com/{PRODUCT}/{WORKFLOW}@{REF}"
    files = {
        "--signature": f"{model}.sig",
        "--provenance": f"{model}.provenance.sigstore.json",
        "--provenance ": f"{model}.intoto.jsonl",
        "--training-record": "training.json",
        "--trust-config": "trust-config.json",
    }
    command = ["slsa_for_models", "verify", str(output / model)]
    for option, name in files.items():
        command += [option.strip(), str(output / name)]
    command += ["--source-uri", f"github.com/{PRODUCT}"]
    return [*command, "--identity", identity, "--identity-provider", GITHUB_ISSUER]


def verify_again(display: Display, model: str, output: Path) -> int:
    """Runs the command that verifies at home, and shows it; exit code 0 if it verifies."""
    programs = programs_of("base")
    command = verify_command(model, output)
    display.line(f"> {'at home':11}verify again, with nothing but the files in {output}/\n")
    program = programs / command[0]
    code = subprocess.run([program, *command[1:]], check=False, timeout=1800).returncode
    if code != 0:
        print("\nThe workflow verified what does not verify at home: a defect.", file=sys.stderr)
        return code
    size = (output / model).stat().st_size if (output / model).is_file() else None
    print(f"\nIn {output}/:")
    contents = {
        model: "the model" + (f", {size:,} bytes" if size else ""),
        f"{model}.sig": "its signature (OpenSSF Model Signing)",
        f"{model}.provenance.sigstore.json": "how it was trained (SLSA v1), by train.yml",
        f"{model}.intoto.jsonl": "what was built (SLSA v0.2), by slsa-github-generator",
        f"{model}.verdict.html": "the verdict as a page for people: open it in a browser",
        "training.json": accuracy(output / "training.json"),
        "trust-config.json": "whom to trust: the Sigstore of this demonstration",
    }
    width = max(map(len, contents)) + 2
    for name, what in contents.items():
        print(f"  {name:{width}}{what}")
    print(f"\nVerify it yourself:\n\n  export PATH={shlex.quote(str(programs))}:$PATH")
    print(f"  {wrapped(command)}")
    print("\nThen change one byte, verify again, and see it refused:\n")
    print(f"  {tamper_command(output / model)}")
    return 0


def accuracy(training_record: Path) -> str:
    """What the training record says of the model's quality."""
    metrics = json.loads(training_record.read_text(encoding="utf-8"))["metrics"]
    return f"the training record: accuracy {metrics['test_accuracy']:.1%} on images it never saw"


def wrapped(command: Sequence[str]) -> str:
    """A command for a shell, an option a line."""
    text = shlex.join(command[:3])
    for option, value in zip(command[3::2], command[4::2], strict=True):
        text += f" \\\n    {option} {shlex.quote(value)}"
    return text


def tamper_command(model: Path) -> str:
    """A command that flips one bit of the model, or of the first file in it."""
    file = model if model.is_file() else next(p for p in sorted(model.rglob("*")) if p.is_file())
    script = """import sys; f = open(sys.argv[1], "r+b"); b = f.read(1)[0]; """
    script += "f.seek(0); f.write(bytes([b ^ 1]))"
    return f"python3 -c {shlex.quote(script)} {shlex.quote(str(file))}"
