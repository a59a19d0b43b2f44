"""The real services and clients that the sandbox has stand-ins for, run on this machine.

For demonstrations and tests only: the programs are those of production, the keys are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.sigstore import LocalSigstore

KINDS = ("stand-in", "real")


def sigstore_of_kind(kind: str) -> LocalSigstore:
    """A Sigstore of one of `KINDS`.

    Raises:
        SetupError: The real one is wanted, and it cannot be built here.
    """
    if kind == "real":
        from sandbox.services.sigstore import RealSigstore

        return RealSigstore()
    from sandbox.sigstore import LocalSigstore

    return LocalSigstore()
