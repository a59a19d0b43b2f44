"""All cases of the public OMS conformance suite, through its adapter, and the public schemas.

What the suite does in its own runner is done here by its `config.json` files: the same copies of
models, modifications, arguments and expectations. Its private keys are not in the shared data;
fresh ones of the same kinds stand in. Cases that need a signature of public Sigstore verify the
suite's bundles offline; those that sign use the sandbox.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from model_signing.cli import main
from model_signing.oms import bundle
from sandbox.sigstore import LocalSigstore
from tests.support import conformance_adapter
from tests.support.material import (
    CA,
    CODE_SIGNING,
    authority,
    certify,
    key_usage,
    leaf,
    make_model,
    new_key,
    pem,
    private_pem,
    public_pem,
    shared,
)

CASES = 71
IDENTITY = "dev@example.test"


def _case_names() -> list[str]:
    try:
        folder = shared("oms", "test-cases")
    except pytest.skip.Exception:
        return []
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("config.json"))


NAMES = _case_names()


def test_every_case_is_here() -> None:
    shared("oms", "test-cases")
    assert len(NAMES) == CASES


@dataclass(frozen=True)
class Suite:
    """Keys for the cases that sign; the sandbox for those that sign with Sigstore."""

    keys: Path
    sigstore: LocalSigstore
    trust_config: Path


@pytest.fixture(scope="session")
def suite(
    sigstore: LocalSigstore, trust_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Suite:
    folder = tmp_path_factory.mktemp("keys")
    root = authority("root-ca")
    intermediate = authority("intermediate-ca", root)
    chain = leaf(intermediate)
    alone = certify("self-signed", None, [CA, key_usage("digital_signature"), CODE_SIGNING])
    files = {
        "certificate/signing-key.pem": private_pem(chain.key),
        "certificate/signing-key-pub.pem": public_pem(chain.key),
        "certificate/signing-key-cert.pem": pem(chain.certificate),
        "certificate/int-ca-cert.pem": pem(intermediate.certificate),
        "certificate/ca-cert.pem": pem(root.certificate),
        "self-signed/signing-key.pem": private_pem(alone.key),
        "self-signed/signing-cert.pem": pem(alone.certificate),
    }
    for curve in ("P-384", "P-521"):
        key, name = new_key(curve), curve.lower().replace("-", "")
        files[f"{name}/signing-key.pem"] = private_pem(key)
        files[f"{name}/signing-key-pub.pem"] = public_pem(key)
    for name, content in files.items():
        path = folder / "keys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Suite(folder, sigstore, trust_config)


def _copy_model(config: dict[str, Any], case: Path, folder: Path) -> Path:
    base = case if config.get("model_relative_to") == "test_dir" else shared("oms", "assets")
    source = base / config["model"]
    if source.is_file():
        model = folder / source.name
        shutil.copyfile(source, model)
    else:
        model = folder / "model"
        shutil.copytree(source, model, copy_function=shutil.copyfile)
    changes = config.get("model_modifications", {})
    for name in changes.get("delete", []):
        (model / name).unlink()
    for name, text in {**changes.get("inject", {}), **changes.get("tamper", {})}.items():
        (model / name).write_text(text)
    for name, target in changes.get("symlinks", {}).items():
        (model / name).symlink_to(target)
    return model


def _paths(option: str, names: list[str] | str | None, base: Path) -> list[str]:
    names = [names] if isinstance(names, str) else names or []
    return [word for name in names for word in (option, str(base / name))]


def _verify_arguments(config: dict[str, Any], keys: Path, model: Path, data: Path) -> list[str]:
    wanted = config["verify"]
    return [
        "verify-model",
        f"--method={config['method']}",
        f"--model-path={model}",
        f"--bundle={data}",
        *_paths("--public-key", wanted.get("public_key"), keys),
        *_paths("--cert-chain", wanted.get("cert_chain"), keys),
        *_paths("--ignore-paths", wanted.get("ignore_paths"), model),
        *(["--ignore-unsigned-files"] if wanted.get("ignore_unsigned_files") else []),
    ]


def _signed_files(data: Path) -> list[str]:
    statement = json.loads(bundle.parse(data.read_bytes()).payload)
    return sorted(resource["name"] for resource in statement["predicate"]["resources"])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("verify/")])
def test_verify(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = shared("oms", "test-cases", name)
    config = json.loads((case / "config.json").read_text())
    monkeypatch.setenv("OMS_ADAPTER_SIGSTORE_OPTIONS", "--offline")  # the embedded public root
    model = _copy_model(config, case, tmp_path)
    keys = shared("oms", "assets")
    wanted = config["verify"]
    if not (keys / wanted.get("public_key", ".")).exists():
        wanted["public_key"] = (
            "keys/certificate/signing-key-pub.pem"  # the case names an absent one
        )
    arguments = _verify_arguments(config, keys, model, case / "bundle.sig")
    for option, field in (("--identity", "identity"), ("--identity-provider", "identity_provider")):
        if field in wanted:
            arguments += [option, wanted[field]]
    code = conformance_adapter.main(arguments)
    shown = capsys.readouterr()
    if config.get("expect") == "fail":
        assert code == 1
        assert shown.err.startswith("model_signing: error: ")
        return
    assert code == 0, shown.err
    if "expected_signed_files" in config:
        assert _signed_files(case / "bundle.sig") == sorted(config["expected_signed_files"])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("roundtrip/")])
def test_roundtrip(
    name: str,
    suite: Suite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = shared("oms", "test-cases", name)
    config = json.loads((case / "config.json").read_text())
    monkeypatch.setenv("OMS_ADAPTER_SIGSTORE_OPTIONS", f"--trust-config '{suite.trust_config}'")
    model = _copy_model(config, case, tmp_path)
    inside = config.get("sig_inside_model")
    data = (model if inside else tmp_path) / "bundle.sig"
    sigstore = config["method"] == "sigstore"
    sign = [
        "sign-model",
        f"--method={config['method']}",
        f"--model-path={model}",
        f"--output-bundle={data}",
        *_paths("--private-key", config["sign"].get("private_key"), suite.keys),
        *_paths("--signing-cert", config["sign"].get("signing_cert"), suite.keys),
        *_paths("--cert-chain", config["sign"].get("cert_chain"), suite.keys),
        *_paths("--ignore-paths", config["verify"].get("ignore_paths"), model),
        *(["--identity-token", suite.sigstore.oidc.token(IDENTITY)] if sigstore else []),
    ]
    code = conformance_adapter.main(sign)
    if config.get("expect") == "fail":
        assert code == 1
        assert not data.exists()
        return
    assert code == 0, capsys.readouterr().err

    # OMS 5, 6.4, 6.5: as the suite checks them, and by the public schemas.
    document = json.loads(data.read_bytes())
    statement = json.loads(bundle.parse(data.read_bytes()).payload)
    validate(document, statement)
    resources = statement["predicate"]["resources"]
    assert resources == sorted(resources, key=lambda resource: resource["name"])
    raw = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256(raw).hexdigest()
    if "expected_signed_files" in config:
        assert _signed_files(data) == sorted(config["expected_signed_files"])

    wanted = config["verify"]
    if wanted.get("ignore_unsigned_files"):
        (model / "injected.bin").write_text("injected after signing\n")
    arguments = _verify_arguments(config, suite.keys, model, data)
    if sigstore:
        arguments += ["--identity", IDENTITY, "--identity-provider", suite.sigstore.url]
    assert conformance_adapter.main(arguments) == 0, capsys.readouterr().err

    if "deterministic" in name:
        again = tmp_path / "again.sig"
        sign[3] = f"--output-bundle={again}"
        assert conformance_adapter.main(sign) == 0
        assert bundle.parse(again.read_bytes()).payload == bundle.parse(data.read_bytes()).payload


def validate(document: Any, statement: Any) -> None:
    """Bundle, envelope, statement and predicate against the four public schemas (OMS 3.1)."""
    schemas = {
        path.name.split(".")[0]: json.loads(path.read_text())
        for path in shared("oms", "schemas", "v1.0").iterdir()
    }
    registry: Any = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()
    )
    for value, name in (
        (document, "bundle"),
        (document["dsseEnvelope"], "envelope"),
        (statement, "statement"),
        (statement["predicate"], "predicate"),
    ):
        jsonschema.Draft202012Validator(schemas[name], registry=registry).validate(value)


@pytest.mark.parametrize("options", [[], ["--shard-size", "100"], ["--hash-algorithm", "blake3"]])
def test_every_serialization_validates_against_the_public_schemas(
    options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(new_key()))
    data = tmp_path / "model.sig"
    command = ["sign", "key", str(make_model(tmp_path)), "--signature", str(data)]
    assert main([*command, "--private-key", str(tmp_path / "key.pem"), *options]) == 0
    validate(json.loads(data.read_bytes()), json.loads(bundle.parse(data.read_bytes()).payload))


def test_the_adapter_is_a_program(tmp_path: Path) -> None:
    """As the suite's own runner starts it."""
    key = new_key()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    adapter = Path(conformance_adapter.__file__)
    arguments = ["sign-model", "--method", "key", "--model-path", str(tmp_path / "model")]
    arguments += ["--output-bundle", str(tmp_path / "b.sig")]
    run = subprocess.run(
        [sys.executable, adapter, *arguments, "--private-key", str(tmp_path / "key.pem")],
        cwd=tmp_path,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0
    assert (tmp_path / "b.sig").exists()
