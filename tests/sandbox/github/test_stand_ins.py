"""The stand-ins of other people's actions do what those do."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from sigstore.errors import VerificationError
from sigstore.models import Bundle

from sandbox.github import Run, run
from sandbox.github.repositories import Repository
from sandbox.github.stand_ins.commands import StepError
from sandbox.github.stand_ins.generator import parse_subjects, provenance_path
from sandbox.sigstore import LocalSigstore
from sandbox.sigstore.oidc import GITHUB_ISSUER
from tests.support.stock import verify

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("MODEL_TRANSPARENCY_SHARED") or ROOT.parent / "shared")
REAL = SHARED / "data/slsa/binary-linux-amd64-push-v14.2.intoto.jsonl"
BUILDER = (
    "slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml"
    "@refs/tags/v2.1.0"
)
SUBJECTS = base64.b64encode(f"{'ab' * 32}  model.bin\n".encode()).decode()
CALL = """
name: Build
on: {ON}
permissions: {{}}
jobs:
  provenance:
    permissions: {{actions: read, id-token: write, contents: write}}
    uses: slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml@v2.1.0
    with: {{base64-subjects: "{SUBJECTS}", {MORE}}}
  last:
    needs: provenance
    if: always()
    runs-on: ubuntu-latest
    outputs:
      name: ${{{{ needs.provenance.outputs.provenance-name }}}}
      outcome: ${{{{ needs.provenance.outputs.outcome }}}}
    steps: [{{run: "true"}}]
"""


def generate(
    sigstore,
    folder: Path,
    *,
    on="push",
    subjects=SUBJECTS,
    more="",
    visibility="public",
    **options,
) -> Run:
    workflow = CALL.format(ON=on, SUBJECTS=subjects, MORE=more)
    path = folder / "caller/.github/workflows/build.yml"
    path.parent.mkdir(parents=True)
    path.write_text(workflow)
    repository = Repository("octo-org/models", folder / "caller", "refs/tags/v14.2", visibility)
    return run(".github/workflows/build.yml", repository, sigstore, folder / "out", **options)


@pytest.fixture(scope="module")
def generated(sigstore, tmp_path_factory) -> Run:
    """Provenance of a push to a tag, as the real one that it is compared with."""
    return generate(sigstore, tmp_path_factory.mktemp("generated"), event_name="push")


@pytest.fixture(scope="module")
def bundle(generated, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("bundle")
    generated.extract("model.bin.intoto.jsonl", folder)
    return json.loads((folder / "model.bin.intoto.jsonl").read_text())


@pytest.fixture(scope="module")
def real() -> dict:
    if not REAL.exists():
        pytest.skip(f"no real provenance at {REAL}: the generator's stand-in was not compared")
    return json.loads(REAL.read_text())


def statement(document: dict) -> dict:
    return json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))


def certificate(document: dict) -> x509.Certificate:
    raw = document["verificationMaterial"]["certificate"]["rawBytes"]
    return x509.load_der_x509_certificate(base64.b64decode(raw))


def shape(value: object) -> object:
    """The keys of a document and the types of its values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def test_the_generator_succeeds_and_says_so(generated):
    assert generated.conclusion == "success", generated.log.read_text()
    assert dict(generated.jobs["last"].outputs) == {
        "name": "model.bin.intoto.jsonl",
        "outcome": "success",
    }


def test_the_generators_provenance_verifies_as_its_workflow(sigstore, bundle):
    payload = verify(
        Bundle.from_json(json.dumps(bundle)),
        sigstore.trust_config(),
        f"https://github.com/{BUILDER}",
        GITHUB_ISSUER,
    )
    assert json.loads(payload) == statement(bundle)


def test_the_statement_has_the_fields_of_the_real_one(bundle, real):
    ours, theirs = statement(bundle), statement(real)
    for document in (ours, theirs):  # what GitHub says of a push is none of the generator's doing
        document["predicate"]["invocation"]["environment"].pop("github_event_payload")
    assert shape(ours) == shape(theirs)


CONSTANT = [
    "_type",
    "predicateType",
    "predicate.builder.id",
    "predicate.buildType",
    "predicate.metadata.completeness",
    "predicate.metadata.reproducible",
    "predicate.invocation.environment.github_event_name",
    "predicate.invocation.environment.github_ref",
    "predicate.invocation.environment.github_ref_type",
    "predicate.invocation.environment.github_base_ref",
    "predicate.invocation.environment.github_head_ref",
]


@pytest.mark.parametrize("path", CONSTANT)
def test_what_does_not_depend_on_the_build_is_equal(bundle, real, path):
    ours, theirs = statement(bundle), statement(real)
    for key in path.split("."):
        ours, theirs = ours[key], theirs[key]
    assert ours == theirs


def test_what_depends_on_the_build_is_the_builds(bundle, generated):
    predicate = statement(bundle)["predicate"]
    source = {
        "uri": "git+https://github.com/octo-org/models@refs/tags/v14.2",
        "digest": {"sha1": generated.commit},
    }
    assert predicate["materials"] == [source]
    assert predicate["invocation"]["configSource"] == {
        **source,
        "entryPoint": ".github/workflows/build.yml",
    }
    assert predicate["metadata"]["buildInvocationID"] == f"{generated.run_id}-1"
    assert statement(bundle)["subject"] == [{"name": "model.bin", "digest": {"sha256": "ab" * 32}}]


def test_the_bundle_has_the_parts_of_the_real_one(bundle, real):
    """Two differences, both known: Rekor v2 in place of v1, and with it an RFC 3161 timestamp."""
    assert bundle["mediaType"] == real["mediaType"]
    assert shape(bundle["dsseEnvelope"]) == shape(real["dsseEnvelope"])
    assert bundle["dsseEnvelope"]["payloadType"] == real["dsseEnvelope"]["payloadType"]
    ours, theirs = bundle["verificationMaterial"], real["verificationMaterial"]
    assert set(ours) - set(theirs) <= {"timestampVerificationData"}
    (our_entry,), (their_entry,) = ours["tlogEntries"], theirs["tlogEntries"]
    assert set(their_entry) - set(our_entry) == {"inclusionPromise"}
    assert our_entry["integratedTime"] == "0"  # Rekor v2 has none
    assert set(our_entry) <= set(their_entry)


def test_the_certificate_has_the_extensions_of_the_real_one(bundle, real):
    def extensions(document):
        found = certificate(document).extensions
        return [(extension.oid.dotted_string, extension.critical) for extension in found]

    # Fulcio 1.8 also certifies the token's subject; the real certificate is older.
    subject = ("1.3.6.1.4.1.57264.1.24", False)
    assert sorted(extensions(bundle)) == sorted([*extensions(real), subject])

    def claim(document, arc):
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{arc}")
        return certificate(document).extensions.get_extension_for_oid(oid).value.value

    for arc in (1, 8, 9, 10, 11, 20, 22):  # issuer, builder and its commit, runner, event
        assert claim(bundle, arc) == claim(real, arc)
    names = [
        certificate(document).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for document in (bundle, real)
    ]
    assert names[0] == names[1]


def test_inputs_of_a_dispatch_are_parameters(sigstore, tmp_path):
    """slsa-verifier reads `--build-workflow-input` there."""
    result = generate(
        sigstore,
        tmp_path,
        on="{workflow_dispatch: {inputs: {color: {default: red}}}}",
        more="provenance-name: my.intoto.jsonl",
        inputs={"color": "blue"},
    )
    result.extract("my.intoto.jsonl", tmp_path)
    invocation = statement(json.loads((tmp_path / "my.intoto.jsonl").read_text()))["predicate"][
        "invocation"
    ]
    assert invocation["parameters"] == {"event_inputs": {"color": "blue"}, "vars": None}


def test_a_failure_of_the_generator_fails_the_caller(sigstore, tmp_path):
    result = generate(sigstore, tmp_path, subjects="bm90IGEgZGlnZXN0", event_name="push")
    assert result.conclusion == "failure"
    assert result.jobs["provenance/final"].conclusion == "failure"
    (error,) = [item for item in result.annotations if "sha256" in item.message]
    assert "unexpected sha256 hash format for 'not'" in error.message


def test_a_failure_of_the_generator_may_be_overlooked(sigstore, tmp_path):
    result = generate(
        sigstore,
        tmp_path,
        subjects="bm90IGEgZGlnZXN0",
        more="continue-on-error: true",
        event_name="push",
    )
    assert result.conclusion == "success"
    assert result.jobs["last"].outputs["outcome"] == "failure"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "at least one subject"),
        ("\n\n", "at least one subject"),
        ("abc  model.bin", "unexpected sha256 hash format"),
        ("ab" * 32, "expected subject name"),
        (f"{'ab' * 32}  a\n{'cd' * 32}  a", "duplicate subject: 'a'"),
    ],
)
def test_the_generator_refuses_bad_subjects(lines, message):
    with pytest.raises(StepError, match=message):
        parse_subjects(base64.b64encode(lines.encode()).decode())


def test_the_generator_refuses_what_is_not_base64():
    with pytest.raises(StepError, match="base64"):
        parse_subjects("not base64!")


def test_the_generator_reads_subjects_as_sha256sum_writes_them():
    lines = f"{'AB' * 32}  a b.bin\n\n{'cd' * 32}\tc\n"
    assert parse_subjects(base64.b64encode(lines.encode()).decode()) == [
        {"name": "a b.bin", "digest": {"sha256": "ab" * 32}},
        {"name": "c", "digest": {"sha256": "cd" * 32}},
    ]


def test_the_generator_names_and_bounds_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = [{"name": "dir/a.bin"}], [{"name": "a"}, {"name": "b"}]
    assert provenance_path("", one).name == "a.bin.intoto.jsonl"
    assert provenance_path("", two).name == "multiple.intoto.jsonl"
    with pytest.raises(StepError, match="suffix"):
        provenance_path("provenance.json", one)
    with pytest.raises(StepError, match="invalid path"):
        provenance_path("../x.intoto.jsonl", one)


@pytest.mark.parametrize(
    ("visibility", "more", "conclusion"),
    [("internal", "", "failure"), ("private", "private-repository: true", "success")],
)
def test_the_generator_publishes_a_private_name_only_if_told_to(
    sigstore, tmp_path, visibility, more, conclusion
):
    made = generate(sigstore, tmp_path, more=more, visibility=visibility, event_name="push")
    assert made.conclusion == conclusion
    assert ("see 'private-repository'" in made.log.read_text()) == (conclusion == "failure")
    assert made.artifact_names() == ([] if conclusion == "failure" else ["model.bin.intoto.jsonl"])


# Artifacts, checkout, Python, attestations: as steps, in a workspace of their own


class Steps:
    """Runs a stand-in's module as the runner would."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.artifacts = folder / "artifacts"
        self.output = folder / "output"
        for path in (self.workspace, self.artifacts):
            path.mkdir()

    def __call__(self, module: str, *arguments: str, **inputs: str) -> tuple[int, str, dict]:
        self.output.write_text("")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_PATH": str(self.output.with_name("path")),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_REPOSITORY": "a/b",
            "GITHUB_RUN_ID": "1",
            "RUNNER_TEMP": str(self.workspace),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SANDBOX_ARTIFACTS": str(self.artifacts),
            "SANDBOX_RUN": str(self.artifacts.parent),
            **inputs,
        }
        result = subprocess.run(
            [sys.executable, "-m", f"sandbox.github.stand_ins.{module}", *arguments],
            cwd=self.workspace,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "Traceback" not in result.stderr, result.stderr
        lines = self.output.read_text().splitlines()
        return result.returncode, result.stdout, dict(line.split("=", 1) for line in lines)

    def upload(self, name: str, path: str, **inputs: str) -> tuple[int, str, dict]:
        defaults = {"IF_NO_FILES_FOUND": "warn", "OVERWRITE": "false"}
        defaults["INCLUDE_HIDDEN_FILES"] = "false"
        return self("artifacts", "upload", **{**defaults, "NAME": name, "SOURCE": path, **inputs})

    def download(self, **inputs: str) -> tuple[int, str, dict]:
        defaults = {"MERGE_MULTIPLE": "false", "RUN_ID": "1", "REPOSITORY": "a/b"}
        return self("artifacts", "download", **{**defaults, **inputs})

    def files(self, folder: str = ".") -> list[str]:
        root = self.workspace / folder
        return sorted(
            path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
        )


@pytest.fixture
def steps(tmp_path) -> Steps:
    steps = Steps(tmp_path)
    for name in ("out/a.txt", "out/sub/b.txt", "out/.c", "d.txt"):
        (steps.workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (steps.workspace / name).write_text(name)
    return steps


@pytest.mark.parametrize(
    ("path", "hidden", "expected"),
    [
        ("out/", "false", ["a.txt", "sub/b.txt"]),
        ("out/", "true", [".c", "a.txt", "sub/b.txt"]),
        ("out/sub/b.txt", "false", ["b.txt"]),
        ("out/**/*.txt", "false", ["a.txt", "sub/b.txt"]),
        ("out\n!out/sub", "false", ["a.txt"]),
        ("out/a.txt\nd.txt", "false", ["d.txt", "out/a.txt"]),
    ],
)
def test_an_artifact_holds_what_the_real_one_would(steps, path, hidden, expected):
    code, _, outputs = steps.upload("files", path, INCLUDE_HIDDEN_FILES=hidden)
    assert code == 0
    archive = steps.artifacts / "files.zip"
    assert outputs["artifact-digest"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert outputs["artifact-id"].isdigit()
    assert steps.download(NAME="files", TARGET="back")[0] == 0
    assert steps.files("back") == expected


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", 'a"b', "a:b", "a*b", "a?b", "a|b", "a<b"])
def test_a_bad_artifact_name_is_refused(steps, name):
    code, output, _ = steps.upload(name, "d.txt")
    assert (code, "::error::The artifact name is not valid" in output) == (1, True)


def test_missing_files_are_an_error_only_if_asked_for(steps):
    assert "::warning::No files were found" in steps.upload("x", "none")[1]
    assert steps.upload("x", "none", IF_NO_FILES_FOUND="ignore")[:2] == (0, "")
    code, output, _ = steps.upload("x", "none", IF_NO_FILES_FOUND="error")
    assert (code, "::error::No files were found" in output) == (1, True)
    assert not list(steps.artifacts.iterdir())


def test_an_artifact_is_replaced_only_if_asked_for(steps):
    assert steps.upload("x", "d.txt")[0] == 0
    code, output, _ = steps.upload("x", "out")
    assert (code, "already exists" in output) == (1, True)
    assert steps.upload("x", "out", OVERWRITE="true")[0] == 0
    code, output, _ = steps.upload("x", "out", OVERWRITE="perhaps")
    assert (code, "YAML 1.2" in output) == (1, True)


def test_all_artifacts_are_unpacked_apart_or_into_one(steps):
    steps.upload("one", "d.txt")
    steps.upload("two", "out/a.txt")
    assert steps.download(TARGET="apart")[0] == 0
    assert steps.files("apart") == ["one/d.txt", "two/a.txt"]
    assert steps.download(TARGET="merged", MERGE_MULTIPLE="true", PATTERN="*")[0] == 0
    assert steps.files("merged") == ["a.txt", "d.txt"]
    assert steps.download(TARGET="some", PATTERN="t*")[0] == 0
    assert steps.files("some") == ["two/a.txt"]


def test_an_artifact_that_was_changed_or_is_not_there_is_refused(steps):
    steps.upload("one", "d.txt")
    archive = steps.artifacts / "one.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    code, output, _ = steps.download(NAME="one")
    assert (code, "digest of artifact 'one'" in output) == (1, True)
    code, output, _ = steps.download(NAME="two")
    assert (code, "Artifact not found for name: two" in output) == (1, True)


def test_checkout_gets_known_repositories_and_stays_in_the_workspace(steps, tmp_path):
    from sandbox.github.repositories import snapshot

    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("1")
    commit = snapshot(tmp_path / "source", tmp_path / "copy")
    known = {"name": "a/b", "ref": "refs/tags/v1", "commit": commit, "path": str(tmp_path / "copy")}
    (tmp_path / "repositories.json").write_text(json.dumps([known]))
    inputs = {"REPOSITORY": "a/b", "GITHUB_SHA": commit}
    code, _, outputs = steps("checkout", TARGET="own", **inputs)
    assert (code, outputs["commit"], steps.files("own").count("file")) == (0, commit, 1)
    assert steps("checkout", TARGET="tag", REF="v1", **inputs)[0] == 0
    code, output, _ = steps("checkout", TARGET="x", REF="v2", **inputs)
    assert (code, "no repository 'a/b' at 'v2'" in output) == (1, True)
    code, output, _ = steps("checkout", TARGET="../x", **inputs)
    assert (code, "is not under" in output) == (1, True)


def test_the_sandbox_has_one_python_and_says_so(steps):
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    code, said, outputs = steps("setup_python", VERSION=own)
    assert code == 0 and outputs["python-version"].startswith(f"{own}.")
    assert Path(outputs["python-path"]).is_file()
    assert "stands for" not in said
    code, said, other = steps("setup_python", VERSION="3.99")
    assert (code, other) == (0, outputs)
    assert "which stands for 3.99" in said
    code, output, _ = steps("setup_python", VERSION="pypy")
    assert (code, "MAJOR.MINOR" in output) == (1, True)


DIGEST = hashlib.sha256(b"d.txt").hexdigest()


@pytest.mark.parametrize(
    "subjects",
    [
        {"SUBJECT_PATH": "d.txt"},
        {"SUBJECT_DIGEST": f"sha256:{DIGEST}", "SUBJECT_NAME": "d.txt"},
        {"SUBJECT_CHECKSUMS": f"{DIGEST}  d.txt\n"},
    ],
)
def test_attest_signs_the_predicate_as_the_job(sigstore, attest, subjects):
    predicate = {"PREDICATE_TYPE": "https://example.test/predicate", "PREDICATE": '{"a": 1}'}
    bundle = attest(**predicate, **subjects)
    identity = "https://github.com/a/b/.github/workflows/release.yml@refs/heads/main"
    payload = json.loads(verify(bundle, sigstore.trust_config(), identity, GITHUB_ISSUER))
    assert payload["subject"] == [{"name": "d.txt", "digest": {"sha256": DIGEST}}]
    assert payload["predicate"] == {"a": 1}


def test_attest_signs_provenance_of_the_running_job_if_not_told_otherwise(sigstore, attest):
    bundle = attest(SUBJECT_PATH="d.txt")
    identity = "https://github.com/a/b/.github/workflows/release.yml@refs/heads/main"
    payload = json.loads(verify(bundle, sigstore.trust_config(), identity, GITHUB_ISSUER))
    assert payload["predicateType"] == "https://slsa.dev/provenance/v1"
    build = payload["predicate"]["buildDefinition"]
    assert build["buildType"] == "https://actions.github.io/buildtypes/workflow/v1"
    assert build["externalParameters"]["workflow"]["repository"] == "https://github.com/a/b"
    assert payload["predicate"]["runDetails"]["builder"]["id"] == identity


@pytest.mark.parametrize(
    "event", [{"repository": {"visibility": "private"}}, {"repository": {}}, {}]
)
def test_attest_signs_elsewhere_unless_the_event_says_public(sigstore, attest, event):
    """With GitHub's own Sigstore, which the public root does not know."""
    bundle = attest(event, SUBJECT_PATH="d.txt")
    identity = "https://github.com/a/b/.github/workflows/release.yml@refs/heads/main"
    with pytest.raises(VerificationError):
        verify(bundle, sigstore.trust_config(), identity, GITHUB_ISSUER)


@pytest.fixture
def attest(sigstore, trust_config, steps, tmp_path):
    """Runs actions/attest's stand-in; gives the bundle."""

    def run(event: dict | None = None, **inputs: str) -> Bundle:
        public = {"repository": {"visibility": "public"}}
        (tmp_path / "event.json").write_text(json.dumps(public if event is None else event))
        with LocalSigstore(sigstore.oidc) as private:
            other = private.write_trust_config(tmp_path / "private.json")
            code, output, outputs = steps(
                "attest",
                ACTIONS_ID_TOKEN_REQUEST_URL=sigstore.job_token_url,
                ACTIONS_ID_TOKEN_REQUEST_TOKEN=sigstore.oidc.request_token_for(
                    {"repository": "a/b"}
                ),
                GITHUB_EVENT_PATH=str(tmp_path / "event.json"),
                GITHUB_SERVER_URL="https://github.com",
                MODEL_TRANSPARENCY_TRUST_CONFIG=str(trust_config),
                SANDBOX_SIGSTORE_OF_GITHUB=str(other),
                **inputs,
            )
        assert code == 0, output
        return Bundle.from_json(Path(outputs["bundle-path"]).read_bytes())

    return run


def test_attest_refuses_without_identity_or_subject(steps, trust_config, tmp_path):
    inputs = {"PREDICATE_TYPE": "https://example.test/predicate", "PREDICATE": "{}"}
    inputs["MODEL_TRANSPARENCY_TRUST_CONFIG"] = str(trust_config)
    (tmp_path / "event.json").write_text('{"repository": {"visibility": "public"}}')
    inputs["GITHUB_EVENT_PATH"] = str(tmp_path / "event.json")
    code, output, _ = steps("attest", SUBJECT_PATH="d.txt", **inputs)
    assert (code, "no id-token: write" in output) == (1, True)
    assert "One of subject-path" in steps("attest", **inputs)[1]
    assert "Between 1 and 1024" in steps("attest", SUBJECT_PATH="none", **inputs)[1]
