"""A verdict that is stored with the model in its registry, and others who rely on it there."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from model_signing.oms import bundle
from model_signing.sources import open_source
from tests.slsa_for_models.verdict.test_base_models import train
from tests.slsa_for_models.verdict.test_vsa import (
    KEYLESS,
    ON,
    PUBLISHER,
    RESOURCE,
    VERIFIER,
    WORKFLOW,
)
from tests.support import registries
from tests.support.crafted import REF, SOURCE, TRAIN, Workshop, new_key, private_pem, refusals
from tests.support.registries import Layer, push, titled

pytestmark = pytest.mark.slow

KEYLESS_SIGNER = f'''
version = 1
[source]
uri = "{SOURCE}"
[signer]
identity = "{TRAIN}@{REF}"
'''
VSA = "https://slsa.dev/verification_summary/v1"


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    """docker's; beside the real services its successor."""
    real = pytestconfig.getoption("--sigstore") == "real"
    program = registries.built("registry") if real else registries.docker_registry()
    with registries.started(program, tmp_path_factory.mktemp("oci")) as host:
        yield host


def pushed(registry: str, name: str, model: Path) -> str:
    """A model as oras pushes it; its manifest's digest."""
    files = [model] if model.is_file() else [p for p in sorted(model.rglob("*")) if p.is_file()]
    above = model.parent if model.is_file() else model
    layers = [titled(p.relative_to(above).as_posix(), p.read_bytes()) for p in files]
    return push(registry, name, *layers)


def attested(workshop: Workshop, address: str, model: Path, *options: object) -> int:
    code, said = workshop.verify(
        address,
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", workshop.write("publisher.toml", PUBLISHER.encode())),
        *("--verifier-id", VERIFIER, "--resource-uri", RESOURCE, *options),
    )
    assert code != 2, said
    return code


def keyless(workshop: Workshop) -> tuple[object, ...]:
    return ("--identity-token", workshop.token(**ON), "--attest-verdict", "--attach")


def in_registry(address: str) -> list[bytes]:
    source = open_source(address)
    return [data for _, data in source.attached({VSA})]


def test_the_verdict_names_the_manifest_and_the_model(
    workshop: Workshop, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in (workshop.model(), workshop.directory()):
        name = f"gate/{model.name.replace('.', '-')}"
        digest, address = pushed(registry, name, model), f"oci://{registry}/{name}:v1"
        assert attested(workshop, address, model, *keyless(workshop)) == 0
        assert f"attached: oci://{registry}/{name}@sha256:" in capsys.readouterr().err
        (data,) = in_registry(address)
        statement = json.loads(bundle.parse(data).payload)
        about, known = statement["subject"]
        assert known == {
            "name": f"{registry}/{name}",
            "digest": {"sha256": digest.partition(":")[2]},
        }
        if model.is_file():
            assert about["digest"]["sha256"] == sha256(model.read_bytes()).hexdigest()
        assert statement["predicateType"] == VSA
        # Whoever has the model alone can rely on it, too.
        policy = f"""
            version = 1
            [require]
            evidence = ["vsa"]
            [vsa]
            resource_uri = "{RESOURCE}"
            [[vsa.verifier]]
            id = "{VERIFIER}"
            identity = "https://github.com/{WORKFLOW}"
            source_uri = "github.com/octo-org/gate"
        """
        code, verdict = workshop.verify(
            model if model.is_file() else address,
            *("--vsa", workshop.write("vsa.json", data)),
            *("--policy", workshop.write("consumer.toml", policy.encode())),
        )
        assert (code, refusals(verdict)) == (0, [])


def test_a_file_and_the_registry(workshop: Workshop, registry: str) -> None:
    model = workshop.model(b"both")
    pushed(registry, "both", model)
    address, place = f"oci://{registry}/both:v1", workshop.folder / "vsa.json"
    pem = workshop.write("gate.pem", private_pem(new_key()))
    options = ("--private-key", pem, "--attest-verdict", place, "--attach")
    assert attested(workshop, address, model, *options) == 0
    assert in_registry(address) == [place.read_bytes()]


def test_nothing_is_attached_of_a_refused_model(workshop: Workshop, registry: str) -> None:
    pushed(registry, "refused", workshop.model(b"other weights"))
    address, model = f"oci://{registry}/refused:v1", workshop.model()
    assert attested(workshop, address, model, *keyless(workshop)) == 1
    assert in_registry(address) == []


def test_what_cannot_be_attached_is_told_before_anything_is_done(
    workshop: Workshop, registry: str
) -> None:
    model = workshop.model()
    for address, options, message in (
        (model, keyless(workshop), "attached to a model in a registry"),
        (model, ("--attach",), "--attach needs --attest-verdict"),
        (model, ("--attest-verdict",), "--attest-verdict needs a FILE, or --attach"),
    ):
        code, said = workshop.verify(
            address,
            *("--provenance", workshop.folder / "missing.json"),
            *("--policy", workshop.write("publisher.toml", PUBLISHER.encode())),
            *("--verifier-id", VERIFIER, "--resource-uri", RESOURCE, *options),
        )
        assert code == 2
        assert message in said["message"]


def test_of_several_signatures_the_expected_one_counts(workshop: Workshop, registry: str) -> None:
    model = workshop.directory(name="signed")
    pushed(registry, "signed", model)
    address = f"oci://{registry}/signed:v1"
    expected = ("--identity", f"{TRAIN}@{REF}", "--source-uri", SOURCE)
    code, verdict = workshop.verify(address, *expected)
    assert code == 2  # there is nothing to verify against
    evil = {
        "repository": "evil/models",
        "job_workflow_ref": "evil/models/.github/workflows/x.yml@a",
    }
    source = open_source(address)
    source.attach(workshop.sign_model(model, **evil).read_bytes())
    assert workshop.verify(address, *expected)[0] == 1
    source.attach(workshop.sign_model(model).read_bytes())
    code, verdict = workshop.verify(address, *expected, "--copy-to", workshop.folder / "copy")
    assert (code, refusals(verdict)) == (0, [])
    assert (workshop.folder / "copy/variables/0001").read_bytes() == b"1"
    assert str(source) in json.dumps(verdict["steps"])  # which is what the tag led to
    code, verdict = workshop.verify(address, *expected[:3], "github.com/octo-org/other")
    assert code == 1


def test_what_is_attached_is_relied_on_where_it_is_asked_for(
    workshop: Workshop, registry: str
) -> None:
    """A gate attaches its verdict, consumers demand it; so with provenance, by GitHub's action."""
    model = workshop.directory(name="loop")
    pushed(registry, "loop", model)
    address = f"oci://{registry}/loop:v1"
    consumer = ("--policy", workshop.write("consumer.toml", KEYLESS.encode()), "--attached")
    producer = ("--source-uri", SOURCE, "--builder-id", f"{TRAIN}@{REF}", "--attached")
    for options in (consumer, producer):
        assert workshop.verify(address, *options)[0] == 2  # nothing is attached
    # By somebody else: that convinces nobody.
    other = {**ON, "job_workflow_ref": WORKFLOW.replace("octo-org", "evil")}
    token = ("--identity-token", workshop.token(**other), "--attest-verdict", "--attach")
    assert attested(workshop, address, model, *token) == 0
    source = open_source(address)
    evil = workshop.train_provenance(model, repository="evil/models")
    source.attach(evil.read_bytes())
    for options in (consumer, producer):
        assert workshop.verify(address, *options)[0] == 1
    assert attested(workshop, address, model, *keyless(workshop)) == 0
    code, verdict = workshop.verify(address, *consumer)
    assert (code, refusals(verdict)) == (0, [])
    source.attach(workshop.train_provenance(model).read_bytes())
    code, verdict = workshop.verify(address, *producer)
    assert (code, refusals(verdict)) == (0, [])
    # Not asked for, it is not looked at; and here there is none.
    assert workshop.verify(address, *consumer[:2])[0] == 2
    assert workshop.verify(model, *consumer)[0] == 2
    # Of another model under the same tag.
    push(registry, "loop", titled("w", b"other"), titled("x", b""))
    assert workshop.verify(address, *consumer)[0] == 2


def test_a_base_model_lies_in_a_registry_with_its_evidence(
    workshop: Workshop, registry: str
) -> None:
    base, model = workshop.directory(name="start"), workshop.model()
    signature, provenance = train(workshop, base)
    signed, made = train(workshop, model, base)
    pushed(registry, "start", base)
    source = open_source(f"oci://{registry}/start:v1")
    options = ("--signature", signed, "--provenance", made, "--base-model", str(source))
    options += ("--source-uri", SOURCE, "--builder-id", f"{TRAIN}@{REF}")
    assert workshop.verify(model, *options)[0] == 1  # nothing is attached
    source.attach(signature.read_bytes())
    assert workshop.verify(model, *options)[0] == 2  # no provenance: and nobody says who signs
    signer = workshop.write("base.toml", KEYLESS_SIGNER.encode())
    assert workshop.verify(model, *options, "--base-policy", signer)[0] == 0
    source.attach(provenance.read_bytes())
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)) == (0, [])
    assert {"start: start"} & {step["subject"] for step in verdict["steps"]}


def test_provenance_may_be_about_the_manifest(workshop: Workshop, registry: str) -> None:
    """As `actions/attest` and `cosign attest` make it of what was pushed."""
    model = workshop.directory(name="by-manifest")
    digest, address = pushed(registry, "by-manifest", model), f"oci://{registry}/by-manifest:v1"
    statement = workshop.train_statement(model, workshop.record(model))
    about = {"name": f"{registry}/by-manifest", "digest": {"sha256": digest.partition(":")[2]}}
    statement["subject"] = [about]
    options = (
        *("--provenance", workshop.write("p.json", workshop.sign(statement, workshop.token()))),
        *("--policy", workshop.write("publisher.toml", PUBLISHER.encode())),
    )
    code, verdict = workshop.verify(address, *options)
    assert (code, refusals(verdict)) == (0, [])
    assert workshop.verify(model, *options)[0] == 1  # here nobody knows that manifest
    pushed(registry, "by-manifest", workshop.model(b"other"))
    assert workshop.verify(address, *options)[0] == 1
    assert workshop.verify(f"oci://{registry}/by-manifest@{digest}", *options)[0] == 0


def test_a_verdict_about_a_manifest_is_about_all_that_it_brings(
    workshop: Workshop, registry: str
) -> None:
    model = workshop.directory(name="car")

    def push_image(more: bytes) -> str:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            archive.add(model, "models")
            if more:
                program = tarfile.TarInfo("bin/sh")
                program.size = len(more)
                archive.addfile(program, io.BytesIO(more))
        kinds = [f"application/vnd.oci.image.{kind}" for kind in ("layer.v1.tar", "config.v1+json")]
        return push(registry, "car", Layer(data.getvalue(), kinds[0]), config_kind=kinds[1])

    address = f"oci://{registry}/car:v1"
    about_files = workshop.train_provenance(model)
    gate = ("--verifier-id", VERIFIER, "--resource-uri", RESOURCE, *keyless(workshop))

    def verify(provenance: Path, *options: object) -> tuple[int, str]:
        policy = workshop.write("publisher.toml", PUBLISHER.encode())
        options = ("--provenance", provenance, "--policy", policy, *options)
        code, said = workshop.verify(address, *options)
        return code, said.get("found", "")

    push_image(b"")
    assert verify(about_files, *gate) == (0, "")
    digest = push_image(b"evil")
    assert verify(about_files) == (0, "")  # the model is what it was
    assert verify(about_files, *gate) == (1, "bin/sh")
    assert in_registry(address) == []
    statement = workshop.train_statement(model, workshop.record(model))
    statement["subject"] = [{"name": "car", "digest": {"sha256": digest.partition(":")[2]}}]
    about_all = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    assert verify(about_all, *gate) == (0, "")
    assert len(in_registry(address)) == 1


# Others who rely on it


@pytest.fixture
def attached(workshop: Workshop, registry: str) -> str:
    """The reference of a model with a keyless verdict, and another model's beside it."""
    model = workshop.directory(name="model")
    pushed(registry, "gate/model", model)
    address = f"oci://{registry}/gate/model:v1"
    assert attested(workshop, address, model, *keyless(workshop)) == 0
    push(registry, "gate/unverified", titled("w", b"nobody looked at it"), titled("x", b""))
    return f"{registry}/gate/model:v1"


def run(workshop: Workshop, *command: object) -> tuple[int, str]:
    done = subprocess.run(
        list(map(str, command)),
        # gh wants to be logged in to read a registry, and asks GitHub nothing.
        env={"PATH": os.environ["PATH"], "HOME": str(workshop.folder), "GH_TOKEN": "none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def trusted_root(workshop: Workshop) -> Path:
    root = json.dumps(workshop.sigstore.trusted_root())
    return workshop.write("root.jsonl", f"{root}\n".encode())


@pytest.mark.services
def test_gh_relies_on_it(workshop: Workshop, attached: str) -> None:
    beside = Path(sys.executable).parent / "gh"
    gh = beside if beside.exists() else shutil.which("gh")
    if gh is None:
        pytest.skip("not tested: gh is not installed")
    identity = f"--cert-identity=https://github.com/{WORKFLOW}"

    def verified(reference: str, *more: str) -> tuple[int, str]:
        return run(
            workshop,
            *(gh, "attestation", "verify", f"oci://{reference}", "--bundle-from-oci"),
            *("--repo=octo-org/gate", f"--predicate-type={VSA}"),
            f"--custom-trusted-root={trusted_root(workshop)}",
            *(more or (identity,)),
        )

    code, said = verified(attached)
    assert code == 0, said
    assert verified(attached, identity.replace("main", "other"))[0] != 0
    assert verified(attached.replace("model", "unverified"))[0] != 0


@pytest.mark.services
def test_cosign_relies_on_it(workshop: Workshop, attached: str) -> None:
    cosign = registries.built("cosign")
    root = json.dumps(workshop.sigstore.trusted_root()).encode()

    def verified(reference: str, identity: str = WORKFLOW) -> tuple[int, str]:
        return run(
            workshop,
            *(cosign, "verify-attestation", reference, "--type", VSA),
            *("--trusted-root", workshop.write("root.json", root)),
            *("--certificate-identity", f"https://github.com/{identity}"),
            *("--certificate-oidc-issuer", "https://token.actions.githubusercontent.com"),
        )

    code, said = verified(attached)
    assert code == 0, said
    assert verified(attached, WORKFLOW.replace("gate", "other"))[0] != 0
    assert verified(attached.replace("model", "unverified"))[0] != 0
