"""The real Sigstore on this machine: Fulcio, TesseraCT, Rekor v2 and a timestamp authority.

The programs are the real ones, with the keys that the stand-ins would have: what is trusted is the
same, only the addresses are others. The identity provider is the sandbox's. For demonstrations and
tests only.
"""

from __future__ import annotations

import secrets
import urllib.parse
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from sandbox.services.issuers import Issuers
from sandbox.services.process import Service, free_ports, temporary_folder
from sandbox.services.programs import programs
from sandbox.sigstore import HOST, Addresses, LocalSigstore
from sandbox.sigstore import Service as Answer
from sandbox.sigstore.oidc import AUDIENCE, GITHUB_ISSUER, Oidc

PROGRAMS = ("fulcio", "tesseract", "rekor", "timestamp-authority")
# Its log's name; TesseraCT takes none with a port.
CERTIFICATE_LOG = "certificates.example.test"
CLUSTERS = "https://container.googleapis.com/v1/projects/*/locations/*/clusters/*"
# What of a GitHub token Fulcio puts into which extension: as the public instance is configured.
# Source: sigstore/fulcio, config/identity/config.yaml.
GITHUB_EXTENSIONS = {
    "github-workflow-trigger": "event_name",
    "github-workflow-sha": "sha",
    "github-workflow-name": "workflow",
    "github-workflow-repository": "repository",
    "github-workflow-ref": "ref",
    "build-signer-uri": "{{ .url }}/{{ .job_workflow_ref }}",
    "build-signer-digest": "job_workflow_sha",
    "runner-environment": "runner_environment",
    "source-repository-uri": "{{ .url }}/{{ .repository }}",
    "source-repository-digest": "sha",
    "source-repository-ref": "ref",
    "source-repository-identifier": "repository_id",
    "source-repository-owner-uri": "{{ .url }}/{{ .repository_owner }}",
    "source-repository-owner-identifier": "repository_owner_id",
    "build-config-uri": "{{ .url }}/{{ .workflow_ref }}",
    "build-config-digest": "workflow_sha",
    "build-trigger": "event_name",
    "run-invocation-uri": (
        "{{ .url }}/{{ .repository }}/actions/runs/{{ .run_id }}/attempts/{{ .run_attempt }}"
    ),
    "source-repository-visibility-at-signing": "repository_visibility",
    "deployment-environment": "environment",
}


class RealSigstore(LocalSigstore):
    """The same as `LocalSigstore`, but that the real programs answer, each at its own port.

    Attributes:
        services: The running programs by name: `fulcio`, `tesseract`, `rekor`,
            `timestamp-authority`.
        folder: Where they keep their data and logs; removed at the end.
    """

    def __init__(self, oidc: Oidc | None = None) -> None:
        """Builds the programs if they are missing.

        Raises:
            GoError: They are missing, and there is no Go that could build them.
            SetupError: They could not be built.
        """
        super().__init__(oidc)
        self._programs = programs(PROGRAMS)
        self._exits = ExitStack()
        ports = self._exits.enter_context(free_ports(8))
        self._ports = dict(zip(PROGRAMS, ports[:4], strict=True))
        self._others = ports[4:]  # that nobody is to find taken
        at = {name: f"http://{HOST}:{port}" for name, port in self._ports.items()}
        self.addresses = Addresses(
            at["fulcio"],
            at["tesseract"],
            at["rekor"],
            f"{at['timestamp-authority']}/api/v1/timestamp",
        )
        self.services: dict[str, Service] = {}

    def __enter__(self) -> RealSigstore:
        super().__enter__()
        try:
            self.folder = self._exits.enter_context(temporary_folder("sandbox-services-"))
            hosts = [urllib.parse.urlsplit(url).hostname or "" for url in (GITHUB_ISSUER, CLUSTERS)]
            issuers = self._exits.enter_context(Issuers(self.oidc, hosts, self.folder))
            for service in (self._tesseract(), self._rekor(), self._timestamps()):
                self._begin(service)
            for service in list(self.services.values()):
                service.wait_until_ready()
            self._begin(self._fulcio(issuers))  # it asks for the log's roots
            self.services["fulcio"].wait_until_ready()
        except BaseException:
            self._exits.close()
            super().__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self._exits.close()
        super().__exit__(*failure)

    def _begin(self, service: Service) -> None:
        self.services[service.name] = service
        self._exits.callback(service.kill)
        service.launch()

    def _stand_ins(self) -> dict[tuple[str, str], Answer]:
        return {}

    def _tile(self, path: str) -> None:
        return None

    # The programs

    def _program(self, name: str, *options: str, **environment: str) -> Service:
        command = [str(self._programs[name]), *options]
        return Service(name, command, self._ports[name], self.folder / name, environment)

    def _tesseract(self) -> Service:
        key = self._key("tesseract", self.fulcio.log_key, PrivateFormat.TraditionalOpenSSL)
        return self._program(
            "tesseract",
            f"-http_endpoint=127.0.0.1:{self._ports['tesseract']}",
            f"-private_key={key}",
            f"-origin={CERTIFICATE_LOG}",
            f"-roots_pem_file={self._chain('roots', [self.fulcio.authority.root])}",
            f"-storage_dir={self.folder / 'tesseract/log'}",
            "-checkpoint_interval=100ms",  # each certificate waits for one
            "-batch_max_age=50ms",
        )

    def _rekor(self) -> Service:
        return self._program(
            "rekor",
            "serve",
            f"--http-port={self._ports['rekor']}",
            f"--grpc-port={self._others[0]}",
            f"--http-metrics-port={self._others[1]}",
            f"--hostname={HOST}",
            f"--storage-dir={self.folder / 'rekor/log'}",
            f"--signer-filepath={self._key('rekor', self.rekor.key)}",
            "--checkpoint-interval=100ms",  # as each signature does
            "--batch-max-age=50ms",
        )

    def _timestamps(self) -> Service:
        tsa = self.tsa
        chain = [tsa.certificate, tsa.authority.intermediate, tsa.authority.root]
        return self._program(
            "timestamp-authority",
            "serve",
            "--host=127.0.0.1",
            f"--port={self._ports['timestamp-authority']}",
            "--timestamp-signer=file",
            f"--file-signer-key-path={self._key('tsa', tsa.key)}",
            f"--certificate-chain-path={self._chain('tsa', chain)}",
            "--disable-ntp-monitoring",
        )

    def _fulcio(self, issuers: Issuers) -> Service:
        authority, password = self.fulcio.authority, secrets.token_hex(16)
        sealed = BestAvailableEncryption(password.encode())
        key = self._key("fulcio", authority.key, PrivateFormat.PKCS8, sealed)
        config = self.folder / "fulcio.yaml"
        config.write_text(yaml.safe_dump(self._configuration()), encoding="utf-8")
        return self._program(
            "fulcio",
            "serve",
            "--host=127.0.0.1",
            f"--port={self._ports['fulcio']}",
            "--grpc-host=127.0.0.1",
            f"--grpc-port={self._others[2]}",
            f"--metrics-port={self._others[3]}",
            "--ca=fileca",
            f"--fileca-cert={self._chain('ca', [authority.intermediate, authority.root])}",
            f"--fileca-key={key}",
            f"--fileca-key-passwd={password}",
            "--fileca-watch=false",
            f"--ct-log-url={self.addresses.certificate_log}",
            f"--config-path={config}",
            f"--legacy-unix-domain-socket=@{self.folder.name}",
            **issuers.environment,
        )

    def _configuration(self) -> dict[str, Any]:
        """Whose tokens Fulcio takes; for a cluster, any of Google's."""
        people = {"issuer-url": self.url, "client-id": AUDIENCE, "type": "email"}
        github = {"type": "ci-provider", "ci-provider": "github"}
        return {
            "oidc-issuers": {
                self.url: people,
                GITHUB_ISSUER: {"issuer-url": GITHUB_ISSUER, "client-id": AUDIENCE, **github},
            },
            "meta-issuers": {CLUSTERS: {"client-id": AUDIENCE, "type": "kubernetes"}},
            "ci-issuer-metadata": {
                "github": {
                    "default-template-values": {"url": "https://github.com", "environment": ""},
                    "extension-templates": GITHUB_EXTENSIONS,
                    "subject-alternative-name-template": "{{ .url }}/{{ .job_workflow_ref }}",
                }
            },
        }

    # Files

    def _key(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
        form: PrivateFormat = PrivateFormat.PKCS8,
        sealed: KeySerializationEncryption = NoEncryption(),  # noqa: B008  (has no state)
    ) -> Path:
        path = self.folder / f"{name}.key"
        path.write_bytes(key.private_bytes(Encoding.PEM, form, sealed))
        return path

    def _chain(self, name: str, certificates: Iterable[x509.Certificate]) -> Path:
        path = self.folder / f"{name}.pem"
        path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
        return path
