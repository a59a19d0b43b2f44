"""What a run of pytest came to, written to the file that `$TESTS_TALLY` names; a pytest plugin.

Every test that was collected is to have ended one way or the other: one that did not is a failure,
whatever pytest says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


class Tally:
    """Counts in the process that the others report to."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.collected: set[str] = set()
        self.ended: dict[str, str] = {}
        self.failures: set[str] = set()
        self.died = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected |= {item.nodeid for item in session.items}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self.collected |= set(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self.died = self.died or bool(error)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed or report.skipped:  # a module that cannot be imported, or skips itself
            self._end(report.nodeid, report.outcome)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._end(report.nodeid, report.outcome)
        if report.failed:
            self.failures.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        words = [*self.ended.values(), *("lost" for _ in self.collected - self.ended.keys())]
        counts = {word: words.count(word) for word in ("passed", "failed", "skipped", "lost")}
        lost = sorted(self.collected - self.ended.keys())
        told = {**counts, "names": lost, "failures": sorted(self.failures), "died": self.died}
        self.target.write_text(json.dumps(told), encoding="utf-8")

    def _end(self, name: str, outcome: str) -> None:
        if self.ended.get(name) != "failed":  # also not by a teardown
            self.ended[name] = outcome


def pytest_configure(config: pytest.Config) -> None:
    target = os.environ.get("TESTS_TALLY")
    if target and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tally(Path(target)), "tally")
