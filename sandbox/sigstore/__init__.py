"""Sigstore on one port of this machine: OIDC, Fulcio, Rekor v2 and a timestamp authority.

For demonstrations and tests only, never for production. Stock clients sign and verify against it
with no step disabled, given the client trust config that it writes.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sandbox.local_server import LocalServer, Reply, Request
from sandbox.sigstore.authority import CA_AGE, Authority, public_key_bytes
from sandbox.sigstore.errors import DuplicateError, RequestError, TokenError
from sandbox.sigstore.fulcio import Fulcio
from sandbox.sigstore.oidc import DEVELOPER, GITHUB_ISSUER, Oidc
from sandbox.sigstore.rekor import Rekor
from sandbox.sigstore.timestamp_authority import TimestampAuthority

# Checkpoints name their log after the host of its URL, so the URL's host has to be a name.
HOST = "localhost"
# Answers a request, given its query.
Service = Callable[[Request, dict[str, str]], Reply]


def system_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(timezone.utc)


def _failure(status: int, grpc_code: int, message: str) -> Reply:
    """An error as the gRPC gateways of Fulcio and Rekor word it."""
    return Reply.of_json(status, {"code": grpc_code, "message": message, "details": []})


class Addresses(NamedTuple):
    """Where each service answers; that of timestamps with its path."""

    fulcio: str
    certificate_log: str
    rekor: str
    timestamps: str


class LocalSigstore:
    """All services of a Sigstore instance, on 127.0.0.1 at a free port, while in its context.

    Two instances share nothing: to one, the other is a foreign Sigstore; unless the second is given
    the first one's `oidc`: then it certifies the same identities, with keys of its own.

    Attributes:
        url: Of the identity provider: the issuer of people's tokens.
        addresses: Of the other services: here under the same URL.
        oidc: Makes identity tokens.
        fulcio: Issues certificates.
        rekor: Logs signatures.
        tsa: Makes timestamps.
        requests: What was asked of it, such as `POST /api/v2/signingCert`, oldest first.
    """

    def __init__(self, oidc: Oidc | None = None) -> None:
        self._server = LocalServer(self._answer)
        self.url = f"http://{HOST}:{self._server.port}"
        self.addresses = Addresses(self.url, self.url, self.url, f"{self.url}/api/v1/timestamp")
        self.oidc = oidc or Oidc(self.url, system_clock)
        self.fulcio = Fulcio(self.oidc, system_clock)
        self.rekor = Rekor(HOST)
        self.tsa = TimestampAuthority(system_clock)
        self.requests: list[str] = []
        self._start = (system_clock() - CA_AGE).strftime("%Y-%m-%dT%H:%M:%SZ")

    def __enter__(self) -> LocalSigstore:
        self._server.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.__exit__(*failure)

    @property
    def job_token_url(self) -> str:
        """The value of ACTIONS_ID_TOKEN_REQUEST_URL: clients append `&audience=...` to it."""
        return f"{self.url}/job-token?api-version=2.0"

    def trusted_root(self) -> dict[str, Any]:
        """What verifiers need: a TrustedRoot 0.1 document of sigstore/protobuf-specs."""
        at, fulcio, tsa = self.addresses, self.fulcio.authority, self.tsa.authority
        tsa_chain = [self.tsa.certificate, tsa.intermediate, tsa.root]
        log = self._log(at.rekor, self.rekor.public_key, "PKIX_ED25519", self.rekor.log_id)
        certificate_log = self._log(
            at.certificate_log,
            public_key_bytes(self.fulcio.log_key),
            "PKIX_ECDSA_P256_SHA_256",
            self.fulcio.log_id,
        )
        fulcio_chain = [fulcio.intermediate, fulcio.root]
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log],
            "certificateAuthorities": [self._authority(at.fulcio, fulcio, fulcio_chain)],
            "ctlogs": [certificate_log],
            "timestampAuthorities": [self._authority(at.timestamps, tsa, tsa_chain)],
        }

    def trust_config(self) -> dict[str, Any]:
        """What signers need, too: a ClientTrustConfig 0.1 document of sigstore/protobuf-specs."""
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [self._service(self.addresses.fulcio, 1)],
                "oidcUrls": [self._service(self.url, 1)],
                "rekorTlogUrls": [self._service(self.addresses.rekor, 2)],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": [self._service(self.addresses.timestamps, 1)],
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

    def _log(self, url: str, key: bytes, details: str, log_id: bytes) -> dict[str, Any]:
        public_key = {"rawBytes": _base64(key), "keyDetails": details, "validFor": self._valid()}
        return {
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": public_key,
            "logId": {"keyId": _base64(log_id)},
        }

    def _authority(
        self, url: str, authority: Authority, chain: Iterable[x509.Certificate]
    ) -> dict[str, Any]:
        names = {
            attribute.rfc4514_attribute_name: str(attribute.value)
            for attribute in authority.root.subject
        }
        certificates = [{"rawBytes": _base64(cert.public_bytes(Encoding.DER))} for cert in chain]
        return {
            "subject": {"organization": names["O"], "commonName": names["CN"]},
            "uri": url,
            "certChain": {"certificates": certificates},
            "validFor": self._valid(),
        }

    # HTTP

    def _answer(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        self.requests.append(f"{request.method} {path}")
        service = self._services().get((request.method, path))
        try:
            if service is not None:
                return service(request, dict(urllib.parse.parse_qsl(query)))
            tile = self._tile(path) if request.method == "GET" else None
            return tile or _failure(404, 5, "not found")
        except TokenError as error:
            return _failure(401, 16, str(error))
        except DuplicateError as error:
            return _failure(409, 6, str(error))
        except RequestError as error:
            return _failure(400, 3, str(error))
        except (ValueError, RecursionError) as error:
            return _failure(400, 3, f"the request is malformed: {error}")

    def _services(self) -> dict[tuple[str, str], Service]:
        """Method and path of every service but the log's tiles, which have many paths."""
        return {**self._identity_provider(), **self._stand_ins()}

    def _identity_provider(self) -> dict[tuple[str, str], Service]:
        return {
            ("GET", "/job-token"): lambda request, query: _ok(
                {"value": self.oidc.token_for_job(_bearer(request), query.get("audience"))}
            ),
            ("GET", "/.well-known/openid-configuration"): lambda *_: _ok(
                self.oidc.configuration(self.url, f"{self.url}/keys")
            ),
            ("GET", "/keys"): lambda *_: _ok(self.oidc.jwks(self.url)),
            ("GET", "/github-keys"): lambda *_: _ok(self.oidc.jwks(GITHUB_ISSUER)),
            ("GET", "/authorize"): lambda _, query: self._authorize(query),
            ("POST", "/token"): lambda request, _: self._redeem(request),
            # For experiments in a shell.
            ("GET", "/identity-token"): lambda _, query: Reply(
                200, self.oidc.token(query.get("email", DEVELOPER)).encode(), "text/plain"
            ),
        }

    def _stand_ins(self) -> dict[tuple[str, str], Service]:
        return {
            ("POST", "/api/v2/signingCert"): lambda request, _: _ok(
                self.fulcio.signing_certificate(_authorization(request), _object(request))
            ),
            ("GET", "/api/v2/trustBundle"): lambda *_: _ok(self.fulcio.trust_bundle()),
            ("POST", "/api/v2/log/entries"): lambda request, _: Reply.of_json(
                201, self.rekor.add(_object(request))
            ),
            ("POST", "/api/v1/timestamp"): lambda request, _: self._timestamp(request),
        }

    def _timestamp(self, request: Request) -> Reply:
        """Its errors have another form than those of the others."""
        if not request.body:
            return Reply.of_json(422, {"code": 602, "message": "request in body is required"})
        try:
            return Reply(200, self.tsa.reply(request.body), "application/timestamp-reply")
        except RequestError as error:
            return Reply.of_json(400, {"code": 400, "message": str(error)})

    def _tile(self, path: str) -> Reply | None:
        tile = self.rekor.read(path.removeprefix("/api/v2/"))
        return None if tile is None else Reply(200, tile, "application/octet-stream")

    def _redeem(self, request: Request) -> Reply:
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        token = self.oidc.redeem(form.get("code", ""))
        # Sigstore's own provider gives the identity token as access token, too.
        return _ok({"id_token": token, "access_token": token, "token_type": "Bearer"})

    def _authorize(self, parameters: dict[str, str]) -> Reply:
        """Logs everybody in: back to the client with a code, or the code on a page to copy."""
        code = self.oidc.authorization_code()
        redirect = parameters.get("redirect_uri", "")
        if redirect == "urn:ietf:wg:oauth:2.0:oob":
            return Reply(200, code.encode(), "text/plain")
        if urllib.parse.urlsplit(redirect).hostname not in ("localhost", "127.0.0.1"):
            raise RequestError("redirect_uri has to be on this machine")
        if (
            not redirect.isprintable() or " " in redirect
        ):  # a line break would make a header of ours
            raise RequestError("redirect_uri is no address")
        answer = urllib.parse.urlencode({"code": code, "state": parameters.get("state", "")})
        return Reply(302, b"", location=f"{redirect}?{answer}")


def _ok(document: object) -> Reply:
    return Reply.of_json(200, document)


def _authorization(request: Request) -> str:
    return request.headers.get("Authorization") or ""


def _bearer(request: Request) -> str:
    return _authorization(request).partition(" ")[2]


def _object(request: Request) -> dict[str, Any]:
    document = json.loads(request.body)
    if not isinstance(document, dict):
        raise RequestError("the request is not a JSON object")
    return document


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
