from __future__ import annotations

import pytest
import torch

from neuropil.errors import ConfigError
from neuropil.nn import LeakyIntegrator, SynapticLIF
from neuropil.nn.synaptic_integrator import SynapticIntegrator


def fixed():
    return SynapticIntegrator(0.6, 0.8), torch.randn(6, 2, 3)


def learned():
    return SynapticIntegrator(0.3, 0.8, features=3, learn_decay=True), torch.randn(6, 2, 3)


PARTS = [("module", fixed), ("module", learned)]


def test_a_pulse_is_a_difference_of_exponentials():
    fast, slow = 0.5, 0.9
    pulse = torch.zeros(30, 1, 1, dtype=torch.float64)
    pulse[0] = 1
    y, _ = SynapticIntegrator(fast, slow).double()(pulse)
    t = torch.arange(1, 31, dtype=torch.float64)
    torch.testing.assert_close(y.flatten(), (slow**t - fast**t) / (slow - fast), rtol=1e-5, atol=0)


def test_it_is_the_membrane_of_a_synaptic_neuron_that_never_fires():
    x = torch.randn(20, 2, 3)
    _, state = SynapticLIF(0.6, 0.8, threshold=1e6)(x)
    y, mine = SynapticIntegrator(0.6, 0.8)(x)
    torch.testing.assert_close(y[-1], state.membrane)
    torch.testing.assert_close(mine.current, state.current)


def test_without_a_memory_of_the_current_it_is_a_leaky_integrator():
    x = torch.randn(9, 2, 3)
    assert torch.equal(SynapticIntegrator(0.0, 0.7)(x)[0], LeakyIntegrator(0.7)(x)[0])


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="current_decay"):
        SynapticIntegrator(1.5, 0.5)
