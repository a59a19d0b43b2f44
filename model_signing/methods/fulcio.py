"""What a Fulcio certificate says about its holder.

Source: sigstore/fulcio docs/oid-info.md; OIDs 1.3.6.1.4.1.57264.1.*
"""

from dataclasses import dataclass, fields

from cryptography import x509
from cryptography.hazmat import asn1

from model_signing.errors import CertificateError, UsageError
from model_signing.methods import x509 as certificates

_ARC = "1.3.6.1.4.1.57264.1"


@dataclass(frozen=True)
class Claims:
    """The subject alternative name and the extensions .8 to .24 of a Fulcio certificate.

    `identity` is the subject alternative name: an e-mail address or a URI. `issuer` is the OIDC
    issuer that vouched for it. The others are None where the certificate does not have them.
    """

    identity: str
    issuer: str
    build_signer_uri: str | None = None
    build_signer_digest: str | None = None
    runner_environment: str | None = None
    source_repository_uri: str | None = None
    source_repository_digest: str | None = None
    source_repository_ref: str | None = None
    source_repository_identifier: str | None = None
    source_repository_owner_uri: str | None = None
    source_repository_owner_identifier: str | None = None
    build_config_uri: str | None = None
    build_config_digest: str | None = None
    build_trigger: str | None = None
    run_invocation_uri: str | None = None
    source_repository_visibility: str | None = None
    deployment_environment: str | None = None
    token_subject: str | None = None


# Extension .8 is the issuer; the others follow in the order of the fields. .1 is the issuer too, as
# raw text; every later extension is a DER UTF8String.
_EXTENSIONS = [(f"{_ARC}.{n}", field.name) for n, field in enumerate(fields(Claims)[1:], start=8)]


def certificate_claims(der: bytes) -> Claims:
    """Decodes the claims of a certificate. Verifies nothing: authenticate the bundle first.

    A `CertificateError` for no X.509 certificate, not exactly one identity, no issuer, two
    different issuers, or an extension that is not a DER UTF8String.
    """
    leaf = certificates.parse(der)
    names = list(certificates.extension(leaf, x509.SubjectAlternativeName) or ())
    if len(names) != 1:
        count = str(len(names))
        raise CertificateError("the certificate must name one identity", expected="1", found=count)
    found = {one.oid.dotted_string: one.value for one in leaf.extensions}
    values = {
        name: _utf8_string(found[oid].public_bytes(), f"extension {oid.removeprefix(_ARC)}")
        for oid, name in _EXTENSIONS
        if oid in found
    }
    issuer_v1 = None
    if f"{_ARC}.1" in found:
        issuer_v1 = found[f"{_ARC}.1"].public_bytes().decode(errors="replace")
    issuer = values.pop("issuer", issuer_v1)
    if issuer is None or issuer_v1 not in (None, issuer):
        raise CertificateError(
            "the certificate does not name one issuer",
            expected="an OIDC issuer in extension .8 (equal to .1 if both are there)",
            found=f".8 {issuer}, .1 {issuer_v1}",
        )
    return Claims(identity=_name(names[0]), issuer=issuer, **values)


def repository_uri(repository: str) -> str:
    """Extension .12 for `ORG/REPO`, `github.com/ORG/REPO` or a full URI; else a `UsageError`."""
    path = repository.removeprefix("https://")
    if path == repository and not path.startswith("github.com/"):
        path = f"github.com/{path}"
    parts = path.split("/")
    if len(parts) < 3 or not all(parts):
        raise UsageError("not a repository", expected="ORG/REPO or https://…", found=repository)
    return f"https://{path}"


def _name(name: x509.GeneralName) -> str:
    if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id.dotted_string == f"{_ARC}.7":
        return _utf8_string(name.value, "subject alternative name")
    raise CertificateError(
        "the certificate's identity has an unknown form",
        expected="an e-mail address, a URI or Fulcio's user name",
        found=type(name).__name__,
    )


def _utf8_string(der: bytes, where: str) -> str:
    try:
        return asn1.decode_der(str, der)
    except ValueError as error:
        words = "an extension is not a UTF8String"
        raise CertificateError(words, where=where, found=str(error)) from None
