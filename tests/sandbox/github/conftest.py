"""Fixtures of the tests of the sandbox's GitHub."""

from __future__ import annotations

import pytest

from sandbox.github.repositories import Repository
from tests.support.repositories import TOOLS, make


@pytest.fixture(scope="module")
def tools(tmp_path_factory) -> Repository:
    folder = make(tmp_path_factory.mktemp("tools"), TOOLS)
    return Repository("octo-org/tools", folder, "refs/tags/v1")
