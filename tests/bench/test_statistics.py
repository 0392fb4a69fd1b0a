from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuropil.bench import Result, TrialRecord, at_least, equivalent, exceeds
from neuropil.bench.statistics import interval, judge, judge_all
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
