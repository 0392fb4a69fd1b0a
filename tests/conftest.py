"""What every test shares: tests that need a compiler, a browser or a peer library say so with a marker.

Such a test is skipped, with the reason, where the thing is missing. The environment variable
NEUROPIL_REQUIRE=browser,compiler lists markers whose tests must not be skipped: there a skip is a failure.
Tests that hold a guarantee are marked by `guarantee("R1")`, and counted by `tests/guarantees/recording.py`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.guarantees.recording import pytest_addoption as pytest_addoption
from tests.guarantees.recording import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.guarantees.recording import pytest_configure as pytest_configure
from tests.guarantees.recording import pytest_sessionfinish as pytest_sessionfinish

collect_ignore = ["spiking/neurobench_peer.py"]  # run by the peers' Python, which alone has what it imports

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = frozenset(filter(None, os.environ.get("NEUROPIL_REQUIRE", "").split(",")))


def _missing(marker: pytest.Mark) -> str | None:
    if marker.name == "compiler" and not any(map(shutil.which, ("g++", "clang++"))):
        return "no C++ compiler (g++ or clang++) on the path"
    if marker.name == "browser" and not any(map(shutil.which, BROWSERS)):
        return "no chromium on the path"
    if marker.name == "ray" and importlib.util.find_spec("ray") is None:
        return "ray is not installed"
    if marker.name == "docs" and importlib.util.find_spec("mkdocs") is None:
        return "mkdocs is not installed"
    if marker.name == "peer":
        for name in marker.args:
            if importlib.util.find_spec(name) is None:
                return f"peer library {name} is not installed"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if reason := _missing(marker):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    needed = REQUIRED.intersection(marker.name for marker in item.iter_markers())
    if report.skipped and needed:
        report.outcome = "failed"
        names = ", ".join(sorted(needed))
        report.longrepr = f"skipped, but NEUROPIL_REQUIRE lists {names}: {report.longrepr}"
    return report
