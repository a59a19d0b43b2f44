"""Train models in CI, say verifiably how they were made, and verify what others say.

One verdict over a model and all that came with it:

    from slsa_for_models import load_policy, verify

    verdict = verify("model.keras", load_policy("policy.toml"), signature="model.keras.sig",
                     provenance=["model.keras.intoto.jsonl"])
    verdict.require()  # raises the first refusal, if there is one

Or a copy of it that is verified, to load:

    with verified("model.keras", load_policy("policy.toml"), signature="model.keras.sig") as path:
        ...

Everything is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from model_signing.errors import Error as Error
    from model_signing.methods.sigstore_trust import SigstoreTrust as SigstoreTrust
    from slsa_for_models.models.formats import FORMATS as FORMATS
    from slsa_for_models.models.load import load_model as load_model
    from slsa_for_models.verdict.base_models import BaseModel as BaseModel
    from slsa_for_models.verdict.expectations import Builder as Builder
    from slsa_for_models.verdict.expectations import Expectations as Expectations
    from slsa_for_models.verdict.expectations import Pattern as Pattern
    from slsa_for_models.verdict.expectations import Signer as Signer
    from slsa_for_models.verdict.expectations import SummaryVerifier as SummaryVerifier
    from slsa_for_models.verdict.expectations import workflow as workflow
    from slsa_for_models.verdict.policy_file import load_policy as load_policy
    from slsa_for_models.verdict.policy_file import policy_from as policy_from
    from slsa_for_models.verdict.private_copy import verified as verified
    from slsa_for_models.verdict.result import Accepted as Accepted
    from slsa_for_models.verdict.result import Signed as Signed
    from slsa_for_models.verdict.result import Verdict as Verdict
    from slsa_for_models.verdict.run_conclusion import GitHubApi as GitHubApi
    from slsa_for_models.verdict.table import Step as Step
    from slsa_for_models.verdict.verification import verify as verify

_PUBLIC = {  # module -> its public names
    "model_signing.errors": "Error",
    "model_signing.methods.sigstore_trust": "SigstoreTrust",
    f"{__name__}.models.formats": "FORMATS",
    f"{__name__}.models.load": "load_model",
    f"{__name__}.verdict.base_models": "BaseModel",
    f"{__name__}.verdict.expectations": "Builder Expectations Pattern Signer SummaryVerifier "
    "workflow",
    f"{__name__}.verdict.policy_file": "load_policy policy_from",
    f"{__name__}.verdict.private_copy": "verified",
    f"{__name__}.verdict.result": "Accepted Signed Verdict",
    f"{__name__}.verdict.run_conclusion": "GitHubApi",
    f"{__name__}.verdict.table": "Step",
    f"{__name__}.verdict.verification": "verify",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
