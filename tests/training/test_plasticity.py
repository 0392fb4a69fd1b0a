from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError, UnknownNameError
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.training import (
    dormant_units,
    effective_rank,
    fraction_active_units,
    hidden_activity,
    probe_plasticity,
    stable_rank,
    weight_norm,
)
from tests.training.worlds import FEATURES, convolutional, mlp, same, spiking, weights


def test_activations_in_forward_are_seen_as_modules_are() -> None:
    model = mlp()  # torch.relu, called twice in its own forward
    x = torch.randn(7, FEATURES)
    seen = hidden_activity(model, x)
    with torch.no_grad():
        h = torch.relu(model.enter(x))
        expected = [h, torch.relu(model.inner(h))]
    assert list(seen) == ["relu", "relu'"]
    assert all(torch.equal(a, b) for a, b in zip(seen.values(), expected, strict=True))
    share = sum(float((a > 0).float().sum()) for a in expected) / sum(a.numel() for a in expected)
    assert fraction_active_units(model, x) == pytest.approx(share)


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(), nn.ELU(), nn.SELU(), nn.LeakyReLU(), nn.ReLU6(),
        nn.Mish(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.Hardswish(), nn.PReLU(), nn.Threshold(0.1, 0.0),
    ],
    ids=lambda a: type(a).__name__,
)  # fmt: skip
def test_every_usual_activation_is_found_under_its_name(activation: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 2))
    x = torch.randn(9, 4)
    seen = hidden_activity(net, x)
    assert list(seen) == ["1"]
    with torch.no_grad():
        torch.testing.assert_close(seen["1"], activation(net[0](x)))


def test_an_activity_overwritten_later_is_kept_as_it_was() -> None:
    class Overwrites(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(x).mul_(0)

    assert fraction_active_units(Overwrites(), torch.ones(3, 2)) == 1.0


def test_spikes_of_all_steps_count() -> None:
    model = spiking()
    x = 3 * torch.rand(5, FEATURES)
    seen = hidden_activity(model, x)
    assert list(seen) == ["1"] and seen["1"].shape == (4 * 5, 16)
    with torch.no_grad():
        spikes = model[1](model[0](x).expand(4, 5, 16))[0]
    assert fraction_active_units(model, x) == pytest.approx(float((spikes > 0).float().mean()))
    own_time = Sequential(nn.Linear(3, 4), LIF(), nn.Linear(4, 2), RateReadout())
    assert hidden_activity(own_time, torch.rand(6, 2, 3))["1"].shape == (12, 4)


def test_layers_can_be_named() -> None:
    model = mlp()
    x = torch.randn(7, FEATURES)
    seen = hidden_activity(model, x, layers=["inner"])
    with torch.no_grad():
        torch.testing.assert_close(seen["inner"], model.inner(torch.relu(model.enter(x))))
    with pytest.raises(UnknownNameError, match="'inner'"):
        hidden_activity(model, x, layers=["iner"])
    with pytest.raises(ConfigError, match="name the layers"):
        fraction_active_units(nn.Linear(3, 2), torch.rand(2, 3))


@pytest.mark.parametrize("network", [mlp, convolutional, spiking])
def test_looking_changes_nothing(network) -> None:
    model = network()
    model.train()
    before = weights(model)
    probe_plasticity(model, torch.randn(8, FEATURES))
    assert same(weights(model), before) and model.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_hooks_go_when_the_model_fails() -> None:
    model = mlp()
    with pytest.raises(RuntimeError):
        fraction_active_units(model, torch.randn(8, FEATURES + 1))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_dormancy_by_hand() -> None:
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    x = torch.tensor(
        [[1.0, 0.0, 4.0, -1.0], [3.0, 0.1, 0.0, -2.0]]
    )  # means 2, .05, 2, 0; layer's mean 1.0125
    assert dormant_units(net, x, threshold=0.0).units["1"].tolist() == [False, False, False, True]
    assert dormant_units(net, x, threshold=0.05).units["1"].tolist() == [False, True, False, True]
    assert dormant_units(net, x, threshold=0.05).fraction == 0.5
    assert dormant_units(net, -x.abs()).fraction == 1.0
    with pytest.raises(ConfigError, match="threshold"):
        dormant_units(net, x, threshold=-1)


def test_a_channel_is_one_unit() -> None:
    conv = nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).reshape(3, 1, 1, 1))
        conv.bias.zero_()
    found = dormant_units(nn.Sequential(conv, nn.ReLU()), torch.rand(4, 1, 5, 5))
    assert found.units["1"].tolist() == [False, True, True] and found.fraction == pytest.approx(2 / 3)


@given(singular=st.lists(st.floats(0.01, 10), min_size=1, max_size=5), seed=st.integers(0, 100))
def test_ranks_of_known_singular_values(singular: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(n, len(singular))))[0] for n in (9, 6))
    features = torch.from_numpy(u @ np.diag(singular) @ v.T)
    share = np.array(singular) / sum(singular)
    assert effective_rank(features) == pytest.approx(
        math.exp(-float((share * np.log(share)).sum())), rel=1e-6
    )
    assert stable_rank(features) == pytest.approx(
        float(sum(s * s for s in singular) / max(singular) ** 2), rel=1e-6
    )


def test_ranks_without_features() -> None:
    assert effective_rank(torch.zeros(3, 2)) == stable_rank(torch.zeros(3, 2)) == 0.0
    with pytest.raises(ShapeError, match="flatten"):
        effective_rank(torch.zeros(3, 2, 2))


def test_weight_norm_counts_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    flat = torch.cat([model[0].weight.flatten(), model[2].weight.flatten()])
    assert weight_norm(model) == pytest.approx(float(flat.detach().norm()))
