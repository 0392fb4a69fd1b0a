"""The page of guarantees says what the tests said, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.guarantees.table import GUARANTEES, guarantees_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("tools_guarantees", ROOT / "tools" / "guarantees.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(**tests: int) -> dict[str, Any]:
    return {"outcomes": tests, "numbers": {"kills": 12345}}


def test_the_page_is_the_one_that_the_last_outcomes_make(tool: Any) -> None:
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(
        json.loads(tool.LAST.read_text(encoding="utf-8"))
    )


def test_a_guarantee_without_a_passing_test_or_with_a_failing_one_is_not_printed(tool: Any) -> None:
    found = {"R1": outcome(passed=2), "R2": outcome(passed=9, failed=1), "R3": outcome(skipped=1)}
    page = tool.page({"long": True, "guarantees": found})
    assert "## R1" in page and "12,345 kills" in page
    assert not any(f"## {key}:" in page for key in GUARANTEES if key != "R1")


def test_parts_of_a_run_add_up(tool: Any) -> None:
    one = {"long": True, "guarantees": {"R1": outcome(passed=2)}}
    two = {"long": True, "guarantees": {"R1": outcome(passed=3, failed=1), "R4": outcome(passed=1)}}
    found = tool.together([one, two])["guarantees"]
    assert found["R1"]["outcomes"] == {"passed": 5, "failed": 1} and found["R1"]["numbers"] == {
        "kills": 24690
    }


def test_proofs_elsewhere_are_there() -> None:
    """A test that was renamed must not silently stop to prove."""
    for key, guarantee in GUARANTEES.items():
        for proof in guarantee.proofs:
            path, _, name = proof.partition("::")
            place = ROOT / path
            assert place.exists(), f"{key}: {path}"
            assert not name or f"def {name}" in place.read_text(), f"{key}: {proof}"
            assert key in guarantees_of(proof)


def test_every_guarantee_has_tests_of_its_own_or_elsewhere() -> None:
    marked = "".join(path.read_text() for path in (ROOT / "tests" / "guarantees").glob("test_*.py"))
    for key, guarantee in GUARANTEES.items():
        assert guarantee.proofs or f'guarantee("{key}")' in marked, key
