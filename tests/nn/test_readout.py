from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import CountReadout, RateReadout, Sequential, WeightedRateReadout

WEIGHTS = [1.0, 2.0, 4.0, 1.0]
READOUTS: list[Any] = [RateReadout, CountReadout, partial(WeightedRateReadout, WEIGHTS)]


def readout(build: Any) -> tuple[nn.Module, Tensor]:
    return build(), torch.randn(4, 5, 3)


PARTS = [("module", partial(readout, build)) for build in READOUTS]


def test_values() -> None:
    x = torch.randn(4, 5, 2, 3)
    torch.testing.assert_close(RateReadout()(x), sum(x) / 4)
    torch.testing.assert_close(CountReadout()(x), sum(x))
    weighted = sum(w * step for w, step in zip(WEIGHTS, x, strict=True)) / 8
    torch.testing.assert_close(WeightedRateReadout(WEIGHTS)(x), weighted)


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
