"""OCI registries for the tests: Debian's, the current one, and one that fails as it is told."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.local_server import Serving
from sandbox.services import programs
from sandbox.services.process import free_ports
from tests.support import debian
from tests.support.limits import ended_with_us, limited, until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.empty.v1+json"
FILE = "application/octet-stream"
TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Layer:
    """A layer to be pushed."""

    data: bytes
    kind: str = FILE
    annotations: Mapping[str, str] = field(default_factory=dict)


def titled(name: str, data: bytes, kind: str = FILE) -> Layer:
    """A file, as oras pushes it."""
    return Layer(data, kind, {TITLE: name})


def digest_of(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


def push(
    host: str,
    name: str,
    *layers: Layer,
    config: bytes = b"{}",
    config_kind: str = CONFIG,
    auth: tuple[str, str] | None = None,
    **changes: object,
) -> str:
    """Pushes a manifest, such as no tool may make it, under the tag v1; its digest."""
    base = f"http://{host}/v2/{name}"
    descriptors = []
    for layer in (Layer(config, config_kind), *layers):
        digest = digest_of(layer.data)
        begun = requests.post(f"{base}/blobs/uploads/", auth=auth, timeout=30)
        begun.raise_for_status()
        place = requests.compat.urljoin(base, begun.headers["location"])
        mark = "&" if "?" in place else "?"
        done = requests.put(f"{place}{mark}digest={digest}", data=layer.data, auth=auth, timeout=60)
        done.raise_for_status()
        notes = {"annotations": dict(layer.annotations)} if layer.annotations else {}
        descriptors.append(
            {"mediaType": layer.kind, "digest": digest, "size": len(layer.data), **notes}
        )
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptors[0],
        "layers": descriptors[1:],
    }
    data = json.dumps({**manifest, **changes}).encode()
    kind = str(changes.get("mediaType", MANIFEST))
    done = requests.put(
        f"{base}/manifests/v1", data=data, headers={"Content-Type": kind}, auth=auth, timeout=30
    )
    done.raise_for_status()
    return digest_of(data)


@contextlib.contextmanager
def started(program: Path, folder: Path, more: str = "") -> Iterator[str]:
    """A registry by docker or its successor, `distribution`; its host and port."""
    config, log = folder / "registry.yml", folder / "registry.log"

    def answers() -> bool | None:
        assert process.poll() is None, log.read_text()
        try:
            return requests.get(f"http://{host}/v2/", timeout=5).status_code in (200, 401)
        except (requests.ConnectionError, requests.Timeout):
            return None

    with free_ports(1) as (port,), log.open("wb") as output:
        host = f"127.0.0.1:{port}"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '{host}', secret: for tests}}\n{more}"
        )
        command = ended_with_us([program, "serve", config])
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        with limited(process, 600):
            until(answers, "the registry")
            yield host


def docker_registry() -> Path:
    """docker's registry 2.8: installed, or Debian's package unpacked into the cache."""
    installed = shutil.which("docker-registry")
    if installed:
        return Path(installed)
    program = debian.unpacked("docker-registry") / "usr/bin/docker-registry"
    if not program.exists():
        pytest.skip("not tested: docker-registry is not installed and apt-get cannot download it")
    return program


Handler = http.server.BaseHTTPRequestHandler
Fault = Callable[[Handler], bool]
"""Answers a request wrongly, and says whether it did."""


class FaultyRegistry:
    """A registry in memory that can be told to fail as no real one does when asked to.

    Attributes:
        fault: Asked before each request.
        requests: Method, path and headers of each, in order.
        ranges: Whether it knows ranges.
        referrers: Whether it has OCI 1.1's list of referrers.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.fault: Fault = lambda handler: False
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.ranges, self.referrers = True, False
        registry = self

        class Requests(Handler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.requests.append((self.command, self.path, dict(self.headers)))
                if not registry.fault(self):
                    registry.answer(self)

            do_HEAD = do_POST = do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = Serving(Requests)

    @property
    def host(self) -> str:
        return self.server.url.partition("://")[2]

    def answer(self, handler: Handler) -> None:
        """As a registry does."""
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        path, _, query = handler.path.partition("?")
        kind, _, what = path.removeprefix("/v2/").rpartition("/")
        kind = kind.rpartition("/")[2]
        if handler.command == "POST":
            send(handler, 202, b"", location=f"{path}one")
        elif handler.command == "PUT" and kind == "uploads":
            digest = query.removeprefix("digest=")
            self.blobs[digest] = body
            send(handler, 201, b"")
        elif handler.command == "PUT":
            self._store(handler, what, body)
        elif kind == "referrers" and self.referrers:
            listed = [one for one in map(self._descriptor, self.manifests) if one["about"] == what]
            index = {"schemaVersion": 2, "manifests": [one["descriptor"] for one in listed]}
            send(handler, 200, json.dumps(index).encode())
        elif kind == "manifests" and what in self.manifests:
            media, data = self.manifests[what]
            send(handler, 200, data, content_type=media)
        elif kind == "blobs" and what in self.blobs:
            self._blob(handler, self.blobs[what])
        else:
            refuse(handler, 404, "MANIFEST_UNKNOWN")

    def _store(self, handler: Handler, what: str, body: bytes) -> None:
        media = handler.headers["content-type"]
        self.manifests[what] = self.manifests[digest_of(body)] = (media, body)
        about = json.loads(body).get("subject", {}).get("digest")
        more = {"oci_subject": about} if about and self.referrers else {}
        send(handler, 201, b"", **more)

    def _descriptor(self, reference: str) -> dict[str, Any]:
        media, data = self.manifests[reference]
        manifest = json.loads(data)
        about = manifest.get("subject", {}).get("digest") if reference == digest_of(data) else None
        descriptor = {
            "mediaType": media,
            "digest": reference,
            "size": len(data),
            "artifactType": manifest.get("artifactType"),
            "annotations": manifest.get("annotations", {}),
        }
        return {"about": about, "descriptor": descriptor}

    def _blob(self, handler: Handler, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("range", ""))
        if not (asked and self.ranges):
            send(handler, 200, data)
            return
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
        if start >= len(data):
            send(handler, 416, b"")
            return
        said = f"bytes {start}-{stop - 1}/{len(data)}"
        send(handler, 206, data[start:stop], content_range=said)


def send(handler: Handler, status: int, body: bytes, **headers: str) -> None:
    """One answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def refuse(handler: Handler, status: int, code: str, **headers: str) -> None:
    """An answer with an error of the distribution-spec; what was sent is read first."""
    body = json.dumps({"errors": [{"code": code, "message": "said by the test"}]}).encode()
    send(handler, status, body, content_type="application/json", **headers)


@contextlib.contextmanager
def faulty() -> Iterator[FaultyRegistry]:
    """A `FaultyRegistry` that runs."""
    registry = FaultyRegistry()
    with registry.server:
        yield registry


def built(name: str) -> Path:
    """A program of `make services`; the test is skipped where it was not built."""
    if programs.missing([name]):
        pytest.skip(f"not tested: no {name} here; `make services` builds it")
    return programs.programs([name])[name]
