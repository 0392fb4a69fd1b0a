from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels.reservoir import spiking_reservoir_scan
from neuropil.nn import (
    LIF,
    AdaptiveLIF,
    ConductanceLIF,
    DelayLinear,
    LeakyIntegrator,
    Population,
    RateReadout,
    Recurrent,
    Refractory,
    Sequential,
    record,
)


def recurrent():
    return Recurrent(LIF(), nn.Linear(4, 4)), torch.randn(5, 3, 4)


def recurrent_delayed():
    return Recurrent(AdaptiveLIF(features=4), DelayLinear(4, 4, longest=3)), torch.randn(5, 3, 4)


def recurrent_conductance():
    back = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (2, 4)))
    return Recurrent(Refractory(ConductanceLIF(), steps=2), back), 20 * torch.randn(5, 3, 2, 4)


PARTS = [("module", recurrent), ("module", recurrent_delayed), ("module", recurrent_conductance)]


def test_it_is_the_recurrent_network_of_the_kernel():
    x, weights = 3 * torch.rand(50, 2, 6), torch.randn(6, 6) / 3
    back = nn.Linear(6, 6, bias=False)
    back.weight.data.copy_(weights)
    spikes, state = Recurrent(LIF(0.8), back)(x)
    rest = torch.zeros(2, 6)
    run = spiking_reservoir_scan(x, rest, rest, weights, torch.eye(6), decay=0.8)
    assert 0 < spikes.mean() < 1
    assert torch.equal(spikes, run.spikes)
    assert_close(state.cell.membrane, run.membrane)


def test_a_linear_cell_is_a_linear_recurrence():
    """Without a threshold: `v[t] = decay v[t-1] + x[t] + W v[t-1]`, an ordinary matrix power."""
    weights = 0.3 * torch.randn(4, 4, dtype=torch.float64)
    back = nn.Linear(4, 4, bias=False).double()
    back.weight.data.copy_(weights)
    x = torch.zeros(9, 1, 4, dtype=torch.float64)
    x[0] = torch.randn(4)
    membranes, _ = Recurrent(LeakyIntegrator(0.5), back)(x)
    matrix = 0.5 * torch.eye(4, dtype=torch.float64) + weights
    assert_close(membranes[-1, 0], torch.linalg.matrix_power(matrix, 8) @ x[0, 0], rtol=1e-6, atol=1e-8)


def test_gradients_through_the_loop_are_derivatives():
    cell = Recurrent(LeakyIntegrator(0.5, learn_decay=True), nn.Linear(3, 3)).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in cell.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in cell.parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *given: torch.func.functional_call(cell, dict(zip(names, given, strict=True)), (x,))[0],
        (x, *values),
    )


def test_a_delayed_weight_comes_back_later():
    back = DelayLinear(1, 1, 5, delays=torch.tensor([[4]]), bias=False)
    nn.init.ones_(back.weight)
    x = torch.zeros(16, 1, 1)
    x[0] = 1
    assert Recurrent(LIF(), back)(x)[0].flatten().nonzero().flatten().tolist() == [0, 5, 10, 15]


def test_nothing_is_carried_from_call_to_call():
    cell, x = Recurrent(LIF(), nn.Linear(4, 4)), torch.rand(6, 2, 4)
    assert torch.equal(cell(x)[0], cell(x)[0])
    for _ in range(2):  # a second backward pass needs nothing of the first
        cell(x)[0].sum().backward()


def test_an_excitatory_inhibitory_population_learns_within_the_law():
    neurons = Population(12, 4)
    back = nn.Linear(16, 16, bias=False)
    back.weight.data.copy_(neurons.connections(0.5, generator=torch.Generator().manual_seed(0)))
    register_parametrization(back, "weight", neurons.dale())
    net = Sequential(nn.Linear(5, 16), Recurrent(LIF(0.8), back), nn.Linear(16, 2), RateReadout())
    optimizer, x = torch.optim.Adam(net.parameters(), lr=0.05), torch.randn(10, 8, 5)
    before = back.weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    assert not torch.equal(back.weight, before)
    assert (back.weight * neurons.signs >= 0).all()


def test_it_can_be_recorded():
    net = Sequential(nn.Linear(5, 4), Recurrent(LIF(), nn.Linear(4, 4)))
    seen = record(net, torch.randn(6, 2, 5))
    assert seen.spikes["1.cell"].shape == seen.membranes["1.cell"].shape == (6, 2, 4)


def test_bad_arguments_get_one_line():
    with pytest.raises(ConfigError, match=r"Recurrent.cell: got a Linear, expected a stateful module"):
        Recurrent(nn.Linear(3, 3), nn.Linear(3, 3))
    with pytest.raises(ShapeError, match=r"weights turn the output \[1, 3\] into \[1, 4\]"):
        Recurrent(LIF(), nn.Linear(3, 4))(torch.zeros(2, 1, 3))
    with pytest.raises(StateError, match="state is a LIFState, expected"):
        Recurrent(LIF(), nn.Linear(3, 3))(torch.zeros(2, 1, 3), LIF()(torch.zeros(2, 1, 3))[1])
