from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import RateReadout, Sequential, TwoCompartment


def two_compartment(**options):
    return TwoCompartment(**options), 4 * torch.randn(5, 3, 2, 4)


def two_compartment_learned():
    return TwoCompartment(features=4, learn=True, detach_reset=False), 4 * torch.randn(5, 3, 2, 4)


PARTS = [("module", two_compartment), ("module", two_compartment_learned)]


@pytest.mark.parametrize("dt", [0.1, 1.0, 30.0])
def test_a_step_is_the_matrix_exponential(dt):
    from scipy.linalg import expm

    numbers = (7.0, 13.0, 0.4, 0.9, 1.7)
    c_s, c_d, g_s, g_d, g = numbers
    matrix = np.array([[-(g_s + g) / c_s, g / c_s], [g / c_d, -(g_d + g) / c_d]])
    x = np.array([2.0, -5.0])
    rest = -np.linalg.solve(matrix, x / np.array([c_s, c_d]))
    wanted = rest + expm(matrix * dt * 5) @ (0 - rest)
    cell = TwoCompartment(*numbers, threshold=1e6, dt=dt).double()
    _, state = cell(torch.tensor(x).view(1, 1, 2, 1).expand(5, 1, 2, 1))
    assert_close([state.membrane.item(), state.dendrite.item()], list(wanted), rtol=1e-6, atol=1e-7)


def test_the_dendrite_is_weaker_and_later_and_keeps_its_membrane():
    x = torch.zeros(30, 1, 2, 2, dtype=torch.float64)
    x[0, :, 0, 0], x[0, :, 1, 1] = 5.0, 5.0
    cell, state, seen = TwoCompartment().double(), None, []
    for now in x.split(1):
        state = cell(now, state)[1]
        seen.append(state.membrane[0])
    soma, dendrite = torch.stack(seen).unbind(1)
    assert soma.max() > dendrite.max() > 0 and dendrite.argmax() > soma.argmax()
    spikes, state = cell(torch.full((1, 1, 2, 1), 50.0, dtype=torch.float64))
    assert spikes.item() == 1 and state.membrane.item() == 0 and state.dendrite.item() > 3


def test_it_lives_behind_a_linear_layer():
    net = Sequential(nn.Linear(5, 8), nn.Unflatten(1, (2, 4)), TwoCompartment(), RateReadout())
    assert net(torch.randn(6, 3, 5)).shape == (3, 4)


def test_bad_arguments_get_one_line():
    with pytest.raises(
        ShapeError, match=r"input has shape \[4, 1, 3\], expected \[time, batch, 2, ...features\]"
    ):
        TwoCompartment()(torch.zeros(4, 1, 3))
    with pytest.raises(ConfigError, match=r"TwoCompartment.coupling: got 0.0, expected a finite number > 0"):
        TwoCompartment(coupling=0.0)
