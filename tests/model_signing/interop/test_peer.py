"""The peer, PyPI's `model-signing`, verifies what we sign, and we verify what it signs.

It has our import name, so it lives in an environment of its own: MODEL_TRANSPARENCY_PEER names its
folder of programs; otherwise `actions/setup/environment.py peer` builds it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import oras.client
import pytest

from model_signing.cli import main
from sandbox.sigstore import LocalSigstore
from tests.support import registries
from tests.support.material import (
    ROOT,
    authority,
    edited,
    leaf,
    make_model,
    new_key,
    pem,
    private_pem,
    public_pem,
    shared,
)

pytestmark = pytest.mark.slow

IDENTITY = "dev@example.test"

# Runs in the peer's Python: one import for many commands. Prints the exit code of each.
_RUNNER = """
import json, sys
from model_signing._cli import main
codes = []
for arguments in json.load(sys.stdin):
    try:
        main(arguments, standalone_mode=False)
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code)
    except Exception as error:
        print(f"{arguments}: {error!r}", file=sys.stderr)
        codes.append(1)
print("codes", json.dumps(codes))
"""


@dataclass(frozen=True)
class Peer:
    python: Path

    def run(self, commands: Sequence[list[str]], folder: Path) -> tuple[list[int], str]:
        """Exit codes of the peer's commands and everything it printed."""
        run = subprocess.run(
            [self.python, "-c", _RUNNER],
            input=json.dumps(commands),
            capture_output=True,
            text=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            check=False,
            timeout=1800,
        )
        printed = run.stdout + run.stderr
        line = next((line for line in run.stdout.splitlines() if line.startswith("codes ")), None)
        assert line, printed
        return json.loads(line.removeprefix("codes ")), printed


@pytest.fixture(scope="module")
def peer() -> Peer:
    folder = os.environ.get("MODEL_TRANSPARENCY_PEER")
    if folder is None:
        build = [sys.executable, str(ROOT / "actions" / "setup" / "environment.py"), "peer"]
        run = subprocess.run(
            build,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if run.returncode != 0:
            pytest.skip(f"not tested: the peer cannot be installed: {run.stderr[-300:]}")
        folder = run.stdout.strip()
    python = Path(folder, "python")
    if not python.exists():
        pytest.skip(f"not tested: no peer in {folder}")
    return Peer(python)


@dataclass(frozen=True)
class Setup:
    """A model, and for each case how to sign and how to verify it, in the peer's own options.

    Release 1.1.1 spells them with underscores; we take both.
    """

    folder: Path
    model: Path
    sign: dict[str, list[str]] = field(default_factory=dict)
    verify: dict[str, list[str]] = field(default_factory=dict)


CASES = ["P-256", "P-384", "P-521", "certificate", "sigstore", "git", "ignored", "symlinks"]


@pytest.fixture(scope="module")
def setup(
    sigstore: LocalSigstore, trust_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Setup:
    folder = tmp_path_factory.mktemp("interop")
    setup = Setup(folder, make_model(folder))
    (setup.model / ".git").mkdir()
    (setup.model / ".git" / "config").write_text("[core]")
    (setup.model / "cache").mkdir()
    (setup.model / "cache" / "x").write_text("not part of the model")
    (setup.model / "weights" / "a b ü.bin").write_bytes(b"name")

    def write(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    for curve in ("P-256", "P-384", "P-521"):
        key = new_key(curve)
        private = write(f"{curve}.pem", private_pem(key))
        setup.sign[curve] = ["key", "--private_key", private]
        setup.verify[curve] = ["key", "--public_key", write(f"{curve}.pub", public_pem(key))]
    for case, option in (
        ("git", ["--no-ignore-git-paths"]),
        ("ignored", ["--ignore-paths", str(setup.model / "cache")]),
        ("symlinks", ["--allow_symlinks"]),
    ):
        setup.sign[case] = [*setup.sign["P-256"], *option]
        setup.verify[case] = setup.verify["P-256"]
    root = authority("root")
    middle = authority("middle", root)
    holder = leaf(middle)
    setup.sign["certificate"] = [
        "certificate",
        *("--private_key", write("leaf.key", private_pem(holder.key))),
        *("--signing_certificate", write("leaf.pem", pem(holder.certificate))),
        *("--certificate_chain", write("middle.pem", pem(middle.certificate))),
    ]
    trusted = write("root.pem", pem(root.certificate))
    setup.verify["certificate"] = ["certificate", "--certificate_chain", trusted]
    trust = ["--trust_config", str(trust_config)]
    token = sigstore.oidc.token(IDENTITY)
    setup.sign["sigstore"] = ["sigstore", *trust, "--identity_token", token]
    who = ["--identity", IDENTITY, "--identity_provider", sigstore.url]
    setup.verify["sigstore"] = ["sigstore", *trust, *who]
    return setup


def _commands(setup: Setup, command: str, signer: str) -> list[list[str]]:
    table = setup.sign if command == "sign" else setup.verify
    return [
        [
            command,
            *table[case],
            *("--signature", str(setup.folder / f"{signer}-{case}.sig")),
            str(setup.model),
        ]
        for case in CASES
    ]


@pytest.mark.services
def test_the_peer_verifies_what_we_sign(setup: Setup, peer: Peer) -> None:
    assert [main(command) for command in _commands(setup, "sign", "ours")] == [0] * len(CASES)
    wrong = _commands(setup, "verify", "ours")[0]
    wrong[wrong.index("--public_key") + 1] = str(setup.folder / "P-384.pub")
    verify = _commands(setup, "verify", "ours")
    verify[CASES.index("git")].insert(2, "--no-ignore-git-paths")  # the peer wants it repeated
    codes, printed = peer.run([*verify, wrong], setup.folder)
    assert dict(zip([*CASES, "wrong key"], codes, strict=True)) == {
        **dict.fromkeys(CASES, 0),
        "wrong key": 1,
    }, printed


@pytest.mark.services
def test_we_verify_what_the_peer_signs(
    setup: Setup, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, printed = peer.run(_commands(setup, "sign", "theirs"), setup.folder)
    assert dict(zip(CASES, codes, strict=True)) == dict.fromkeys(CASES, 0), printed
    codes = [main(command) for command in _commands(setup, "verify", "theirs")]
    assert dict(zip(CASES, codes, strict=True)) == dict.fromkeys(CASES, 0), capsys.readouterr().err
    for case in CASES:
        signature = setup.folder / f"theirs-{case}.sig"
        data = signature.read_bytes()
        document = json.loads(data)
        text = document["dsseEnvelope"]["payload"]
        swapped = "B" if text[200] == "A" else "A"
        signature.write_bytes(
            edited(data, "dsseEnvelope", "payload", to=text[:200] + swapped + text[201:])
        )
    codes = [main(command) for command in _commands(setup, "verify", "theirs")]
    assert codes == [1] * len(CASES)


def test_what_the_peer_signed_of_old(capsys: pytest.CaptureFixture[str]) -> None:
    """v0.2.0 needs the option that says so (OMS 11.2.4)."""
    case = shared("oms", "test-cases", "verify", "historical", "historical-v0.2.0-certificate")
    root = shared("oms", "assets", "keys", "certificate", "ca-cert.pem")
    command = ["verify", "certificate", str(case / "model"), "--certificate_chain", str(root)]
    command += ["--signature", str(case / "bundle.sig")]
    assert main([*command, "--allow-legacy-predicate"]) == 0
    assert main(command) == 1
    assert "--allow-legacy-predicate" in capsys.readouterr().err


def test_what_lies_in_a_registry_has_the_same_signature(peer: Peer, tmp_path: Path) -> None:
    """Signed there by us, verified by the peer after a download; and the other way round."""
    key, files = new_key(), {"config.json": b"{}", "w/0.bin": b"0" * 5000, "w/ü.bin": b""}
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "key.pub").write_bytes(public_pem(key))
    layers = [registries.titled(name, data) for name, data in files.items()]
    with registries.started(registries.docker_registry(), tmp_path) as host:
        registries.push(host, "org/model", *layers)
        address, folder = f"oci://{host}/org/model:v1", tmp_path / "model"
        ours = ["sign", "key", address, "--private-key", str(tmp_path / "key.pem")]
        assert main([*ours, "--signature", str(tmp_path / "ours.sig")]) == 0
        client = oras.client.OrasClient(insecure=True)
        client.pull(target=address.removeprefix("oci://"), outdir=str(folder))
        verify = ["verify", "key", "--public_key", str(tmp_path / "key.pub"), "--signature"]
        sign = ["sign", "key", "--private_key", str(tmp_path / "key.pem"), "--signature"]
        codes, printed = peer.run(
            [
                [*verify, str(tmp_path / "ours.sig"), str(folder)],
                [*sign, str(tmp_path / "theirs.sig"), str(folder)],
            ],
            tmp_path,
        )
        assert codes == [0, 0], printed
        assert main([*verify, str(tmp_path / "theirs.sig"), address]) == 0
