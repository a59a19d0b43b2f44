"""sigstore-python's clients of Fulcio, the log and timestamp authorities, on our adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_signing import errors
from model_signing.methods import identity_tokens
from model_signing.methods import sigstore_authorities as authorities
from model_signing.methods.services import TIMESTAMP_AUTHORITY, Adapter, Patience, Service

if TYPE_CHECKING:
    from sigstore._internal.fulcio import FulcioClient
    from sigstore.models import SigningConfig, TrustedRoot
    from sigstore.oidc import IdentityToken

_LOG = Service("the transparency log", "the transparency log refused the entry")


def fulcio(named: SigningConfig, token: IdentityToken, patience: Patience) -> FulcioClient:
    """Asks for certificates; as long as the token lives that it sends."""
    raw = str(token)
    service = Service(
        "Fulcio, the certificate authority,",
        "Fulcio refused to issue a certificate",
        identity_tokens.advice(raw),
        lambda: identity_tokens.told(raw),
    )
    client = named.get_fulcio()
    Adapter(service, patience, lambda: identity_tokens.life(raw)).mounted(client.session)
    return client


def log(named: SigningConfig, patience: Patience) -> Any:  # noqa: ANN401 - as sigstore-python's
    """Submits entries."""
    return _Log(named.get_tlogs()[0], Adapter(_LOG, patience))


def timestamp_authorities(named: SigningConfig, root: TrustedRoot, patience: Patience) -> list[Any]:
    """Ask for timestamps, and look at them before anything is in the log."""
    adapter = Adapter(TIMESTAMP_AUTHORITY, patience)
    return [_Timestamps(root, client, adapter) for client in named.get_tsas()]


class _Log:
    """A client of the log, whose session is another one in each thread."""

    def __init__(self, client: Any, adapter: Adapter) -> None:  # noqa: ANN401 - v1 or v2
        self._client, self._adapter = client, adapter

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the client's own
        return getattr(self._client, name)

    def create_entry(self, payload: Any) -> Any:  # noqa: ANN401 - as sigstore-python has it
        self._adapter.mounted(self._client._session)
        return self._client.create_entry(payload)


class _Timestamps:
    """A client of a timestamp authority.

    Left alone, sigstore-python would go on without a timestamp; and one that no verifier accepts
    would show only when the signature is in the log.
    """

    def __init__(self, root: TrustedRoot, client: Any, adapter: Adapter) -> None:  # noqa: ANN401
        self._root, self._client, self._adapter = root, client, adapter
        self.url = client.url

    def request_timestamp(self, signature: bytes) -> object:
        """The response; a `SigningError` if there is none that is of use."""
        from sigstore._internal.timestamp import TimestampError

        self._adapter.mounted(self._client._session)
        try:
            response = self._client.request_timestamp(signature)
        except TimestampError as error:
            message = "the timestamp authority gave no timestamp"
            raise errors.SigningError(message, where=self.url, found=str(error)) from None
        authorities.require_timestamp(self._root, response, signature)
        return response
