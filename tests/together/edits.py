"""How edits take part: each makes another network of one that has learned both tasks."""

from __future__ import annotations

import copy

import torch

from neuropil.editing import TaskVector, linearize
from neuropil.nn import DelayLinear, grow_outputs
from neuropil.spiking import SigmaSchedule, convert_to_spikes, round_delays
from tests.together.world import (
    CLASSES,
    HIDDEN,
    Act,
    World,
    answer,
    named,
    part,
    plain,
    same_bits,
    seeded,
    stream,
    together,
)


@together("edit", TaskVector)
def task_vector(world: World) -> Act:
    """What the second task has added is taken away again."""
    yield
    yield
    yield
    given, first = world.model, world.life.models["one"]
    before = copy.deepcopy(given)
    world.model = (-TaskVector.between(first, given)).apply_to(given)
    assert same_bits(given, before)
    back = dict(world.model.named_parameters())
    for name, parameter in first.named_parameters():
        torch.testing.assert_close(back[name].detach(), parameter.detach())


@together("edit", grow_outputs)
def wider(world: World) -> Act:
    """Two more answers; the old ones are the same bits, and the network given stays as it was."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    before = copy.deepcopy(given)
    world.own_answers()
    world.model = grow_outputs(given, 2, layer=named(given, "last"), generator=seeded())
    assert same_bits(given, before)
    found = answer(world.model, x)
    assert found.shape[1] == CLASSES + 2
    torch.testing.assert_close(found[:, :CLASSES], answer(given, x))


def _gaussian_delays(world: World) -> None:
    def make(inputs: int, outputs: int) -> DelayLinear:
        settings = {"learn": True, "bounds": "clamp", "interpolation": "gaussian"}
        return DelayLinear(inputs, outputs, 2, generator=seeded(), **settings)

    world.take("second", make)


@together("edit", round_delays, SigmaSchedule, plan=_gaussian_delays)
def rounded_delays(world: World) -> Act:
    """Delays learn within their range while their Gaussians narrow, and are whole steps at the end."""
    world.plugin(SigmaSchedule(world.model, steps=8))
    yield
    yield
    yield
    layer = part(world.model, "second")
    assert abs(layer.width - 0.5) < 1e-6 and bool(((layer.delays >= 0) & (layer.delays <= 2)).all())
    given = world.model
    world.model = round_delays(given)
    delays = part(world.model, "second").delays
    assert delays.shape == (HIDDEN, HIDDEN) and bool((delays == delays.round()).all())


@together("edit", linearize)
def tangent(world: World) -> Act:
    """The linear approximation answers as the network does where it was taken."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    before = copy.deepcopy(given)
    world.model = linearize(given)
    assert same_bits(given, before)
    torch.testing.assert_close(answer(world.model, x), answer(given, x))


@together("edit", convert_to_spikes, plan=plain)
def spikes(world: World) -> Act:
    """A network of rates speaks in spikes and answers nearly the same; the one given stays as it was."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    before = copy.deepcopy(given)
    world.model = convert_to_spikes(given, stream()[1].train.tensors[0], time_steps=64)
    assert same_bits(given, before)
    wanted, found = answer(given, x), answer(world.model, x)
    assert float((wanted - found).norm()) < 0.3 * float(wanted.norm())
