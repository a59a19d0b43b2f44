"""Start-up: a command imports what it uses and nothing else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.material import ROOT, new_key, private_pem, public_pem

KEY = new_key()
SCRIPT = """
import sys
from model_signing.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code, *sys.modules, file=sys.stderr)
"""

SIGSTORE = {"sigstore", "sigstore_models", "tuf", "requests", "urllib3", "pydantic", "id", "rich"}
NETWORK = {"http", "ssl", "asyncio"}
POOLS = {"concurrent", "multiprocessing", "logging"}
RARE = {"blake3", "datetime", "rfc3161_client", "pkcs11", "tempfile", "getpass"}
MODULES = {
    "--help": SIGSTORE | NETWORK | POOLS | RARE | {"cryptography", "hashlib", "json", "email"},
    "sign key": SIGSTORE | NETWORK | POOLS | RARE,
    "verify key": SIGSTORE | NETWORK | POOLS | RARE,
    "digest": SIGSTORE | NETWORK | POOLS | RARE | {"cryptography"},
}


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, list[str]]:
    model, signature = tmp_path / "model.bin", tmp_path / "model.sig"
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    model.write_bytes(b"x")
    private.write_bytes(private_pem(KEY))
    public.write_bytes(public_pem(KEY))
    common = [str(model), "--signature", str(signature)]
    return {
        "--help": ["--help"],
        "sign key": ["sign", "key", *common, "--private-key", str(private)],
        "verify key": ["verify", "key", *common, "--public-key", str(public)],
        "digest": ["digest", str(model)],
    }


@pytest.mark.parametrize("command", MODULES)
def test_a_command_imports_only_what_it_uses(command: str, arguments: dict[str, list[str]]) -> None:
    commands = ["sign key", command] if command == "verify key" else [command]
    for one in commands:
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments[one]],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            cwd=ROOT,
        )
        code, *modules = run.stderr.splitlines()[-1].split()
        assert code in ("0", "None")
    loaded = {name.split(".")[0] for name in modules}
    assert "cryptography.x509" not in modules  # of certificates: a quarter of a small signature
    assert loaded & MODULES[command] == set()
    if command.endswith("key"):
        assert "cryptography" in loaded


def test_help_costs_less_than_three_times_python_itself(tmp_path: Path) -> None:
    # As installed: with compiled modules.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds(code: str) -> float:  # of processor time: other processes add less to it
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code]
        subprocess.run(
            command,
            capture_output=True,
            env=environment,
            check=True,
            timeout=300,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(after[:2]) - sum(before[:2])

    script = "import sys; from model_signing.cli import main; sys.exit(main(['--help']))"
    pairs = [(seconds("pass"), seconds(script)) for _ in range(20)]
    assert min(ours for _, ours in pairs) < 3 * min(bare for bare, _ in pairs)
