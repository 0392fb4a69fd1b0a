from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuropil.bench.runner import run
from neuropil.bench.tune import read_tuning, settings_of, tune, tuned_config
from neuropil.errors import CheckpointError, ConfigError, NeuropilError, UnknownNameError
from tests.bench.tiny_study import Other, Tiny, make, study


def test_every_arm_gets_the_same_budget_and_its_defaults_are_tried() -> None:
    wide = make(
        search={"tiny": {"shift": [0.2, 0.3, 0.5], "draws": [8, 32]}, "other": {"strength": [2, 3, 4, 5]}}
    )
    for arm, declared in {"tiny": {"shift": 0.1, "draws": 16}, "other": {"strength": 1.0}}.items():
        settings = settings_of(wide, arm)
        assert len(settings) == wide.tune_trials == 4 and settings[0] == declared
        assert len({json.dumps(each) for each in settings}) == 4 and settings == settings_of(wide, arm)
    assert settings_of(study, "other") == [
        {"strength": 1.0},
        {"strength": 2.0},
    ]  # a smaller grid is tried whole


def test_the_best_on_validation_data_is_chosen_and_run_uses_it(own_places: Path) -> None:
    exhaustive = make(tune_trials=9)
    tuning = tune(exhaustive, jobs=0)
    # Validation adds shift + mean - |shift - 0.5|: the largest shift is best, the arm without effect keeps its default.
    assert tuning["choices"]["tiny"]["shift"] == 0.5 and tuning["choices"]["other"] == {"strength": 1.0}
    assert tuning["budget"] == {"tiny": 9, "other": 2}
    assert tuning["seeds"] == [10000, 10001] and all(len(row["objective"]) == 2 for row in tuning["trials"])
    assert read_tuning("tiny") == json.loads(json.dumps(tuning))
    assert tuned_config(study, "tiny").shift == 0.5 and tuned_config(study, "other") == Other()  # type: ignore[attr-defined]
    result = run(study, seeds=[0], jobs=0, out="a")
    assert result.configs["tiny"]["shift"] == 0.5 and result.tuning["choices"] == tuning["choices"]


def test_arms_left_out_keep_what_was_chosen_before() -> None:
    both = tune(study, jobs=0)
    one = tune(study, arms=["other"], jobs=0)
    assert one["choices"] == both["choices"] and len(one["trials"]) == len(both["trials"])


def test_without_tuning_arms_keep_their_settings() -> None:
    assert read_tuning("tiny") is None and tuned_config(study, "tiny") == Tiny()


def test_bad_requests_are_refused(own_places: Path) -> None:
    with pytest.raises(ConfigError, match="at least 10000"):
        tune(study, seeds=(10000, 3), jobs=0)
    with pytest.raises(UnknownNameError, match="'tiny'"):
        tune(study, arms=["tyny"], jobs=0)
    with pytest.raises(ConfigError, match="nothing to tune"):
        tune(make(search={}), jobs=0)
    with pytest.raises(ConfigError, match="1 to 4 values"):
        tune(make(search={"tiny": {"shift": [0.1, 0.2, 0.3, 0.4, 0.5]}}), jobs=0)
    with pytest.raises(ConfigError, match="no such setting"):
        tune(make(search={"tiny": {"shfit": [0.1]}}), jobs=0)
    with pytest.raises(NeuropilError, match="loss is NaN"):
        tune(
            make(search={"tiny": {"mode": ["raise"]}}, arms={"tiny": Tiny(mode="raise"), "other": Other()}),
            jobs=0,
        )
    (own_places / "results/tuning").mkdir(parents=True)
    (own_places / "results/tuning/tiny.json").write_text("{}")
    with pytest.raises(CheckpointError, match="neuropil tune tiny"):
        run(study, jobs=0, out="a")
