"""A training by a command of the caller's own: what its provenance says, what a policy may ask."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model_signing.oms import bundle
from slsa_for_models.evidence import json_schema, training_plan
from slsa_for_models.evidence import training_record as record
from tests.support.crafted import SOURCE, TRAIN, Json, Workshop, refusals
from tests.support.records import ENVIRONMENT, RECORD

FIRST, SECOND = sha256(b"first").hexdigest(), sha256(b"second").hexdigest()
LOCK = b"numpy==2.4.6 --hash=sha256:" + b"0" * 64 + b"\n"
INPUTS = {
    "command": "python train.py --rate 0.1",
    "model": "out/model.pth",
    "data": f"{FIRST}  data/a.csv  https://example.test/a.csv\n{SECOND}  data/b.csv  source:\n",
    "requirements": "requirements.lock",
    "metrics": "metrics.json",
    "network": "none",
    "runner": "ubuntu-latest",
}
WHOLE = sha256(f"{FIRST}  data/a.csv\n{SECOND}  data/b.csv\n".encode()).hexdigest()
EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)
SAYS = f", says {TRAIN.removeprefix('https://github.com/')}"


def told(model: Path, inputs: dict[str, Any], **changes: Any) -> record.TrainingRecord:
    """The honest record of a training by these inputs."""
    plan = training_plan.read(inputs)
    files = tuple(record.Input(pin.path, pin.sha256, 1, None) for pin in plan.data)
    network = "allowed" if plan.network else "none"
    lock = sha256(LOCK).hexdigest() if plan.requirements else None
    return replace(
        RECORD,
        model=record.Model(model.name, 7, sha256(model.read_bytes()).hexdigest()),
        dataset=record.Dataset(plan.dataset_sha256, files),
        command=plan.words,
        parameters=plan.parameters,
        environment=replace(ENVIRONMENT, network=network, requirements_sha256=lock),
        **changes,
    )


def attest(
    workshop: Workshop,
    model: Path,
    inputs: dict[str, Any] = INPUTS,
    said: record.TrainingRecord | None = None,
    *options: object,
) -> tuple[int, Path]:
    """What the signing job makes of it: exit code, and the provenance."""
    source = workshop.folder / "source"
    source.mkdir(exist_ok=True)
    (source / "requirements.lock").write_bytes(LOCK)
    path = workshop.write("training.json", record.encode(said or told(model, inputs)))
    output = workshop.folder / "own.json"
    code, _ = workshop.run(
        *("provenance", model, "--training-record", path, "--output", output),
        *("--workflow-inputs", json.dumps(inputs), "--source", source),
        *("--identity-token", workshop.token(event_name="push"), *options),
    )
    return code, output


def verify(workshop: Workshop, model: Path, made: Path, *options: object) -> tuple[int, Json]:
    generator = workshop.generator_provenance(model, event_name="push")
    return workshop.verify(
        model,
        *("--provenance", made, "--provenance", generator, *EXPECTED),
        *("--builder-id", GENERATOR_ID, *options),
    )


GENERATOR_ID = (
    "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/"
    "generator_generic_slsa3.yml"
)


def policy(workshop: Workshop, *lines: str) -> Path:
    return workshop.write("policy.toml", "\n".join(["version = 1", *lines, ""]).encode())


def test_what_the_inputs_pin_is_the_control_planes_word(workshop: Workshop) -> None:
    model = workshop.model()
    code, made = attest(workshop, model)
    assert code == 0
    predicate = json.loads(bundle.parse(made.read_bytes()).payload)["predicate"]
    jsonschema.validate(predicate, json_schema.load("buildtype-train.v1.json"))
    found = predicate["buildDefinition"]["resolvedDependencies"][2:]
    assert found == [
        {
            "name": "requirements",
            "uri": f"git+https://{SOURCE}@refs/heads/main#requirements.lock",
            "digest": {"sha256": sha256(LOCK).hexdigest()},
        },
        {"name": "dataset", "digest": {"sha256": WHOLE}},
        {
            "name": "dataset/data/a.csv",
            "uri": "https://example.test/a.csv",
            "digest": {"sha256": FIRST},
        },
        {"name": "dataset/data/b.csv", "uri": "source:", "digest": {"sha256": SECOND}},
    ]


def test_the_verdict_shows_what_ran_on_what(workshop: Workshop) -> None:
    model = workshop.model()
    _, made = attest(workshop, model)
    code, verdict = verify(workshop, model, made, "--dataset-digest", WHOLE)
    assert (code, refusals(verdict)) == (0, [])
    rows = {step["check"]: (step["outcome"], step["found"]) for step in verdict["steps"]}
    assert rows["Command"] == ("info", "python train.py --rate 0.1")
    words = "none: what it read is the commit, the data and the locked packages"
    assert rows["Network"][1] == f"{words}{SAYS}"
    assert rows["Requirements"][1] == f"requirements.lock {sha256(LOCK).hexdigest()}"
    assert rows["Data set"] == (
        "passed",
        f"2 files {WHOLE} as expected, checked before the command started{SAYS}",
    )
    assert rows["Training record"][1].startswith("claimed by the training job: roc_auc 0.93")


def test_a_network_and_no_lock_are_shown(workshop: Workshop) -> None:
    model = workshop.model()
    inputs = {**INPUTS, "network": "allowed", "requirements": ""}
    _, made = attest(workshop, model, inputs)
    code, verdict = verify(workshop, model, made)
    assert code == 0
    rows = {step["check"]: step["found"] for step in verdict["steps"]}
    assert rows["Network"].startswith("allowed: what it read from there nobody knows")
    assert rows["Requirements"] == "not locked"


def test_what_only_training_says_is_a_claim(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert code == 0
    rows = {step["check"]: step["found"] for step in verdict["steps"]}
    for title, words in (
        ("Command", "python train.py --rate=0.1"),
        ("Network", "none"),
        ("Requirements", "not locked"),
    ):
        assert rows[title] == f"{words}, claimed by the training job"
    generator = workshop.generator_provenance(model)
    _, verdict = workshop.verify(model, "--provenance", generator, "--source-uri", SOURCE)
    unknown = {step["check"] for step in verdict["steps"] if step["outcome"] == "not checked"}
    assert {"Command", "Network", "Requirements", "Data set"} <= unknown


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['inputs = { command = "python train.py --rate 0.1", network = "none" }'], ""),
        (['inputs = { runner = "ubuntu-latest" }'], ""),
        (['inputs = { command = "python other.py" }'], "another input"),
        (['inputs = { network = "allowed" }'], "another input"),
        ([f'data = {{ "data/a.csv" = "{FIRST}", "data/b.csv" = "{SECOND}" }}'], ""),
        ([f'data = {{ "data/a.csv" = "{FIRST}" }}'], "other data than those expected"),
        (
            [f'data = {{ "data/a.csv" = "{FIRST}", "data/b.csv" = "{FIRST}" }}'],
            "other data than those expected",
        ),
        (
            [f'data = {{ "data/a.csv" = "{FIRST}", "data/b.csv" = "{SECOND}", "c" = "{FIRST}" }}'],
            "other data than those expected",
        ),
        ([f'dataset_sha256 = "{WHOLE}"'], ""),
        ([f'dataset_sha256 = "{FIRST}"'], "another data set"),
        ([f'dependencies = {{ requirements = "{sha256(LOCK).hexdigest()}" }}'], ""),
        ([f'dependencies = {{ requirements = "{FIRST}" }}'], "another dependency"),
        (["metrics = { roc_auc = { minimum = 0.9 } }"], ""),
        (["metrics = { roc_auc = { minimum = 0.9, maximum = 1 } }"], ""),
        (["metrics = { roc_auc = { minimum = 0.94 } }"], "another figure"),
        (["metrics = { roc_auc = { maximum = 0.5 } }"], "another figure"),
        (["metrics = { f1 = { minimum = 0.5 } }"], "no accepted training record has a metric"),
    ],
)
def test_a_policy(workshop: Workshop, lines: list[str], words: str) -> None:
    model = workshop.model()
    _, made = attest(workshop, model)
    wanted = policy(workshop, "[build]", *lines)
    code, verdict = verify(workshop, model, made, "--policy", wanted)
    assert code == (1 if words else 0), refusals(verdict)
    assert words in (verdict["refusal"] or {"message": ""})["message"]


def test_every_provenance_has_to_name_the_expected_files(workshop: Workshop) -> None:
    model = workshop.model()
    _, first = attest(workshop, model)
    kept = first.rename(workshop.folder / "first.json")
    _, second = attest(workshop, model, {**INPUTS, "data": f"{FIRST}  data/a.csv  source:"})
    wanted = policy(
        workshop, "[build]", f'data = {{ "data/a.csv" = "{FIRST}", "data/b.csv" = "{SECOND}" }}'
    )
    for others, code in (((), 0), (("--provenance", second), 1)):
        found, verdict = verify(workshop, model, kept, *others, "--policy", wanted)
        rows = {step["check"]: step["outcome"] for step in verdict["steps"]}
        outcome = "refused" if code else "passed"
        assert (found, rows["Data set, file by file"]) == (code, outcome)


@pytest.mark.parametrize(
    "lines",
    [
        f'data = {{ "data/a.csv" = "{FIRST}" }}',
        "metrics = { roc_auc = { minimum = 0.5 } }",
    ],
)
def test_what_nobody_says_is_not_met(workshop: Workshop, lines: str) -> None:
    model = workshop.model()
    generator = workshop.generator_provenance(model)
    options = ("--provenance", generator, "--source-uri", SOURCE)
    wanted = policy(workshop, "[build]", lines)
    code, verdict = workshop.verify(model, *options, "--policy", wanted)
    assert code == 1
    assert verdict["refusal"]["message"].startswith("no accepted")


@pytest.mark.parametrize(
    "lines",
    [
        "[build]\ndata = {}",
        '[build]\ndata = { "a" = "none" }',
        "[build]\nmetrics = { a = {} }",
        '[build]\nmetrics = { a = { minimum = "0.5" } }',
        "[build]\nmetrics = { a = { least = 0.5 } }",
        "[build]\nmetrics = { a = { minimum = nan } }",
        "[build]\nrunner_labels = [1]",
        "[require]\nlevel = 1.0",
        "[[base_model]]\nname = 'x'",
        "[[base_model]]\npolicy = 'policy.toml'",
        "[[base_model]]\npolicy = 'none.toml'",
    ],
)
def test_policies_that_are_none(workshop: Workshop, lines: str) -> None:
    model = workshop.model()
    generator = workshop.generator_provenance(model)
    options = ("--provenance", generator, "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--policy", policy(workshop, lines))
    assert code != 0
    assert verdict.get("error") in ("PolicyError", "FileError")


def test_an_input_that_only_the_calling_workflow_had(workshop: Workshop) -> None:
    """`network` is the training workflow's to state: a namesake elsewhere does not stand for it."""
    from tests.support.crafted import generator_statement

    model = workshop.model()
    statement = generator_statement(model)
    event = statement["predicate"]["invocation"]["environment"]["github_event_payload"]
    event["inputs"] = {"network": "none"}
    options = (
        *("--provenance", workshop.generator_provenance(model, statement)),
        *("--provenance", workshop.train_provenance(model), *EXPECTED),
        *("--builder-id", GENERATOR_ID, "--build-workflow-input", "network=none"),
    )
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (1, ["ParameterError"])


def test_a_larger_runner(workshop: Workshop) -> None:
    model = workshop.model()
    inputs = {**INPUTS, "runner": "gpu-t4-4-core"}
    _, made = attest(workshop, model, inputs)
    for lines, level in ((["[build]", 'runner_labels = ["gpu-t4-4-core"]'], 3), ([], 1)):
        _, verdict = verify(workshop, model, made, "--policy", policy(workshop, *lines))
        assert verdict["slsaBuildLevels"]["train.yml"] == level
        rows = {step["check"]: step["found"] for step in verdict["steps"]}
        where = "" if level == 3 else ", on a machine that may be its caller's"
        assert rows["Network"].endswith(f"{SAYS}{where}")


def test_policy_init(workshop: Workshop) -> None:
    model = workshop.model()
    _, made = attest(workshop, model)
    output = workshop.folder / "made.toml"
    code, _ = workshop.run(
        *("policy", "init", model, "--provenance", made, *EXPECTED, "--output", output)
    )
    assert code == 0
    text = output.read_text()
    assert 'command = "python train.py --rate 0.1"' in text and 'network = "none"' in text
    assert f'dataset_sha256 = "{WHOLE}"' in text and "requirements" not in text
    code, _ = workshop.verify(model, "--provenance", made, "--policy", output)
    assert code == 0


# The signing job believes no training job ---------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"command": ("python", "other.py")},
        {"parameters": {"rate": 0.5}},
        {"dataset": record.Dataset(FIRST, ())},
        {"environment": replace(ENVIRONMENT, network="allowed")},
        {"environment": replace(ENVIRONMENT, requirements_sha256=FIRST)},
    ],
    ids=["command", "parameters", "data", "network", "packages"],
)
def test_training_that_says_it_did_something_else(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    model = workshop.model()
    code, made = attest(workshop, model, INPUTS, replace(told(model, INPUTS), **change))
    assert (code, made.exists()) == (1, False)
    assert "something else than it was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"data": "nonsense"}, 2),
        ({"model": "../model.pth"}, 2),
        ({"command": "'unclosed"}, 2),
        ({"command": "python --token hf_" + "a" * 34}, 2),
        ({"requirements": "none.lock"}, 1),
    ],
)
def test_inputs_that_cannot_be(workshop: Workshop, change: dict[str, str], code: int) -> None:
    model = workshop.model()
    found, made = attest(workshop, model, {**INPUTS, **change}, told(model, INPUTS))
    assert (found, made.exists()) == (code, False)


@pytest.mark.parametrize("name", ["requirements", "data-file"])
def test_a_link_out_of_the_commit_shows_nothing_of_the_signing_job(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model, secret = workshop.model(), workshop.write("environment", b"TOKEN=theirs\n")
    (workshop.folder / "source").mkdir()
    (workshop.folder / "source" / "link").symlink_to(secret)
    inputs = {**INPUTS, name: "link"}
    code, made = attest(workshop, model, inputs, told(model, INPUTS))
    assert (code, made.exists()) == (2, False)
    error = capsys.readouterr().err
    assert "a link leads out of the source" in error and "theirs" not in error


def test_pins_in_a_file_of_the_commit(workshop: Workshop) -> None:
    model = workshop.model()
    (workshop.folder / "source").mkdir()
    (workshop.folder / "source" / "pins").write_text(INPUTS["data"])
    inputs = {**INPUTS, "data": "", "data-file": "pins"}
    said = told(model, INPUTS)
    code, made = attest(workshop, model, inputs, said)
    assert code == 0
    _, verdict = verify(workshop, model, made)
    assert verdict["chain"]["dataset"]["sha256"] == WHOLE
    made.unlink()
    (workshop.folder / "source" / "pins").write_text(INPUTS["data"].replace(FIRST, SECOND))
    assert attest(workshop, model, inputs, said)[0] == 1


def test_a_checkout_is_needed(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    model = workshop.model()
    path = workshop.write("training.json", record.encode(told(model, INPUTS)))
    code, _ = workshop.run(
        *("provenance", model, "--training-record", path, "--output", workshop.folder / "o.json"),
        *("--workflow-inputs", json.dumps(INPUTS), "--identity-token", workshop.token()),
    )
    assert code == 2
    assert "--source DIR" in capsys.readouterr().err


def test_the_archive_of_a_recipe_is_pinned_by_the_workflow(workshop: Workshop) -> None:
    """`train.yml` takes CIFAR-10 by one digest: that is its word, and no claim."""
    from slsa_for_models.cifar10 import archive, plan

    model = workshop.model(name="pytorch_model.pth")
    inputs = {"model": model.name, "dataset": "cifar10", "epochs": 6, "seed": 0}
    inputs["runner"] = "ubuntu-latest"
    asked = plan.from_inputs(inputs)
    assert asked is not None
    files = (record.Input(archive.NAME, archive.SHA256, 1, None),)
    said = replace(
        told(model, {"command": "x", "model": model.name}),
        command=asked.words,
        parameters=asked.parameters,
        dataset=record.Dataset(archive.SHA256, files),
    )
    code, made = attest(workshop, model, inputs, said)
    assert code == 0
    _, verdict = verify(workshop, model, made, "--dataset-digest", archive.SHA256)
    rows = {step["check"]: step["found"] for step in verdict["steps"]}
    assert rows["Data set"].endswith(f"as expected, checked before the command started{SAYS}")
    other = replace(said, dataset=record.Dataset(FIRST, files))
    made.unlink()
    assert attest(workshop, model, inputs, other)[0] == 1
