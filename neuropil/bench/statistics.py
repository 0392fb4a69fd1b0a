"""Judging claims: Student-t intervals of differences paired by seed.

With few seeds the t interval is the one with the stated coverage when differences are roughly normal; tests simulate
it, also for differences that are not (docs/statistics.md). An interval whose seeds all agree to the last bit has width
zero and is judged as a point; a point that lies exactly on the margin of `exceeds` is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from neuropil.bench.claim import Claim, Verdict
from neuropil.bench.result import Judgement, Result
from neuropil.bench.study import Study
from neuropil.errors import DataError, MissingExtraError

LEVEL = 0.95


class Interval(NamedTuple):
    """Mean and its confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student-t confidence interval of the mean of at least two values.

    Raises DataError for fewer than two values and MissingExtraError without scipy.

    >>> [round(x, 4) for x in interval([1.0, 2.0, 3.0])]
    [2.0, -0.4841, 4.4841]
    """
    n = len(values)
    if n < 2:
        raise DataError(f"an interval needs at least 2 values, got {n}")
    mean = math.fsum(values) / n
    if min(values) == max(values):
        return Interval(values[0], values[0], values[0])
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student_quantile((1 + level) / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution. Raises MissingExtraError without scipy."""
    try:
        from scipy.special import stdtrit  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("intervals need scipy: pip install 'neuropil[bench]'") from error
    return float(stdtrit(freedom, probability))


def judge(
    claim: Claim,
    left: Sequence[float | None],
    right: Sequence[float | None] | None = None,
    *,
    verdict: bool = True,
) -> Judgement:
    """A claim judged on the values of its sides, one per seed in the same order.

    Seeds with an undefined value on either side are left out, and the note says how many. Fewer than two
    seeds are undecided. With `verdict=False` only value and interval are computed.

    >>> from neuropil.bench import exceeds
    >>> judge(exceeds("a.acc", "b.acc", by=0.05, text="a wins"), [0.9, 0.8, 0.9], [0.7, 0.6, 0.65]).verdict
    'holds'
    """
    paired = zip(left, right, strict=True) if right is not None else ((value, 0.0) for value in left)
    differences = tuple(None if a is None or b is None else a - b for a, b in paired)
    defined = [value for value in differences if value is not None]
    dropped = len(differences) - len(defined)
    note = f"{dropped} of {len(differences)} seeds left out: undefined value" if dropped else ""
    if len(defined) < 2:
        mean = defined[0] if defined else None
        note = "; ".join(filter(None, [note, "an interval needs at least 2 seeds"]))
        return Judgement(claim, "undecided" if verdict else None, mean, None, None, differences, note)
    mean, low, high = interval(defined)
    decided = _verdict(claim, low, high) if verdict else None
    return Judgement(claim, decided, mean, low, high, differences, note)


def effect_size(differences: Sequence[float]) -> float | None:
    """Mean of paired differences in units of their standard deviation; None where that is zero or unknown.

    Cohen, Statistical power analysis for the behavioral sciences (1988), d_z.

    >>> effect_size([1.0, 2.0, 3.0])
    2.0
    """
    n = len(differences)
    if n < 2 or min(differences) == max(differences):
        return None
    mean = math.fsum(differences) / n
    return mean / math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1))


def p_value(judgement: Judgement) -> float | None:
    """One-sided p of a claim, at most 0.025 exactly when it holds; None for fewer than two seeds.

    For `exceeds` the t test of the margin; for `within` the larger of the two one-sided tests (Schuirmann, J.
    Pharmacokinet. Biopharm. 15, 1987). Raises MissingExtraError without scipy.

    >>> from neuropil.bench import at_least
    >>> round(p_value(judge(at_least("a.acc", 0.5, text="good"), [0.6, 0.7, 0.8])), 4)
    0.0371
    """
    values = [value for value in judgement.differences if value is not None]
    claim = judgement.claim
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return 0.0 if _verdict(claim, values[0], values[0]) == "holds" else 1.0
    above = -claim.margin if claim.kind == "within" else claim.margin
    p = float(scipy_stats().ttest_1samp(values, above, alternative="greater").pvalue)
    if claim.kind == "within":
        p = max(p, float(scipy_stats().ttest_1samp(values, claim.margin, alternative="less").pvalue))
    return p


def holding_together(claims: Mapping[str, Judgement]) -> frozenset[str]:
    """Of claims that are read side by side, by name, those that hold when it counts that there are many.

    At most a fortieth of what is returned is expected to hold by chance: Benjamini and Hochberg's false discovery
    rate (J. R. Stat. Soc. B 57, 1995) at the level at which a single claim is judged.
    """
    values = {name: p for name, judgement in claims.items() if (p := p_value(judgement)) is not None}
    if not values:
        return frozenset()
    adjusted = scipy_stats().false_discovery_control(list(values.values()), method="bh")
    return frozenset(name for name, p in zip(values, adjusted, strict=True) if p <= (1 - LEVEL) / 2)


def judge_all(study: Study, result: Result) -> tuple[Judgement, ...]:
    """Every claim whose arms were run, in the study's order; with verdicts at laptop scale only."""
    return tuple(_judged(claim, result) for claim in study.claims if claim.arms <= set(result.arms))


def _judged(claim: Claim, result: Result) -> Judgement:
    values, notes = [], []
    for side in filter(None, (claim.left, claim.right)):
        arm, _, metric = side.partition(".")
        values.append(result.metric(arm, metric))
        if not any(trial.arm == arm and metric in trial.metrics for trial in result.trials):
            notes.append(f"no trial of {arm} has a metric {metric!r}")
    judgement = judge(claim, *values, verdict=result.scale == "laptop")
    return replace(judgement, note="; ".join([*notes, judgement.note])) if notes else judgement


def _verdict(claim: Claim, low: float, high: float) -> Verdict:
    if claim.kind == "exceeds":
        return "holds" if low > claim.margin else "fails" if high < claim.margin else "undecided"
    if -claim.margin <= low and high <= claim.margin:
        return "holds"
    return "fails" if low > claim.margin or high < -claim.margin else "undecided"


def scipy_stats() -> Any:
    """The module scipy.stats, which takes a second to import. Raises MissingExtraError without scipy."""
    try:
        from scipy import stats  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("tests and planning need scipy: pip install 'neuropil[bench]'") from error
    return stats
