"""Every study runs at smoke scale, and says what its contract says."""

from __future__ import annotations

import math

import pytest

from neuropil.bench import catalogue, runner
from neuropil.bench.tune import settings_of

BUILT = [entry.id for entry in (*catalogue.entries(), *catalogue.leagues()) if catalogue.study_path(entry.id).exists()]


@pytest.mark.parametrize("name", BUILT)
def test_smoke(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    study = catalogue.load_study(name)
    result = runner.run(study, scale="smoke", seeds=(0,), jobs=1, out=tmp_path / "run")
    assert not result.failures
    assert {trial.arm for trial in result.trials} == set(study.arms)
    for trial in result.trials:
        for value in (*trial.metrics.values(), *trial.cost.values()):
            assert value is None or math.isfinite(value)
    for claim in study.claims:
        for side in filter(None, (claim.left, claim.right)):
            arm, metric = side.split(".")
            assert result.metric(arm, metric)[0] is not None, f"{claim.text}: {side} is undefined"


@pytest.mark.parametrize("name", BUILT)
def test_budget_is_the_same_for_every_searched_arm(name: str) -> None:
    study = catalogue.load_study(name)
    budgets = {arm: len(settings_of(study, arm)) for arm in study.search}
    assert len(set(budgets.values())) == 1, budgets
    assert set(study.search) == set(study.arms)
