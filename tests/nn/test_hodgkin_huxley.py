from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from neuropil.nn import HodgkinHuxley
from neuropil.nn.hodgkin_huxley import gate_rates
from tests.nn.orders import exact_solution, exactly, held, measured_orders


def hodgkin_huxley(**options):
    return HodgkinHuxley(dt=0.1, **options), 40 + 20 * torch.randn(5, 3, 2)


def hodgkin_huxley_learned():
    return HodgkinHuxley(features=2, learn=True, dt=0.05, method="rk4"), 40 + 20 * torch.randn(3, 3, 2)


PARTS = [("module", hodgkin_huxley), ("module", hodgkin_huxley_learned)]


def slope(_, state, current=10.0):
    """The equations of the paper, in numpy, with a membrane counted from 0 at minus infinity."""
    v, m, h, n = state
    u = v + 65
    ramp = [0.1 * (25 - u) / (math.exp((25 - u) / 10) - 1), 0.01 * (10 - u) / (math.exp((10 - u) / 10) - 1)]
    ionic = 120 * m**3 * h * (v - 50) + 36 * n**4 * (v + 77) + 0.3 * (v + 54.387)
    return [
        current - ionic,
        ramp[0] * (1 - m) - 4 * math.exp(-u / 18) * m,
        0.07 * math.exp(-u / 20) * (1 - h) - h / (math.exp((30 - u) / 10) + 1),
        ramp[1] * (1 - n) - 0.125 * math.exp(-u / 80) * n,
    ]


def start():
    state = exactly(HodgkinHuxley).initial_state(held(0.0, 1))
    return [value.item() for value in state]


@pytest.mark.parametrize(
    ("method", "order", "steps"), [("exponential", 1, (0.02, 0.01, 0.005)), ("rk4", 4, (0.05, 0.025, 0.0125))]
)
def test_the_error_has_its_order(method, order, steps):
    exact = exact_solution(slope, start(), 5.0)  # a whole action potential and the way down

    def potassium(dt):
        return exactly(HodgkinHuxley, dt=dt, method=method)(held(10.0, round(5 / dt)))[1].n.item()

    orders = measured_orders(potassium, exact[3], steps)
    assert all(abs(found - order) < 0.25 for found in orders)


def test_rates_are_those_of_the_paper_also_where_they_are_zero_over_zero():
    m, h, n = gate_rates(torch.tensor([-65.0, -40.0, -55.0], dtype=torch.float64))
    assert_close(m.opening[0].item(), 2.5 / (math.exp(2.5) - 1))
    assert_close(m.opening[1].item(), 1.0)  # 25 millivolts above rest
    assert_close(n.opening[2].item(), 0.1)  # 10 millivolts above rest
    assert_close(n.opening[0].item(), 0.1 / (math.e - 1))
    assert_close(h.closing[0].item(), 1 / (math.exp(3) + 1))
    near = gate_rates(torch.linspace(-40 - 1e-2, -40 + 1e-2, 101, dtype=torch.float64))[0].opening
    assert near.diff().diff().abs().max() < 1e-9, "the rate has a step"


def test_it_rests_where_the_paper_says_and_fires_from_a_threshold_on():
    still, _ = HodgkinHuxley(dt=0.05).double()(held(0.0, 1000))
    assert still.sum() == 0
    counts = [HodgkinHuxley(dt=0.05).double()(held(c, 2000))[0].sum().item() for c in (2.0, 4.0, 10.0)]
    assert counts[0] == 0 and counts[1] <= 2 and counts[2] >= 6  # about 70 spikes per second at 10


def test_gates_stay_between_closed_and_open_at_any_step():
    x = torch.full((200, 1, 50), 0.0, dtype=torch.float64) + torch.linspace(
        -300, 300, 50, dtype=torch.float64
    )
    for dt in (0.01, 1.0, 50.0):
        state = HodgkinHuxley(dt=dt).double()(x)[1]
        for gate in state[1:]:
            assert ((gate >= 0) & (gate <= 1)).all()


def test_action_potential_has_its_size():
    cell, state, membranes = HodgkinHuxley(dt=0.01, method="rk4").double(), None, []
    for x in held(10.0, 500).split(1):
        state = cell(x, state)[1]
        membranes.append(state.membrane.item())
    assert 35 < max(membranes) < 45 and -80 < min(membranes) < -65
    assert np.argmax(membranes) > 100
