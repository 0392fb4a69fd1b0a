from __future__ import annotations

import math

import pytest
import torch

from neuropil.nn import QIF
from neuropil.nn.solver import ORDERS
from tests.nn.orders import exactly, held, measured_orders


def quadratic(**options):
    return QIF(dt=1.0, **options), 2 * torch.randn(5, 3, 4) + 2


def quadratic_learned():
    return QIF(features=4, learn=True, dt=1.0, method="heun", detach_reset=False), 2 * torch.randn(
        9, 3, 4
    ) + 2


PARTS = [("module", quadratic), ("module", quadratic_learned)]


def rise(current, start, end, tau=10.0):
    """Time from `start` to `end` of `tau v' = v (v - 1) + current`, a tangent."""
    root = math.sqrt(current - 0.25)
    return tau / root * (math.atan((end - 0.5) / root) - math.atan((start - 0.5) / root))


@pytest.mark.parametrize("method", ORDERS)
def test_below_the_threshold_the_membrane_is_a_tangent(method):
    root = math.sqrt(1.0 - 0.25)

    def membrane(dt):
        return exactly(QIF, dt=dt, method=method)(held(1.0, round(20 / dt)))[1].membrane.item()

    exact = 0.5 + root * math.tan(root * 20 / 10 + math.atan(-0.5 / root))
    orders = measured_orders(membrane, exact, (0.2, 0.1, 0.05))
    assert all(abs(order - ORDERS[method]) < 0.1 for order in orders)


@pytest.mark.parametrize("current", [0.4, 1.0, 4.0])
def test_the_period_is_the_closed_form(current):
    dt = 0.001
    spikes = QIF(dt=dt, threshold=50.0).double()(held(current, 160_000 if current < 1 else 60_000))[0]
    gaps = spikes.flatten().nonzero().flatten().diff() * dt
    wanted = rise(current, -1.0, 50.0)
    assert len(gaps) > 0 and (gaps - wanted).abs().max() <= 0.02


def test_it_fires_from_its_rheobase_on():
    x = torch.tensor([0.24, 0.26], dtype=torch.float64).expand(10_000, 1, 2)
    assert QIF().double()(x)[0].sum(0)[0].bool().tolist() == [False, True]


def test_it_falls_back_below_the_critical_membrane_and_fires_above():
    cell = QIF().double()
    state = cell.initial_state(held(0.0, 1).expand(1, 1, 2))
    state = state._replace(membrane=torch.tensor([[0.99, 1.01]], dtype=torch.float64))
    spikes, end = cell(held(0.0, 2000).expand(2000, 1, 2), state)
    assert spikes.sum(0).tolist() == [[0.0, 1.0]]
    assert abs(end.membrane[0, 0].item()) < 1e-3
