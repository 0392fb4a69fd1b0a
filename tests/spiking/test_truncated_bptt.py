"""Windows: one that holds everything is backpropagation, one of a step is learning online, all others lie between."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import LIF, BatchFirst, LeakyIntegrator, RateReadout, Sequential
from neuropil.spiking import TruncatedBPTT
from neuropil.training import Backprop, Learner
from tests.spiking.patterns import CHANNELS, CLASSES, spike_batch


def network(readout: bool = False, temporal: bool = True) -> Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Linear(CHANNELS, 16),
        LIF(decay=0.8, temporal_gradient=temporal),
        nn.Linear(16, CLASSES),
        LeakyIntegrator(0.7),
    ]
    return Sequential(*layers, *([RateReadout(), nn.Linear(CLASSES, CLASSES)] if readout else []))


def learner(window: int = 5, recompute: bool = False, readout: bool = False) -> tuple[Learner, Batch]:
    net = network(readout)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    return TruncatedBPTT(net, optimizer, window, recompute=recompute), spike_batch()


def static() -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    net = Sequential(nn.Linear(8, 16), LIF(), nn.Linear(16, CLASSES), RateReadout(), time_steps=6)
    targets = torch.arange(12) % CLASSES
    inputs = functional.one_hot(targets, 8).float() + 0.1 * torch.rand(12, 8)
    return TruncatedBPTT(net, torch.optim.Adam(net.parameters(), lr=0.05), 4), Batch(inputs, targets)


PARTS = [
    ("learner", learner),
    ("learner", partial(learner, recompute=True)),
    ("learner", partial(learner, readout=True)),
    ("learner", static),
]


def gradients(of: Learner, batch: Batch) -> list[torch.Tensor]:
    of.optimizer = torch.optim.SGD(of.model.parameters(), lr=0.0)
    of.update(batch)
    return [p.grad.clone() for p in of.model.parameters()]


@pytest.mark.parametrize("readout", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_a_window_that_holds_everything_is_backpropagation(readout: bool, recompute: bool) -> None:
    truncated, batch = learner(window=20, recompute=recompute, readout=readout)
    net = network(readout)

    def objective(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if output.dim() == 2:
            return functional.cross_entropy(output, targets)
        return functional.cross_entropy(output.flatten(0, 1), targets.repeat(len(output)))

    class Sequence(Backprop):
        def objective(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
            return objective(output, batch.targets)

    plain = Sequence(BatchFirst(net), torch.optim.SGD(net.parameters(), lr=0.0))
    for ours, theirs in zip(gradients(truncated, batch), gradients(plain, batch), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_windows_of_one_step_learn_online() -> None:
    """What reaches a step's weights passes through no earlier membrane, as with neurons that cut it themselves."""
    truncated, batch = learner(window=1)
    net = network(temporal=False)
    net[3] = LeakyIntegrator(0.7)
    outputs, state = [], None
    for now in batch.inputs.transpose(0, 1).split(1):
        output, state = net.unroll(now, state)
        state = (None, state[1], None, type(state[3])(state[3].membrane.detach()))
        outputs.append(output)
    stacked = torch.cat(outputs)
    functional.cross_entropy(stacked.flatten(0, 1), batch.targets.repeat(len(stacked))).backward()
    for ours, p in zip(gradients(truncated, batch), net.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad)


def test_a_gradient_reaches_back_to_its_window_and_no_further() -> None:
    """A leaky sum: the last step's gradient to step k is decay ** (distance) inside the window, else 0."""
    integrator = Sequential(nn.Linear(1, 1, bias=False), LeakyIntegrator(0.5))
    nn.init.ones_(integrator[0].weight)
    truncated = TruncatedBPTT(integrator, torch.optim.SGD(integrator.parameters(), lr=0.0), 4)
    x = torch.ones(1, 8, 1, requires_grad=True)
    truncated.forward(x)[-1].sum().backward()
    expected = [0, 0, 0, 0, 0.125, 0.25, 0.5, 1.0]
    assert x.grad.flatten().tolist() == expected


def test_recomputing_gives_the_same_gradients() -> None:
    (kept, batch), (again, _) = learner(), learner(recompute=True)
    for a, b in zip(gradients(kept, batch), gradients(again, batch), strict=True):
        torch.testing.assert_close(a, b)


def test_what_cannot_be_cut_is_told_in_one_line() -> None:
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="at least 1 step"):
        TruncatedBPTT(network(), optimizer, 0)
    with pytest.raises(ConfigError, match="carries no state"):
        TruncatedBPTT(nn.Linear(2, 2), optimizer, 3)
    with pytest.raises(ConfigError, match="inner Sequential"):
        TruncatedBPTT(Sequential(Sequential(LIF(), RateReadout())), optimizer, 3)
    with pytest.raises(ShapeError, match="batch, time"):
        learner()[0].predict(torch.zeros(3, CHANNELS))
