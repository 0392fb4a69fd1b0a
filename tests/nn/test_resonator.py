from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError
from neuropil.nn import ResonateAndFire


def resonator(**options):
    return ResonateAndFire(frequency=60.0, dt=2.0, **options), 2 * torch.randn(6, 3, 4)


def resonator_learned():
    return ResonateAndFire(60.0, features=4, learn=True, dt=2.0, detach_reset=False), 2 * torch.randn(
        12, 3, 4
    )


PARTS = [("module", resonator), ("module", resonator_learned)]


@pytest.mark.parametrize("dt", [0.1, 1.0, 7.0])
def test_below_the_threshold_it_rings_as_the_closed_form_says(dt):
    steps = 20
    x = torch.zeros(steps, 1, 1, dtype=torch.float64)
    x[0], x[3] = 0.5, -0.7
    spikes, state = ResonateAndFire(35.0, tau=40.0, dt=dt).double()(x)
    rate = complex(-1 / 40, 2 * math.pi * 35 / 1000)
    wanted = 0.5 * cmath.exp(rate * dt * steps) - 0.7 * cmath.exp(rate * dt * (steps - 3))
    assert spikes.sum() == 0
    assert_close(state.current.item(), wanted.real, rtol=1e-6, atol=1e-7)
    assert_close(state.membrane.item(), wanted.imag, rtol=1e-6, atol=1e-7)


def test_it_answers_to_its_own_rhythm():
    times = torch.arange(400)
    counts = []
    for period in (15, 25, 40):  # pulses; 40 cycles per second are 25 ms
        x = 0.7 * (times % period == 0).double().view(-1, 1, 1)
        counts.append(ResonateAndFire(40.0, tau=60.0).double()(x)[0].sum().item())
    assert counts[1] > 5 and counts[0] == counts[2] == 0


def test_a_spike_ends_the_oscillation():
    x = torch.zeros(30, 1, 1, dtype=torch.float64)
    x[0] = 3.0
    spikes, state = ResonateAndFire(40.0).double()(x)
    assert spikes.sum() == 1 and state.current.item() == state.membrane.item() == 0


def test_reset_above_the_threshold_is_refused():
    with pytest.raises(
        ConfigError, match=r"ResonateAndFire.reset: got 2.0, expected less than the threshold 1.0"
    ):
        ResonateAndFire(reset=2.0)
