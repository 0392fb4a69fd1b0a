"""How many seeds a study needs: read from the spread of paired differences on development seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from neuropil.bench.claim import Claim, Verdict
from neuropil.bench.executor import Executor
from neuropil.bench.progress import Listener
from neuropil.bench.provenance import code_of, data_of
from neuropil.bench.result import SCHEMA
from neuropil.bench.statistics import LEVEL, judge, scipy_stats
from neuropil.bench.study import Study
from neuropil.bench.trials import compute_trials, jobs_of
from neuropil.bench.tune import DEVELOPMENT, read_tuning, tuned_configs, write_tuning
from neuropil.errors import ConfigError, NeuropilError

POWER = 0.8
MOST_SEEDS = 1000  # more are not counted: a metric closer to the mechanism is needed then
FRESH = tuple(range(DEVELOPMENT + 2, DEVELOPMENT + 7))  # apart from those that settings are chosen on


class SeedPlan(NamedTuple):
    """What development seeds say of the primary claim."""

    claim: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]  # one per seed, on validation data
    mean: float
    deviation: float
    expected: Verdict  # the side of the margin on which the mean lies
    needed: int | None  # seeds to be decided with 80 % power; None: more than 1000
    cautious: int | None  # the same if the deviation is as large as 80 % confidence allows
    declared: int  # seeds of the study


def plan_seeds(
    study: Study, executor: Executor, *, seeds: Sequence[int] = FRESH, on_event: Listener | None = None
) -> SeedPlan:
    """Run the primary claim's arms on development seeds and validation data, and say how many seeds decide it.

    The plan is kept in `results/tuning/<id>.json`. Tune first: a plan is of the settings chosen then. Raises
    ConfigError for seeds that are not for development, NeuropilError when trials fail or leave a metric undefined.
    """
    seeds = tuple(dict.fromkeys(seeds))
    if len(seeds) < 2 or min(seeds) < DEVELOPMENT:
        raise ConfigError(
            f"planning seeds: expected at least two of at least {DEVELOPMENT}, got {list(seeds)}"
        )
    tuning = read_tuning(study.id)
    claim = next(claim for claim in study.claims if claim.primary)
    configs = {arm: config for arm, config in tuned_configs(study, tuning).items() if arm in claim.arms}
    jobs = jobs_of(
        study,
        configs,
        seeds,
        scale="laptop",
        code=code_of(study),
        data=data_of(study, configs),
        evaluate_on="validation",
    )
    computed = compute_trials(study, jobs, executor=executor, on_event=on_event)
    for failure in computed.failures.values():
        raise NeuropilError(f"planning: arm {failure.arm}, seed {failure.seed}: {failure.message}")
    metrics = {(record.arm, record.seed): record.metrics for record in computed.records.values()}
    sides = [
        [metrics[arm, seed].get(metric) for seed in seeds]
        for arm, _, metric in (side.partition(".") for side in (claim.left, claim.right) if side)
    ]
    differences = [value for value in judge(claim, *sides).differences if value is not None]
    if len(differences) < len(seeds):
        raise NeuropilError(f"planning: {claim.left} or {claim.right} is undefined on development seeds")
    plan = plan_of(claim, seeds, differences, study.seeds)
    before = tuning or {"schema": SCHEMA, "id": study.id, "choices": {}, "trials": []}
    write_tuning({**before, "plan": plan._asdict()})
    return plan


def plan_of(claim: Claim, seeds: Sequence[int], differences: Sequence[float], declared: int) -> SeedPlan:
    """The plan that these differences give."""
    n = len(differences)
    mean = math.fsum(differences) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1))
    # The variance of few seeds is often too small: its upper 80 % limit (Browne, Stat. Med. 14, 1995).
    upper = deviation * math.sqrt((n - 1) / float(scipy_stats().chi2.ppf(1 - POWER, n - 1)))
    distance = _distance(claim, mean)
    return SeedPlan(
        claim.text,
        tuple(seeds),
        tuple(differences),
        mean,
        deviation,
        "holds" if distance > 0 else "fails" if distance < 0 else "undecided",
        seeds_needed(claim, mean, deviation),
        seeds_needed(claim, mean, upper),
        declared,
    )


def seeds_needed(claim: Claim, mean: float, deviation: float) -> int | None:
    """The fewest seeds, at least 3, on which the claim is decided with 80 % power; None beyond 1000.

    >>> from neuropil.bench import exceeds
    >>> seeds_needed(exceeds("a.acc", "b.acc", by=0.0, text="a wins"), 0.05, 0.05)
    10
    """
    if _distance(claim, mean) == 0 or power(claim, mean, deviation, MOST_SEEDS) < POWER:
        return None
    low, high = 3, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(claim, mean, deviation, middle) >= POWER else (middle + 1, high)
    return low


def power(claim: Claim, mean: float, deviation: float, seeds: int) -> float:
    """Probability that the claim is decided rightly, if differences are normal with this mean and deviation."""
    if deviation == 0:
        return float(_distance(claim, mean) != 0)
    if claim.kind == "within" and abs(mean) < claim.margin:
        return _power_within(claim.margin, mean, deviation, seeds)
    distance = abs(_distance(claim, mean))
    stats = scipy_stats()
    critical = stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
    return float(stats.nct.sf(critical, seeds - 1, distance * math.sqrt(seeds) / deviation))


def _power_within(margin: float, mean: float, deviation: float, seeds: int) -> float:
    """Probability that the interval lies inside the margins: over the sampling distribution of its width."""
    stats = scipy_stats()
    error = deviation / math.sqrt(seeds)
    critical = float(stats.t.ppf((1 + LEVEL) / 2, seeds - 1))
    shares = [(i + 0.5) / 400 for i in range(400)]
    half = critical * error * (stats.chi2.ppf(shares, seeds - 1) / (seeds - 1)) ** 0.5
    inside = stats.norm.cdf((margin - half - mean) / error) - stats.norm.cdf((half - margin - mean) / error)
    return float(inside.clip(0.0).mean())


def _distance(claim: Claim, mean: float) -> float:
    """How far the mean lies on the claim's side of the margin; negative on the other side."""
    return mean - claim.margin if claim.kind == "exceeds" else claim.margin - abs(mean)


def told(plan: Mapping[str, Any]) -> str:
    """A plan in one sentence, from its fields as they are kept."""
    if plan["expected"] == "undecided":
        return f"its mean lies on the margin on {len(plan['seeds'])} development seeds: no number of seeds decides it"
    needed, cautious = (
        f"more than {MOST_SEEDS}" if n is None else str(n) for n in (plan["needed"], plan["cautious"])
    )
    return (
        f"likely {plan['expected']} (mean {plan['mean']:.4g}, deviation {plan['deviation']:.4g} on "
        f"{len(plan['seeds'])} development seeds): needs {needed} seeds for a power of {POWER:g}, {cautious} if the "
        f"deviation is underestimated; the study declares {plan['declared']}"
    )
