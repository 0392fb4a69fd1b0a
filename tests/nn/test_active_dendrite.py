from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn import LIF, ActiveDendrite, LIFState


def active(**options):
    return ActiveDendrite(segments=3, **options), 2 * torch.randn(5, 3, 4, 5)


def active_learned():
    return ActiveDendrite(3, features=5, learn=True, detach_reset=False), 2 * torch.randn(5, 3, 4, 5)


PARTS = [("module", active), ("module", active_learned)]


def test_without_gain_it_is_the_leaky_neuron():
    x = 2 * torch.randn(30, 2, 4, 5)
    mine, state = ActiveDendrite(3, gain=0.0, decay=0.7)(x)
    wanted, rest = LIF(0.7)(x[:, :, 0])
    assert torch.equal(mine, wanted) and torch.equal(state.membrane, rest.membrane)


def test_a_plateau_starts_at_the_threshold_fades_and_is_never_stacked():
    x = torch.zeros(6, 1, 2, 1, dtype=torch.float64)
    x[0, :, 1], x[2, :, 1] = 1.0, 5.0
    cell, state, plateaus = ActiveDendrite(1, plateau_decay=0.5, gain=0.01).double(), None, []
    for now in x.split(1):
        state = cell(now, state)[1]
        plateaus.append(state.plateaus.item())
    assert plateaus == [1.0, 0.5, 1.0, 0.5, 0.25, 0.125]
    assert state.segments.item() == 0


def test_coincidence_on_one_segment_counts_and_spread_over_segments_does_not():
    together, apart = torch.zeros(20, 1, 4, 1), torch.zeros(20, 1, 4, 1)
    together[3, :, 1] = 1.2
    apart[3, :, 1:] = 0.4
    for x in (together, apart):
        x[10, :, 0] = 0.9  # too weak by itself
    cell = ActiveDendrite(3)
    assert cell(together)[0].sum() == 1 and cell(apart)[0].sum() == 0


def test_bad_arguments_get_one_line():
    with pytest.raises(ConfigError, match=r"ActiveDendrite.segments: got 0, expected at least 1"):
        ActiveDendrite(0)
    with pytest.raises(ConfigError, match=r"ActiveDendrite.decay: got 1.5, expected a decay in \[0, 1\]"):
        ActiveDendrite(decay=1.5)
    with pytest.raises(ShapeError, match=r"expected \[time, batch, 4, ...features\]"):
        ActiveDendrite(3)(torch.zeros(2, 1, 3, 5))
    state = ActiveDendrite(2)(torch.zeros(2, 1, 3, 5))[1]
    with pytest.raises(
        StateError, match=r"state.segments has shape \[1, 2, 5\], the input needs \[1, 3, 5\]"
    ):
        ActiveDendrite(3)(torch.zeros(2, 1, 4, 5), state)
    with pytest.raises(StateError, match="state is a LIFState, expected"):
        ActiveDendrite(3)(torch.zeros(2, 1, 4, 5), LIFState(torch.zeros(1, 5)))


def test_segments_learn_through_the_soma():
    x = torch.rand(20, 2, 4, 5, requires_grad=True)
    spikes, _ = ActiveDendrite(3)(x)
    (gradient,) = torch.autograd.grad(spikes.sum(), x)
    assert (gradient[:, :, 1:].abs().sum((0, 1, 3)) > 0).all()
    assert_close(gradient.isfinite().all(), torch.tensor(True))
