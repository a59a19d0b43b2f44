"""The sandbox's Tekton runner, by small documents of its own."""

from __future__ import annotations

import pytest
import yaml

from sandbox.clusters import tekton
from sandbox.github import repositories

URL = "https://git.example.test/org/repo"
IMAGE = f"registry.example.test/tools@sha256:{'1' * 64}"

GREET = f"""
apiVersion: tekton.dev/v1
kind: Task
metadata: {{name: greet}}
spec:
  params:
    - {{name: who, enum: [world, moon]}}
    - {{name: more, type: array, default: []}}
  workspaces:
    - {{name: out}}
    - {{name: settings, optional: true, mountPath: /etc/settings}}
  results:
    - {{name: text}}
    - {{name: it_ARTIFACT_OUTPUTS, type: object, properties: {{uri: {{}}, digest: {{}}}}}}
  volumes:
    - name: identity
      projected: {{sources: [{{serviceAccountToken: {{audience: aud, path: token}}}}]}}
  steps:
    - name: say
      image: {IMAGE}
      volumeMounts: [{{name: identity, mountPath: /var/run/id}}]
      command: [hello]
      args: [$(params.who), $(results.text.path), $(results.it_ARTIFACT_OUTPUTS.path),
             $(workspaces.out.path)/said, /var/run/id/token, "$(params.more[*])"]
"""
CHECK = f"""
apiVersion: tekton.dev/v1
kind: Task
metadata: {{name: check}}
spec:
  params: [{{name: text}}, {{name: uri}}]
  steps:
    - {{name: compare, image: {IMAGE}, command: [compare], args: [$(params.text), $(params.uri)]}}
"""
REFERENCE = """
        resolver: git
        params:
          - {name: url, value: $(params.url)}
          - {name: revision, value: main}
          - {name: pathInRepo, value: %s.yaml}
"""
PIPELINE = f"""
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {{name: both}}
spec:
  params: [{{name: url}}, {{name: who, default: world}}]
  workspaces: [{{name: shared}}]
  tasks:
    - name: second
      taskRef: {REFERENCE % "check"}
      params:
        - {{name: text, value: $(tasks.first.results.text)}}
        - {{name: uri, value: "$(tasks.first.results.it_ARTIFACT_OUTPUTS.uri)"}}
    - name: first
      taskRef: {REFERENCE % "greet"}
      params:
        - {{name: who, value: $(params.who)}}
        - {{name: more, value: [a, b c]}}
      workspaces: [{{name: out, workspace: shared, subPath: inner}}]
  results:
    - {{name: it_ARTIFACT_OUTPUTS, value: "$(tasks.first.results.it_ARTIFACT_OUTPUTS[*])"}}
    - {{name: run, value: $(context.pipelineRun.name)}}
"""
RUN = f"""
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {{generateName: both-, namespace: ns}}
spec:
  pipelineRef:
    resolver: git
    params:
      - {{name: url, value: {URL}}}
      - {{name: revision, value: main}}
      - {{name: pathInRepo, value: pipeline.yaml}}
  params: [{{name: url, value: {URL}}}]
  workspaces: [{{name: shared, emptyDir: {{}}}}]
  taskRunTemplate: {{serviceAccountName: nobody}}
  taskRunSpecs: [{{pipelineTaskName: first, serviceAccountName: speaker}}]
"""
HELLO = """#!/bin/sh
printf 'hello %s' "$1" > "$2"
printf '{"uri": "gs://b/o", "digest": "sha256:00"}' > "$3"
printf '%s' "$1 $#: $6 $7" > "$4"
read -r token < "$5"; echo "$token"
"""


@pytest.fixture
def run(tmp_path):
    """Runs the documents above, each perhaps edited by `change(name, old, new)` before."""
    documents = {"greet": GREET, "check": CHECK, "pipeline": PIPELINE, "run": RUN}
    programs = {"hello": HELLO, "compare": '#!/bin/sh\necho "$1 at $2"\n'}
    lines: list[str] = []

    def change(name: str, old: str, new: str) -> None:
        where = documents if name in documents else programs
        assert old in where[name]
        where[name] = where[name].replace(old, new)

    def go() -> tekton.PipelineRun:
        source, image = tmp_path / "source", tmp_path / "image"
        for folder in (source, image):
            folder.mkdir()
        for name, text in documents.items():
            (source / f"{name}.yaml").write_text(text)
        for name, text in programs.items():
            (image / name).write_text(text)
            (image / name).chmod(0o755)
        go.commit = repositories.snapshot(source, tmp_path / "repository")
        cluster = tekton.Cluster(
            repositories={URL: tmp_path / "repository"},
            images={IMAGE: image},
            token=lambda namespace, account, audience: (
                f"token of {account}.{namespace} ({audience})"
            ),
            scratch=tmp_path / "cluster",
        )
        return tekton.run(yaml.safe_load(documents["run"]), cluster, lines.append)

    go.change, go.lines, go.folder = change, lines, tmp_path
    return go


def test_parameters_results_workspaces_and_tokens_reach_the_steps(run):
    finished = run()
    assert run.lines == [
        "[first : say] token of speaker.ns (aud)",
        "[second : compare] hello world at gs://b/o",
    ]
    assert (run.folder / "cluster/volumes/shared/inner/said").read_text() == "world 7: a b c"
    assert [task.name for task in finished.tasks] == ["first", "second"]
    assert finished.results["it_ARTIFACT_OUTPUTS"] == {"uri": "gs://b/o", "digest": "sha256:00"}
    assert finished.results["run"] == finished.name
    assert finished.name.startswith("both-")
    assert finished.reference == tekton.Reference(f"git+{URL}", run.commit, "pipeline.yaml")
    assert finished.tasks[0].reference.path == "greet.yaml"
    assert finished.tasks[0].images == (IMAGE,)


def test_documents_come_from_the_commit_not_from_the_folder(run):
    run.change("run", "value: main", "value: refs/heads/none")
    with pytest.raises(tekton.TektonError, match="refs/heads/none"):
        run()


def test_a_failing_step_stops_the_run_and_is_named(run):
    run.change("hello", "#!/bin/sh", "#!/bin/sh\necho disk full >&2; exit 3")
    with pytest.raises(tekton.TektonError, match=r"step first : say failed .* 3: disk full"):
        run()
    assert not any("compare" in line for line in run.lines)


def test_a_step_that_does_not_end_is_ended(run, monkeypatch):
    monkeypatch.setattr(tekton, "STEP_SECONDS", 1)
    run.change("hello", "#!/bin/sh", "#!/bin/sh\nwhile :; do :; done")
    with pytest.raises(tekton.TektonError, match=r"step first : say failed .* -9"):
        run()


@pytest.mark.parametrize(
    ("document", "old", "new", "message"),
    [
        ("run", "params: [{name: url", "params: [{name: nope", "no such parameter: nope"),
        ("pipeline", "{name: who, default: world}", "{name: who}", "parameter who is missing"),
        ("pipeline", "default: world", "default: mars", "'mars', not one of world, moon"),
        ("pipeline", "value: [a, b c]", "value: a", "parameter more is not of its type"),
        ("pipeline", "tasks.first.results.text", "tasks.frist.results.text", "no task frist"),
        ("pipeline", "results.text)", "results.txt)", r"no \$\(tasks.first.results.txt\)"),
        ("pipeline", "name: first", "name: first\n      runAfter: [second]", "wait for each other"),
        ("pipeline", "resolver: git", "resolver: hub", "through the git resolver"),
        ("pipeline", "name: second\n", "name: second\n      when: []\n", "not known here: when"),
        ("run", "workspaces: [{name: shared", "workspaces: [{name: other", "workspaces are"),
        ("run", "emptyDir: {}", "secret: {}", "not known here: secret"),
        ("run", "pipelineTaskName: first", "pipelineTaskName: third", "no task third"),
        ("run", "spec:\n", "spec:\n  status: PipelineRunPending\n", "not known here: status"),
        ("check", IMAGE, "registry.example.test/tools:latest", "not named by digest"),
        ("check", "1" * 64, "2" * 64, "there is no image"),
        ("check", "command: [compare]", "command: [rm]", "rm: no such program"),
        ("check", "command: [compare]", "script: compare", "not known here: script"),
        ("check", "kind: Task", "kind: StepAction", "is not a Task"),
        ("check", "steps:", "steps: [", "is not YAML"),
        ("hello", '> "$2"', "> /dev/null", "did not write its result text"),
        ("hello", '"digest"', '"digset"', "not the properties it declares"),
        ("hello", "hello %s", "%05000d", "longer than 4096"),
    ],
)  # fmt: skip
def test_what_tekton_refuses_is_refused(run, document, old, new, message):
    run.change(document, old, new)
    with pytest.raises(tekton.TektonError, match=message):
        run()
