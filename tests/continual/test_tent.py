from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from neuropil.continual import TENT
from neuropil.continual.adapter import entropy
from neuropil.errors import ConfigError, NonFiniteError
from tests.continual.adapting import convolutional, dense, inputs, spiking
from tests.training.worlds import parameters, same, weights


def tent(network, rate=0.01):
    model = network()
    return TENT(model, optimizer=lambda p: torch.optim.Adam(p, lr=rate)), inputs(model)


PARTS = [("learner", partial(tent, network)) for network in (convolutional, dense, spiking)]


def test_entropy_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.double)
    assert entropy(p.clamp_min(1e-300).log()).item() == pytest.approx(
        (0.5 * 0.6931472 + 0.5 * 1.3862944) / 2, rel=1e-6
    )


def test_a_step_is_that_of_the_entropys_derivative() -> None:
    """Against gradients by finite differences of the entropy in training mode, in double precision."""
    torch.manual_seed(0)
    model = dense().double()
    x = inputs(model, 16).double()
    gain = model[1].weight.detach().clone()

    def loss(weight: torch.Tensor) -> float:
        h = (model[0](x) - model[0](x).mean(0)) / (model[0](x).var(0, unbiased=False) + 1e-5).sqrt()
        p = model[3](torch.relu(h * weight + model[1].bias)).softmax(-1)
        return float(-(p * p.log()).sum(-1).mean().detach())

    slope = []
    for i in range(len(gain)):
        step = torch.zeros_like(gain)
        step[i] = 1e-6
        slope.append((loss(gain + step) - loss(gain - step)) / 2e-6)
    TENT(model, optimizer=lambda p: torch.optim.SGD(p, lr=0.5)).update(x)
    torch.testing.assert_close(
        (gain - model[1].weight.detach()) / 0.5, torch.tensor(slope).double(), atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize("network", [convolutional, dense, spiking])
def test_only_gains_shifts_and_statistics_change(network) -> None:
    torch.manual_seed(0)
    model = network()
    before = weights(model)
    adapter = TENT(model)
    adapter.update(inputs(model))
    norms = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.rpartition(".")[0] in norms for name in changed)
    adapter.reset()
    assert same(weights(model), before) and not adapter.optimizer.state


def test_what_the_user_has_frozen_stays() -> None:
    torch.manual_seed(0)
    model = convolutional()
    model.norm.requires_grad_(False)
    before = parameters(model)
    TENT(model).update(inputs(model))
    after = parameters(model)
    assert torch.equal(after["norm.weight"], before["norm.weight"])
    assert not torch.equal(after["inner.weight"], before["inner.weight"])


def test_what_cannot_be_is_refused() -> None:
    frozen = dense()
    frozen[1].requires_grad_(False)
    with pytest.raises(ConfigError, match="may be trained"):
        TENT(frozen)
    with pytest.raises(ConfigError, match="no batch normalisation"):
        TENT(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    broken = dense()
    with torch.no_grad():
        broken[3].weight.fill_(torch.inf)
    adapter = TENT(broken)
    before = parameters(broken)
    with pytest.raises(NonFiniteError, match="no step"):
        adapter.update(inputs(broken))
    assert same(parameters(broken), before)
