from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, StateError
from neuropil.nn import (
    IF,
    LIF,
    QIF,
    ActiveDendrite,
    AdaptiveLIF,
    AdEx,
    LeakyIntegrator,
    Refractory,
    SynapticLIF,
)


def refractory(kind, steps, scale=1.0, **options):
    return Refractory(kind(**options), steps), scale * (1 + torch.randn(7, 3, 4))


def refractory_dendrite():
    return Refractory(ActiveDendrite(3), steps=2), 2 * torch.randn(5, 3, 4, 5)


PARTS = [
    ("module", partial(refractory, LIF, 2)),
    ("module", partial(refractory, LIF, 3, reset="zero", features=4, learn_decay=True, learn_threshold=True)),
    ("module", partial(refractory, AdEx, 2, 1500.0, dt=0.5)),
    ("module", refractory_dendrite),
]


@pytest.mark.parametrize("kind", [LIF, IF, AdaptiveLIF, SynapticLIF, QIF])
@pytest.mark.parametrize("steps", [1, 4])
def test_spikes_keep_their_distance_and_the_membrane_rests(kind, steps):
    x = (500 if kind is QIF else 5) * torch.rand(60, 2, 3)
    cell = Refractory(kind(), steps)
    spikes, _ = cell(x)
    for neuron in spikes.flatten(1).unbind(1):
        assert (neuron.nonzero().flatten().diff() > steps).all()
    assert spikes.sum() > 0
    state = None
    for now in x.split(1):
        before = state
        fired, state = cell(now, before)
        if before is not None:
            held = before.waiting > 0
            assert (
                torch.equal(state.cell.membrane[held], before.cell.membrane[held])
                and not fired[0][held].any()
            )


@pytest.mark.parametrize("kind", [LIF, IF, AdaptiveLIF, SynapticLIF])
def test_no_steps_change_nothing(kind):
    x = torch.rand(30, 2, 3, requires_grad=True)
    mine, wanted = Refractory(kind(), 0)(x)[0], kind()(x)[0]
    assert torch.equal(mine, wanted)
    assert torch.allclose(*(torch.autograd.grad(y.sum(), x)[0] for y in (mine, wanted)))


def test_saturated_input_fires_as_often_as_it_may():
    assert Refractory(IF(), 4)(torch.full((20, 1, 1), 9.0))[0].sum() == 4


def test_bad_arguments_get_one_line():
    with pytest.raises(ConfigError, match=r"Refractory.cell: got a LeakyIntegrator, expected a spiking cell"):
        Refractory(LeakyIntegrator(), 2)
    with pytest.raises(ConfigError, match=r"Refractory.cell: got a Linear"):
        Refractory(nn.Linear(2, 2), 2)
    with pytest.raises(ConfigError, match=r"Refractory.steps: got -1, expected a whole number of steps >= 0"):
        Refractory(LIF(), -1)
    with pytest.raises(StateError, match="state is a LIFState"):
        Refractory(LIF(), 2)(torch.zeros(2, 1, 3), LIF()(torch.zeros(2, 1, 3))[1])
