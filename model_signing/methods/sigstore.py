"""OMS method `sigstore`: a short-lived certificate for an OIDC identity, and a transparency log."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from model_signing import errors
from model_signing.methods import (
    Authenticated,
    LogEntry,
    Signer,
    Verifier,
    identity_tokens,
    trust_documents,
)
from model_signing.methods import sigstore_authorities as authorities
from model_signing.methods import sigstore_trust as trust_root
from model_signing.methods.sigstore_trust import SigstoreTrust
from model_signing.oms import bundle

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot
    from sigstore.sign import Signer as _SigstoreSession

    from model_signing.methods.services import Patience

_SESSION_SECONDS = 480  # of the ten minutes that a Fulcio certificate lives
_ASKED_AGAIN_SECONDS = 30
_GITHUB = "https://token.actions.githubusercontent.com"  # an enterprise's has a path, too


@dataclass(frozen=True)
class SigstoreSigning(SigstoreTrust):
    """All that `sigstore_signer` takes, in one value, as in 1.0."""

    ambient: bool = False
    identity_token: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    oob: bool = False
    timeout: float | None = None
    say: Callable[[str], None] | None = None


def sigstore_signer(
    trust: SigstoreTrust = SigstoreTrust(),  # noqa: B008  (frozen)
    *,
    identity_token: str | None = None,
    ambient: bool = False,
    client_id: str | None = None,
    client_secret: str | None = None,
    oob: bool = False,
    timeout: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Signer:
    """Signs with a short-lived certificate for an OIDC identity (OMS 4.1, method `sigstore`).

    Imports, trust root, token and certificate are fetched by a thread that starts here, so that
    the caller's hashing hides them. A certificate that has grown old meanwhile is replaced. A
    person is asked only when the statement is ready, and once: the certificate serves for further
    statements, also of several threads.

    `trust` is the Sigstore instance. Who signs is said by an OIDC `identity_token`, or with
    `ambient` by the environment, such as GitHub Actions; else a browser asks the user, or with
    `oob` an address that is printed. `client_id` is the OAuth client, and the audience that the
    token must have. `timeout` is in seconds, for all services together; without it each has a
    minute. `say` is told what is waited for, if it takes long.

    A `FileError` or `UsageError` if the trust configuration cannot be read. The signer raises
    `SigningError` for every failure of a service or credential, and `SignatureError` when what the
    services returned does not verify.
    """
    options = (
        trust
        if isinstance(trust, SigstoreSigning)
        else SigstoreSigning(
            *(trust.trust_config, trust.staging, trust.offline, ambient, identity_token),
            *(client_id, client_secret, oob, timeout, say),
        )
    )
    found = trust_root.read(options)  # what is missing shows before the hashing, not after
    if found is not None:
        trust_documents.require_services(found, str(options.trust_config))
    identity_tokens.require_content(options.identity_token)
    if options.timeout is not None and options.timeout <= 0:
        raise errors.UsageError("no time to wait", where="--timeout", found=str(options.timeout))

    def prepare() -> _Certified:
        config = trust_root.load(options)
        authorities.require_ready(config.trusted_root, config.signing_config)
        certified = _Certified(options, config)
        if options.ambient or options.identity_token:
            certified.renew()
        return certified

    prepared = trust_root.in_background(prepare)

    def sign_statement(statement: bytes) -> bytes:
        from sigstore import dsse

        from model_signing.methods.services import ConflictError

        try:
            session, envelope = prepared().session(), dsse.Statement(statement)
            try:
                made = session.sign_dsse(envelope)
            except ConflictError:  # logged, but the proof was lost: another signature gets another
                made = session.sign_dsse(envelope)
            data = made.to_json().encode() + b"\n"
        except errors.Error:
            raise
        except Exception as error:
            raise trust_root.not_signed(error) from None
        # What the services answered is checked before anybody calls it a signature.
        if authenticate_sigstore(data, options).payload != statement:
            raise errors.SigningError("Sigstore signed something else than the statement")
        return data

    return sign_statement


class _Certified:
    """A certificate, and the session that signs with it, for as many threads as there are."""

    def __init__(self, options: SigstoreSigning, config: ClientTrustConfig) -> None:
        from model_signing.methods.services import Patience

        self._patience = Patience(options.timeout, options.say)
        self._begin = partial(_session, options, config, self._patience)
        self._lock = threading.Lock()
        self._session: _SigstoreSession | None = None
        self._since = self._waited = 0.0
        self._failure: Exception | None = None

    def renew(self) -> None:
        """Asks for the identity and for a certificate; raises as `_session`."""
        try:
            self._session = self._begin()
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._since, self._waited = time.monotonic(), self._patience.so_far

    def session(self) -> _SigstoreSession:
        """What signs the next statement of this thread, in all the time that there is for it.

        Whoever could not be asked is not asked again at once, for the next of many models.
        """
        with self._lock:
            self._patience.begin(self._waited)
            age = time.monotonic() - self._since
            if self._failure is not None and age < _ASKED_AGAIN_SECONDS:
                raise self._failure
            if self._session is None or age > _SESSION_SECONDS:
                self._failure = None
                self.renew()
            self._waited = 0.0
            assert self._session is not None  # noqa: S101 - or `renew` raised
            return self._session


def _session(
    options: SigstoreSigning, config: ClientTrustConfig, patience: Patience
) -> _SigstoreSession:
    """An identity token and a certificate for it."""
    from sigstore.oidc import IdentityError, IdentityToken
    from sigstore.sign import Signer, SigningContext

    from model_signing.methods import sigstore_services

    named, root = config.signing_config, config.trusted_root
    client_id = options.client_id or "sigstore"
    raw = options.identity_token
    if not raw and options.ambient:
        raw = identity_tokens.ambient(client_id, patience)
    if raw:
        try:
            token = IdentityToken(raw.strip(), client_id)
        except IdentityError as error:
            refusal = trust_root.not_signed(error)
            raise identity_tokens.unusable(raw, client_id, refusal) from None
    else:
        secret, oob = options.client_secret, options.oob
        address = named.get_oidc_url()
        token = identity_tokens.asked(address, client_id, secret, oob, patience)
    context = SigningContext(
        fulcio=sigstore_services.fulcio(named, token, patience),
        rekor=sigstore_services.log(named, patience),
        trusted_root=root,
        tsa_clients=sigstore_services.timestamp_authorities(named, root, patience),
    )
    session = Signer(token, context, cache=True)
    # Nothing is in the log yet: what no verifier would accept ends here.
    authorities.require_issuer(root, session._signing_cert())
    return session


def sigstore_verifier(
    identity: str,
    issuer: str,
    source_repository: str | None = None,
    trust: SigstoreTrust = SigstoreTrust(),  # noqa: B008  (frozen)
) -> Verifier:
    """Accepts signatures of one identity (OMS 8.2, method `sigstore`).

    The certificate's subject alternative name must be `identity` and its OIDC issuer `issuer`,
    exactly. `source_repository`, as `ORG/REPO` or a full URI, is what extension .12 must name. It
    is needed where a workflow of one repository signed for another: everyone who calls a reusable
    workflow gets its identity.

    The verifier raises `BundleError`, `SignatureError` and, for somebody else's, `IdentityError`.
    """
    from model_signing.methods import fulcio

    repository = fulcio.repository_uri(source_repository) if source_repository else None

    def verify(data: bytes) -> Authenticated:
        # 1. OMS 8.2: everything cryptographic.
        authenticated = authenticate_sigstore(data, trust)
        # 2. The identity, exactly: no prefix, no pattern, no case folding.
        claims = fulcio.certificate_claims(authenticated.certificate or b"")
        for name, expected, found in (
            ("identity", identity, claims.identity),
            ("identity provider", issuer, claims.issuer),
            ("source repository", repository, claims.source_repository_uri),
        ):
            if expected is not None and found != expected:
                words = f"signed by another {name}"
                raise errors.IdentityError(words, expected=expected, found=found or "none")
        # 3. A workflow speaks for its own repository; for a caller only if the caller is named.
        source = claims.source_repository_uri
        workflow = source or issuer.startswith(_GITHUB)
        if repository is None and workflow and not identity.startswith(f"{source}/"):
            raise errors.IdentityError(
                "signed by a reusable workflow, which anyone may call",
                where="certificate extension .12, source repository",
                found=source or "none",
                fix="say whose model it has to be, with --source-repository",
            )
        return authenticated

    return verify


def authenticate_sigstore(data: bytes, trust: SigstoreTrust) -> Authenticated:
    """Verifies everything about a Sigstore bundle, JSON, but whose identity it ought to be.

    A `BundleError` if it is malformed or of another method; a `CertificateError`, `LogError` or
    `SignatureError` if one of the proofs does not hold.
    """
    # 1. OMS 8.1: a well-formed bundle with a Fulcio certificate.
    parsed = bundle.parse(data, "sigstore")
    last: errors.Error | None = None
    for root in authorities.candidates(trust_root.roots(trust), parsed.certificates[0]):
        try:
            return _authenticated(data, parsed, root)
        except errors.Error as error:  # noqa: PERF203
            last = last or error
    raise last or errors.LogError("there is no trust root")


def _authenticated(data: bytes, parsed: bundle.Bundle, root: TrustedRoot) -> Authenticated:
    from sigstore import models

    from model_signing.methods import fulcio

    try:
        # 2. Sigstore client specification, and the windows of the trust root.
        signed = models.Bundle.from_json(_with_one_certificate(data))
        payload, times = authorities.verify(root, signed)
        # 3. Two parsers read the same bytes; they must agree.
        if payload != parsed.payload:
            raise errors.BundleError("the bundle is ambiguous", where="dsseEnvelope.payload")
        # 4. Rekor v1's promise covers time and index; of v2's fields only the proof's are covered.
        entry: Any = signed.log_entry._inner
        _require_agreement(entry)
        log_id, proof = entry.log_id.key_id, entry.inclusion_proof
        promised = entry.inclusion_promise and entry.integrated_time
        index = entry.log_index if promised else proof.log_index
        log = LogEntry(index, log_id.hex(), proof.checkpoint.envelope.split("\n", 1)[0])
        when = datetime.fromtimestamp(promised, timezone.utc) if promised else min(times)
    except errors.Error:
        raise
    except Exception as error:  # whatever sigstore-python raises is never a pass
        raise trust_root.not_verified(error) from None
    claims = fulcio.certificate_claims(parsed.certificates[0])
    who = (claims.identity, claims.issuer, parsed.certificates[0])
    time_source = "transparency log" if promised else "timestamp authority"
    told: dict[str, Any] = {"signed_at": when, "time_source": time_source, "log": log}
    return Authenticated(payload, parsed.payload_type, "sigstore", *who, **told)


def _with_one_certificate(data: bytes) -> bytes:
    """A keyless bundle before v0.3, which has a chain, as v0.3: the leaf is first (OMS 11.1).

    Nothing is believed by that: the certificate is verified as every other.
    """
    document = json.loads(data)
    material = document["verificationMaterial"]
    if "x509CertificateChain" not in material:
        return data
    material["certificate"] = material.pop("x509CertificateChain")["certificates"][0]
    return json.dumps({**document, "mediaType": bundle.MEDIA_TYPE}).encode()


def _require_agreement(entry: Any) -> None:  # noqa: ANN401 - a pydantic model
    """A `LogError` if an entry of Rekor v2 contradicts its own proof.

    Rekor v2 has one index, and tells no time (rekor-tiles, CLIENTS.md). In v1 the entry's index
    counts all shards of the log, the proof's only its own.
    """
    if entry.kind_version.version != "0.0.2":
        return
    for field, expected, found in (
        ("logIndex", entry.inclusion_proof.log_index, entry.log_index),
        ("integratedTime", 0, entry.integrated_time or 0),
    ):
        if found != expected:
            raise errors.LogError(
                "the log entry contradicts its proof",
                where=f"verificationMaterial.tlogEntries[0].{field}",
                expected=str(expected),
                found=str(found),
            )
