"""A training: any command, on inputs that were checked, as one model and its training record.

The steps of a run stand in `train`. Nothing appears under its final name before the command has
succeeded, every process of it has ended, and everything that it was given is still what it was.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from model_signing.errors import Error, FileError
from model_signing.oms import strict_json
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import TrainingError
from slsa_for_models.evidence.statement_names import RECORD
from slsa_for_models.evidence.training_plan import Plan, in_source, listing_digest
from slsa_for_models.evidence.training_record import (
    MAX_BYTES,
    MOST_METRICS,
    Dataset,
    Input,
    TrainingRecord,
    describe_file,
    describe_model,
    encode,
    parse,
)
from slsa_for_models.training import confinement, inputs, packages
from slsa_for_models.training.confinement import NOT_CONFINED, Confinement
from slsa_for_models.training.environment import describe
from slsa_for_models.training.inputs import AtHand
from slsa_for_models.training.publishing import check_place, open_folders, publish, staging

MAX_METRICS_BYTES = 64 * 1024
_SIGNED = ("sig", "provenance*", "intoto.jsonl", "attestation.sigstore.json")
_LEFT_OUT = (".git",)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """What a plan does not say: where its parts are on this machine, and how it is run here.

    Attributes:
        source: The folder that the command runs in a copy of; None for an empty one.
        at_hand: Inputs that need not be fetched.
        base_models: Place in the workspace -> a base model, verified, which is moved there.
        programs: A folder that comes first on the command's PATH.
        variables: Further variables that the command has.
        lock: The lock that the packages on this machine were installed from, if of one.
        source_sha256: Of what runs, where that is not the source.
        python: The interpreter that gets the locked packages; by default the one that runs this.
        confined: Whether the command is confined; if not, the record says so.
    """

    source: Path | None = None
    at_hand: AtHand = field(default_factory=AtHand)
    base_models: Mapping[str, Path] = field(default_factory=dict)
    programs: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    lock: Path | None = None
    source_sha256: str | None = None
    python: Path | None = None
    confined: bool = True


def check_output(output: Path, name: str) -> None:
    """What is no earlier result is not replaced; nor is what others have signed.

    Raises:
        FileError: Something else has the model's or the record's name, or a signature or
            provenance of a model of that name lies beside it.
    """
    model = output / name
    check_place(model, is_result=_recorded(output) == name)
    check_place(output / RECORD)
    found = [path.name for kind in _SIGNED for path in model.parent.glob(f"{name}.{kind}")]
    if found:
        raise FileError(
            f"{model} is signed already",
            found=", ".join(found),
            fix="choose another --output-dir, or remove what is found there",
        )


def _recorded(output: Path) -> str | None:
    """The name of the model that the record in a folder is about."""
    try:
        return parse(read_bounded(output / RECORD, MAX_BYTES)).model.name
    except Error:
        return None


def train(plan: Plan, machine: Machine, output: Path, say: Say) -> TrainingRecord:
    """Fetch, check, run, check again, record.

    Args:
        plan: What is trained.
        machine: Where.
        output: Folder for the model and `training.json`; made if it does not exist.
        say: Takes progress, a line at a time.

    Raises:
        TrainingError: The command failed, or what it wrote is no model; or it cannot be confined.
        DatasetError: An input cannot be had, or is another one, or was changed.
        RecordError: The command or its metrics are beyond what a record can say.
        FileError: The output cannot be written.
    """
    # 1. Everything that can be refused is refused before the work.
    name = Path(plan.model).name
    check_output(output, name)
    lock_sha256 = _lock_digest(plan, machine)
    with staging(output) as staged:
        folder = staged.resolve()  # the command starts elsewhere
        workspace, private = folder / "work", folder / "made"
        workspace.mkdir()
        private.mkdir()
        place = Confinement(NOT_CONFINED, workspace, network=plan.network)
        if machine.confined:
            place = confinement.choose(workspace, network=plan.network)

        # 2. The source, the packages and the inputs, each what it is said to be.
        source_sha256 = _copy_source(machine, workspace, output)
        programs = machine.programs
        if plan.requirements:
            programs = packages.install(
                workspace / plan.requirements, folder / "environment", machine.python
            )
        placed = inputs.place(plan.data, workspace, machine.at_hand, say)
        bases = inputs.place_models(machine.base_models, workspace)
        _clear_results(plan, workspace)

        # 3. The first line of the caller's code; when this returns, no process of it is left.
        variables = _variables(plan, machine, programs, workspace)
        place = Confinement(place.form, workspace, (*placed, *bases), plan.network)
        environment = describe(
            place,
            variables,
            plan.words[0],
            requirements_sha256=lock_sha256,
            source_sha256=source_sha256,
        )
        started = _now()
        _run(plan, place, variables)
        finished = _now()

        # 4. What it was given is what it was, and what it wrote is a model.
        inputs.check_unchanged(plan.data, placed)
        inputs.check_same_models(bases)
        metrics = _metrics(workspace, plan.metrics) if plan.metrics else {}
        dataset = _dataset(plan, placed)
        _take_model(workspace, plan.model, private / name)

        # 5. Record, and only now give both their names.
        result = TrainingRecord(
            model=describe_model(private / name, name),
            dataset=dataset,
            command=plan.words,
            parameters=plan.parameters,
            metrics=metrics,
            environment=environment,
            started=started,
            finished=finished,
        )
        encoded = encode(result)
        parse(encoded)  # whoever signs would refuse it
        (private / RECORD).write_bytes(encoded)
        publish(private, output, [name, RECORD])
    return result


def _lock_digest(plan: Plan, machine: Machine) -> str | None:
    """The SHA-256 of the lock that the packages are from, if of one."""
    if plan.requirements:
        lock = in_source(machine.source or Path(), plan.requirements)
        return packages.lock_digest(lock, plan.requirements)
    return packages.lock_digest(machine.lock, machine.lock.name) if machine.lock else None


def _copy_source(machine: Machine, workspace: Path, output: Path) -> str:
    """A copy of the source, without its history and without the output; returns its digest."""
    if machine.source is not None:
        out, root = output.resolve(), machine.source.resolve()

        def left_out(folder: str, names: list[str]) -> list[str]:
            here = Path(folder)
            return [name for name in names if name in _LEFT_OUT or here / name == out]

        try:
            shutil.copytree(root, workspace, symlinks=True, ignore=left_out, dirs_exist_ok=True)
        except shutil.Error as error:
            raise TrainingError(
                "the source cannot be copied", where=str(root), found=str(error.args[0][0][-1])
            ) from error
    if machine.source_sha256 is not None:
        return machine.source_sha256
    files = {
        path.relative_to(workspace).as_posix(): path
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return listing_digest((name, describe_file(path, name).sha256) for name, path in files.items())


def _clear_results(plan: Plan, workspace: Path) -> None:
    """What is there before training did not come from it: no model, and no metrics."""
    made, metrics = workspace / plan.model, workspace / plan.metrics
    if made.is_symlink() or made.exists():
        raise TrainingError("the model is there before training", where=plan.model)
    if inputs.inside(metrics, workspace) and (metrics.is_symlink() or metrics.is_file()):
        metrics.unlink()


def _variables(
    plan: Plan, machine: Machine, programs: Path | None, workspace: Path
) -> dict[str, str]:
    """All variables that the command has: none of the caller's but PATH."""
    home = workspace / ".home"
    if home.is_symlink() or home.exists():  # a link there would lead what we write out of it
        raise TrainingError(
            "the source has something in the place of the command's home", where=home.name
        )
    home.mkdir()
    path = os.environ.get("PATH", os.defpath)
    variables = {
        "PATH": os.pathsep.join([*([str(programs.resolve())] if programs else []), path]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "USER": "training",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "315532800",  # the first day that a zip file knows
    }
    if not plan.network:
        variables |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    if plan.parameters:
        file = home / "parameters.json"
        file.write_text(json.dumps(dict(plan.parameters)), encoding="utf-8")
        variables["TRAINING_PARAMETERS"] = str(file)
    return {**variables, **machine.variables}


def _run(plan: Plan, place: Confinement, variables: Mapping[str, str]) -> None:
    directory = place.workspace / plan.directory
    if not directory.is_dir() or not directory.resolve().is_relative_to(place.workspace.resolve()):
        raise TrainingError("the command's folder is not in the source", where=plan.directory)
    try:
        code = place.run(plan.words, directory, variables).returncode
        found = f"exit code {code}"
    except OSError as error:
        code, found = 1, error.strerror or str(error)
    if code:
        raise TrainingError(
            "the training command failed",
            where=plan.words[0],
            expected="exit code 0",
            found=found,
            fix="what it printed is above; it writes below its workspace only, and has no network "
            "unless that is allowed",
        )


def _take_model(workspace: Path, model: str, target: Path) -> None:
    """Takes the model out of the command's reach; links and special files are refused."""
    path = workspace / model
    if not path.is_symlink() and not path.exists():
        raise TrainingError("the command wrote no model", where=model)
    open_folders(workspace)
    if not inputs.inside(path, workspace):
        raise TrainingError("the model is outside the workspace", where=model)
    for item in _with_all_below(path):
        mode = item.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise TrainingError(
                "the model has what is neither a file nor a folder",
                where=str(item.relative_to(workspace)),
                found="a link" if stat.S_ISLNK(mode) else "a special file",
            )
        item.chmod(0o700 if stat.S_ISDIR(mode) else 0o600)
    if path.is_dir() and not any(item.is_file() for item in path.rglob("*")):
        raise TrainingError("the model is an empty folder", where=model)
    path.rename(target)


def _with_all_below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        yield from sorted(path.rglob("*"))


def _metrics(workspace: Path, name: str) -> dict[str, float]:
    """The numbers in a JSON file; nested names are joined with dots, as DVC's files nest."""
    path = workspace / name
    if path.is_symlink() or not path.is_file() or not inputs.inside(path, workspace):
        raise TrainingError("the command wrote no metrics file", where=name)
    try:
        data = read_bounded(path, MAX_METRICS_BYTES)
    except FileError as error:
        raise TrainingError(
            "the metrics file is too large",
            where=name,
            expected=f"at most {MAX_METRICS_BYTES} bytes",
            found=error.found,
        ) from None
    document = strict_json.loads(data, TrainingError, "the metrics file")
    numbers = dict(_numbers(document, ""))
    odd = next((one for one in numbers if not one.isascii() or not 0 < len(one) <= 256), None)
    if odd is not None or not all(one.isprintable() for one in numbers):
        raise TrainingError("a metric has no plain name", where=name, found=ascii(odd))
    if len(numbers) > MOST_METRICS:
        raise TrainingError(
            "too many metrics",
            where=name,
            expected=f"at most {MOST_METRICS}",
            found=str(len(numbers)),
        )
    return numbers


def _numbers(value: object, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and name:
        yield name, value


def _dataset(plan: Plan, placed: tuple[Path, ...]) -> Dataset:
    return Dataset(
        plan.dataset_sha256,
        tuple(
            Input(
                pin.path,
                pin.sha256,
                path.stat().st_size,
                next((uri for uri in pin.uris if not uri.startswith("file:")), None),
            )
            for pin, path in zip(plan.data, placed, strict=True)
        ),
    )


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
