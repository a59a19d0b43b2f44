"""Runs a Tekton PipelineRun on this machine, from the YAML that a cluster would be given.

Parameters, results, workspaces, volumes and references are resolved from the documents themselves,
by Tekton's rules (API tekton.dev/v1), and the steps are run in order. What is a container in a
cluster is a process here: an image is a folder of programs, a mount a folder whose path is
replaced in the step's arguments. So security contexts, resources and time limits have no effect.
Whatever field is not known here is refused, so that no part of a document goes untested.

For demonstrations and tests only; `make demo-tekton` is `tekton_demo`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
Value = str | list[str] | dict[str, str]
Say = Callable[[str], None]

API = "tekton.dev/v1"
MAX_RESULTS = 4096  # bytes of a Task's results: what a pod's termination message holds
STEP_SECONDS = 3600  # Tekton's own default for a whole run
_VARIABLE = re.compile(r"\$\(([^()\s]+)\)")
_WHOLE = re.compile(r"\$\(([^()\s]+)\[\*\]\)")
_TASK_RESULT = re.compile(r"\$\(tasks\.([a-z0-9-]+)\.results\.")
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


class TektonError(Exception):
    """A document that Tekton or this runner refuses, or a step that failed."""


@dataclass(frozen=True)
class Cluster:
    """What a PipelineRun finds around it.

    Attributes:
        repositories: URL of a repository -> the git repository on this machine that stands for it.
        images: Image by digest -> the folder of programs that stands for its PATH.
        token: (namespace, service account, audience) -> an identity token of that account.
        scratch: A folder for volumes and results.
        config_maps: Name -> file name -> content.
        environment: Variables of every step, such as STORAGE_EMULATOR_HOST.
    """

    repositories: Mapping[str, Path]
    images: Mapping[str, Path]
    token: Callable[[str, str, str], str]
    scratch: Path
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """Where a document came from: Tekton's RefSource of the git resolver."""

    uri: str
    commit: str
    path: str


@dataclass(frozen=True)
class TaskRun:
    """One Task of a finished run: where it came from, its images by digest, what it reported."""

    name: str
    reference: Reference
    images: tuple[str, ...]
    results: Mapping[str, Value]


@dataclass(frozen=True)
class PipelineRun:
    """A finished run, with what Tekton Chains reads of it."""

    name: str
    namespace: str
    uid: str
    spec: Json
    reference: Reference
    tasks: tuple[TaskRun, ...]
    results: Mapping[str, Value]
    started: datetime
    finished: datetime


def run(document: Json, cluster: Cluster, say: Say = print) -> PipelineRun:
    """Runs a PipelineRun to its end.

    Args:
        document: The PipelineRun, with nothing left to fill in.
        cluster: What it finds around it.
        say: Takes the steps' output, a line at a time.

    Raises:
        TektonError: A document is not valid, or a step failed; the message names it.
    """
    started = _now()
    # 1. The run itself, and the name that the cluster gives it.
    _only(document, "PipelineRun", {"apiVersion", "kind", "metadata", "spec"})
    spec, metadata = document["spec"], document["metadata"]
    _only(
        spec,
        "PipelineRun.spec",
        {"pipelineRef", "params", "workspaces", "timeouts", "taskRunTemplate", "taskRunSpecs"},
    )
    uid = str(uuid.uuid4())
    name = metadata.get("name") or f"{metadata['generateName']}{uid[:5]}"
    context = {"context.pipelineRun.name": name, "context.pipelineRun.uid": uid}
    context["context.pipelineRun.namespace"] = namespace = metadata.get("namespace", "default")

    # 2. The Pipeline, from the git resolver.
    pipeline, reference = _resolve(spec["pipelineRef"], "Pipeline", cluster)
    _only(pipeline, "Pipeline.spec", {"description", "params", "workspaces", "tasks", "results"})
    variables: dict[str, Value] = dict(context)
    given = _named(spec.get("params", []), "value")
    variables |= _parameters(pipeline.get("params", []), given, "Pipeline")
    workspaces = _bind_run_workspaces(spec.get("workspaces", []), pipeline, cluster)
    accounts = _service_accounts(spec, pipeline)

    # 3. The Tasks, each after those it waits for or takes results from.
    finished: list[TaskRun] = []
    for task in _in_order(pipeline["tasks"]):
        _only(task, f"task {task['name']}", {"name", "taskRef", "params", "workspaces", "runAfter"})
        done = _run_task(
            substitute(task, variables, f"task {task['name']}"),
            workspaces,
            _Place(cluster, namespace, accounts[task["name"]], say),
        )
        variables |= _flat(f"tasks.{done.name}.results", done.results)
        finished.append(done)

    # 4. The results of the whole.
    results = {
        result["name"]: substitute(result["value"], variables, f"Pipeline result {result['name']}")
        for result in pipeline.get("results", [])
    }
    return PipelineRun(
        name, namespace, uid, spec, reference, tuple(finished), results, started, _now()
    )


# Documents ----------------------------------------------------------------------------------------


def _resolve(reference: Json, kind: str, cluster: Cluster) -> tuple[Json, Reference]:
    """The git resolver: the spec of the document at a path of a commit, and where it came from."""
    if reference.get("resolver") != "git":
        raise TektonError(f"{kind}: only references through the git resolver are known here")
    wanted = _named(reference["params"], "value")
    url, revision, path = wanted["url"], wanted["revision"], wanted["pathInRepo"]
    if url not in cluster.repositories:
        raise TektonError(f"{kind}: there is no repository {url}")
    commit = _git(cluster.repositories[url], "rev-parse", "--verify", f"{revision}^{{commit}}")
    text = _git(cluster.repositories[url], "show", f"{commit}:{path}")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TektonError(f"{path} at {commit} is not YAML: {error}") from error
    if (document.get("apiVersion"), document.get("kind")) != (API, kind):
        raise TektonError(f"{path} at {commit} is not a {kind} of {API}")
    spec: Json = document["spec"]
    return spec, Reference(f"git+{url}", commit, path)


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise TektonError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _only(value: Json, where: str, known: set[str]) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise TektonError(f"{where}: not known here: {', '.join(unknown)}")


def _named(entries: Sequence[Json], key: str) -> Json:
    return {entry["name"]: entry[key] for entry in entries}


def _in_order(tasks: Sequence[Json]) -> Iterator[Json]:
    """The tasks so that each comes after those it needs; otherwise as they are written."""
    names = {task["name"] for task in tasks}
    done: set[str] = set()
    waiting = list(tasks)
    while waiting:
        for task in waiting:
            needs = {*task.get("runAfter", []), *_TASK_RESULT.findall(json.dumps(task))}
            if needs - names:
                raise TektonError(f"task {task['name']}: there is no task {min(needs - names)}")
            if needs <= done:
                break
        else:
            raise TektonError(f"these tasks wait for each other: {', '.join(names - done)}")
        waiting.remove(task)
        done.add(task["name"])
        yield task


# Variables ----------------------------------------------------------------------------------------


def substitute(value: Any, variables: Mapping[str, Value], where: str) -> Any:  # noqa: ANN401
    """Replaces `$(name)` by text, and `$(name[*])` by a whole array or object.

    Raises:
        TektonError: There is no such variable, or it is not text where text is needed. (Tekton
            itself leaves an unknown variable as it is.)
    """
    if isinstance(value, dict):
        return {key: substitute(item, variables, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        items: list[Any] = []
        for item in value:
            new = substitute(item, variables, where)
            spread = isinstance(item, str) and isinstance(new, list)
            items.extend(new if spread else [new])
        return items
    if not isinstance(value, str):
        return value
    whole = _WHOLE.fullmatch(value)
    if whole:
        return _variable(whole[1], variables, where)

    def text(match: re.Match[str]) -> str:
        found = _variable(match[1], variables, where)
        if not isinstance(found, str):
            raise TektonError(f"{where}: $({match[1]}) is not text")
        return found

    return _VARIABLE.sub(text, value)


def _variable(name: str, variables: Mapping[str, Value], where: str) -> Value:
    if name not in variables:
        raise TektonError(f"{where}: there is no $({name})")
    return variables[name]


def _flat(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """The variables that values make: each as a whole, and the fields of objects."""
    variables: dict[str, Value] = {}
    for name, value in values.items():
        variables[f"{prefix}.{name}"] = value
        if isinstance(value, dict):
            variables |= {f"{prefix}.{name}.{key}": item for key, item in value.items()}
    return variables


_TYPES: Mapping[str, Any] = {"string": str, "array": list, "object": dict}


def _type_of_default(parameter: Json) -> Any:  # noqa: ANN401
    return type(parameter["default"]) if "default" in parameter else str


def _parameters(declared: Sequence[Json], given: Json, where: str) -> dict[str, Value]:
    """Tekton's validation of parameters: all there, none too many, of their type, in the enum."""
    extra = set(given) - {parameter["name"] for parameter in declared}
    if extra:
        raise TektonError(f"{where}: no such parameter: {min(extra)}")
    values: dict[str, Value] = {}
    for parameter in declared:
        name = parameter["name"]
        _only(
            parameter,
            f"{where}, parameter {name}",
            {"name", "description", "type", "default", "enum"},
        )
        value: Any = given.get(name, parameter.get("default"))
        if value is None:
            raise TektonError(f"{where}: parameter {name} is missing")
        expected = _TYPES[parameter["type"]] if "type" in parameter else _type_of_default(parameter)
        if not isinstance(value, expected):
            raise TektonError(f"{where}: parameter {name} is not of its type")
        if "enum" in parameter and value not in parameter["enum"]:
            allowed = ", ".join(parameter["enum"])
            raise TektonError(f"{where}: parameter {name} is {value!r}, not one of {allowed}")
        values[name] = value
    return _flat("params", values)


# Workspaces, volumes, service accounts ------------------------------------------------------------


def _bind_run_workspaces(
    bindings: Sequence[Json], pipeline: Json, cluster: Cluster
) -> Mapping[str, Path]:
    """A folder for each workspace of the Pipeline that the run binds."""
    folders = {}
    for binding in bindings:
        name = binding["name"]
        _only(
            binding, f"workspace {name}", {"name", "volumeClaimTemplate", "emptyDir", "configMap"}
        )
        folders[name] = cluster.scratch / "volumes" / name
        folders[name].mkdir(parents=True)
        if "configMap" in binding:
            for file, content in cluster.config_maps[binding["configMap"]["name"]].items():
                (folders[name] / file).write_bytes(content)
    declared = pipeline.get("workspaces", [])
    needed = {item["name"] for item in declared if not item.get("optional")}
    if needed - set(folders) or set(folders) - {item["name"] for item in declared}:
        raise TektonError(f"the run's workspaces are {sorted(folders)}, not {sorted(needed)}")
    return folders


def _service_accounts(spec: Json, pipeline: Json) -> Mapping[str, str]:
    template = spec.get("taskRunTemplate", {})
    _only(template, "taskRunTemplate", {"serviceAccountName", "podTemplate"})
    accounts = {
        task["name"]: template.get("serviceAccountName", "default") for task in pipeline["tasks"]
    }
    for entry in spec.get("taskRunSpecs", []):
        name = entry["pipelineTaskName"]
        _only(
            entry,
            f"taskRunSpecs, {name}",
            {"pipelineTaskName", "serviceAccountName", "computeResources", "podTemplate"},
        )
        if name not in accounts:
            raise TektonError(f"taskRunSpecs: there is no task {name}")
        accounts[name] = entry.get("serviceAccountName", accounts[name])
    return accounts


@dataclass(frozen=True)
class _Place:
    """Where a Task runs, and as whom."""

    cluster: Cluster
    namespace: str
    account: str
    say: Say


def _task_workspaces(
    declared: Sequence[Json], bindings: Sequence[Json], folders: Mapping[str, Path], where: str
) -> tuple[dict[str, Value], dict[str, Path]]:
    """The variables of a Task's workspaces, and what is mounted at paths of its own choice."""
    bound = {}
    for binding in bindings:
        _only(binding, f"{where}, workspaces", {"name", "workspace", "subPath"})
        if binding["workspace"] in folders:
            bound[binding["name"]] = folders[binding["workspace"]] / binding.get("subPath", "")
    unknown = set(bound) - {workspace["name"] for workspace in declared}
    if unknown:
        raise TektonError(f"{where}: no such workspace: {min(unknown)}")
    variables: dict[str, Value] = {}
    mounts = {}
    for workspace in declared:
        name = workspace["name"]
        _only(
            workspace,
            f"{where}, workspace {name}",
            {"name", "description", "optional", "readOnly", "mountPath"},
        )
        if name in bound:
            bound[name].mkdir(parents=True, exist_ok=True)
            if "mountPath" in workspace:
                mounts[workspace["mountPath"]] = bound[name]
        elif not workspace.get("optional"):
            raise TektonError(f"{where}: workspace {name} is missing")
        variables[f"workspaces.{name}.path"] = str(bound.get(name, ""))
        variables[f"workspaces.{name}.bound"] = str(name in bound).lower()
    return variables, mounts


def _volumes(declared: Sequence[Json], folder: Path, place: _Place) -> dict[str, Path]:
    """A folder for each volume: an empty one, or one with an identity token."""
    folders = {}
    for volume in declared:
        name = volume["name"]
        folders[name] = folder / "volumes" / name
        folders[name].mkdir(parents=True)
        _only(volume, f"volume {name}", {"name", "emptyDir", "projected"})
        for source in volume.get("projected", {}).get("sources", []):
            _only(source, f"volume {name}", {"serviceAccountToken"})
            token = source["serviceAccountToken"]
            path = folders[name] / token["path"]
            path.write_text(place.cluster.token(place.namespace, place.account, token["audience"]))
            path.chmod(0o600)
    return folders


# Tasks and steps ----------------------------------------------------------------------------------


def _run_task(task: Json, workspaces: Mapping[str, Path], place: _Place) -> TaskRun:
    name = task["name"]
    spec, reference = _resolve(task["taskRef"], "Task", place.cluster)
    _only(
        spec,
        f"Task {name}",
        {"description", "params", "workspaces", "results", "volumes", "stepTemplate", "steps"},
    )
    folder = place.cluster.scratch / "tasks" / name
    results = folder / "results"
    results.mkdir(parents=True)

    given = _named(task.get("params", []), "value")
    variables = _parameters(spec.get("params", []), given, f"Task {name}")
    paths, mounts = _task_workspaces(
        spec.get("workspaces", []), task.get("workspaces", []), workspaces, f"Task {name}"
    )
    variables |= paths
    for result in spec.get("results", []):
        variables[f"results.{result['name']}.path"] = str(results / result["name"])
    volumes = _volumes(spec.get("volumes", []), folder, place)

    images = []
    for step in spec["steps"]:
        step = substitute(step, variables, f"Task {name}, step {step['name']}")
        own = [*spec.get("stepTemplate", {}).get("volumeMounts", []), *step.get("volumeMounts", [])]
        at = {mount["mountPath"]: volumes[mount["name"]] for mount in own}
        _run_step(step, name, {**mounts, **at}, folder, place)
        images.append(step["image"])
    found = {item["name"]: _read_result(item, results, name) for item in spec.get("results", [])}
    if sum(path.stat().st_size for path in results.iterdir()) > MAX_RESULTS:
        raise TektonError(f"Task {name}: its results are longer than {MAX_RESULTS} bytes")
    return TaskRun(name, reference, tuple(images), found)


def _run_step(
    step: Json, task: str, mounts: Mapping[str, Path], folder: Path, place: _Place
) -> None:
    where = f"{task} : {step['name']}"
    _only(step, where, {"name", "image", "command", "args", "env", "workingDir", "volumeMounts"})
    if not _DIGEST.fullmatch(step["image"]):
        raise TektonError(f"{where}: the image is not named by digest: {step['image']}")
    if step["image"] not in place.cluster.images:
        raise TektonError(f"{where}: there is no image {step['image']}")
    programs = place.cluster.images[step["image"]]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": f"{programs}{os.pathsep}{_base_image(place.cluster.scratch)}",
        "HOME": str(home),
        **place.cluster.environment,
        **_named(step.get("env", []), "value"),
    }
    command = [_mounted(word, mounts) for word in [*step["command"], *step.get("args", [])]]
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        raise TektonError(f"{where}: {command[0]}: no such program in {step['image']}")
    with subprocess.Popen(
        [program, *command[1:]],
        cwd=_mounted(step.get("workingDir", str(home)), mounts),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        overdue = threading.Timer(STEP_SECONDS, process.kill)
        overdue.start()
        try:
            lines = [line.rstrip("\n") for line in _echo(process.stdout, f"[{where}] ", place.say)]
        finally:
            overdue.cancel()
    if process.returncode:
        last = lines[-1] if lines else "no output"
        raise TektonError(f"step {where} failed with exit code {process.returncode}: {last}")


def _echo(lines: Iterator[str], prefix: str, say: Say) -> Iterator[str]:
    for line in lines:
        say(prefix + line.rstrip("\n"))
        yield line


# What our images take from their base image: the scripts of an environment call the last two.
_BASE_IMAGE = ("git", "dirname", "realpath")


def _base_image(scratch: Path) -> Path:
    """A folder with the programs of the base image."""
    folder = scratch / "base-image"
    folder.mkdir(exist_ok=True)
    for name in _BASE_IMAGE:
        program = shutil.which(name)
        if program is None:
            raise TektonError(f"this machine has no {name}")
        if not (folder / name).exists():
            (folder / name).symlink_to(program)
    return folder


def _mounted(text: str, mounts: Mapping[str, Path]) -> str:
    """The text with each mount's path replaced by the folder that stands for it."""
    for path, folder in mounts.items():
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=/|$)", str(folder), text)
    return text


def _read_result(declared: Json, folder: Path, task: str) -> Value:
    name = declared["name"]
    _only(declared, f"Task {task}, result {name}", {"name", "description", "type", "properties"})
    try:
        text: str = (folder / name).read_text(encoding="utf-8")
    except OSError:
        raise TektonError(f"Task {task} did not write its result {name}") from None
    if declared.get("type", "string") == "string":
        return text
    value: Json = json.loads(text)
    if not isinstance(value, dict) or set(value) != set(declared["properties"]):
        raise TektonError(f"Task {task}: result {name} has not the properties it declares")
    return {key: str(item) for key, item in value.items()}


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
