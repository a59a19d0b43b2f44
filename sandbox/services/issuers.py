"""The identity providers with names of their own on the Web, for a real Fulcio on this machine.

Fulcio fetches an issuer's configuration and keys from the issuer's own address, by TLS. A proxy, of
which Fulcio alone is told, takes these connections to a server with our keys. For demonstrations
and tests only.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from sandbox.local_server import Serving
from sandbox.sigstore.authority import make_authority
from sandbox.sigstore.oidc import Oidc

# OpenID Connect Discovery 1.0 section 4.
CONFIGURATION, KEYS = "/.well-known/openid-configuration", "/.well-known/jwks"
SECONDS = 60


class Issuers:
    """A proxy on 127.0.0.1 behind which every host is an issuer of ours, while in its context."""

    def __init__(self, oidc: Oidc, hosts: list[str], folder: Path) -> None:
        """Makes a certificate for `hosts`, and leaves its root in `folder`."""
        self._root = folder / "web-root.pem"
        certificate = folder / "web.pem"
        authority = make_authority("sandbox-web", oidc.clock(), ExtendedKeyUsageOID.SERVER_AUTH)
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        leaf = authority.sign(
            authority.builder(
                key.public_key(),
                x509.Name([]),
                authority.root.not_valid_before_utc,
                authority.root.not_valid_after_utc,
                ExtendedKeyUsageOID.SERVER_AUTH,
            ).add_extension(names, critical=True)
        )
        chain = [one.public_bytes(Encoding.PEM) for one in (leaf, authority.intermediate)]
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate.write_bytes(b"".join([private, *chain]))
        self._root.write_bytes(authority.root.public_bytes(Encoding.PEM))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)

        class Handler(_Handler):
            pass

        Handler.oidc, Handler.tls = oidc, tls
        self._server = Serving(Handler)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of a Go program that is to use the proxy."""
        return {
            "HTTPS_PROXY": self._server.url,
            "NO_PROXY": "localhost,127.0.0.1",
            "SSL_CERT_FILE": str(self._root),
            "SSL_CERT_DIR": str(self._root.parent / "no-such-folder"),
        }

    def __enter__(self) -> Issuers:
        self._server.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.__exit__(*failure)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    oidc: Oidc
    tls: ssl.SSLContext
    host = ""

    def do_CONNECT(self) -> None:
        """RFC 9110 9.3.6; but what is asked for is here: the same connection goes on as TLS."""
        self.host = self.path.removesuffix(":443")
        self.send_response(200)
        self.end_headers()
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_GET(self) -> None:
        """An issuer's configuration, or its keys."""
        issuer = f"https://{self.host}{self.path.removesuffix(CONFIGURATION).removesuffix(KEYS)}"
        if not self.host or issuer not in self.oidc.keys:
            self.send_error(404)
        elif self.path.endswith(KEYS):
            self._send(self.oidc.jwks(issuer))
        else:
            self._send(self.oidc.configuration(issuer, f"{issuer}{KEYS}"))

    def _send(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""
