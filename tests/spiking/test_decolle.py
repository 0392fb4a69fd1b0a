"""Every layer learns from its own random readout: three published factors that stay in their layer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from neuropil.nn import LIF, BatchFirst, RateReadout, Sequential, TracedLinear
from neuropil.nn.recording import record
from neuropil.spiking import DECOLLE
from neuropil.training import Learner
from tests.spiking.patterns import CHANNELS, CLASSES, spike_batch


def network(online: bool = False) -> BatchFirst:
    torch.manual_seed(0)
    linear = partial(TracedLinear, decay=0.8) if online else nn.Linear
    cells = [LIF(decay=0.8, temporal_gradient=not online) for _ in range(2)]
    first, second = linear(CHANNELS, 20), linear(20, 16)
    return BatchFirst(Sequential(first, cells[0], second, cells[1], nn.Linear(16, CLASSES), RateReadout()))


def decolle(online: bool = False) -> tuple[Learner, Batch]:
    net = network(online)
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    return DECOLLE(
        net, torch.optim.Adam(net.parameters(), lr=0.03), scale=4.0, generator=generator
    ), spike_batch()


PARTS = [("learner", decolle), ("learner", partial(decolle, online=True))]


@pytest.mark.parametrize("online", [False, True])
def test_the_gradient_is_error_times_surrogate_times_trace(online: bool) -> None:
    learner, batch = decolle(online)
    learner.optimizer = torch.optim.SGD(learner.model.parameters(), lr=0.0)
    learner.update(batch)
    net = learner.model.model
    seen = record(net, batch.inputs.transpose(0, 1))
    steps, count = seen.spikes["1"].shape[:2]
    targets = functional.one_hot(batch.targets, CLASSES)
    for linear, cell, pre in ((net[0], "1", batch.inputs.transpose(0, 1)), (net[2], "3", seen.spikes["1"])):
        readout = learner.readouts[f"model.{cell}"]
        expected = torch.zeros_like(linear.weight)
        trace, membrane = torch.zeros(count, pre.shape[-1]), torch.zeros_like(seen.membranes[cell][0])
        for t in range(steps):
            trace = 0.8 * trace + pre[t]
            before_reset = 0.8 * membrane + seen.currents[cell][t]
            membrane = seen.membranes[cell][t]
            error = ((seen.spikes[cell][t] @ readout.T).softmax(-1) - targets) / (steps * count)
            local = (error @ readout) * LIF().surrogate.derivative(before_reset - 1)
            expected += local.T @ trace
        torch.testing.assert_close(linear.weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_no_error_passes_from_layer_to_layer() -> None:
    learner, batch = decolle()
    learner.optimizer = torch.optim.SGD(learner.model.parameters(), lr=0.0)
    learner.update(batch)
    first = learner.model.model[0].weight.grad.clone()
    learner.model.model[2].weight.data.mul_(3)  # whatever the second layer does
    learner.update(batch)
    assert torch.equal(learner.model.model[0].weight.grad, first)


def test_burn_in_teaches_nothing_and_chosen_layers_alone_are_local() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    learner = DECOLLE(net, optimizer, layers=["model.3"], burn_in=5)
    learner.update(spike_batch())
    assert list(learner.readouts) == ["model.3"] and net.model[0].weight.grad.any()
    with pytest.raises(ConfigError, match="leaves none of 20"):
        DECOLLE(net, optimizer, burn_in=20).update(spike_batch())
    with pytest.raises(ConfigError, match=r"no spiking layer is called 'model.2'"):
        DECOLLE(net, optimizer, layers=["model.2"])
    with pytest.raises(ConfigError, match="no spiking layers"):
        DECOLLE(nn.Linear(2, 2), optimizer)
    with pytest.raises(ConfigError, match="scale=0"):
        DECOLLE(net, optimizer, scale=0)
