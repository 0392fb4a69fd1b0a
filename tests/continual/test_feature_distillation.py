from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from neuropil.continual import FeatureDistillation
from neuropil.data.task import Batch
from neuropil.errors import ConfigError, IncompatibleError, UnknownNameError
from neuropil.training import LossContext
from tests.continual.springs import gradient, move, seeded
from tests.training.worlds import FEATURES, mlp


def held(strength: float = 0.05) -> Any:
    return lambda model: FeatureDistillation(model, strength=strength)


PARTS = [("plugin", held), ("plugin", partial(held, strength=0.2))]


def features(model: Any, x: torch.Tensor) -> torch.Tensor:
    """What enters the last layer of `Branches`."""
    h = torch.relu(model.enter(x))
    return h + torch.relu(model.inner(h))


def test_value_and_gradient_are_those_of_the_squared_distance() -> None:
    model = mlp().double()
    plugin = FeatureDistillation(model, strength=0.4)
    assert plugin.head == "leave"
    x = torch.rand(7, FEATURES, generator=seeded()).double()
    old = features(model, x).detach()
    plugin.after_task()
    move(model)
    output = model(x)
    found = plugin.on_loss(output.square().mean(), LossContext(Batch(x, torch.zeros(7).long()), output))
    expected = model(x).square().mean() + 0.4 * (features(model, x) - old).square().sum(1).mean()
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradient(found, model), gradient(expected, model), strict=True):
        torch.testing.assert_close(a, b)


def test_another_layer_may_be_named() -> None:
    model = mlp()
    plugin = FeatureDistillation(model, head="inner")
    x = torch.rand(7, FEATURES, generator=seeded())
    old = torch.relu(model.enter(x)).detach()
    plugin.after_task()
    move(model)
    model(x)
    torch.testing.assert_close(plugin.distance(x), (torch.relu(model.enter(x)) - old).square().sum(1).mean())


def test_it_is_not_asked_out_of_turn() -> None:
    model = mlp()
    plugin = FeatureDistillation(model)
    x = torch.rand(7, FEATURES, generator=seeded())
    with pytest.raises(IncompatibleError, match="no task was finished"):
        plugin.distance(x)
    plugin.after_task()
    model(x)
    with pytest.raises(IncompatibleError, match="not that of this batch"):
        plugin.distance(x[:3])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"FeatureDistillation.strength"):
        FeatureDistillation(mlp(), strength=-1)
    with pytest.raises(UnknownNameError, match=r"no layer 'leaf'.*leave"):
        FeatureDistillation(mlp(), head="leaf")
    with pytest.raises(ConfigError, match="no linear or convolutional layer"):
        FeatureDistillation(torch.nn.ReLU())
