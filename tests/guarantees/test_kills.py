"""Killed at any instant and started again, a life of learning and a run of the bench end in the same bits."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guarantees.disk import KINDS
from tests.guarantees.lives import FAMILIES
from tests.guarantees.nursery import Nursery
from tests.guarantees.table import LONG, count

pytestmark = [
    pytest.mark.guarantee("R1"),
    pytest.mark.timeout(3000),
]

Note = Callable[[str, Any], None]


def killed_and_gone_on(
    nursery: Nursery, life: str, *args: Any, kills: int, seconds: float, draw: random.Random
) -> tuple[Any, int]:
    """Kill a life at random instants, always going on with what it left, then let it end; its end, and the kills."""
    done = 0
    for _ in range(kills):
        done += nursery.start(life, *args).killed_after(draw.uniform(0, seconds))
    return nursery.start(life, *args).result(), done


@pytest.mark.parametrize("name", FAMILIES)
def test_training_killed_at_random_ends_in_the_same_bits(
    nursery: Nursery, name: str, tmp_path: Path, record_property: Note
) -> None:
    draw = random.Random(name)
    whole = nursery.start("train", name, None).result()
    seconds = 0.5
    if LONG:
        began = time.monotonic()
        assert nursery.start("train", name, tmp_path / "whole").result()["end"] == whole["end"]
        seconds = time.monotonic() - began
    kills, lives = 0, 0
    while kills < count(1, 15):
        lives += 1
        place = tmp_path / f"life-{lives}"
        end, done = killed_and_gone_on(
            nursery, "train", name, place, kills=min(3, count(1, 15) - kills), seconds=seconds, draw=draw
        )
        kills += done
        assert end["end"] == whole["end"], f"other bits after {done} kills of {place}"
    record_property("random kills of training", kills)


@pytest.mark.parametrize(
    "name", ["dropout with momentum", "HLOP of spikes with rehearsal"] if LONG else ["backprop"]
)
def test_training_killed_at_each_step_of_a_save_ends_in_the_same_bits(
    nursery: Nursery, name: str, tmp_path: Path, record_property: Note
) -> None:
    whole = nursery.start("train", name, tmp_path / "whole").result()
    kinds = whole["kinds"]
    first = kinds.index("rename", len(kinds) // 2)  # in the middle of learning, when old checkpoints go too
    steps = range(first, kinds.index("rename", kinds.index("rename", first + 1) + 1))
    assert {kinds[step] for step in steps} == set(kinds) == set(KINDS), "a kind of step is never killed at"
    plan = [(step, False) for step in steps] + [(step, True) for step in steps if kinds[step] == "sync file"]
    if not LONG:  # one of each kind, and a torn file
        plan = [*{kinds[step]: (step, False) for step in steps}.values(), plan[-1]]
    for step, torn in plan:
        place = tmp_path / f"{step}-{torn}"
        assert nursery.start("train", name, place, step, torn).end() == -signal.SIGKILL
        assert nursery.start("train", name, place).result()["end"] == whole["end"], (kinds[step], step, torn)
    record_property("kills of training at a named step of a save", len(plan))


def test_a_run_killed_at_random_ends_in_the_same_bits(
    nursery: Nursery, tmp_path: Path, record_property: Note
) -> None:
    draw = random.Random(1)
    began = time.monotonic()
    whole = nursery.start("bench", tmp_path / "whole", tmp_path / "whole-cache").result()
    seconds = time.monotonic() - began
    kills, lives = 0, 0
    while kills < count(4, 60):
        lives += 1
        place, cache = tmp_path / f"run-{lives}", tmp_path / f"cache-{lives}"
        end, done = killed_and_gone_on(
            nursery, "bench", place, cache, kills=min(3, count(4, 60) - kills), seconds=seconds, draw=draw
        )
        kills += done
        assert end["end"] == whole["end"]
        assert end["left"] == []
    record_property("random kills of a run", kills)


def test_a_run_killed_at_each_step_of_its_writes_ends_in_the_same_bits(
    nursery: Nursery, tmp_path: Path, record_property: Note
) -> None:
    whole = nursery.start("bench", tmp_path / "whole", tmp_path / "whole-cache").result()
    kinds = whole["kinds"]
    plan = [(step, False) for step in range(len(kinds))]
    plan += [(step, True) for step in range(len(kinds)) if kinds[step] == "sync file"]
    if not LONG:
        plan = [*{kinds[step]: (step, False) for step in range(len(kinds))}.values(), plan[-1]]
    for step, torn in plan:
        place, cache = tmp_path / f"run-{step}-{torn}", tmp_path / f"cache-{step}-{torn}"
        assert nursery.start("bench", place, cache, step, torn).end() == -signal.SIGKILL
        end = nursery.start("bench", place, cache).result()
        assert end["end"] == whole["end"], (kinds[step], step, torn)
        assert end["left"] == []
    record_property("kills of a run at a named step of a write", len(plan))
