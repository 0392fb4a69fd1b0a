"""How edits take part: each makes another network of one that has learned both tasks."""

from __future__ import annotations

import torch

from neuropil.nn import grow_outputs
from neuropil.spiking import convert_to_spikes
from tests.together.world import CLASSES, Act, World, answer, plain, same_bits, seeded, stream, together


@together("edit", convert_to_spikes, plan=plain)
def spikes(world: World) -> Act:
    """A network of rates speaks in spikes and answers nearly the same; the one given stays as it was."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    world.model = convert_to_spikes(given, stream()[1].train.tensors[0], time_steps=64)
    assert same_bits(given, world.life.models["ended"])
    wanted, found = answer(given, x), answer(world.model, x)
    assert float((wanted - found).norm()) < 0.3 * float(wanted.norm())


@together("edit", grow_outputs)
def wider(world: World) -> Act:
    """Two more answers; the old ones are the same bits, and the network given stays as it was."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    world.model = grow_outputs(given, 2, layer="last", generator=seeded())
    assert same_bits(given, world.life.models["ended"])
    found = answer(world.model, x)
    assert found.shape[1] == CLASSES + 2
    torch.testing.assert_close(found[:, :CLASSES], answer(given, x))
