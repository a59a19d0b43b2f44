"""Sigstore on one port of this machine: OIDC, Fulcio, Rekor v2 and a timestamp authority.

For demonstrations and tests only, never for production. Stock clients sign and verify against it
with no step disabled, given the client trust config that it writes.
"""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sandbox.sigstore.fulcio import (
    CA_AGE,
    Authority,
    Fulcio,
    RequestError,
    TimestampAuthority,
    public_key_bytes,
)
from sandbox.sigstore.oidc import DEVELOPER, GITHUB_ISSUER, Oidc, TokenError
from sandbox.sigstore.rekor import Rekor

# Checkpoints name their log after the host of its URL, so the URL's host has to be a name.
HOST = "localhost"
MAX_REQUEST = 4 * 1024 * 1024


def system_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `body` is sent as it is."""

    status: int
    body: bytes
    content_type: str = "application/json"
    location: str | None = None


def _json(status: int, document: object) -> Reply:
    return Reply(status, json.dumps(document).encode())


def _failure(status: int, grpc_code: int, message: str) -> Reply:
    """An error as the gRPC gateways of Fulcio and Rekor word it."""
    return _json(status, {"code": grpc_code, "message": message, "details": []})


class LocalSigstore:
    """All services of a Sigstore instance, on 127.0.0.1 at a free port, while in its context.

    Two instances share nothing: to one, the other is a foreign Sigstore.

    Attributes:
        url: Of every service, and the issuer of people's tokens.
        oidc: Makes identity tokens.
        fulcio: Issues certificates.
        rekor: Logs signatures.
        tsa: Makes timestamps.
        requests: What was asked of it, such as `POST /api/v2/signingCert`, oldest first.
    """

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_port}"
        self.oidc = Oidc(self.url, system_clock)
        self.fulcio = Fulcio(self.oidc, system_clock)
        self.rekor = Rekor(HOST)
        self.tsa = TimestampAuthority(system_clock)
        self.requests: list[str] = []
        self._start = (system_clock() - CA_AGE).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> LocalSigstore:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def job_token_url(self) -> str:
        """The value of ACTIONS_ID_TOKEN_REQUEST_URL: clients append `&audience=...` to it."""
        return f"{self.url}/job-token?api-version=2.0"

    def trusted_root(self) -> dict[str, Any]:
        """What verifiers need: a TrustedRoot 0.1 document of sigstore/protobuf-specs."""
        fulcio, tsa = self.fulcio.authority, self.tsa.authority
        tsa_chain = [self.tsa.certificate, tsa.intermediate, tsa.root]
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log(self.rekor.public_key, "PKIX_ED25519", self.rekor.log_id)],
            "certificateAuthorities": [self._authority(fulcio, [fulcio.intermediate, fulcio.root])],
            "ctlogs": [
                self._log(
                    public_key_bytes(self.fulcio.log_key),
                    "PKIX_ECDSA_P256_SHA_256",
                    self.fulcio.log_id,
                )
            ],
            "timestampAuthorities": [self._authority(tsa, tsa_chain)],
        }

    def trust_config(self) -> dict[str, Any]:
        """What signers need, too: a ClientTrustConfig 0.1 document of sigstore/protobuf-specs."""
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [self._service(self.url, 1)],
                "oidcUrls": [self._service(self.url, 1)],
                "rekorTlogUrls": [self._service(self.url, 2)],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": [self._service(f"{self.url}/api/v1/timestamp", 1)],
                "tsaConfig": {"selector": "ANY"},
            },
        }

    def write_trust_config(self, path: Path) -> Path:
        """Writes `trust_config()` as JSON to `path`, and returns `path`."""
        path.write_text(json.dumps(self.trust_config(), indent=2) + "\n", encoding="utf-8")
        return path

    def _valid(self) -> dict[str, str]:
        return {"start": self._start}

    def _service(self, url: str, version: int) -> dict[str, Any]:
        operator = "model-transparency sandbox"
        return {
            "url": url,
            "majorApiVersion": version,
            "operator": operator,
            "validFor": self._valid(),
        }

    def _log(self, key: bytes, details: str, log_id: bytes) -> dict[str, Any]:
        public_key = {"rawBytes": _base64(key), "keyDetails": details, "validFor": self._valid()}
        return {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": public_key,
            "logId": {"keyId": _base64(log_id)},
        }

    def _authority(self, authority: Authority, chain: Iterable[x509.Certificate]) -> dict[str, Any]:
        names = {
            attribute.rfc4514_attribute_name: str(attribute.value)
            for attribute in authority.root.subject
        }
        certificates = [{"rawBytes": _base64(cert.public_bytes(Encoding.DER))} for cert in chain]
        return {
            "subject": {"organization": names["O"], "commonName": names["CN"]},
            "uri": self.url,
            "certChain": {"certificates": certificates},
            "validFor": self._valid(),
        }

    # HTTP

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sandbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Small answers at once: Nagle's algorithm would hold each back for 40 ms.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if length > MAX_REQUEST:
                    self.close_connection = True
                    self._send(_failure(413, 8, "request too large"))
                    return
                self._answer(self.rfile.read(length))

            def _answer(self, body: bytes) -> None:
                path, _, query = self.path.partition("?")
                sandbox.requests.append(f"{self.command} {path}")
                authorization = self.headers.get("Authorization") or ""
                try:
                    reply = sandbox._reply(self.command, path, query, authorization, body)
                except TokenError as error:
                    reply = _failure(401, 16, str(error))
                except RequestError as error:
                    reply = _failure(400, 3, str(error))
                except (UnicodeDecodeError, json.JSONDecodeError):
                    reply = _failure(400, 3, "the request is not JSON")
                self._send(reply)

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                if reply.location is not None:
                    self.send_header("Location", reply.location)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Says nothing: `requests` remembers."""

        return Handler

    def _reply(self, method: str, path: str, query: str, authorization: str, body: bytes) -> Reply:
        parameters = dict(urllib.parse.parse_qsl(query))
        match method, path:
            case "POST", "/api/v2/signingCert":
                return _json(201, self.fulcio.signing_certificate(authorization, _object(body)))
            case "GET", "/api/v2/trustBundle":
                return _json(200, self.fulcio.trust_bundle())
            case "POST", "/api/v2/log/entries":
                return _json(201, self.rekor.add(_object(body)))
            case "POST", "/api/v1/timestamp":
                return Reply(201, self.tsa.reply(body), "application/timestamp-reply")
            case "GET", "/job-token":
                bearer = authorization.partition(" ")[2]
                token = self.oidc.token_for_job(bearer, parameters.get("audience"))
                return _json(200, {"value": token})
            case "GET", "/.well-known/openid-configuration":
                return _json(200, self._openid_configuration())
            case "GET", "/keys":
                return _json(200, self.oidc.jwks(self.url))
            case "GET", "/github-keys":
                return _json(200, self.oidc.jwks(GITHUB_ISSUER))
            case "GET", "/authorize":
                return self._authorize(parameters)
            case "POST", "/token":
                form = dict(urllib.parse.parse_qsl(body.decode()))
                token = self.oidc.redeem(form.get("code", ""))
                # Sigstore's own provider gives the identity token as access token, too.
                answer = {"id_token": token, "access_token": token, "token_type": "Bearer"}
                return _json(200, answer)
            case "GET", "/identity-token":  # for experiments in a shell
                token = self.oidc.token(parameters.get("email", DEVELOPER))
                return Reply(200, token.encode(), "text/plain")
        tile = self.rekor.read(path.removeprefix("/api/v2/")) if method == "GET" else None
        if tile is not None:
            return Reply(200, tile, "application/octet-stream")
        return _failure(404, 5, "not found")

    def _openid_configuration(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0 section 3."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "scopes_supported": ["openid", "email"],
        }

    def _authorize(self, parameters: dict[str, str]) -> Reply:
        """Logs everybody in: back to the client with a code, or the code on a page to copy."""
        code = self.oidc.authorization_code()
        redirect = parameters.get("redirect_uri", "")
        if redirect == "urn:ietf:wg:oauth:2.0:oob":
            return Reply(200, code.encode(), "text/plain")
        if urllib.parse.urlsplit(redirect).hostname not in ("localhost", "127.0.0.1"):
            raise RequestError("redirect_uri has to be on this machine")
        answer = urllib.parse.urlencode({"code": code, "state": parameters.get("state", "")})
        return Reply(302, b"", location=f"{redirect}?{answer}")


def _object(body: bytes) -> dict[str, Any]:
    document = json.loads(body)
    if not isinstance(document, dict):
        raise RequestError("the request is not a JSON object")
    return document


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
