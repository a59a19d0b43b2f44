"""Policy files: what they can say, what they refuse, and one made from a verified model."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_signing import api
from model_signing.methods.key import key_signer
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from slsa_for_models.errors import PolicyError
from slsa_for_models.evidence import json_schema
from slsa_for_models.evidence.github import GITHUB_ISSUER
from slsa_for_models.verdict import policy_file
from slsa_for_models.verdict.expectations import (
    GENERATOR,
    Expectations,
    Pattern,
    builder_from_option,
    source_uri,
)
from slsa_for_models.verdict.result import Verdict
from slsa_for_models.verdict.verification import verify
from tests.support.crafted import (
    CHAINS,
    DATASET,
    REF,
    SOURCE,
    TRAIN,
    Workshop,
    envelope,
    new_key,
    private_pem,
    public_pem,
    refusals,
    tekton_statement,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]

FULL = f"""
version = 1

[source]
uri = "{SOURCE}"
branch = {{ pattern = "main|release-[0-9]+" }}

[[builder]]
id = "{TRAIN}"
refs = ["{REF}", {{ pattern = "[0-9a-f]{{40}}" }}]
level = 3

[[builder]]
id = "{GENERATOR.id}"

[signer]
identity = {{ pattern = "{TRAIN}@refs/tags/v1[.].*" }}
issuer = "https://token.actions.githubusercontent.com"

[build]
inputs = {{ model = "pytorch_model.pth" }}
runners = ["github-hosted"]
dataset_sha256 = "{DATASET}"

[require]
evidence = ["signature", "train"]
level = 3
base_models = true
"""


def write(workshop: Workshop, text: str, name: str = "policy.toml") -> Path:
    return workshop.write(name, text.encode())


def test_everything_a_policy_can_say(workshop: Workshop) -> None:
    model = workshop.model()
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", write(workshop, FULL)),
    )
    assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 3)


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        (f'uri = "{SOURCE}"', 'uri = "github.com/octo-org/other"', "SignerError"),
        ('pattern = "main|release-[0-9]+"', 'pattern = "mai"', "SourceError"),
        ('pattern = "main|release-[0-9]+"', 'pattern = "ain|release"', "SourceError"),
        (f'refs = ["{REF}"', 'refs = ["refs/tags/v1.2.4"', "BuilderError"),
        (f'refs = ["{REF}"', 'refs = ["refs/tags/v1.2."', "BuilderError"),
        ("refs/tags/v1[.].*", "refs/tags/v2[.].*", "SignerError"),
        ("https://token.actions", "https://other.actions", "SignerError"),
        ('model = "pytorch_model.pth"', 'model = "other"', "ParameterError"),
        (DATASET, "e" * 64, "DependencyMismatchError"),
        ('"github-hosted"', '"self-hosted"', "SignerError"),
        ('["signature", "train"]', '["tekton"]', "ChainError"),
        ("level = 3\n\n[[builder]]", "level = 1\n\n[[builder]]", "BuilderError"),
    ],
)
def test_one_expectation_not_met(workshop: Workshop, old: str, new: str, refusal: str) -> None:
    model = workshop.model()
    assert old in FULL
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", write(workshop, FULL.replace(old, new))),
    )
    assert code == 1
    assert refusals(verdict)[0] == refusal


def test_other_dependencies_by_name(workshop: Workshop) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    lock = {"name": "requirements", "digest": {"sha256": "c" * 64}}
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(lock)
    data = workshop.sign(statement, workshop.token())
    options = ("--provenance", workshop.write("p.json", data), "--source-uri", SOURCE)
    for name, digest, code in (
        ("requirements", "c" * 64, 0),
        ("requirements", "d" * 64, 1),
        ("other", "c" * 64, 1),
    ):
        text = f"""version = 1
[[builder]]
id = "{TRAIN}"
[build]
dependencies = {{ {name} = "{digest}" }}
"""
        found, verdict = workshop.verify(model, *options, "--policy", write(workshop, text))
        assert found == code
        assert refusals(verdict) == ["DependencyMismatchError"][:code]


def test_a_signature_that_is_required_and_missing(workshop: Workshop) -> None:
    model = workshop.model()
    code, verdict = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", write(workshop, FULL)),
    )
    assert (code, refusals(verdict)) == (1, ["ChainError"])


def test_no_policy_is_read_unless_named(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy beside the model is the publisher's word, not the consumer's."""
    model = workshop.model()
    for name in ("policy.toml", "model.pth.policy.toml", "slsa_for_models.toml"):
        write(workshop, f'version = 1\n[[builder]]\nid = "{TRAIN}"\n', name)
    monkeypatch.chdir(workshop.folder)
    code, verdict = workshop.verify(
        model, "--provenance", workshop.train_provenance(model), "--source-uri", SOURCE
    )
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2",
        "version = 1.0",
        "version = true",
        "not toml",
        "\xff",
        "version = 1\nunknown = 1",
        "version = 1\n[source]\nurl = 'x'",
        "version = 1\n[source]\nuri = 'octo-org'",
        "version = 1\n[source]\nuri = 7",
        "version = 1\n[source]\nissuer = 'https://gitlab.com'",
        "version = 1\n[source]\nissuer = 'https://token.actions.githubusercontent.com.example'",
        "version = 1\n[source]\nuri = ''",
        "version = 1\n[source]\nuri = { pattern = '(' }",
        "version = 1\n[source]\nuri = { pattern = 'a', other = 'b' }",
        "version = 1\n[source]\nversioned_tag = '1.2'",
        "version = 1\n[source]\ncommit = 'main'",
        "version = 1\n[[builder]]\nlevel = 3",
        "version = 1\n[[builder]]\nid = 'x'\nlevel = 4",
        "version = 1\n[[builder]]\nid = 'x@refs/tags/v1'",
        "version = 1\n[[builder]]\nid = 'x'\nissuer = 'y'",
        "version = 1\n[[builder]]\nid = 'x'\nidentity = 'y'",
        "version = 1\n[[builder]]\nid = 'x'\nidentity = 'y'\npublic_key = 'z'",
        "version = 1\n[[builder]]\nid = 'x'\nidentity = 'y'\n"
        "issuer = 'https://token.actions.githubusercontent.com'",
        "version = 1\n[[builder]]\nid = 'x'\npipeline = 'y'",
        "version = 1\n[[builder]]\nid = 'x'\nidentity = 'y'\nissuer = 'z'\nlevel = 3",
        "version = 1\n[signer]",
        "version = 1\n[signer]\nissuer = 'x'",
        "version = 1\n[build]\ndataset_sha256 = 'abc'",
        "version = 1\n[build]\nrunners = ['mine']",
        "version = 1\n[require]\nevidence = ['trust']",
        "version = 1\n[[vsa.verifier]]\nid = 'x'",
        "version = 1\n[[vsa.verifier]]\nid = 'x'\nidentity = 'y'",
        "version = 1\n[[vsa.verifier]]\nid = 'x'\nidentity = 'y'\nissuer = 'z'\n"
        "[[vsa.verifier]]\nid = 'x'\nidentity = 'y'\nissuer = 'z'",
    ],
)
def test_refused_policies(workshop: Workshop, text: str) -> None:
    path = workshop.write("policy.toml", text.encode("latin-1"))
    with pytest.raises(PolicyError) as caught:
        policy_file.load_policy(path)
    assert caught.value.message
    assert (caught.value.where or "").startswith(str(path))
    assert "schema" not in str(caught.value)


def test_a_key_that_the_policy_names_and_nobody_has(workshop: Workshop) -> None:
    path = write(workshop, "version = 1\n[signer]\npublic_key = 'missing.pem'")
    model = workshop.model()
    code, error = workshop.verify(model, "--provenance", "p.json", "--policy", path)
    assert (code, error["error"]) == (1, "FileError")


def test_a_policy_as_editors_save_it(workshop: Workshop) -> None:
    """With a byte order mark and carriage returns; what is not UTF-8 is called so."""
    text = FULL.replace("\n", "\r\n")
    path = workshop.write("policy.toml", text.encode("utf-8-sig"))
    assert policy_file.load_policy(path) == policy_file.load_policy(write(workshop, FULL, "p.toml"))
    path = workshop.write("policy.toml", text.encode("utf-16"))
    with pytest.raises(PolicyError, match="not TOML") as refusal:
        policy_file.load_policy(path)
    assert (refusal.value.expected, refusal.value.where) == ("text in UTF-8", str(path))


def test_defaults(workshop: Workshop) -> None:
    assert policy_file.load_policy(write(workshop, "version = 1")) == Expectations()
    loaded = policy_file.load_policy(
        write(workshop, "version = 1\n[source]\nuri = { pattern = '.*' }")
    )
    assert loaded.source_uri == Pattern(".*")


def test_an_option_may_repeat_but_not_contradict_the_policy(workshop: Workshop) -> None:
    model = workshop.model()
    options = (
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", write(workshop, FULL)),
    )
    assert workshop.verify(model, *options, "--source-uri", SOURCE)[0] == 0
    code, error = workshop.verify(model, *options, "--source-uri", "github.com/octo-org/other")
    assert (code, error["error"]) == (2, "UsageError")
    assert workshop.verify(model, *options, "--builder-id", TRAIN)[0] == 2


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (f'[[builder]]\nid = "{GENERATOR.id}"', ("--builder-id", TRAIN)),
        (f'[[builder]]\nid = "x"\nrefs = ["{REF}", {{pattern = "v1"}}]', ("--builder-id", TRAIN)),
        ('[signer]\nidentity = "a"\nissuer = "b"', ("--public-key", "key.pub")),
        ("[source]\ntag = {pattern = 'v.*'}", ("--source-tag", "v1")),
        ("[require]\nlevel = 0", ("--minimum-level", "3")),
        ("[build]\ninputs = {}", ("--build-workflow-input", "epochs=6")),
        (
            f'[source]\nissuer = "{GITHUB_ISSUER}"',
            ("--identity", f"{TRAIN}@{REF}", "--identity-provider", f"{GITHUB_ISSUER}/acme"),
        ),
    ],
)
def test_a_policy_that_states_what_holds_anyway_is_not_overridden(
    workshop: Workshop, policy: str, options: tuple[str, ...]
) -> None:
    model = workshop.model()
    evidence = ("--provenance", workshop.train_provenance(model), "--source-uri", SOURCE)
    path = write(workshop, f"version = 1\n{policy}\n")
    workshop.write("key.pub", public_pem(new_key()))
    code, error = workshop.verify(model, *evidence, "--policy", path, *options)
    assert (code, error["error"]) == (2, "UsageError")
    assert error["message"] == "an option contradicts the policy"
    assert error["where"].startswith(f"{options[-2]}, and ")
    assert error["where"].endswith(f" in {path}")
    assert not re.search(r"\w\(|None|Pattern|b'", error["expected"] + error["found"])


def test_naming_the_models_signer_adds_no_builder_to_a_policys(workshop: Workshop) -> None:
    model = workshop.model()
    path = write(workshop, f'version = 1\n[[builder]]\nid = "{GENERATOR.id}"\n')
    code, verdict = workshop.verify(
        model,
        *("--signature", workshop.sign_model(model), "--identity", f"{TRAIN}@{REF}"),
        *("--provenance", workshop.train_provenance(model), "--source-uri", SOURCE),
        *("--policy", path),
    )
    assert (code, refusals(verdict)) == (1, ["BuilderError"])


def fenced(document: str, language: str) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")
    return text.split(f"```{language}\n")[1].split("```")[0]


def test_the_documents_example_says_everything(workshop: Workshop) -> None:
    workshop.write("chains.pub", public_pem(new_key()))
    workshop.write("base.toml", b"version = 1\n")
    text = fenced("docs/policy.md", "toml")
    loaded = policy_file.load_policy(write(workshop, text))
    assert loaded.branch == "main"
    assert (loaded.minimum_level, loaded.base_models) == (2, True)
    for name in json_schema.load("policy.v1.json")["properties"]:
        assert name in text


def test_the_documents_predicate_follows_its_schema() -> None:
    predicate = json.loads(fenced("docs/buildtypes/train-v1.md", "json"))
    jsonschema.validate(predicate, json_schema.load("buildtype-train.v1.json"))


# policy init


def test_init_from_a_verified_model(workshop: Workshop) -> None:
    model = workshop.model()
    evidence = (
        *("--signature", workshop.sign_model(model)),
        *("--provenance", workshop.train_provenance(model)),
        *("--provenance", workshop.generator_provenance(model)),
    )
    output = workshop.folder / "made.toml"
    code, printed = workshop.run(
        *("policy", "init", model, *evidence, "--output", output),
        *("--source-uri", SOURCE, "--identity", f"{TRAIN}@{REF}"),
        *("--dataset-digest", DATASET),
    )
    assert code == 0
    assert printed["text"] == f"wrote {output}: read it, then verify with --policy {output}\n"
    written = output.read_text()
    again = ("policy", "init", model, *evidence, "--output", output, "--source-uri", SOURCE)
    assert workshop.run(*again)[0] == 1  # it may have been edited since
    assert output.read_text() == written
    made = policy_file.load_policy(output)
    assert made.source_uri == f"git+https://{SOURCE}"
    assert made.branch == "main"
    assert {builder.id for builder in made.builders} == {TRAIN, GENERATOR.id}
    assert made.required == ("signature", "slsa-github-generator", "train")
    assert (made.dataset_sha256, made.minimum_level) == (DATASET, 3)
    assert workshop.verify(model, *evidence, "--policy", output)[0] == 0

    # The next model of the same source satisfies it; one from elsewhere does not.
    for repository, accepted in (("octo-org/models", 0), ("evil/models", 1)):
        following = workshop.model(b"retrained", "next.pth")
        on = {"sha": "c" * 40, "run_id": "99", "repository": repository}
        code, _ = workshop.verify(
            following,
            *("--signature", workshop.sign_model(following, **on)),
            *("--provenance", workshop.train_provenance(following, "n.json", **on)),
            *("--provenance", workshop.generator_provenance(following, name="n.jsonl", **on)),
            *("--policy", output),
        )
        assert code == accepted


@pytest.mark.parametrize(("tag", "accepts"), [("v1.2.3", "v1.3.0"), ("stable", None)])
def test_init_from_a_tag(workshop: Workshop, tag: str, accepts: str | None) -> None:
    model = workshop.model()
    on = {"ref": f"refs/tags/{tag}", "event_name": "push"}
    provenance = workshop.train_provenance(model, **on)
    output = workshop.folder / "made.toml"
    options = ("--source-uri", SOURCE, "--builder-id", TRAIN)
    inputs = ("--build-workflow-input", "model=pytorch_model.pth")
    code, _ = workshop.run(
        *("policy", "init", model, "--provenance", provenance, "--output", output),
        *(*options, *inputs),
    )
    assert code == 0
    for other, expected in ((tag, 0), (accepts or "v1.2.3", 0 if accepts else 1), ("latest", 1)):
        on = {"ref": f"refs/tags/{other}", "event_name": "push"}
        provenance = workshop.train_provenance(model, **on)
        code, _ = workshop.verify(model, "--provenance", provenance, "--policy", output)
        assert code == expected


def test_init_from_the_generators_provenance(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = ("--provenance", workshop.generator_provenance(model))
    output = workshop.folder / "made.toml"
    stated = ("--source-uri", SOURCE, "--build-workflow-input", "release=yes")
    assert workshop.run("policy", "init", model, *provenance, *stated, "--output", output)[0] == 0
    made = policy_file.load_policy(output)
    assert (made.inputs, made.dataset_sha256) == ({"release": "yes"}, None)
    assert workshop.verify(model, *provenance, "--policy", output)[0] == 0


def test_init_keeps_patterns_of_inputs(workshop: Workshop) -> None:
    model = workshop.model()
    evidence = ("--signature", workshop.sign_model(model))
    evidence += ("--provenance", workshop.train_provenance(model))
    text = FULL.replace('"pytorch_model.pth"', '{ pattern = "pytorch_.*" }')
    output = workshop.folder / "made.toml"
    code, _ = workshop.run(
        *("policy", "init", model, *evidence, "--output", output),
        *("--policy", write(workshop, text)),
    )
    assert code == 0
    assert policy_file.load_policy(output).inputs == {"model": Pattern("pytorch_.*")}


def test_init_with_a_key_each_for_model_and_builder(workshop: Workshop) -> None:
    key, signer, model = new_key(), new_key(), workshop.model()
    attestation = workshop.write(
        "chains.json", json.dumps(envelope(tekton_statement(model), key)).encode()
    )
    signature = workshop.folder / "model.sig"
    api.sign(model, signature, key_signer(private_pem(signer)))
    public = workshop.write("signer.pub", public_pem(signer))
    builder = workshop.write("builder.pub", public_pem(key))
    output = workshop.folder / "made.toml"
    evidence = ("--provenance", attestation, "--signature", signature)
    code, _ = workshop.run(
        *("policy", "init", model, *evidence, "--output", output),
        *("--public-key", public, "--builder-key", builder),
        *("--builder-id", CHAINS, "--source-uri", SOURCE),
    )
    assert code == 0
    code, verdict = workshop.verify(model, *evidence, "--policy", output)
    assert (code, refusals(verdict)) == (0, [])
    made = policy_file.load_policy(output).builders[0].pipeline
    assert made == Pattern(
        r"git\+https://github\.com/octo\-org/models@(sha1|sha256):[0-9a-f]+#pipeline\.yaml"
    )
    public.write_bytes(public_pem(key))  # the builder's key does not sign models
    code, verdict = workshop.verify(model, *evidence, "--policy", output)
    assert (code, refusals(verdict)) == (1, ["SignatureError"])


def test_init_from_a_run_with_several_inputs(workshop: Workshop) -> None:
    key, model = new_key(), workshop.model()
    statement = tekton_statement(model)
    other = {"name": "inputs/result", "uri": "gs://bucket/other", "digest": {"sha256": "e" * 64}}
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(other)
    attestation = workshop.write("chains.json", json.dumps(envelope(statement, key)).encode())
    builder = workshop.write("builder.pub", public_pem(key))
    output = workshop.folder / "made.toml"
    code, _ = workshop.run(
        *("policy", "init", model, "--provenance", attestation, "--output", output),
        *("--builder-key", builder, "--builder-id", CHAINS, "--source-uri", SOURCE),
    )
    assert code == 0
    assert policy_file.load_policy(output).dataset_sha256 is None
    assert workshop.verify(model, "--provenance", attestation, "--policy", output)[0] == 0


@pytest.mark.parametrize("branch", ["🤖", "\x7f\x80\x9f\ufeff\U0010ffff", "\"'\\#=[]{}\\u0041"])
def test_init_writes_toml_of_every_branch(workshop: Workshop, branch: str) -> None:
    model = workshop.model()
    provenance = ("--provenance", workshop.train_provenance(model, ref=f"refs/heads/{branch}"))
    output = workshop.folder / "made.toml"
    stated = ("--source-uri", SOURCE, "--builder-id", TRAIN)
    assert workshop.run("policy", "init", model, *provenance, *stated, "--output", output)[0] == 0
    assert policy_file.load_policy(output).branch == branch
    assert workshop.verify(model, *provenance, "--policy", output)[0] == 0


@given(name=st.text(min_size=1), value=st.text(min_size=1), regex=st.text(min_size=1))
def test_a_policy_made_is_read_as_it_was_meant(
    accepting: Verdict, name: str, value: str, regex: str
) -> None:
    inputs = {name: value, f"{name} by pattern": Pattern(regex)}
    text = policy_file.policy_from(accepting, Expectations(inputs=inputs), None, None)
    read = tomllib.loads(text.encode().decode())["build"]["inputs"]
    assert read == {name: value, f"{name} by pattern": {"pattern": regex}}


@pytest.fixture(scope="module")
def accepting(
    sigstore: LocalSigstore, trust_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Verdict:
    workshop = Workshop(sigstore, trust_config, tmp_path_factory.mktemp("accepting"))
    model = workshop.model()
    return verify(
        model,
        Expectations(source_uri=source_uri(SOURCE), builders=(builder_from_option(TRAIN),)),
        provenance=[workshop.train_provenance(model)],
        trust=SigstoreTrust(trust_config=trust_config, offline=True),
    ).require()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_init_with_a_key_whose_file_name_toml_cannot_hold(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    key, model = new_key(), workshop.model()
    statement = json.dumps(envelope(tekton_statement(model), key)).encode()
    attestation = workshop.write("chains.json", statement)
    builder = workshop.write(os.fsdecode(b"builder-\xff.pub"), public_pem(key))
    output = workshop.folder / "made.toml"
    code, _ = workshop.run(
        *("policy", "init", model, "--provenance", attestation, "--output", output),
        *("--builder-key", builder, "--builder-id", CHAINS, "--source-uri", SOURCE),
    )
    assert code == 1
    assert "a policy cannot hold what is not Unicode" in capsys.readouterr().err
    assert not output.exists()


def test_init_writes_nothing_from_a_refused_model(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.train_provenance(model)
    output = workshop.folder / "made.toml"
    code, _ = workshop.run(
        *("policy", "init", model, "--provenance", provenance, "--output", output),
        *("--source-uri", "github.com/octo-org/other", "--builder-id", TRAIN),
    )
    assert code == 1
    assert not output.exists()
