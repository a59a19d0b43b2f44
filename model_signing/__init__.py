"""Sign machine-learning models and verify them: OpenSSF Model Signing (OMS) v1.0.

`sign`, `verify` and `digest` take a model's path and a signer or verifier:

    import model_signing

    signer = model_signing.key_signer("key.pem")
    model_signing.sign("model", "model.sig", signer)

    verifier = model_signing.key_verifier("key.pub")
    verified = model_signing.verify("model", "model.sig", verifier)

Everything is imported when it is first used: a key signature never loads Sigstore.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from model_signing.api import Compared as Compared
    from model_signing.api import HashOptions as HashOptions
    from model_signing.api import Signed as Signed
    from model_signing.api import Verified as Verified
    from model_signing.api import compare_listed as compare_listed
    from model_signing.api import digest as digest
    from model_signing.api import sign as sign
    from model_signing.api import verify as verify
    from model_signing.errors import Error as Error
    from model_signing.methods import Authenticated as Authenticated
    from model_signing.methods import Signer as Signer
    from model_signing.methods import Verifier as Verifier
    from model_signing.methods.certificate import certificate_signer as certificate_signer
    from model_signing.methods.certificate import certificate_verifier as certificate_verifier
    from model_signing.methods.key import digest_signer as digest_signer
    from model_signing.methods.key import key_signer as key_signer
    from model_signing.methods.key import key_verifier as key_verifier
    from model_signing.methods.pkcs11 import pkcs11_certificate_signer as pkcs11_certificate_signer
    from model_signing.methods.pkcs11 import pkcs11_key_signer as pkcs11_key_signer
    from model_signing.methods.sigstore import SigstoreSigning as SigstoreSigning
    from model_signing.methods.sigstore import sigstore_signer as sigstore_signer
    from model_signing.methods.sigstore import sigstore_verifier as sigstore_verifier
    from model_signing.methods.sigstore_trust import SigstoreTrust as SigstoreTrust
    from model_signing.oms.manifest import Manifest as Manifest
    from model_signing.oms.manifest import Serialization as Serialization

    __version__: str

_PUBLIC = {  # module -> its public names
    "api": "Compared HashOptions Signed Verified compare_listed digest sign verify",
    "errors": "Error",
    "methods": "Authenticated Signer Verifier",
    "methods.certificate": "certificate_signer certificate_verifier",
    "methods.key": "digest_signer key_signer key_verifier",
    "methods.pkcs11": "pkcs11_certificate_signer pkcs11_key_signer",
    "methods.sigstore": "SigstoreSigning sigstore_signer sigstore_verifier",
    "methods.sigstore_trust": "SigstoreTrust",
    "oms.manifest": "Manifest Serialization",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from model_signing.terminal.command_line import version

        return version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
