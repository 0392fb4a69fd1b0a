from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.axonal_delay import AxonalDelay


def delays():
    return AxonalDelay(torch.tensor([0, 2, 5])), torch.randn(7, 2, 3)


def one_delay():
    return AxonalDelay(3), torch.randn(6, 2, 2, 2)


PARTS = [("module", delays), ("module", one_delay)]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 9))
def test_every_neuron_arrives_after_its_own_delay(steps, time):
    x = torch.arange(1.0, time * len(steps) + 1).view(time, 1, len(steps))
    y, _ = AxonalDelay(torch.tensor(steps))(x)
    for neuron, late in enumerate(steps):
        wanted = [0.0] * late + x[:, 0, neuron].tolist()
        assert y[:, 0, neuron].tolist() == wanted[:time]


@pytest.mark.parametrize("steps", [-1, torch.tensor([0.5]), torch.tensor([])])
def test_delays_are_whole_and_not_negative(steps):
    with pytest.raises(ConfigError, match="whole"):
        AxonalDelay(steps)


def test_another_number_of_neurons_is_refused():
    with pytest.raises(ShapeError, match="one per delay"):
        AxonalDelay(torch.tensor([1, 2]))(torch.zeros(3, 1, 4))
