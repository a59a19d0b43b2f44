"""Kyverno admits a pod that mounts a model if our gate's verdict lies with it, and no other pod."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from model_signing import key_signer
from model_signing.oms import bundle
from model_signing.sources import open_source
from sandbox.services.programs import programs
from slsa_for_models.evidence.statement_names import VSA
from tests.support import registries
from tests.support.commands import blocks
from tests.support.crafted import Json, Key, new_key, private_pem, public_pem
from tests.support.material import ROOT

PAGE = ROOT / "docs/kubernetes.md"
HOST = "registry.example.com"
PUBLISHER, GATE, OTHER = new_key(), new_key(), new_key()
SETTINGS = 'version = 1\n[signer]\npublic_key = "signer.pub"\n[load]\ncode = "refused"\n'


@dataclass(frozen=True)
class Place:
    """A registry with models, and a folder with what the gate has."""

    host: str
    folder: Path

    def push(self, name: str) -> str:
        """A signed model; the reference by which a pod mounts it."""
        layer = registries.titled("model.safetensors", b"weights of " + name.encode())
        digest = registries.push(self.host, f"models/{name}", layer)
        self.page("model_signing", name)
        return f"{self.host}/models/{name}@{digest}"

    def attest(self, name: str, key: Key) -> None:
        """The verdict of a gate with this key."""
        (self.folder / "gate.pem").write_bytes(private_pem(key))
        self.page("slsa_for_models", name)

    def page(self, program: str, name: str) -> None:
        """The page's command of a program, about this model."""
        (block,) = (one.text for one in blocks(PAGE) if "--attest-verdict" in one.text)
        lines = block.replace("\\\n", " ").replace(HOST, self.host).splitlines()
        (line,) = (line for line in lines if line.startswith(program))
        words = shlex.split(line.replace("my-model", name))
        code, said = self.run(sys.executable, "-m", *words)
        assert code == 0, said

    def run(self, *command: str | Path) -> tuple[int, str]:
        """Exit code and words of a command in the gate's folder."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={"HOME": str(self.folder), "PATH": "", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    def verdict(self, name: str) -> Json:
        """What was attested about a model."""
        ((_, data),) = open_source(f"oci://{self.host}/models/{name}:v1").attached({VSA})
        statement: Json = json.loads(bundle.parse(data).payload)
        return statement

    def attach(self, name: str, statement: Json) -> None:
        """A statement of our gate's key, such as its program does not make it."""
        data = key_signer(private_pem(GATE))(json.dumps(statement).encode())
        open_source(f"oci://{self.host}/models/{name}:v1").attach(data)


def with_a_verdict(place: Place, name: str) -> None:
    place.attest(name, GATE)


def without_a_verdict(place: Place, name: str) -> None:
    """Signed, and nobody has verified it."""


def refused(place: Place, name: str) -> None:
    """By our gate; that others pass it, before and after, convinces nobody."""
    place.attest(name, OTHER)
    statement = place.verdict(name)
    statement["predicate"]["verificationResult"] = "FAILED"
    place.attach(name, statement)
    place.attest(name, OTHER)


def by_another_gate(place: Place, name: str) -> None:
    place.attest(name, OTHER)


def about_another_model(place: Place, name: str) -> None:
    place.push("another")
    place.attest("another", OTHER)
    place.attach(name, place.verdict("another"))


UNVERIFIED = "models-are-verified the model carries no verdict of our gate"
MODELS: dict[Callable[[Place, str], None], str] = {
    with_a_verdict: "",
    without_a_verdict: UNVERIFIED,
    refused: "models-are-verified our gate's verdict is not PASSED",
    by_another_gate: UNVERIFIED,
    about_another_model: UNVERIFIED,
}


def name_of(model: Callable[[Place, str], None]) -> str:
    return model.__name__.replace("_", "-")


def mounts(reference: str) -> Json:
    return {"volumes": [{"name": "model", "image": {"reference": reference}}]}


def runs(where: str, reference: str) -> Json:
    return {where: [{"name": "model", "image": reference}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("gate")
    (folder / "signer.pub").write_bytes(public_pem(PUBLISHER))
    (folder / "key.pem").write_bytes(private_pem(PUBLISHER))
    (folder / "policy.toml").write_text(SETTINGS)
    with registries.started(programs(["registry"])["registry"], folder) as host:
        yield Place(host, folder)


@pytest.fixture(scope="module")
def refusals(place: Place) -> dict[str, str]:
    """What Kyverno says of each pod, by the policies as they are deployed; nothing if it passes."""
    pods: dict[str, Json] = {}
    for model in MODELS:
        name = name_of(model)
        reference = place.push(name)
        model(place, name)
        pods[name] = mounts(reference)
        for where in ("containers", "initContainers", "ephemeralContainers"):
            pods[f"{where.lower()}-{name}"] = runs(where, reference)
    pods["by-tag"] = mounts(f"{place.host}/models/with-a-verdict:v1")
    digest = registries.push(place.host, "elsewhere/model", registries.titled("model", b"weights"))
    pods["elsewhere"] = mounts(f"{place.host}/elsewhere/model@{digest}")
    alias = f"{place.host.partition(':')[0]}:0443"
    pods["by-another-name"] = runs("initContainers", f"{alias}/models/with-a-verdict@{digest}")
    server = {"containers": [{"name": "server", "image": "registry.example.org/server:1"}]}
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {**server, **spec},
        }
        for name, spec in pods.items()
    ]
    (place.folder / "pods.yaml").write_text(yaml.safe_dump_all(documents))
    for name in ("kyverno.yaml", "volumes.yaml"):
        policy = (ROOT / "deploy/kubernetes" / name).read_text().replace(HOST, place.host)
        (place.folder / name).write_text(with_key(policy))
    code, said = place.run(
        programs(["kyverno"])["kyverno"],
        *("apply", "kyverno.yaml", "volumes.yaml", "--resource=pods.yaml"),
        *("--registry", "--detailed-results"),
    )
    found = re.findall(r"/Pod/(\S+) failed:\s*1 - (.*)", said)
    (counts,) = re.findall(r"pass: (\d+), fail: (\d+), warn: 0, error: 0, skip: 0", said)
    assert list(map(int, counts)) == [2 * len(pods) - len(found), len(found)], said
    assert code == 1
    return {**dict.fromkeys(pods, ""), **dict(found)}


def with_key(policy: str) -> str:
    """The gate's key, where a user puts it."""
    key = public_pem(GATE).decode().splitlines()[1:-1]
    return re.sub(
        r"^( *)the gate's$", lambda at: "\n".join(at[1] + line for line in key), policy, flags=re.M
    )


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_a_pod_with_a_model(model: Callable[[Place, str], None], refusals: dict[str, str]) -> None:
    """As a volume, or as what it runs."""
    for pod in (one for one in refusals if one.endswith(name_of(model))):
        assert refusals[pod] == MODELS[model], pod


def test_a_model_has_one_name(refusals: dict[str, str]) -> None:
    by_digest = "models-by-digest a model is named by its digest, NAME@sha256:..."
    assert refusals["by-tag"] == by_digest
    assert refusals["elsewhere"].startswith("models-by-digest image volumes are models of ")
    assert refusals["by-another-name"].startswith("models-by-digest a model's registry is named")
