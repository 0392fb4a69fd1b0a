from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from neuropil.bench.executor import Job
from neuropil.bench.fields import override_arms
from neuropil.bench.result import TrialRecord
from neuropil.bench.study import Trial
from neuropil.bench.workers import compute
from neuropil.errors import NeuropilError
from neuropil.studies.together import _killed
from neuropil.studies.together._being import Being, LifeSetting, born, trainer_of
from neuropil.studies.together._events import forget_class, meet_weather
from neuropil.studies.together.life import EVENTS, HAS, UNKILLED, study

SMALL = override_arms(study.arms, study.scales["smoke"])
CONFIG: LifeSetting = SMALL["life"]


@cache
def lived(arm: str) -> TrialRecord:
    reply = compute(Job("key", Trial(arm, SMALL[arm], 4, "smoke"), study.trial))
    assert reply.record is not None, reply.trace
    return reply.record


def grown(place: Path) -> Being:
    being = born(Trial("unkilled", CONFIG, 4, "smoke"), UNKILLED, place)
    trainer_of(being, checkpoints=False).fit(being.stream)
    return being


def test_a_killed_life_ends_in_the_bits_of_one_that_was_not() -> None:
    killed, whole = lived("life"), lived("unkilled")
    assert killed.metrics["steps_lost"] is not None and killed.metrics["steps_lost"] >= 0
    different = {name for name in killed.metrics if killed.metrics[name] != whole.metrics[name]}
    assert different == {"steps_lost"}
    assert killed.curves == whole.curves


def test_a_life_killed_before_it_saved_anything_begins_anew() -> None:
    config = replace(CONFIG, killed_after=0.0)
    reply = compute(Job("key", Trial("life", config, 4, "smoke"), study.trial))
    assert reply.record is not None, reply.trace
    assert reply.record.metrics["steps_lost"] == 1
    assert reply.record.metrics["fingerprint"] == lived("unkilled").metrics["fingerprint"]


def test_a_life_that_escapes_its_death_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    being = born(Trial("life", CONFIG, 4, "smoke"), frozenset({"no such class"}), tmp_path)
    monkeypatch.setattr(_killed, "LIFE", "elsewhere.json")  # the child reads another file
    with pytest.raises(NeuropilError, match=r"ended with 1 instead: .*life\.json"):
        _killed.live_and_be_killed(being)


def test_every_event_leaves_what_it_records_and_every_promise_is_about_that() -> None:
    recorded = {metric for event in EVENTS for metric in event.records}
    assert recorded == set(lived("unkilled").metrics)
    for event in EVENTS:
        for promise in event.promises:
            assert {side.split(".")[1] for side in (promise.left, promise.right) if side} <= set(
                event.records
            )
            assert promise.arms <= set(HAS)


def test_the_weather_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    being = grown(tmp_path)
    before = {name: value.clone() for name, value in being.model.state_dict().items()}
    meet_weather(being)
    assert all(torch.equal(value, before[name]) for name, value in being.model.state_dict().items())


def test_memory_and_network_forget_the_class(tmp_path: Path) -> None:
    being = grown(tmp_path)
    before = {name: value.clone() for name, value in being.model.state_dict().items()}
    count = len(being.memory)
    forget_class(being)
    left = being.memory.select(torch.arange(len(being.memory))).targets
    assert len(left) == count - 2 * CONFIG.per_class and CONFIG.forget not in left
    for name, value in being.model.state_dict().items():
        assert bool((value.abs() <= before[name].abs()).all()), name
    assert being.metrics["dampened"] is not None and being.metrics["dampened"] > 0


def test_a_life_without_the_class_never_sees_it(tmp_path: Path) -> None:
    being = born(Trial("retrained", CONFIG, 4, "smoke"), HAS["retrained"], tmp_path)
    for task in being.stream:
        assert CONFIG.forget not in task.train.labels()
        assert CONFIG.forget in being.judged(task).labels()
