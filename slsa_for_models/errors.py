"""The refusals of `slsa_for_models`; the root, the shape and the exit code are `model_signing`'s.

One class per question a verifier asks, so that a script can tell them apart by the `error` field
of `--format json`.
"""

from __future__ import annotations

from model_signing.errors import Error


class ContextError(Error):
    """The build's own environment (identity token, workflow inputs) is missing or malformed."""


class RecordError(Error):
    """The training record is not well-formed, or not the one that was attested."""


class DatasetError(Error):
    """The data set cannot be had, or is not the one that was asked for."""


class CloneError(Error):
    """A commit of a repository could not be fetched, or another one was."""


class StorageError(Error):
    """An object in a bucket cannot be read or written, or its bytes are not the ones named."""


class TrainingError(Error):
    """A training run that did not end in a model that works."""


class ReproductionError(Error):
    """A retrained model that is not, byte for byte, the one it should be."""


class UnsafeModelError(Error):
    """A model file that is malformed, or that could run code, read other files or fill memory."""


class PolicyError(Error):
    """A policy file is not well-formed, or asks for something it does not define."""


class UnsupportedError(Error):
    """Evidence in a format that cannot be verified offline, or of an unknown build type."""


class ProvenanceError(Error):
    """The signed payload is not a provenance statement of a known shape."""


class PredicateTypeError(ProvenanceError):
    """A statement of another type than the one asked for (SLSA verifying-artifacts, 1.3)."""


class SubjectError(Error):
    """The provenance is about other bytes than the model's (SLSA verifying-artifacts, 1.2)."""


class SignerError(Error):
    """Signed by somebody who may not speak for this builder or source (verifying-artifacts 1.1)."""


class BuilderError(Error):
    """The builder is not a trusted one, or below the level asked for (verifying-artifacts, 1.4)."""


class CertificateClaimError(Error):
    """The predicate says something else than the certificate that signed it."""


class SourceError(Error):
    """Built from another repository, branch, tag or commit (SLSA verifying-artifacts, step 2)."""


class ParameterError(Error):
    """An unexpected or unknown external parameter (SLSA verifying-artifacts, step 2)."""


class DependencyMismatchError(Error):
    """A data set, lock or base model other than the expected one (verifying-artifacts, step 3)."""


class ChainError(Error):
    """Pieces of evidence that hold one by one, but not together."""


class RunError(Error):
    """The run was started or released otherwise than expected, or GitHub does not say it passed."""


class LineageError(Error):
    """A base model that is not acceptable, not given, or its own ancestor."""


class SummaryError(Error):
    """A verification summary (VSA) that does not vouch for this model (SLSA VSA, How to verify)."""
