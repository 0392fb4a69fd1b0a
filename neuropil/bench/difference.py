"""Two runs side by side: differences paired by seed, with interval and effect size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from neuropil.bench.index import Table
from neuropil.bench.statistics import effect_size, interval
from neuropil.errors import ConfigError, UnknownNameError, nearest


class Difference(NamedTuple):
    """`second - first` of one metric of one arm, over the seeds that both runs have."""

    arm: str
    metric: str
    first: float  # mean
    second: float  # mean
    mean: float  # of the differences
    low: float | None  # of the 95 % interval; None for a single seed
    high: float | None
    effect: float | None  # mean difference in standard deviations of the differences
    seeds: int


def differences(first: Table, second: Table, metrics: Sequence[str] = ()) -> tuple[Difference, ...]:
    """How the second run differs from the first: every arm of both, every metric asked for, or all that both have.

    Intervals are Student's, one for each row: of twenty rows without any difference one is expected to exclude
    zero. Raises ConfigError for runs that share nothing, UnknownNameError for a metric that neither has.
    """
    arms = [arm for arm in first.run.arms if arm in second.run.arms]
    if not arms:
        raise ConfigError(
            f"the runs share no arm: {', '.join(first.run.arms)} in the one, {', '.join(second.run.arms)} in the other"
        )
    known = list(
        dict.fromkeys(name for table in (first, second) for row in table.rows for name in row.metrics)
    )
    for metric in metrics:
        if metric not in known:
            raise UnknownNameError(f"no trial has a metric {metric!r}{nearest(metric, known)}")
    rows = [_difference(arm, metric, first, second) for metric in metrics or known for arm in arms]
    found = tuple(row for row in rows if row is not None)
    if not found:
        raise ConfigError("the runs share no seed on which a metric is defined in both")
    return found


def _difference(arm: str, metric: str, first: Table, second: Table) -> Difference | None:
    one, other = first.by_seed(arm, metric), second.by_seed(arm, metric)
    seeds = [seed for seed in one if seed in other]
    if not seeds:
        return None
    paired = [other[seed] - one[seed] for seed in seeds]
    before, after = (math.fsum(side[seed] for seed in seeds) / len(seeds) for side in (one, other))
    mean, low, high = interval(paired) if len(seeds) > 1 else (paired[0], None, None)
    return Difference(arm, metric, before, after, mean, low, high, effect_size(paired), len(seeds))
