"""Writes docs/guarantees.md from the last outcomes of the tests: `python -m tools.guarantees [OUTCOMES]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.guarantees.table import GUARANTEES  # noqa: E402

LAST = ROOT / "tests" / "guarantees" / "last.json"
PAGE = ROOT / "docs" / "guarantees.md"

HEAD = """# Guarantees

What neuropil promises beyond its mechanisms, each promise held by tests. This page is written from the outcome of
the last {run}; a promise without a passing test, or with a failing one, is not on it. `make guarantees` runs the
long counts and writes the page anew; `pytest -m guarantee` runs the quick ones.
"""


def page(outcomes: dict[str, Any]) -> str:
    """The page; guarantees that did not hold are left out."""
    text = HEAD.format(run="long run" if outcomes["long"] else "quick run")
    for key, guarantee in GUARANTEES.items():
        found = outcomes["guarantees"].get(key, {"outcomes": {}})
        tests = found["outcomes"]
        if not tests.get("passed") or tests.get("failed"):
            continue
        passed = tests["passed"]
        counts = [f"{passed:,} test{'s' * (passed != 1)} passed"]
        if tests.get("skipped"):
            counts.append(f"{tests['skipped']:,} skipped")
        counts += [f"{value:,} {name}" for name, value in found["numbers"].items()]
        text += f"\n## {key}: {guarantee.title}\n\n{guarantee.statement}\n\n*{'; '.join(counts)}.*\n"
    return text


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else LAST
    PAGE.write_text(page(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
