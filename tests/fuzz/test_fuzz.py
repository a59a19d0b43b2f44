"""A sample of `make fuzz`, with another seed every day."""

from __future__ import annotations

import datetime

from tests.fuzz.fuzz_bundles import fuzz


def test_mutated_bundles_and_manifests_are_refused() -> None:
    outcomes = fuzz(2000, seed=datetime.date.today().toordinal())
    assert outcomes.total() == 2000
    assert outcomes["BundleError"] > 100
    assert outcomes["ManifestError"] > 100
    assert outcomes["MismatchError"] > 10
