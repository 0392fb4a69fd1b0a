from __future__ import annotations

import math

import pytest
import torch

from neuropil.nn import AdEx
from neuropil.nn.solver import ORDERS
from tests.nn.orders import exact_solution, exactly, held, measured_orders


def adex(**options):
    return AdEx(dt=0.5, **options), 900 + 900 * torch.randn(6, 3, 4)


def adex_learned():
    return AdEx(features=4, learn=True, dt=0.5), 900 + 900 * torch.randn(9, 3, 4)


def adex_exact():
    return adex(method="heun", detach_reset=False)


PARTS = [("module", adex), ("module", adex_learned), ("module", adex_exact)]


@pytest.mark.parametrize("method", ORDERS)
def test_below_the_threshold_the_error_has_its_order(method):
    def slope(_, state):
        v, w = state
        upstroke = 30 * 2 * math.exp((v + 50.4) / 2)
        return [(-30 * (v + 70.6) + upstroke - w + 500) / 281, (4 * (v + 70.6) - w) / 144]

    exact = exact_solution(slope, [-70.6, 0.0], 20.0)

    def membrane(dt):
        spikes, state = exactly(AdEx, dt=dt, method=method)(held(500.0, round(20 / dt)))
        assert spikes.sum() == 0
        return state.membrane.item()

    orders = measured_orders(membrane, exact[0], (0.4, 0.2, 0.1))
    assert all(abs(order - ORDERS[method]) < 0.2 for order in orders)


def test_a_spike_resets_and_adapts():
    cell = AdEx(method="rk4", dt=0.05).double()
    spikes, state = cell(held(2000.0, 2000))
    first = int(spikes.flatten().nonzero()[0])
    before, after = cell(held(2000.0, first))[1], cell(held(2000.0, first + 1))[1]
    assert after.membrane.item() == pytest.approx(-70.6)
    assert 80.5 < after.adaptation.item() - before.adaptation.item() + 0.2 < 81
    assert spikes.sum() > 3 and state.membrane < -30


def test_spike_times_converge_with_the_step():
    def first_spike(dt):
        spikes = AdEx(dt=dt).double()(held(900.0, round(60 / dt)))[0]
        return dt * int(spikes.flatten().nonzero()[0])

    finest = first_spike(0.002)
    assert all(abs(first_spike(dt) - finest) <= 4 * dt for dt in (0.2, 0.1, 0.05))


def test_the_numbers_make_the_patterns_of_the_paper():
    def gaps(**numbers):
        spikes = AdEx(dt=0.1, **numbers).double()(held(numbers.pop("drive", 1000.0), 5000))[0]
        return spikes.flatten().nonzero().flatten().diff() * 0.1

    adapting, tonic = gaps(), gaps(a=0.0, b=0.0)
    assert adapting[-1] > 1.5 * adapting[0]
    assert tonic.max() - tonic.min() <= 0.11  # as regular as the steps allow
    bursts = gaps(reset=-47.4, tau=144.0, b=80.5)
    assert bursts[0] < 0.3 * bursts.max()  # spikes in quick succession, then a pause
