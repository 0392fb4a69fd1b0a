"""What a benchmark is made of: inputs, contenders, rows of the table, and a check that they computed the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[], Mapping[str, Any] | None]  # one repetition; what it returns is looked at by the check only
Make = Callable[[Arrays], Run]

OURS = "neuropil"


class Disagreement(Exception):
    """Contenders that should have computed the same did not: their times mean nothing."""


@dataclass(frozen=True)
class Contender:
    """Someone who does the work.

    `make(inputs)` sets everything up and returns the function that is timed. For another environment it is
    `"file.py:function"`, a function of the same form in `benchmarks/peers/`, which is run by that environment's
    Python and must not import neuropil.
    """

    name: str
    make: Make | str
    environment: str = "here"  # or a name in benchmarks.environments


@dataclass(frozen=True)
class Row:
    """A line of the table: time of the fastest of `against` over the time of `ours`."""

    name: str
    against: Sequence[str]
    target: float
    goal: float
    ours: str = OURS


@dataclass(frozen=True)
class Workload:
    """One measurement, from which one or several rows are read.

    `inputs(tiny)` gives seeded arrays, small ones for tests when `tiny`. `limit` names the contender that does
    no more than the memory traffic or the arithmetic that cannot be avoided. `check` is given the outputs of
    every contender by name, raises Disagreement, and returns what it found in words. A repetition makes `steps`
    steps; times are per step.
    """

    name: str
    about: str
    inputs: Callable[[bool], Arrays]
    contenders: Sequence[Contender]
    rows: Sequence[Row]
    check: Callable[[Mapping[str, Arrays]], Sequence[str]] | None = None
    limit: str | None = None
    steps: int = 1


def close(
    outputs: Mapping[str, Arrays],
    reference: str,
    key: str,
    *,
    among: Sequence[str] | None = None,
    tolerance: float = 1e-4,
    outliers: float = 0.0,
) -> list[str]:
    """Check that contenders' `key` equals that of `reference`, relative to its largest entry.

    `outliers` is the share of entries that may differ (spikes at a membrane within rounding of the threshold).
    """
    if reference not in outputs or key not in outputs[reference]:
        return []
    expected = np.asarray(outputs[reference][key], dtype=np.float64)
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    found = []
    for name in among if among is not None else outputs:
        if name == reference or key not in outputs.get(name, {}):
            continue
        actual = outputs[name][key]
        if actual.shape != expected.shape:
            raise Disagreement(
                f"{key} of {name} has shape {actual.shape}, that of {reference} {expected.shape}"
            )
        off = ~(np.abs(actual - expected) <= tolerance * scale)
        if off.mean() > outliers:
            raise Disagreement(
                f"{key} of {name}: {off.mean():.2%} of entries differ from {reference} by more than {tolerance:g} "
                f"of the largest, at most {outliers:.2%} may"
            )
        found.append(
            f"{key}: {name} = {reference}" + (f" but for {off.mean():.1e} of entries" if off.any() else "")
        )
    return found
