"""What the sandbox's services refuse, as the real ones would."""

from __future__ import annotations


class TokenError(Exception):
    """An identity token or a request for one that the real service would refuse, too."""


class RequestError(Exception):
    """Any other request that the real service would refuse, too."""


class DuplicateError(RequestError):
    """What the log is asked to take is in it already."""
