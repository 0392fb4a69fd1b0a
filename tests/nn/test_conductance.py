from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.kernels.liquid import LiquidNeuron, liquid_scan
from neuropil.nn import ConductanceLIF
from tests.nn.orders import exact_solution, measured_orders


def conductance(**options):
    return ConductanceLIF(**options), 20 * torch.randn(5, 3, 2, 4)


def conductance_learned():
    return ConductanceLIF(features=4, learn=True, detach_reset=False), 20 * torch.randn(5, 3, 2, 4)


PARTS = [("module", conductance), ("module", conductance_learned)]


def pulse(steps, excitation=30.0, inhibition=0.0):
    x = torch.zeros(steps, 1, 2, 1, dtype=torch.float64)
    x[0, 0, :, 0] = torch.tensor([excitation, inhibition])
    return x


def test_the_error_is_of_first_order():
    def slope(t, state):
        (v,) = state
        pull = 30 * math.exp(-t / 5) * (0 - v) + 12 * math.exp(-t / 10) * (-80 - v)
        return [(10 * (-60 - v) + pull) / 200]

    exact = exact_solution(slope, [-60.0], 10.0)[0]

    def membrane(dt):
        cell = ConductanceLIF(threshold=1e3, dt=dt).double()
        return cell(pulse(round(10 / dt), 30.0, 12.0))[1].membrane.item()

    assert all(abs(order - 1) < 0.1 for order in measured_orders(membrane, exact, (0.2, 0.1, 0.05)))


def test_stays_between_the_reversals_where_forward_euler_explodes():
    cell = ConductanceLIF(threshold=1e3, dt=1.0).double()
    x = 1e4 * torch.rand(100, 1, 2, 8, dtype=torch.float64)
    membrane, e, i, euler_worst = x.new_full((1, 8), -60.0), x.new_zeros(1, 8), x.new_zeros(1, 8), 0.0
    state = None
    for now in x.split(1):
        state = cell(now, state)[1]
        assert ((state.membrane >= -80) & (state.membrane <= 0)).all()
        e, i = e + now[0, :, 0], i + now[0, :, 1]
        membrane = membrane + (10 * (-60 - membrane) + e * (0 - membrane) + i * (-80 - membrane)) / 200
        e, i = e * math.exp(-1 / 5), i * math.exp(-1 / 10)
        euler_worst = max(euler_worst, membrane.abs().max().item())
    assert euler_worst > 1e6


def test_a_shunt_pulls_without_a_current_of_its_own():
    """Inhibition with its reversal at rest leaves the resting membrane alone, and divides what excitation does."""
    cell = ConductanceLIF(inhibitory_reversal=-60.0, threshold=1e3).double()
    assert_close(cell(pulse(10, 0.0, 500.0))[1].membrane.item(), -60.0, rtol=1e-12, atol=0)
    free, shunted = (cell(pulse(2, 20.0, g))[1].membrane.item() + 60 for g in (0.0, 200.0))
    assert 0 < shunted < 0.6 * free


def test_it_is_the_neuron_of_the_liquid():
    x = 40 * torch.rand(100, 2, 2, 6, dtype=torch.float64) * (torch.rand(100, 2, 2, 6) < 0.1)
    spikes, state = ConductanceLIF().double()(x)
    into = torch.cat([torch.eye(6), -torch.eye(6)], 1).double()
    run = liquid_scan(x.flatten(2), torch.zeros(6, 6).double(), into, LiquidNeuron(refractory=0.0))
    assert spikes.sum() > 0 and torch.equal(spikes, run.spikes)
    assert_close(state.membrane, run.state.membrane, rtol=1e-6, atol=1e-6)


def test_negative_input_is_none():
    x = torch.randn(20, 2, 2, 3)
    assert torch.equal(ConductanceLIF()(x)[1].membrane, ConductanceLIF()(x.clamp(min=0))[1].membrane)


def test_input_needs_both_kinds_of_synapse():
    with pytest.raises(ShapeError, match=r"ConductanceLIF: input has shape .* expected \[time, batch, 2"):
        ConductanceLIF()(torch.zeros(4, 1, 3))
