"""Which files belong to a model: one rule for listings and for folders (OMS 6.2, 8.5)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from model_signing.oms.names import Selection
from model_signing.sources import open_source

NAMES = [
    *("a", "ab", "a.b", "b/a", "b/c/d", "b/c/e", "bc/d", "c/a/b", "c/a/c/d", "c/aa/b", "d"),
]
IGNORED = [[], ["a"], ["b"], ["b/c"], ["c/a", "d"], ["b/c/e", "bc"], ["c/a/b"]]
LISTED = [[], ["b/c/d"], ["a", "c/a/c/d"], ["d", "nowhere/x"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize("only_listed", [False, True])
@pytest.mark.parametrize(("ignored", "listed"), list(itertools.product(IGNORED, LISTED)))
def test_a_listing_and_a_walk_find_the_same(
    folder: Path, ignored: list[str], listed: list[str], only_listed: bool
) -> None:
    def below(name: str, path: str) -> bool:
        return name == path or name.startswith(path + "/")

    expected = {
        name
        for name in NAMES
        if name in listed or not (only_listed or any(below(name, path) for path in ignored))
    }
    selection = Selection(ignored, listed, only_listed)
    assert {name for name in NAMES if selection.takes(name)} == expected
    found, unsigned = open_source(folder).entries(selection)
    assert found.keys() == expected
    if not only_listed:
        assert unsigned == []
        return
    for name in set(NAMES) - expected:  # by its own name or by its folder's
        excused = any(below(name, path) for path in ignored)
        assert excused or any(below(name, path) for path in unsigned)
    assert not any(below(name, path) for name in unsigned for path in ignored)
