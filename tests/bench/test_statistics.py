from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuropil.bench import Result, TrialRecord, at_least, equivalent, exceeds
from neuropil.bench.statistics import effect_size, holding_together, interval, judge, judge_all, p_value
from neuropil.errors import ConfigError, DataError
from tests.bench.tiny_study import make, study

WINS = exceeds("a.m", "b.m", by=0.1, text="a wins")
SAME = equivalent("a.m", "b.m", within=0.1, text="same")


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-3))
def test_interval_is_scipys(values: list[float]) -> None:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    ours = interval(values)
    assert [ours.low, ours.high] == pytest.approx([low, high], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_interval_covers_the_truth_as_often_as_it_says(seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(0.3, 2.0, size=(4000, seeds))
    covered = sum(low <= 0.3 <= high for _, low, high in map(interval, draws.tolist()))
    # Five standard errors of a binomial proportion on either side of 0.95.
    assert abs(covered / 4000 - 0.95) < 5 * (0.95 * 0.05 / 4000) ** 0.5


def test_interval_needs_two_values() -> None:
    with pytest.raises(DataError, match="at least 2"):
        interval([1.0])


@pytest.mark.parametrize(
    ("differences", "wins", "same"),
    [
        ([0.30, 0.31, 0.29], "holds", "fails"),
        ([0.01, 0.02, 0.00], "fails", "holds"),
        ([0.0, 0.2, 0.4], "undecided", "undecided"),
        ([-0.5, -0.51, -0.49], "fails", "fails"),
        ([0.1, 0.1, 0.1], "undecided", "holds"),  # a point on the margin
        ([0.25, 0.25, 0.25], "holds", "fails"),  # a point beyond it
    ],
)
def test_verdicts(differences: list[float], wins: str, same: str) -> None:
    zeros = [0.0] * len(differences)
    assert judge(WINS, differences, zeros).verdict == wins
    assert judge(SAME, differences, zeros).verdict == same
    assert judge(at_least("a.m", 0.1, text="alone"), differences).verdict == wins


def test_seeds_are_paired() -> None:
    left, right = [1.0, 5.0, 9.0], [0.8, 4.8, 8.8]  # spread of 4 between seeds, none within
    assert judge(WINS, left, right).verdict == "holds"


def test_undefined_seeds_are_left_out_and_said() -> None:
    judgement = judge(WINS, [0.3, None, 0.31, 0.3], [0.0, 0.0, 0.0, None])
    assert judgement.differences == (0.3, None, 0.31, None)
    assert judgement.value == pytest.approx(0.305)
    assert judgement.note == "2 of 4 seeds left out: undefined value"


@pytest.mark.parametrize("values", [[], [0.5], [None, 0.5], [None, None]])
def test_fewer_than_two_seeds_are_undecided(values: list[float | None]) -> None:
    judgement = judge(at_least("a.m", 0.1, text="alone"), values)
    assert judgement.verdict == "undecided" and judgement.ci_low is None
    assert "at least 2 seeds" in judgement.note


def test_value_and_interval_without_verdict_off_laptop_scale() -> None:
    judgement = judge(WINS, [0.3, 0.31], [0.0, 0.0], verdict=False)
    assert judgement.verdict is None and judgement.ci_low is not None


def test_a_metric_that_no_trial_has_is_said() -> None:
    trials = tuple(TrialRecord("tiny", seed, "k", {}, {"acc": 1.0}, {}) for seed in range(3))
    result = Result("tiny", "laptop", (0, 1, 2), ("tiny", "other"), trials, ())
    primary, alike = judge_all(study, result)
    assert primary.verdict == "undecided" and "no trial of other has a metric 'acc'" in primary.note
    assert "no trial of tiny has a metric 'odd'" in alike.note
    assert judge_all(study, replace(result, arms=("tiny",))) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claims": (at_least("tiny", 0.1, text="no metric", primary=True),)}, "'arm.metric', got 'tiny'"),
        ({"claims": (at_least("tny.acc", 0.1, text="typo", primary=True),)}, "did you mean 'tiny'"),
        ({"claims": ()}, "exactly one claim must be primary, found 0"),
        ({"search": {"tny": {}}}, "the search space names undeclared arm 'tny'"),
    ],
)
def test_a_study_that_cannot_be_judged_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def draws_of(name: str, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Differences of a kind that the documentation names, and their true mean."""
    rng = np.random.default_rng(shape[1])
    if name.startswith("normal"):
        return rng.normal(size=shape), 0.0
    if name.startswith("heavy"):
        return rng.standard_t(3, size=shape), 0.0
    if name.startswith("uniform"):
        return rng.uniform(size=shape), 0.5
    if name.startswith("two bounded"):
        return rng.beta(20, 1, shape) - rng.beta(20, 2, shape), 20 / 21 - 20 / 22
    if name.startswith("one bounded"):
        return rng.beta(20, 1, shape), 20 / 21
    if name.startswith("exponential"):
        return rng.exponential(size=shape), 1.0
    assert name.startswith("two outcomes")
    return (rng.random(shape) < 0.8) + rng.normal(0, 0.02, shape), 0.8


def documented() -> list[tuple[str, int, list[float]]]:
    page = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text().splitlines()]
    return [
        (row[0], int(row[1]), [float(cell.removesuffix(" %")) / 100 for cell in row[2:]])
        for row in rows
        if len(row) == 5 and row[1].isdecimal()
    ]


@pytest.mark.parametrize(("name", "seeds", "shares"), documented())
def test_coverage_is_what_the_documentation_says(name: str, seeds: int, shares: list[float]) -> None:
    draws, mean = draws_of(name, (10_000, seeds))
    intervals = np.array([interval(values) for values in draws.tolist()])
    above, below = (intervals[:, 1] > mean).mean(), (intervals[:, 2] < mean).mean()
    for found, said in zip((1 - above - below, above, below), shares, strict=True):
        assert abs(found - said) < 5 * (max(said * (1 - said), 0.003) / 10_000) ** 0.5


def test_the_alternatives_are_as_bad_as_documented() -> None:
    assert len(documented()) == 14
    assert stats.wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0]).pvalue == 0.0625
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 5))
    means = draws[:, rng.integers(0, 5, (500, 5))].mean(2)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert abs(((low <= 0) & (high >= 0)).mean() - 0.84) < 0.04
    ratios = np.random.default_rng(1).normal(1.0, 1.0, (20_000, 5))
    assert np.mean([effect_size(row) for row in ratios.tolist()]) == pytest.approx(1.25, abs=0.03)


def judged(claim, differences: list[float]):  # type: ignore[no-untyped-def]
    return judge(claim, differences, [0.0] * len(differences))


@given(
    st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=2, max_size=8),
    st.sampled_from([WINS, SAME]),
)
def test_a_claim_holds_exactly_when_its_p_is_below_a_fortieth(values: list[float], claim) -> None:  # type: ignore[no-untyped-def]
    judgement = judged(claim, values)
    p = p_value(judgement)
    assert p is not None
    if abs(p - 0.025) > 1e-6:
        assert (judgement.verdict == "holds") == (p < 0.025)


def test_p_of_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    values = [0.01, -0.02, 0.03, 0.00, 0.02]
    above = stats.ttest_1samp(values, -0.1, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 0.1, alternative="less").pvalue
    assert p_value(judged(SAME, values)) == max(above, below)
    assert p_value(judged(SAME, [0.5])) is None


def test_of_many_false_claims_few_hold_together() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.1, 0.05, size=(159, 5)).tolist()  # each exactly on its margin
    false = {f"f{i}": judged(WINS, each) for i, each in enumerate(draws)}
    true = {f"t{i}": judged(WINS, (rng.normal(0.4, 0.02, 5)).tolist()) for i in range(20)}
    alone = {name for name, each in (false | true).items() if each.verdict == "holds"}
    together = holding_together(false | true)
    assert together < alone and set(true) <= together
    assert len(together - set(true)) <= 2 < len(alone - set(true))
    # The definition: the largest k whose k-th smallest p is at most k / m * level.
    ps = sorted((p_value(each), name) for name, each in (false | true).items())
    count = max(k for k, (p, _) in enumerate(ps, 1) if p <= k / len(ps) * 0.025)
    assert together == {name for _, name in ps[:count]}
    assert holding_together({}) == frozenset() == holding_together({"one": judged(WINS, [0.5])})


def test_effect_size_is_the_mean_in_standard_deviations() -> None:
    values = [0.1, 0.4, 0.2, 0.5]
    assert effect_size(values) == pytest.approx(np.mean(values) / np.std(values, ddof=1), rel=1e-12)
    assert effect_size([1.0]) is None and effect_size([2.0, 2.0]) is None
