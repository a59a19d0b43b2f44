"""The Tekton documents: by the linter, by the rules of Chains, and by our own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sandbox.checkout import ROOT
from tests.support import npm

FOLDER = ROOT / "slsa_for_models" / "gcp"
TASKS = sorted((FOLDER / "tasks").glob("*.yaml"))
DOCUMENTS = [*TASKS, FOLDER / "pipeline.yaml", FOLDER / "pipelinerun.yaml"]
LINT = Path(__file__).parent / "lint"


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def lint():
    program = npm.packages(LINT) / "@ibm/tekton-lint/dist/lint.js"

    def run(folder: Path, *config: str) -> str:
        done = subprocess.run(
            [npm.node(), program, "--max-warnings=0", "--format=json", *config, "**/*.yaml"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        problems = json.loads(done.stdout[: done.stdout.rindex("]") + 1])
        assert (done.returncode == 0) == (not problems), done.stderr
        return "\n".join(f"{item['rule']}: {item['message']}" for item in problems)

    return run


def test_linter_is_content(lint):
    assert lint(FOLDER, "--config=.tektonlintrc.yaml") == ""


@pytest.fixture
def by_name(tmp_path) -> Path:
    """The documents in the words that the linter understands.

    It follows references by name only, and takes the `[*]` of arrays and objects and the key of an
    object for parts of a name.
    """
    for path in DOCUMENTS:
        text = re.sub(r"(\$\([\w.-]+?)(\[\*\]|\.uri|\.digest)\)", r"\1)", path.read_text())
        (tmp_path / path.name).write_text(text)
    pipeline = read(tmp_path / "pipeline.yaml")
    for task in pipeline["spec"]["tasks"]:
        path = next(p["value"] for p in task["taskRef"]["params"] if p["name"] == "pathInRepo")
        task["taskRef"] = {"name": read(ROOT / path)["metadata"]["name"]}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return tmp_path


def test_linter_is_content_with_references_it_can_follow(lint, by_name):
    assert lint(by_name) == ""


@pytest.mark.parametrize(
    ("document", "old", "new", "rule"),
    [
        ("pipeline.yaml", "name: plan", "name: plans", "no-undefined-param"),
        ("pipeline.yaml", "results.model_ARTIFACT_OUTPUTS", "results.MODEL", "no-undefined-result"),
        ("train.yaml", "name: source", "name: sources", "no-missing-workspace"),
        (
            "sign.yaml",
            "name: identity\n          mount",
            "name: id\n          mount",
            "no-undefined-volume",
        ),
    ],
)
def test_linter_finds_what_is_broken(lint, by_name, document, old, new, rule):
    path = by_name / document
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert rule in lint(by_name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_api_version_is_stable(path):
    assert read(path)["apiVersion"] == "tekton.dev/v1"


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_a_step_is_one_command_of_ours_without_rights_in_an_image_named_by_the_caller(path):
    spec = read(path)["spec"]
    context = spec["stepTemplate"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    for step in spec["steps"]:
        assert "script" not in step
        assert step["image"] == "$(params.image)"
        assert step["command"][0] in ("slsa_for_models", "model_signing")


def test_results_are_named_as_chains_wants_them():
    for document in [*TASKS, FOLDER / "pipeline.yaml"]:
        for result in read(document)["spec"].get("results", []):
            assert re.fullmatch(r"[a-z]+_ARTIFACT_(INPUTS|OUTPUTS)", result["name"])
            assert result["type"] == "object"
            if "properties" in result:
                assert {"uri", "digest"} <= set(result["properties"])


def test_only_the_sign_task_gets_an_identity_token():
    with_token = [path.stem for path in TASKS if "serviceAccountToken" in path.read_text()]
    assert with_token == ["sign"]
    run = read(FOLDER / "pipelinerun.yaml")["spec"]
    accounts = {
        entry["pipelineTaskName"]: entry.get("serviceAccountName") for entry in run["taskRunSpecs"]
    }
    assert accounts["sign"] == "model-signer"
    assert accounts["train"] is None
    assert run["taskRunTemplate"]["serviceAccountName"] == "model-trainer"
    assert run["taskRunTemplate"]["podTemplate"]["automountServiceAccountToken"] is False
