"""Kyverno admits a pod that mounts a model if our gate's verdict lies with it, and no other pod."""

from __future__ import annotations

import json
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

PAGE, POLICY = ROOT / "docs/kubernetes.md", ROOT / "deploy/kubernetes/kyverno.yaml"
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


PODS: dict[Callable[[Place, str], None], str] = {
    with_a_verdict: "",
    without_a_verdict: "the model carries no verdict of our gate",
    refused: "our gate's verdict is not PASSED",
    by_another_gate: "the model carries no verdict of our gate",
    about_another_model: "the model carries no verdict of our gate",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("gate")
    (folder / "signer.pub").write_bytes(public_pem(PUBLISHER))
    (folder / "key.pem").write_bytes(private_pem(PUBLISHER))
    (folder / "policy.toml").write_text(SETTINGS)
    with registries.started(programs(["registry"])["registry"], folder) as host:
        yield Place(host, folder)


def admitted(place: Place, reference: str) -> tuple[int, str]:
    """Kyverno's answer, by the policy as it is deployed, to a pod that mounts a model."""
    policy = POLICY.read_text().replace(HOST, place.host)
    key = public_pem(GATE).decode().splitlines()[1:-1]
    indent = " " * (len(line := the_line(policy, "the gate's")) - len(line.lstrip()))
    policy = policy.replace(line, "\n".join(indent + one for one in key))
    server = {"name": "server", "image": "registry.example.org/server:1"}
    volume = {"name": "model", "image": {"reference": reference}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "namespace": "default"},
        "spec": {"containers": [server], "volumes": [volume]},
    }
    (place.folder / "policy.yaml").write_text(policy)
    (place.folder / "pod.yaml").write_text(yaml.safe_dump(pod))
    command = ("apply", "policy.yaml", "--resource=pod.yaml", "--registry", "--detailed-results")
    return place.run(programs(["kyverno"])["kyverno"], *command)


def the_line(text: str, words: str) -> str:
    (line,) = (one for one in text.splitlines() if words in one and "# " not in one)
    return line


@pytest.mark.parametrize("prepare", PODS, ids=lambda prepare: prepare.__name__)
def test_a_pod_with_a_model(prepare: Callable[[Place, str], None], place: Place) -> None:
    name = prepare.__name__.replace("_", "-")
    reference = place.push(name)
    prepare(place, name)
    code, said = admitted(place, reference)
    assert code == (1 if PODS[prepare] else 0), said
    assert PODS[prepare] in said
