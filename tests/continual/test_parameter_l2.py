from __future__ import annotations

from typing import Any

import pytest
import torch

from neuropil.continual import ParameterL2
from neuropil.errors import ConfigError
from tests.continual.springs import move, quadratic
from tests.training.worlds import mlp


def l2() -> Any:
    return lambda model: ParameterL2(model, strength=0.5)


PARTS = [("plugin", l2)]


def test_it_is_the_distance_from_the_last_weights_alone() -> None:
    model = mlp().double()
    plugin = ParameterL2(model, strength=3.0)
    for _ in range(3):
        anchor = move(model)
        plugin.after_task()
    assert plugin.penalty() == 0
    move(model)
    ones = {name: torch.ones_like(p) for name, p in anchor.items()}
    torch.testing.assert_close(plugin.penalty(), 1.5 * quadratic(model, [(ones, anchor)]))


def test_what_is_excluded_moves_freely() -> None:
    model = mlp()
    plugin = ParameterL2(model, strength=1.0, exclude=["leave", "enter.bias"])
    assert plugin.held == ("enter.weight", "inner.weight", "inner.bias")
    plugin.after_task()
    with torch.no_grad():
        model.leave.weight.add_(1.0)
        model.enter.bias.add_(1.0)
    assert plugin.penalty() == 0


def test_something_must_be_held() -> None:
    with pytest.raises(ConfigError, match="leaves no parameter to hold"):
        ParameterL2(mlp(), exclude=["enter", "inner", "leave"])
