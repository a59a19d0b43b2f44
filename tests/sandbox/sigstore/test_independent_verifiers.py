"""Bundles made here, verified by programs that are not ours: gh (Go), JavaScript, OpenSSL."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.sigstore.oidc import GITHUB_ISSUER
from tests.support import npm
from tests.support.stock import sign

JAVASCRIPT = Path(__file__).parent / "js"
REPOSITORY = "octo-org/models"
WORKFLOW = f"{REPOSITORY}/.github/workflows/train.yml@refs/heads/main"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model.bin"
    path.write_bytes(b"weights" * 1000)
    return path


@pytest.fixture(scope="module")
def attestation(sigstore, artifact) -> Path:
    """SLSA provenance of the artifact, signed as a workflow of `REPOSITORY`."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": artifact.name,
                "digest": {"sha256": hashlib.sha256(artifact.read_bytes()).hexdigest()},
            }
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}, "runDetails": {}},
    }
    token = sigstore.oidc.github_token(repository=REPOSITORY, job_workflow_ref=WORKFLOW)
    bundle = sign(sigstore, token, json.dumps(statement).encode())
    path = artifact.parent / "attestation.sigstore.json"
    path.write_text(bundle.to_json())
    return path


@pytest.fixture(scope="module")
def model_signature(sigstore, artifact) -> tuple[Path, Path]:
    """An OMS signature of the artifact by `model_signing`, and a file of its root's digest.

    The subject's digest is SHA-256 over the raw digests of the files, so a file that holds those
    has that SHA-256, and can be given to a verifier that hashes what it is given.
    """
    from model_signing import cli

    config = sigstore.write_trust_config(artifact.parent / "trust-config.json")
    signature = artifact.parent / "model.sig"
    token = sigstore.oidc.github_token(repository=REPOSITORY, job_workflow_ref=WORKFLOW)
    arguments = ["sign", "sigstore", str(artifact), "--signature", str(signature)]
    arguments += ["--trust-config", str(config), "--identity-token", token]
    assert cli.main(arguments) == 0
    digests = artifact.parent / "digests"
    digests.write_bytes(hashlib.sha256(artifact.read_bytes()).digest())
    return signature, digests


# gh, in Go


def _gh(sigstore, artifact: Path, bundle: Path, tmp_path: Path, *options: str) -> tuple[int, str]:
    gh = Path(sys.executable).parent / "gh"
    root = tmp_path / "root.jsonl"
    root.write_text(json.dumps(sigstore.trusted_root()) + "\n")
    result = subprocess.run(
        [
            str(gh) if gh.exists() else "gh",
            "attestation",
            "verify",
            str(artifact),
            f"--bundle={bundle}",
            f"--custom-trusted-root={root}",
            *options,
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout + result.stderr


def _jsonl(bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle.jsonl"
    copy.write_text(json.dumps(json.loads(bundle.read_text())) + "\n")
    return copy


@pytest.mark.services
def test_gh_verifies_provenance(sigstore, artifact, attestation, tmp_path):
    signer = f"--cert-identity=https://github.com/{WORKFLOW}"
    bundle = _jsonl(attestation, tmp_path)
    code, output = _gh(sigstore, artifact, bundle, tmp_path, f"--repo={REPOSITORY}", signer)
    assert code == 0, output


@pytest.mark.services
def test_gh_verifies_a_model_signature(sigstore, model_signature, tmp_path):
    signature, digests = model_signature
    bundle = _jsonl(signature, tmp_path)
    predicate = "--predicate-type=https://model_signing/signature/v1.0"
    code, output = _gh(sigstore, digests, bundle, tmp_path, f"--repo={REPOSITORY}", predicate)
    assert code == 0, output


def test_gh_refuses_a_changed_artifact(sigstore, artifact, attestation, tmp_path):
    changed = tmp_path / "model.bin"
    changed.write_bytes(artifact.read_bytes()[:-1] + b"!")
    code, output = _gh(
        sigstore, changed, _jsonl(attestation, tmp_path), tmp_path, f"--repo={REPOSITORY}"
    )
    assert code == 1 and "Error: verifying with issuer" in output, output


@pytest.mark.services
def test_gh_refuses_another_repository(sigstore, artifact, attestation, tmp_path):
    bundle = _jsonl(attestation, tmp_path)
    code, output = _gh(sigstore, artifact, bundle, tmp_path, "--repo=octo-org/model")
    assert code == 1 and "Error: verifying with issuer" in output, output


@pytest.mark.parametrize(
    "part", ["certificateAuthorities", "tlogs", "timestampAuthorities", "ctlogs"]
)
@pytest.mark.services
def test_gh_refuses_a_foreign_part(
    sigstore, foreign_sigstore, artifact, attestation, tmp_path, part
):
    class Mixed:
        @staticmethod
        def trusted_root():
            return {**sigstore.trusted_root(), part: foreign_sigstore.trusted_root()[part]}

    bundle = _jsonl(attestation, tmp_path)
    code, output = _gh(Mixed, artifact, bundle, tmp_path, f"--repo={REPOSITORY}")
    assert code == 1 and "Error: verifying with issuer" in output, output


# JavaScript


@pytest.fixture(scope="session")
def verify_in_javascript() -> Callable[..., tuple[int, str]]:
    """Runs `js/verify.cjs` with the packages of its lock, installed once into the cache folder."""
    packages = npm.packages(JAVASCRIPT)

    def verify(bundle: Path, root: Path, identity: str, issuer: str) -> tuple[int, str]:
        result = subprocess.run(
            [npm.node(), JAVASCRIPT / "verify.cjs", bundle, root, identity, issuer],
            env={"NODE_PATH": str(packages)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return result.returncode, result.stdout + result.stderr

    return verify


@pytest.fixture
def root_file(sigstore, tmp_path) -> Path:
    path = tmp_path / "root.json"
    path.write_text(json.dumps(sigstore.trusted_root()))
    return path


IDENTITY = f"https://github.com/{WORKFLOW}"


@pytest.mark.services
def test_javascript_verifies_provenance(verify_in_javascript, attestation, root_file):
    result = verify_in_javascript(attestation, root_file, IDENTITY, GITHUB_ISSUER)
    assert result == (0, "verified\n")


@pytest.mark.services
def test_javascript_verifies_a_model_signature(verify_in_javascript, model_signature, root_file):
    result = verify_in_javascript(model_signature[0], root_file, IDENTITY, GITHUB_ISSUER)
    assert result == (0, "verified\n")


def test_javascript_refuses_a_changed_payload(
    verify_in_javascript, attestation, root_file, tmp_path
):
    document = json.loads(attestation.read_text())
    payload = document["dsseEnvelope"]["payload"]
    document["dsseEnvelope"]["payload"] = payload[:-4] + (
        "AAAA" if payload[-4:] != "AAAA" else "BBBB"
    )
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    code, output = verify_in_javascript(changed, root_file, IDENTITY, GITHUB_ISSUER)
    assert code == 1 and output.startswith("refused: "), output


def test_javascript_refuses_a_foreign_sigstore(
    verify_in_javascript, attestation, foreign_sigstore, tmp_path
):
    root = tmp_path / "foreign.json"
    root.write_text(json.dumps(foreign_sigstore.trusted_root()))
    code, output = verify_in_javascript(attestation, root, IDENTITY, GITHUB_ISSUER)
    assert code == 1 and output.startswith("refused: "), output


def test_javascript_refuses_another_identity(verify_in_javascript, attestation, root_file):
    other = IDENTITY.replace("octo-org", "evil-org")
    code, output = verify_in_javascript(attestation, root_file, other, GITHUB_ISSUER)
    assert code == 1 and "UNTRUSTED_SIGNER_ERROR" in output, output


# OpenSSL


def _openssl(*arguments: object) -> str:
    result = subprocess.run(
        ["openssl", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return result.stdout + result.stderr


def test_openssl_verifies_a_timestamp(sigstore, foreign_sigstore, artifact, tmp_path):
    import requests
    from cryptography.hazmat.primitives.serialization import Encoding

    query, reply, root = (tmp_path / name for name in ("query", "reply", "root.pem"))
    _openssl("ts", "-query", "-data", artifact, "-sha256", "-cert", "-out", query)
    answer = requests.post(f"{sigstore.url}/api/v1/timestamp", query.read_bytes(), timeout=10)
    reply.write_bytes(answer.content)
    verify = ["ts", "-verify", "-in", reply, "-CAfile", root]
    root.write_bytes(sigstore.tsa.authority.root.public_bytes(Encoding.PEM))
    assert "Verification: OK" in _openssl(*verify, "-queryfile", query)
    assert "Verification: OK" in _openssl(*verify, "-data", artifact)
    assert "FAILED" in _openssl(*verify, "-data", __file__)
    root.write_bytes(foreign_sigstore.tsa.authority.root.public_bytes(Encoding.PEM))
    assert "FAILED" in _openssl(*verify, "-data", artifact)


def test_the_timestamp_authority_refuses_what_it_cannot_do(sigstore, artifact, tmp_path):
    import requests

    query = tmp_path / "query"
    _openssl("ts", "-query", "-data", artifact, "-sha512", "-out", query)
    url = f"{sigstore.url}/api/v1/timestamp"
    answer = requests.post(url, query.read_bytes(), timeout=10)
    assert (answer.status_code, "SHA-256" in answer.text) == (400, True)
    assert requests.post(url, b"junk", timeout=10).status_code == 400
