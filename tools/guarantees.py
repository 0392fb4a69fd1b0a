"""Writes docs/guarantees.md from the last outcomes of the tests.

`python tools/guarantees.py [FILE ...]` takes what `pytest --guarantees FILE` wrote; several files are parts of one run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
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


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Outcomes of a run that was made in parts."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for part in parts:
        for key, what in part["guarantees"].items():
            for name in ("outcomes", "numbers"):
                found.setdefault(key, {}).setdefault(name, Counter()).update(what[name])
    ordered = {key: {name: dict(c) for name, c in found[key].items()} for key in GUARANTEES if key in found}
    return {"long": all(part["long"] for part in parts), "guarantees": ordered}


if __name__ == "__main__":
    files = [Path(word) for word in sys.argv[1:]] or [LAST]
    outcomes = together([json.loads(file.read_text(encoding="utf-8")) for file in files])
    LAST.write_text(json.dumps(outcomes, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(outcomes), encoding="utf-8")
