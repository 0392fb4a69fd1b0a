"""From what a trial returns to what is stored: plain JSON values, nothing undefined but None."""

from __future__ import annotations

import math
from typing import Any

from neuropil.bench.fields import plain
from neuropil.bench.result import TrialRecord
from neuropil.bench.study import Outcome, Trial
from neuropil.errors import DataError


def record_of(trial: Trial, outcome: Outcome, key: str, seconds: float) -> TrialRecord:
    """The record of a finished trial; `cost["seconds"]` is its wall time.

    Metrics and curves keep every bit, arrays six significant digits; NaN and infinity become None. Raises
    DataError for what cannot be stored.
    """
    if not isinstance(outcome, Outcome):
        raise DataError(f"a trial must return an Outcome, got {type(outcome).__name__}")
    return TrialRecord(
        arm=trial.arm,
        seed=trial.seed,
        key=key,
        config=plain(trial.config),
        metrics={str(name): _number(name, value) for name, value in outcome.metrics.items()},
        cost={**{str(n): _number(n, v) or 0.0 for n, v in outcome.cost.items()}, "seconds": seconds},
        curves={str(n): [_number(n, v) for v in values] for n, values in outcome.curves.items()},
        arrays={str(name): _array(name, value) for name, value in outcome.arrays.items()},
    )


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected a number or None, got {type(value).__name__}") from error
    return number if math.isfinite(number) else None


def _array(name: str, value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _array(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_array(name, item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise DataError(f"{name}: an array holds numbers, text and None, got {type(value).__name__}")
