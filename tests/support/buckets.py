"""Real object storage on this machine, for as long as tests need it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from sandbox.services.process import free_ports
from tests.support import npm
from tests.support.limits import ended_with_us, limited, until

KEY, SECRET = "sandbox", "sandbox-secret"


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[dict[str, str]]:
    """SeaweedFS with its S3 interface; gives the variables by which clients find it."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("not tested: no SeaweedFS in this environment")
    command = [weed, "server", "-ip=127.0.0.1", f"-dir={folder}", "-filer", "-s3"]
    command += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    variables = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def answers() -> bool | None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/status", timeout=5):
            return True
        return None

    log = (folder / "log").open("wb")
    quiet = {"stdout": log, "stderr": log, "env": {**os.environ, **variables}, "cwd": folder}
    with log, free_ports(8) as ports:
        services = ("master", "volume", "filer", "s3")
        url = f"http://127.0.0.1:{ports[services.index('s3')]}"
        for service, port, grpc in zip(services, ports[:4], ports[4:], strict=True):
            command += [f"-{service}.port={port}", f"-{service}.port.grpc={grpc}"]
        server = ended_with_us(command)
        with limited(subprocess.Popen(server, **quiet), 600) as process:  # type: ignore[call-overload]
            until(lambda: answers() or (process.poll() is not None or None), "SeaweedFS")
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            yield {**variables, "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1"}
        for port in ports:  # what it leaves, wherever it is told to write
            for socket_of in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_of.unlink(missing_ok=True)


# The account that every emulator has: published by Microsoft, and good for nothing else.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@contextlib.contextmanager
def azurite(folder: Path, container: str) -> Iterator[dict[str, str]]:
    """Azure's emulator with one container; gives the variables by which clients find it."""
    program = npm.packages(Path(__file__).parents[1] / "model_signing/sources/azurite")
    command = [npm.node(), program / "azurite/dist/src/blob/main.js", "--silent"]
    command += ["--location", folder, "--skipApiVersionCheck", "--disableTelemetry"]

    def answers() -> bool | None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return True
        return None

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    with free_ports(1) as (port,):
        url, server = f"http://127.0.0.1:{port}", ended_with_us([*command, "--blobPort", str(port)])
        with limited(subprocess.Popen(server, **quiet), 600):  # type: ignore[call-overload]
            until(answers, "azurite")
            _create_container(url, container)
            yield {
                "AZURE_STORAGE_USE_EMULATOR": "true",
                "AZURITE_BLOB_STORAGE_URL": url,
                "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            }


def _create_container(url: str, name: str) -> None:
    """Which no client does by itself. "Authorize with Shared Key", version 2021-08-06."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "".join(f"{key}:{value}\n" for key, value in sorted(headers.items()))
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + named + resource
    key = base64.b64decode(ACCOUNT_KEY)
    proof = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{proof}", "Content-Length": "0"}
    request = urllib.request.Request(
        f"{url}/{ACCOUNT}/{name}?restype=container", method="PUT", headers=headers
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201
