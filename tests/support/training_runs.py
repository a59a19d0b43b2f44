"""What the tests of both frameworks share: small training runs, signed models, traces of a machine.

`python training_runs.py FRAMEWORK FOLDER` makes one model and saves every format of the framework.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import model_signing
from slsa_for_models import cli
from slsa_for_models.models import formats
from tests.support.limits import limited

ROOT = Path(__file__).resolve().parents[2]

_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEY = _KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
VERIFIER = model_signing.key_verifier(PUBLIC_KEY)


def names(framework: str) -> list[str]:
    return [row.name for row in formats.FORMATS.values() if row.framework == framework]


def sign(model: Path) -> Path:
    """Sign the model; returns its signature, beside it."""
    private_key = _KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    signature = model.with_name(f"{model.name}.sig")
    model_signing.sign(model, signature, model_signing.key_signer(private_key))
    return signature


def save_twice(framework: str, folder: Path) -> tuple[Path, Path]:
    """Every format of the framework, from two processes unlike each other but for the seed."""
    saved = folder / "first", folder / "another folder" / "second"
    running: list[subprocess.Popen[bytes]] = []
    for hash_seed, output in enumerate(saved, start=1):
        output.mkdir(parents=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": str(hash_seed),
            "HOME": str(output),
        }
        command = [sys.executable, __file__, framework, str(output)]
        running.append(subprocess.Popen(command, cwd=output, env=environment))
    with limited(running[0], 1800), limited(running[1], 1800):
        assert [process.wait(1800) for process in running] == [0, 0]
    return saved


def run_cli(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which frameworks' settings ask for."""
    return subprocess.run(
        [sys.executable, "-m", "slsa_for_models", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
        timeout=1800,
    )


def train_on(folder: Path, sha256: str, address: str) -> tuple[int, bytes | None]:
    """Runs a command that copies its one pinned input; its exit code, and the model if any."""
    (folder / "source").mkdir(exist_ok=True)
    (folder / "pins").write_text(f"{sha256}  data.csv  {address}\n")
    output = Path(tempfile.mkdtemp(dir=folder))
    words = ["train", "--source", str(folder / "source"), "--data", str(folder / "pins")]
    words += ["--model", "m", "--output-dir", str(output), "--", "cp", "data.csv", "m"]
    code = cli.main(words)
    model = output / "m"
    return code, model.read_bytes() if model.exists() else None


def file_digests(model: Path) -> dict[str, str]:
    files = (
        [model] if model.is_file() else sorted(path for path in model.rglob("*") if path.is_file())
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def traces(model: Path) -> list[str]:
    """What in the model's bytes, unpacked, names this machine, its user or its folders."""
    contents = []
    for path in (
        [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    ):
        contents.append(path.read_bytes())
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(member) for member in archive.namelist()]
    words = {str(ROOT), str(model.parent), sys.prefix, str(Path.home()), "site-packages"}
    words |= {f"/{getpass.getuser()}/", f"\\{getpass.getuser()}\\"}
    if len(socket.gethostname()) > 3:  # shorter words stand in any weights
        words.add(socket.gethostname())
    return [word for word in words if any(word.encode() in content for content in contents)]


def _save_all(framework: str, folder: Path) -> None:
    from slsa_for_models.cifar10 import dataset, recipe

    module = recipe(formats.FORMATS[names(framework)[0]])
    if framework == "pytorch":
        # Not trained, for the first optimizer of a process imports a compiler for seconds: that
        # training gives the same bytes, too, is what `reproduce` says of one, in `test_pytorch.py`.
        import torch

        torch.manual_seed(0)
        model = module.network().eval()
    else:
        data = dataset.load_folder(dataset.made_up(256, 10, 0, folder / "images"))
        model = module.fit(data.train, 1, 0, 1, lambda loss, accuracy: None)
    for name in names(framework):
        module.SAVE[name](model, folder / name)


if __name__ == "__main__":
    _save_all(sys.argv[1], Path(sys.argv[2]))
