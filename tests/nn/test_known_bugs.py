"""Mistakes that users of other spiking libraries reported, each as a case that must not happen here.

The number is that of the report: ST snntorch, SJ spikingjelly.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import StateError
from neuropil.nn import (
    IF,
    LIF,
    AdEx,
    AlphaSynapse,
    DelayLinear,
    RateReadout,
    Recurrent,
    Refractory,
    Sequential,
    SynapticLIF,
    record,
)

CELLS = {
    "LIF": LIF,
    "SynapticLIF": SynapticLIF,
    "AdEx": lambda: AdEx(dt=0.5),
    "Refractory": lambda: Refractory(LIF(), 2),
    "Recurrent": lambda: Recurrent(LIF(), nn.Linear(3, 3)),
    "delayed": lambda: Recurrent(LIF(), DelayLinear(3, 3, 4)),
}
every_cell = pytest.mark.parametrize("kind", CELLS)


def test_reset_by_subtraction_subtracts_and_reset_to_zero_zeroes():
    """ST#341, #364, #379: the soft reset went to zero and the hard one subtracted."""
    x = torch.full((1, 1, 1), 1.75)
    assert LIF(1.0, reset="subtract")(x)[1].membrane.item() == 0.75
    assert LIF(1.0, reset="zero")(x)[1].membrane.item() == 0.0


def test_the_threshold_is_taken_off_in_units_of_the_membrane():
    """ST#413: the reset subtracted `spike - threshold` instead of `spike * threshold`."""
    assert IF(threshold=3.0)(torch.full((1, 1, 1), 5.0))[1].membrane.item() == 2.0
    assert IF(threshold=3.0)(torch.full((1, 1, 1), 2.0))[1].membrane.item() == 2.0


def test_current_and_membrane_are_two_things():
    """ST#358, #363: the synaptic current was overwritten by the membrane."""
    x = torch.zeros(6, 1, 1, dtype=torch.float64)
    x[0] = 1
    _, state = SynapticLIF(0.5, 0.25, threshold=99.0).double()(x)
    assert_close(state.current.item(), 0.5**5)
    assert_close(state.membrane.item(), sum(0.25 ** (5 - k) * 0.5**k for k in range(6)))


@every_cell
def test_a_second_backward_pass_needs_no_reset(kind):
    """ST#250, #340, SJ#594, #318, #420: "Trying to backward through the graph a second time"."""
    net = Sequential(nn.Linear(3, 3), CELLS[kind](), RateReadout())
    for _ in range(2):
        net(torch.rand(4, 2, 3)).sum().backward()


@every_cell
def test_nothing_is_left_over_for_the_next_call(kind):
    """ST#108, #323, #423: recurrent spikes were never reset, and `zeros()` did nothing."""
    cell, x = CELLS[kind](), 3 * torch.rand(6, 2, 3)
    first = cell(x)[0]
    cell(torch.full_like(x, 9.0))
    assert torch.equal(cell(x)[0], first)


@every_cell
def test_other_networks_keep_their_state(kind):
    """ST#438: a reset cleared the state of every network in the process."""
    one, two, x = CELLS[kind](), CELLS[kind](), 3 * torch.rand(6, 2, 3)
    whole, (_, state) = two(x)[0], two(x[:3])
    one(x)
    assert_close(two(x[3:], state)[0], whole[3:])


@every_cell
def test_a_state_of_another_batch_is_told_by_its_size(kind):
    """SJ#591: an old state met a new batch size, with a message about broadcasting."""
    cell = CELLS[kind]()
    state = cell(torch.rand(2, 4, 3))[1]
    with pytest.raises(StateError) as caught:
        cell(torch.rand(2, 5, 3), state)
    assert "\n" not in str(caught.value) and "4" in str(caught.value)


@every_cell
def test_a_state_dict_holds_no_state(kind):
    """ST#314: a saved model of one batch size could not be loaded for another."""
    cell = CELLS[kind]()
    before = set(cell.state_dict())
    cell(torch.rand(3, 7, 3))
    assert set(cell.state_dict()) == before
    CELLS[kind]().load_state_dict(cell.state_dict())
    assert all(value.shape[:1] != (7,) for value in cell.state_dict().values())


def test_norms_of_many_steps_are_those_of_all_steps_at_once():
    """SJ#619: batch normalisation over steps gave other numbers than over the sequence."""
    norm, x = nn.BatchNorm1d(3), torch.randn(5, 4, 3)
    y = Sequential(norm)(x)
    assert_close(y.flatten(0, 1).mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    assert_close(y.flatten(0, 1).std(0, correction=0), torch.ones(3), rtol=0, atol=1e-4)


def test_an_alpha_synapse_rises_before_it_falls():
    """A difference of two decays in the wrong order is negative throughout."""
    x = torch.zeros(20, 1, 1)
    x[0] = 1
    current = AlphaSynapse(4.0)(x)[0].flatten()
    assert (current >= 0).all() and current.argmax() == 4


@every_cell
def test_every_step_can_be_seen(kind):
    """SJ#607, ST#412: how to keep the membrane of every step."""
    seen = record(Sequential(nn.Linear(3, 3), CELLS[kind]()), torch.rand(5, 2, 3))
    assert any(membranes.shape == (5, 2, 3) for membranes in seen.membranes.values())
