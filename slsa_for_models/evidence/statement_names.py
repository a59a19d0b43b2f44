"""Names within our statements that both who writes them and who reads them need."""

from __future__ import annotations

DATASET = "dataset"
"""The dependency that is the training data."""
DATASET_FILE = "dataset/"
"""A dependency that is one file of it: this, and its path in the workspace."""
REQUIREMENTS = "requirements"
"""The dependency that is the locked packages."""
BASE_MODEL = "base-model"
"""A dependency that is a model which training started from."""
RECORD = "training.json"
"""The training record, a file beside the model; and the by-product that it is."""
VSA = "https://slsa.dev/verification_summary/v1"
"""The predicate type of a verification summary."""
