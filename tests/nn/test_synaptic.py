from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn.lif import LIF
from neuropil.nn.synaptic import SynapticLIF


def synaptic(**options):
    return SynapticLIF(0.6, 0.7, 0.8, **options), torch.randn(7, 3, 4)


def synaptic_learned():
    module = SynapticLIF(
        0.6,
        0.7,
        features=4,
        learn_current_decay=True,
        learn_decay=True,
        learn_threshold=True,
        memory="recompute",
    )
    return module, torch.randn(7, 3, 4)


PARTS = [("module", synaptic), ("module", synaptic_learned)]


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_without_a_memory_of_the_current_it_is_the_leaky_neuron(reset):
    x = torch.randn(40, 2, 5, requires_grad=True)
    mine, state = SynapticLIF(0.0, 0.8, reset=reset)(x)
    wanted, rest = LIF(0.8, reset=reset)(x)
    assert torch.equal(mine, wanted) and torch.equal(state.membrane, rest.membrane)
    assert_close(torch.autograd.grad(mine.sum(), x), torch.autograd.grad(wanted.sum(), x))


def test_every_learned_number_moves_towards_a_target():
    torch.manual_seed(0)
    module = SynapticLIF(
        0.3, 0.5, features=3, learn_current_decay=True, learn_decay=True, learn_threshold=True
    )
    assert {name for name, _ in module.named_parameters()} == {
        "current_decay_logit",
        "decay_logit",
        "threshold",
    }
    x = 0.3 * torch.rand(30, 8, 3)
    target = SynapticLIF(0.7, 0.8, 0.9)(x)[0].mean(0)
    optimizer, losses = torch.optim.Adam(module.parameters(), lr=0.05), []
    for _ in range(60):
        loss = (module(x)[0].mean(0) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert ((module.current_decay > 0) & (module.current_decay < 1)).all()


def test_static_input_is_its_repetition():
    module, x = SynapticLIF(), torch.randn(3, 4)
    assert torch.equal(module.forward_static(x, 6)[0], module(x.expand(6, 3, 4))[0])


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_bad_decays_get_one_line(value):
    with pytest.raises(
        ConfigError, match=rf"SynapticLIF.current_decay: got {value}, expected a decay in \[0, 1\)"
    ):
        SynapticLIF(value)
    with pytest.raises(ConfigError, match=r"a learned decay in \(0, 1\)"):
        SynapticLIF(0.0, learn_current_decay=True)


def test_non_finite_input_is_refused():
    x = torch.zeros(3, 1, 1)
    x[1] = torch.nan
    with pytest.raises(NonFiniteError, match="SynapticLIF"):
        SynapticLIF()(x)
