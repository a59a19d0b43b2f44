"""The sandbox's transparency log: Rekor v2, a tile log of `hashedrekord` 0.0.2 entries.

For demonstrations and tests only: it is kept in memory and watched by nobody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.sigstore.errors import DuplicateError, RequestError

TILE_WIDTH = 256


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Rekor:
    """An append-only log that proves each entry's inclusion and signs its size and root.

    Attributes:
        origin: The log's name in its checkpoints. Go clients demand the host name of its URL,
            without the port.
        key: Signs checkpoints.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.key = ed25519.Ed25519PrivateKey.generate()
        self._bodies: list[bytes] = []
        self._leaves: list[bytes] = []
        self._lock = threading.Lock()

    @property
    def log_id(self) -> bytes:
        """The key identifier of C2SP signed-note, in full; checkpoints carry its first 4 bytes."""
        key = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return hashlib.sha256(self.origin.encode() + b"\n\x01" + key).digest()

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo in DER."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def add(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers `POST /api/v2/log/entries`: a TransparencyLogEntry with inclusion proof.

        Raises:
            RequestError: Not a hashedrekord 0.0.2 request with a P-256 certificate, or the
                signature does not match the digest.
            DuplicateError: The log has this very signature.
        """
        if "hashedRekordRequestV002" not in request:
            raise RequestError("invalid type, must be hashedrekord")
        try:
            body = _checked_entry(request["hashedRekordRequestV002"])
        except (KeyError, TypeError, ValueError, binascii.Error, InvalidSignature) as error:
            raise RequestError("invalid hashedrekord request") from error
        leaf = leaf_hash(body)
        with self._lock:
            if leaf in self._leaves:
                raise DuplicateError(
                    "an equivalent entry already exists in the transparency log with index "
                    f"{self._leaves.index(leaf)}"
                )
            index = len(self._leaves)
            self._bodies.append(body)
            self._leaves.append(leaf)
            size = index + 1
            proof = {
                "logIndex": str(index),
                "treeSize": str(size),
                "rootHash": _base64(merkle_root(self._leaves[:size])),
                "hashes": [_base64(digest) for digest in audit_path(index, self._leaves)],
                "checkpoint": {"envelope": self.checkpoint(size)},
            }
        return {
            "logIndex": str(index),
            "logId": {"keyId": _base64(self.log_id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "integratedTime": "0",  # both as protocol buffers write what is not there
            "inclusionPromise": None,
            "canonicalizedBody": _base64(body),
            "inclusionProof": proof,
        }

    def checkpoint(self, size: int) -> str:
        """The signed size and root of the log's first `size` entries (C2SP tlog-checkpoint)."""
        note = f"{self.origin}\n{size}\n{_base64(merkle_root(self._leaves[:size]))}\n"
        signature = self.log_id[:4] + self.key.sign(note.encode())
        return f"{note}\n\u2014 {self.origin} {_base64(signature)}\n"

    def read(self, path: str) -> bytes | None:
        """A resource of C2SP tlog-tiles, or None where the log has none.

        Args:
            path: `checkpoint`, `tile/LEVEL/INDEX[.p/WIDTH]` or `tile/entries/INDEX[.p/WIDTH]`.
        """
        if path == "checkpoint":
            return self.checkpoint(len(self._leaves)).encode()
        kind, _, rest = path.removeprefix("tile/").partition("/")
        name, _, partial = rest.partition(".p/")
        try:
            index = int(name.replace("x", "").replace("/", ""))
            width = int(partial) if partial else TILE_WIDTH
            step = 1 if kind == "entries" else TILE_WIDTH ** int(kind)
        except ValueError:
            return None
        first = index * TILE_WIDTH
        if not 0 < width <= TILE_WIDTH or first + width > len(self._leaves) // step:
            return None
        if kind == "entries":
            bodies = self._bodies[first : first + width]
            return b"".join(struct.pack("!H", len(body)) + body for body in bodies)
        rows = range(first, first + width)
        return b"".join(merkle_root(self._leaves[i * step : (i + 1) * step]) for i in rows)


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 2.1: the Merkle tree hash of leaves that are hashed already."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256().digest()
    middle = _split(len(leaves))
    children = merkle_root(leaves[:middle]) + merkle_root(leaves[middle:])
    return hashlib.sha256(b"\1" + children).digest()


def audit_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 2.1.1: the hashes that prove the leaf at `index`, nearest first."""
    if len(leaves) == 1:
        return []
    middle = _split(len(leaves))
    if index < middle:
        return [*audit_path(index, leaves[:middle]), merkle_root(leaves[middle:])]
    return [*audit_path(index - middle, leaves[middle:]), merkle_root(leaves[:middle])]


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 2.1: the hash of one entry."""
    return hashlib.sha256(b"\0" + entry).digest()


def _split(size: int) -> int:
    """RFC 6962 2.1: the largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _checked_entry(request: Mapping[str, Any]) -> bytes:
    """The canonical (RFC 8785) body of an entry whose signature matches its digest."""
    digest, signature = request["digest"], request["signature"]
    verifier = signature["verifier"]
    certificate = x509.load_der_x509_certificate(
        base64.b64decode(verifier["x509Certificate"]["rawBytes"], validate=True)
    )
    public_key = certificate.public_key()
    if verifier["keyDetails"] != "PKIX_ECDSA_P256_SHA_256" or not isinstance(
        public_key, ec.EllipticCurvePublicKey
    ):
        raise RequestError("the sandbox logs ECDSA P-256 SHA-256 signatures only")
    public_key.verify(
        base64.b64decode(signature["content"], validate=True),
        base64.b64decode(digest, validate=True),
        ec.ECDSA(Prehashed(hashes.SHA256())),
    )
    data = {"algorithm": "SHA2_256", "digest": digest}
    spec = {"hashedRekordV002": {"data": data, "signature": signature}}
    return rfc8785.dumps({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec})
