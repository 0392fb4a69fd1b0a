"""A part of pytest that notes how the tests of each guarantee ended, and writes it down when it is asked to.

`pytest --guarantees FILE` writes the outcomes and the numbers that tests noted with `record_property`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.guarantees.table import GUARANTEES, LONG, guarantees_of

PROPERTY = "guarantee"


class Recorder:
    """Outcomes by guarantee, and the sums of the numbers that its tests noted."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {}
        self.numbers: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when != "call":
            return
        for key in (value for name, value in report.user_properties if name == PROPERTY):
            self.outcomes.setdefault(str(key), Counter())[report.outcome] += 1
            numbers = self.numbers.setdefault(str(key), Counter())
            for name, value in report.user_properties:
                if name != PROPERTY and isinstance(value, int):
                    numbers[name] += value

    def document(self) -> dict[str, Any]:
        found = {key: dict(self.outcomes[key]) for key in GUARANTEES if key in self.outcomes}
        numbers = {key: dict(sorted(self.numbers[key].items())) for key in found}
        return {"long": LONG, "guarantees": {k: {"outcomes": found[k], "numbers": numbers[k]} for k in found}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guarantees", metavar="FILE", help="write how the tests of each guarantee ended")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guarantee(id): proves part of a guarantee of docs/guarantees.md")
    config.pluginmanager.register(Recorder(), "guarantees")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marked = tuple(name for mark in item.iter_markers(PROPERTY) for name in mark.args)
        for key in guarantees_of(item.nodeid, marked):
            if key not in GUARANTEES:
                raise pytest.UsageError(f"{item.nodeid}: no guarantee is called {key!r}")
            item.user_properties.append((PROPERTY, key))
            if key not in marked:
                item.add_marker(pytest.mark.guarantee(key))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--guarantees")
    if path and not hasattr(session.config, "workerinput"):
        recorder = session.config.pluginmanager.get_plugin("guarantees")
        assert isinstance(recorder, Recorder)
        Path(path).write_text(json.dumps(recorder.document(), indent=1) + "\n")
