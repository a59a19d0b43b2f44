"""Every refusal of both packages: one root, one shape, one exit code.

The command lines turn an `Error` into its message and its exit code; no other exception is meant
to reach a user.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would be a tenth of the cost of --help
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar


def printable(text: str) -> str:
    """Text for a terminal or a log: control characters and undecodable bytes are escaped.

    So is what GitHub's runner would obey: `##[` anywhere, and `::` where a line may start.
    """
    safe = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    ).replace("##[", r"\x23#[")
    return safe.replace("::", r"\x3a:", 1) if safe.lstrip().startswith("::") else safe


def without_secrets(text: str) -> str:
    """What others say, without what stands in addresses: passwords, and queries that have keys."""
    import re  # only what failed needs it

    return re.sub(r"(?<=://)[^/\s@]+@|\?[^\s'\"<>]+", "", text)


def innermost(error: BaseException) -> str:
    """Why a request failed, in one line, without the objects that what wraps it is full of."""
    while (inner := getattr(error, "reason", None) or error.__context__) and (
        isinstance(inner, BaseException) and inner is not error
    ):
        error = inner
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ascii(without_secrets(said))[1:-1]


class Error(Exception):
    """A refusal or a failure that a user can understand; every text in it is made printable.

    Args:
        message: What is wrong, in lower case and without a full stop. Never empty.
        where: The file, resource or field it was found in.
        expected: What the specification, the signature or the caller asked for.
        found: What was there instead.
        fix: What the user can do, in the imperative.
        files: For programs: every file of the model that it is about, by what is the matter.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.where, self.expected, self.found, self.fix = where, expected, found, fix
        self.files = files or {}

    def __str__(self) -> str:
        _, _, *details = self.as_dict().items()
        return self.message + "".join(f"\n  {name + ':':<10}{text}" for name, text in details)

    def as_dict(self) -> dict[str, str]:
        """The refusal for `--format json`: `error` (the class), `message` and the details."""
        told = {name: getattr(self, name) for name in ("where", "expected", "found", "fix")}
        details = {name: printable(text) for name, text in told.items() if text is not None}
        return {"error": type(self).__name__, "message": self.message, **details}


class UsageError(Error):
    """The command line or an argument is wrong; nothing was attempted."""

    exit_code = 2


class FileError(Error):
    """A file of the model, a key or an output cannot be read, walked or written."""


class BundleError(Error):
    """The signature file is not a well-formed Sigstore bundle (OMS 4, 8.1)."""


class SignatureError(Error):
    """The signature, or the key or certificate behind it, does not hold (OMS 8.2)."""


class CertificateError(SignatureError):
    """The certificate chain, its extensions or its validity time are refused."""


class IdentityError(SignatureError):
    """A valid signature by somebody else than expected."""


class LogError(SignatureError):
    """Transparency-log proof, checkpoint, signed certificate timestamp or RFC 3161 timestamp."""


class StatementError(Error):
    """The signed statement is not an OMS statement (OMS 5, 8.3)."""


class ManifestError(StatementError):
    """The signed manifest is well-formed JSON but not an acceptable manifest (OMS 5.2, 6)."""


class MismatchError(Error):
    """The model on disk is not the model that was signed (OMS 8.4, 8.5)."""


class SigningError(Error):
    """A signature could not be made: no credential, token, service or key operation."""


class DependencyError(Error):
    """An optional package or a native module that this command needs is missing."""
