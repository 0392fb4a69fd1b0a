from __future__ import annotations

from pathlib import Path

import pytest

from neuropil.bench import catalogue


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache, results and working directory of the test's own."""
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "results_directory", lambda: tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path
