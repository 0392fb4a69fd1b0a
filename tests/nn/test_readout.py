from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import (
    CountReadout,
    LastMembrane,
    MaxMembrane,
    MeanMembrane,
    RateReadout,
    Readout,
    Sequential,
    WeightedRateReadout,
)

WEIGHTS = [1.0, 2.0, 4.0, 1.0]
READOUTS: list[Any] = [
    RateReadout,
    CountReadout,
    partial(WeightedRateReadout, WEIGHTS),
    LastMembrane,
    MeanMembrane,
    partial(MaxMembrane, 0.5, learn_decay=True, features=3),
]


def readout(build: Any) -> tuple[nn.Module, Tensor]:
    return build(), torch.randn(4, 5, 3)


PARTS = [("module", partial(readout, build)) for build in READOUTS]


def test_values() -> None:
    x = torch.randn(4, 5, 2, 3)
    torch.testing.assert_close(RateReadout()(x), sum(x) / 4)
    torch.testing.assert_close(CountReadout()(x), sum(x))
    weighted = sum(w * step for w, step in zip(WEIGHTS, x, strict=True)) / 8
    torch.testing.assert_close(WeightedRateReadout(WEIGHTS)(x), weighted)


def test_membranes_are_sums_of_decayed_inputs() -> None:
    x = torch.randn(4, 5, 2, 3)
    u = torch.stack([sum(0.8 ** (t - k) * x[k] for k in range(t + 1)) for t in range(4)])
    torch.testing.assert_close(LastMembrane(0.8)(x), u[3])
    torch.testing.assert_close(MeanMembrane(0.8)(x), u.sum(0) / 4)
    torch.testing.assert_close(MaxMembrane(0.8)(x), u.max(0).values)


def test_membrane_without_leak_counts() -> None:
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(LastMembrane(1.0)(x), CountReadout()(x))


@pytest.mark.parametrize("kind", [LastMembrane, MeanMembrane, MaxMembrane])
def test_membrane_needs_a_decay_in_range_and_a_step(kind: type[Readout]) -> None:
    with pytest.raises(ConfigError, match="decay: got 1"):
        kind(1.5)
    with pytest.raises(ShapeError, match="no time steps"):
        kind()(torch.zeros(0, 2, 3))


def test_equal_weights_are_the_rate() -> None:
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(WeightedRateReadout(torch.full((4,), 7.0))(x), RateReadout()(x))


@pytest.mark.parametrize("weights", [[], [[1.0]], [0.0, 0.0], [1.0, float("nan")], [1.0, -2.0]])
def test_bad_weights_are_told(weights: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"WeightedRateReadout.weights: got .*one finite number per time step"
    ):
        WeightedRateReadout(weights)


def test_wrong_number_of_steps_is_told() -> None:
    with pytest.raises(ShapeError, match=r"got 5 time steps .* expected 4"):
        WeightedRateReadout(WEIGHTS)(torch.zeros(5, 2, 3))


def test_layers_may_follow_a_readout() -> None:
    head = nn.Linear(3, 2)
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(Sequential(RateReadout(), head)(x), head(x.mean(0)))
