from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.bench import at_least, equivalent, exceeds
from neuropil.bench.planning import FRESH, MOST_SEEDS, plan_of, plan_seeds, power, seeds_needed, told
from neuropil.bench.statistics import judge
from neuropil.bench.tune import read_tuning, tune
from neuropil.bench.workers import Workers
from neuropil.errors import ConfigError, NeuropilError
from tests.bench.tiny_study import Other, Tiny, make, study

WINS = at_least("a.m", 0.0, text="a wins")
SAME = equivalent("a.m", "b.m", within=0.1, text="same")


@pytest.mark.parametrize(
    ("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)]
)  # published tables of the paired t test, two-sided 5 %, power 0.8
def test_needed_seeds_are_those_of_the_tables(effect: float, seeds: int) -> None:
    assert seeds_needed(WINS, effect, 1.0) == seeds
    assert seeds_needed(WINS, -effect, 1.0) == seeds  # as many to see that it fails


@pytest.mark.parametrize(
    ("claim", "mean", "deviation", "seeds"),
    [(WINS, 0.7, 1.0, 8), (SAME, 0.02, 0.06, 6), (SAME, 0.0, 0.1, 12), (SAME, 0.2, 0.1, 6)],
)
def test_power_is_how_often_the_claim_is_decided(claim, mean: float, deviation: float, seeds: int) -> None:  # type: ignore[no-untyped-def]
    draws = np.random.default_rng(0).normal(mean, deviation, size=(2000, seeds)).tolist()
    right = "fails" if claim is SAME and mean > claim.margin else "holds"
    zeros = [0.0] * seeds
    decided = sum(judge(claim, draw, zeros).verdict == right for draw in draws) / 2000
    assert abs(decided - power(claim, mean, deviation, seeds)) < 5 * math.sqrt(0.25 / 2000)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 3.0), st.booleans())
def test_one_seed_fewer_is_too_few(ratio: float, equivalence: bool) -> None:
    claim, mean, deviation = (SAME, 0.0, 0.1 / ratio) if equivalence else (WINS, ratio, 1.0)
    needed = seeds_needed(claim, mean, deviation)
    assert needed is not None and power(claim, mean, deviation, needed) >= 0.8
    assert needed == 3 or power(claim, mean, deviation, needed - 1) < 0.8


def test_what_no_number_of_seeds_decides_is_none() -> None:
    assert seeds_needed(WINS, 0.0, 1.0) is None and seeds_needed(WINS, 0.01, 1.0) is None
    assert seeds_needed(WINS, 0.5, 0.0) == 3
    assert "no number of seeds" in told(plan_of(WINS, (1, 2), (-1.0, 1.0), 5)._asdict())
    assert f"more than {MOST_SEEDS}" in told(plan_of(WINS, (1, 2), (-1.0, 1.001), 5)._asdict())


def test_a_plan_is_read_from_fresh_development_seeds_and_kept_beside_the_tuning() -> None:
    tune(study, jobs=0)
    plan = plan_seeds(study, Workers(0))
    assert plan.seeds == FRESH and len(plan.differences) == len(FRESH)
    assert min(FRESH) > 10001  # the seeds that settings are chosen on
    # Both arms draw the same numbers: tuned to shift 0.5, tiny is 0.5 higher and is not fined on validation data.
    assert plan.mean == pytest.approx(1.0, abs=1e-6) and plan.expected == "holds" and plan.needed == 3
    kept = read_tuning("tiny")
    assert kept is not None and kept["plan"] == json.loads(json.dumps(plan._asdict()))
    assert set(kept["choices"]) == {"tiny", "other"} and told(kept["plan"]) == told(plan._asdict())
    tune(study, jobs=0)
    assert "plan" not in (read_tuning("tiny") or {})  # it was of other settings


def test_an_untuned_study_is_planned_too() -> None:
    plan = plan_seeds(study, Workers(0), seeds=(10002, 10003))
    assert plan.seeds == (10002, 10003) and (read_tuning("tiny") or {})["choices"] == {}


def test_bad_plans_are_refused(own_places: Path) -> None:
    for seeds in ((3, 4), (10002,), (10002, 10002)):
        with pytest.raises(ConfigError, match="at least two of at least 10000"):
            plan_seeds(study, Workers(0), seeds=seeds)
    raising = make(arms={"tiny": Tiny(mode="raise"), "other": Other()})
    with pytest.raises(NeuropilError, match="loss is NaN"):
        plan_seeds(raising, Workers(0))
    undefined = make(claims=(exceeds("tiny.pid", "other.acc", by=0.0, text="x", primary=True),))
    with pytest.raises(NeuropilError, match="undefined"):
        plan_seeds(undefined, Workers(0))
    assert read_tuning("tiny") is None
