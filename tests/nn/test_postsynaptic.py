from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn import AlphaSynapse, DoubleExponentialSynapse, ExponentialSynapse


def synapse(kind, **options):
    return kind(features=4, **options), torch.randn(7, 3, 4)


KINDS = (ExponentialSynapse, AlphaSynapse, DoubleExponentialSynapse)
PARTS = [("module", partial(synapse, kind, **o)) for kind in KINDS for o in ({}, {"learn": True})]


def impulse(steps):
    x = torch.zeros(steps, 1, 1, dtype=torch.float64)
    x[0] = 1
    return x


@pytest.mark.parametrize("dt", [0.1, 1.0, 6.0])
def test_responses_are_the_closed_forms_at_any_step(dt):
    t = dt * torch.arange(30, dtype=torch.float64)
    wanted = {
        ExponentialSynapse(4.0, dt=dt): torch.exp(-t / 4),
        AlphaSynapse(4.0, dt=dt): t / 4 * torch.exp(1 - t / 4),
    }
    for module, curve in wanted.items():
        assert_close(module.double()(impulse(30))[0].flatten(), curve, rtol=1e-5, atol=1e-6)
    two = DoubleExponentialSynapse(1.5, 6.0, dt=dt).double()(impulse(30))[0].flatten()
    peak = math.log(4) * 1.5 * 6 / 4.5
    scale = 1 / (math.exp(-peak / 6) - math.exp(-peak / 1.5))
    assert_close(two, scale * (torch.exp(-t / 6) - torch.exp(-t / 1.5)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_spikes_add_up(kind):
    x, y = torch.rand(2, 20, 1, 3, dtype=torch.float64)
    module = kind().double()
    assert_close(module(x + 2 * y)[0], module(x)[0] + 2 * module(y)[0])


def test_two_times_near_each_other_are_an_alpha_function():
    close = DoubleExponentialSynapse(4.0 - 1e-4, 4.0).double()(impulse(30))[0]
    assert_close(close, AlphaSynapse(4.0).double()(impulse(30))[0], rtol=0, atol=1e-4)


def test_bad_settings_and_inputs_get_one_line():
    with pytest.raises(
        ConfigError, match=r"rise: got 8.0, expected less than the decay 8.0; .* AlphaSynapse"
    ):
        DoubleExponentialSynapse(8.0, 8.0)
    with pytest.raises(ConfigError, match=r"AlphaSynapse.tau: got -1.0"):
        AlphaSynapse(-1.0)
    with pytest.raises(NonFiniteError, match="ExponentialSynapse input: 1 of 3 values"):
        ExponentialSynapse()(torch.tensor([1.0, math.nan, 0.0]).view(3, 1, 1))
