"""What workflows, actions, examples and READMEs say about each other agrees."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from model_signing.sources import PLACES
from sandbox.github.workflows import load
from slsa_for_models.commands.train import KNOWN
from slsa_for_models.evidence import training_plan
from slsa_for_models.models.formats import FORMATS
from tests.workflows.runs import PRODUCT, ROOT, git_files

TABLES = runpy.run_path(str(ROOT / ".github/tables.py"))
filled, readmes = TABLES["filled"], TABLES["readmes"]
WORKFLOWS = ROOT / ".github/workflows"
# Inputs of a command of the caller's own, which takes no format.
OF_A_COMMAND = (
    *("command", "directory", "data", "data-file", "parameters", "requirements"),
    *("python-version", "metrics", "network", "base-model"),
)
CALLABLE = ("train.yml", "train-many.yml", "sign.yml", "verify.yml")


def interface(workflow: str, trigger: str, kind: str = "inputs") -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = load(WORKFLOWS / workflow)["on"][trigger][kind]
    return entries


def test_the_formats_offered_are_the_formats_there_are() -> None:
    assert interface("train.yml", "workflow_dispatch")["model"]["options"] == list(FORMATS)


@pytest.mark.parametrize("document", ["README.md", "docs/training.md"])
def test_the_documents_have_a_row_for_each_format(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `((?:pytorch|tensorflow)_[\w.]+)`(?: \(default\))? \|", text, re.MULTILINE
    )
    assert sorted(rows) == sorted(FORMATS)


def choose(tmp_path: Path, inputs: dict[str, str]) -> tuple[str, str]:
    """What the train action's first step puts out, and what it says."""
    step, output = load(ROOT / "actions/train/action.yml")["runs"]["steps"][0], tmp_path / "output"
    given = {**dict.fromkeys(step["env"], ""), **inputs, "GITHUB_OUTPUT": str(output)}
    bash = ["bash", "-e", "-c", step["run"]]
    env = {**os.environ, **given}
    output.write_text("")
    done = subprocess.run(bash, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0) is (output.read_text() != "")
    return output.read_text(), done.stdout


def test_the_train_action_accepts_the_formats_there_are_and_lists_them(tmp_path: Path) -> None:
    for name, row in FORMATS.items():
        found, _ = choose(tmp_path, {"MODEL": name})
        assert found == f"name={name}\nrole={row.framework}\n"
    first, second, *_ = FORMATS
    for name in ("", "model.pkl", first.upper(), f"{first}\n::x", f"{first}, {second}", "*"):
        found, said = choose(tmp_path, {"MODEL": name})
        assert found == ""
        assert sorted(re.findall(r"(?:pytorch|tensorflow)_[\w.]+", said)) == sorted(FORMATS)


@pytest.mark.parametrize(
    ("inputs", "role"),
    [
        ({"MODEL": "m", "COMMAND": "true"}, "base"),
        ({"MODEL": "m", "COMMAND": "true", "ADDRESSES": "00 d https://x"}, "base"),
        *(
            ({"MODEL": "m", "COMMAND": "true", "ADDRESSES": f"00 d {scheme}://x/y"}, "verifier")
            for scheme in PLACES
        ),
        ({"MODEL": "m", "COMMAND": "true", "DATA_FILE": "pins"}, "verifier"),
    ],
)
def test_the_train_action_has_the_clients_that_addresses_need(
    tmp_path: Path, inputs: dict[str, str], role: str
) -> None:
    assert f"role={role}\n" in choose(tmp_path, inputs)[0]


@pytest.mark.parametrize(
    ("project", "workflow"),
    [("scikit-learn", "train-your-own.yml"), ("pytorch", "train-your-own-pytorch.yml")],
)
def test_an_example_is_whole_and_the_same_for_clusters(project: str, workflow: str) -> None:
    given = load(ROOT / "examples" / workflow)["jobs"]["model"]["with"]
    folder = ROOT / "examples" / project
    assert json.loads((folder / "plan.json").read_bytes()) == {
        name: value.strip() for name, value in given.items()
    }
    plan = training_plan.read(given)
    for pin in plan.data:
        assert sha256((folder / pin.path).read_bytes()).hexdigest() == pin.sha256
    lock = (folder / plan.requirements).read_bytes()
    training_plan.check_lock(lock, plan.requirements)
    for name in (folder / "requirements.in").read_text().split():
        assert f"\n{name}==" in lock.decode()


def test_dispatching_and_calling_offer_the_same() -> None:
    called, dispatched = (
        interface("train.yml", trigger) for trigger in ("workflow_call", "workflow_dispatch")
    )
    # A run that is started by hand has no earlier job, and trains one of our formats.
    for name in ("data-artifact", *OF_A_COMMAND):
        called.pop(name)
    assert list(called) == list(dispatched)
    for name, entry in called.items():
        assert entry["default"] == dispatched[name]["default"], name


def test_train_many_offers_what_train_does() -> None:
    one, many = (interface(name, "workflow_call") for name in ("train.yml", "train-many.yml"))
    one = {name: entry for name, entry in one.items() if name not in OF_A_COMMAND}
    assert {**many, "model": None}.keys() == {**one, "models": None}.keys()
    passed = load(WORKFLOWS / "train-many.yml")["jobs"]["train"]["with"]
    assert passed.keys() == one.keys()
    for name in one.keys() - {"model"}:
        assert (many[name]["type"], many[name]["default"]) == (
            one[name]["type"],
            one[name]["default"],
        )
        # What is fetched once is passed on as an artifact.
        if name not in ("dataset-url", "data-artifact"):
            assert passed[name] == f"${{{{ inputs.{name} }}}}"


def test_train_many_asks_for_what_train_needs() -> None:
    needed: dict[str, str] = {}
    for job in load(WORKFLOWS / "train.yml")["jobs"].values():
        for name, grant in job["permissions"].items():
            needed[name] = "write" if "write" in (grant, needed.get(name)) else grant
    assert load(WORKFLOWS / "train-many.yml")["jobs"]["train"]["permissions"] == needed


@pytest.mark.parametrize("name", CALLABLE)
def test_every_input_and_output_is_described_and_used(name: str) -> None:
    text = (WORKFLOWS / name).read_text(encoding="utf-8")
    for inputs in interface(name, "workflow_call").items():
        assert inputs[1]["description"]
        used = re.search(rf"\binputs\.{inputs[0]}\b", text)
        assert used or (name == "train.yml" and inputs[0] in KNOWN), f"{inputs[0]} is never used"
    for entry in interface(name, "workflow_call", "outputs").values():
        assert entry["description"] and entry["value"]


@pytest.mark.parametrize("path", sorted((ROOT / "actions").glob("*/action.yml")), ids=str)
def test_every_action_uses_its_inputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, entry in (load(path).get("inputs") or {}).items():
        assert entry["description"]
        used = re.search(rf"\binputs\.{name}\b", text) or "toJSON(inputs)" in text
        assert used, f"{name} is never used"
    assert (path.parent / "README.md").is_file()


@pytest.mark.parametrize("path", readmes(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_readmes_say_what_the_yaml_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert filled(text) == text, "run: make tables"


def test_every_workflow_and_action_has_its_tables() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in readmes())
    actions = [path.parent.name for path in (ROOT / "actions").glob("*/action.yml")]
    for name in (*CALLABLE, *actions):
        for kind in ("inputs", "outputs", "permissions"):
            assert f"<!-- made from the YAML: {kind} {name} -->" in text


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yml")), ids=lambda p: p.name)
def test_examples_are_safe_to_copy(path: Path) -> None:
    """They keep to our own rules, but for naming us by tag."""
    document = load(path)
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert "permissions" in job
        for uses in [job.get("uses"), *(step.get("uses") for step in job.get("steps", []))]:
            if uses is not None and not uses.startswith(f"{PRODUCT}/"):
                assert re.search(r"@[0-9a-f]{40}$", uses), uses


def test_pins_agree_everywhere() -> None:
    """One version of each action, in workflows, actions and examples."""
    found: dict[str, set[str]] = {}
    for folder in (".github/workflows", "actions", "examples"):
        for path in (ROOT / folder).rglob("*.yml"):
            for name, pin in re.findall(
                r"uses: ([\w.-]+/[\w./-]+)@([0-9a-f]{40} # \S+)", path.read_text(encoding="utf-8")
            ):
                found.setdefault("/".join(name.split("/")[:2]), set()).add(pin)
    assert {name: pins for name, pins in found.items() if len(pins) > 1} == {}


def test_no_path_of_a_workflow_is_wrong() -> None:
    """Every `$/...` leads somewhere."""
    for path in [*WORKFLOWS.glob("*.yml"), *(ROOT / "actions").glob("*/action.yml")]:
        for target in re.findall(r"uses: \$/(\S+)", path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), target


def test_dependabot_watches_everything_that_is_pinned() -> None:
    watched = {
        (item["package-ecosystem"], folder)
        for item in load(ROOT / ".github/dependabot.yml")["updates"]
        for folder in item.get("directories") or [item["directory"]]
    }
    pinned = {("github-actions", "/"), ("github-actions", "/actions/*"), ("uv", "/requirements")}
    for name, ecosystem in (
        ("package-lock.json", "npm"),
        ("Dockerfile", "docker"),
        ("Containerfile", "docker"),
    ):
        files = [Path(file) for file in git_files() if Path(file).name == name]
        assert files
        pinned |= {(ecosystem, f"/{file.parent.as_posix()}") for file in files}
    assert watched == pinned


def test_the_example_of_several_formats_is_valid() -> None:
    job = load(ROOT / "examples/train-many.yml")["jobs"]["models"]
    assert set(json.loads(job["with"]["models"])) <= set(FORMATS)


@pytest.mark.parametrize("name", ["ci.yml", "selftest.yml"])
def test_what_a_merge_queue_waits_for_runs_in_one(name: str) -> None:
    """And is not cancelled there by the next pull request in the queue."""
    workflow = load(WORKFLOWS / name)
    assert "merge_group" in workflow["on"]
    assert workflow["concurrency"] == {
        "group": f"{Path(name).stem}-${{{{ github.event_name }}}}-${{{{ github.ref }}}}",
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    }


def test_who_attests_by_default_is_one_of_those_offered() -> None:
    choice = load(ROOT / "actions/witness/action.yml")
    found = re.search(r"== 'default' && '([\w-]+)'", choice["outputs"]["provenance"]["value"])
    offered = interface("train.yml", "workflow_dispatch")["provenance"]["options"]
    assert found and found[1] in offered
    condition = choice["runs"]["steps"][0]["if"]
    assert all(f'"{kind}"' in condition for kind in offered)


def test_ci_runs_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = load(WORKFLOWS / "ci.yml")["jobs"]
    named = set(jobs["frameworks"]["strategy"]["matrix"]["target"])
    text = (WORKFLOWS / "ci.yml").read_text(encoding="utf-8")
    assert named | set(re.findall(r"run: make ([a-z-]+)", text)) <= targets


def test_ci_covers_the_pythons_and_systems_that_we_name() -> None:
    matrix = load(WORKFLOWS / "ci.yml")["jobs"]["base"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert matrix["system"] == ["ubuntu-latest", "macos-latest", "windows-latest"]


def test_no_environment_outlives_a_job(tmp_path: Path) -> None:
    """On a runner that stays, training code could change the one that signs next."""
    step = load(ROOT / "actions/setup/action.yml")["runs"]["steps"][-1]
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$MODEL_TRANSPARENCY_CACHE"\n', encoding="utf-8")
    python.chmod(0o755)
    given = {"PYTHON": str(python), "RUNNER_TEMP": "/temp", "HOME": "/home/runner"}
    for chosen, found in ((None, "/temp/model-transparency"), ("/trusted", "/trusted")):
        variables = {**given, **({"MODEL_TRANSPARENCY_CACHE": chosen} if chosen else {})}
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert done.stdout.strip() == found


def test_what_is_signed_is_checked_for_privacy_first() -> None:
    """In every workflow and action that signs, unless the caller has decided."""
    for name in ("sign", "provenance"):
        steps = load(ROOT / f"actions/{name}/action.yml")["runs"]["steps"]
        assert steps[-2]["run"] == '"$BIN/slsa_for_models" may-publish'
        assert steps[-2]["if"] == (
            "inputs.private-repository != 'true' && inputs.trust-config == ''"
        )
    for name in ("train.yml", "sign.yml"):
        for job in load(WORKFLOWS / name)["jobs"].values():
            for step in job.get("steps", []):
                if step.get("uses") in ("$/actions/sign", "$/actions/provenance"):
                    chosen = step["with"]["private-repository"]
                    assert chosen == "${{ inputs.private-repository }}"


def test_a_job_that_reported_no_subjects_is_refused(tmp_path: Path) -> None:
    """GitHub drops an output that contains a secret of the caller: then nothing is expected."""
    action = load(ROOT / "actions/subjects/action.yml")
    assert action["inputs"]["expected"]["default"] == ""
    (step,) = (step for step in action["runs"]["steps"] if "run" in step)
    assert step["env"]["COMPARE"] == "${{ inputs.list-only != 'true' && 'yes' || '' }}"
    program, model = tmp_path / "slsa_for_models", tmp_path / "model"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m slsa_for_models "$@"\n')
    program.chmod(0o755)
    model.write_bytes(b"swapped")
    codes = {}
    for compare in ("", "yes"):
        given = {"BIN": str(tmp_path), "MODEL": str(model), "EXPECTED": "", "COMPARE": compare}
        output = tmp_path / f"output{compare}"
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],
            cwd=ROOT,
            env={**os.environ, **given, "GITHUB_OUTPUT": str(output)},
            capture_output=True,
            check=False,
            timeout=300,
        )
        codes[compare] = done.returncode == 0, output.exists()
    assert codes == {"": (True, True), "yes": (False, False)}
