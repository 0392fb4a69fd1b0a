from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuropil.continual import RehearsalSchedule, Replay, RingBuffer
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from tests.continual.springs import seeded


def rehearsed(kind: str, rate: float) -> Any:
    schedule = RehearsalSchedule(kind, rate)
    return lambda model: Replay(buffer=RingBuffer(None, generator=seeded()), batch_size=5, schedule=schedule)


PARTS = [
    ("plugin", partial(rehearsed, "power", 0.5)),
    ("plugin", partial(rehearsed, "exponential", 0.7)),
    ("plugin", partial(rehearsed, "uniform", 0.0)),
]


@given(st.integers(1, 60), st.floats(0, 3))
def test_weights_are_the_published_functions_of_lag(tasks: int, rate: float) -> None:
    lags = range(tasks, 0, -1)  # the oldest task first
    assert RehearsalSchedule("power", rate)(tasks) == pytest.approx([lag**-rate for lag in lags])
    expected = [math.exp(-rate * lag) / math.exp(-rate) for lag in lags]
    assert RehearsalSchedule("exponential", rate)(tasks) == pytest.approx(expected)
    assert RehearsalSchedule("uniform", rate)(tasks) == (1.0,) * tasks


def test_a_power_law_has_no_scale_and_an_exponential_has() -> None:
    power, exponential = RehearsalSchedule("power", 0.8), RehearsalSchedule("exponential", math.log(2))
    assert power.weight(10) / power.weight(5) == pytest.approx(power.weight(200) / power.weight(100))
    assert exponential.weight(6) / exponential.weight(5) == pytest.approx(0.5)


def test_the_total_is_the_same_and_tasks_come_back_in_proportion() -> None:
    """`n_j = N lag^-d / sum lag^-d`, in the mean over many batches, for any number of images a task."""
    d, tasks, steps, each = 1.0, 5, 3000, 6
    plugin = Replay(
        buffer=RingBuffer(None, generator=seeded()), batch_size=each, schedule=RehearsalSchedule("power", d)
    )
    for index in range(tasks):
        size = 4 + 3 * index
        plugin.buffer.add(torch.full((size, 1), float(index)), torch.zeros(size).long())
    counts = torch.zeros(tasks)
    for _ in range(steps):
        joined = plugin.before_batch(Batch(torch.full((2, 1), -1.0), torch.zeros(2).long()))
        old = joined.inputs[2:, 0].long()
        assert len(old) == each
        counts += torch.bincount(old, minlength=tasks)
    weights = torch.tensor([float(tasks - index) ** -d for index in range(tasks)])
    torch.testing.assert_close(counts / counts.sum(), weights / weights.sum(), rtol=0, atol=0.012)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'pover' is unknown.*power"):
        RehearsalSchedule("pover")
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"RehearsalSchedule.rate"):
            RehearsalSchedule("power", rate)
    with pytest.raises(ConfigError, match="a lag of 0"):
        RehearsalSchedule().weight(0)
