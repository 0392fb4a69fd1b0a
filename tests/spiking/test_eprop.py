"""E-prop: equal to backpropagation where nothing comes back, to eligibility times learning signal always."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import (
    LIF,
    AdaptiveLIF,
    BatchFirst,
    DelayLinear,
    FeedbackLinear,
    LeakyIntegrator,
    MirroredFeedbackLinear,
    RateReadout,
    Recurrent,
    Sequential,
)
from neuropil.spiking import EProp, EPropRecurrent, eligibility_traces
from neuropil.training import Learner
from tests.spiking.patterns import CHANNELS, CLASSES, spike_batch

NEURONS = 14
CELLS = {
    "lif": partial(LIF, decay=0.85, threshold=0.6),
    "lif-zero": partial(LIF, decay=0.85, threshold=0.6, reset="zero"),
    "alif": partial(AdaptiveLIF, decay=0.85, threshold=0.6, adaptation_decay=0.9, adaptation_strength=0.3),
    "alif-zero": partial(
        AdaptiveLIF, decay=0.85, threshold=0.6, adaptation_decay=0.9, adaptation_strength=0.3, reset="zero"
    ),
}


def network(readout: type[nn.Linear] = nn.Linear, cell: str = "alif") -> BatchFirst:
    recurrent = EPropRecurrent(CELLS[cell](), nn.Linear(NEURONS, NEURONS, bias=False))
    layers = [nn.Linear(CHANNELS, NEURONS), recurrent, readout(NEURONS, CLASSES), LeakyIntegrator(0.8)]
    return BatchFirst(Sequential(*layers))


def eprop(readout: type[nn.Linear] = nn.Linear, rate: float | None = None) -> tuple[Learner, Batch]:
    net = network(readout)
    return EProp(net, torch.optim.Adam(net.parameters(), lr=0.02), target_rate=rate), spike_batch()


def layer(cell: str) -> tuple[nn.Module, torch.Tensor, None]:
    return EPropRecurrent(CELLS[cell](), nn.Linear(5, 5)), torch.rand(6, 3, 5), None


def random_feedback() -> tuple[Learner, Batch]:
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    return eprop(partial(FeedbackLinear, generator=generator))


def adaptive_feedback() -> tuple[Learner, Batch]:
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    return eprop(partial(MirroredFeedbackLinear, generator=generator))


PARTS = [
    ("learner", eprop),
    ("learner", random_feedback),
    ("learner", adaptive_feedback),
    *(("module", partial(layer, cell)) for cell in CELLS),
]


def gradients(net: BatchFirst, batch: Batch) -> dict[str, torch.Tensor]:
    net.zero_grad()
    output = net(batch.inputs)
    functional.cross_entropy(output.flatten(0, 1), batch.targets.repeat(len(output))).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("cell", CELLS)
def test_it_runs_as_any_recurrent_network(cell: str) -> None:
    torch.manual_seed(0)
    weights = nn.Linear(NEURONS, NEURONS)
    x = torch.rand(20, 4, NEURONS)
    plain, state = Recurrent(CELLS[cell](), weights)(x)
    ours, ours_state = EPropRecurrent(CELLS[cell](), weights)(x)
    assert torch.equal(ours, plain) and plain.any()
    torch.testing.assert_close(tuple(ours_state.cell), tuple(state.cell))  # sums over spikes, in their own order


@pytest.mark.parametrize("cell", CELLS)
def test_without_recurrent_weights_it_is_backpropagation_through_time(cell: str) -> None:
    """The weights are zero, so nothing comes back; their own gradients must agree all the same."""
    torch.manual_seed(0)
    net = network(cell=cell).double()
    nn.init.zeros_(net.model[1].weights.weight)
    batch = spike_batch()
    batch = batch._replace(inputs=batch.inputs.double())
    ours = gradients(net, batch)
    net.model[1].__class__ = Recurrent  # the same network, plain
    theirs = gradients(net, batch)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-12)
    assert theirs["model.1.weights.weight"].any()
    nn.init.normal_(net.model[1].weights.weight, std=0.5)
    theirs = gradients(net, batch)
    net.model[1].__class__ = EPropRecurrent
    assert not torch.allclose(gradients(net, batch)["model.0.weight"], theirs["model.0.weight"], rtol=0.05)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("readout", [nn.Linear, FeedbackLinear])
def test_the_gradient_is_the_sum_of_learning_signal_times_eligibility(cell: str, readout: type) -> None:
    """The factorisation itself, every trace forward in time; the readout's leak filters them, as in the paper."""
    torch.manual_seed(1)
    net = network(readout, cell).double()
    batch = spike_batch(6)
    x = batch.inputs.double()
    ours = gradients(net, batch._replace(inputs=x))
    recurrent, out = net.model[1], net.model[2]
    with torch.no_grad():
        drive = net.model[0](x.transpose(0, 1))
        spikes, _ = recurrent(drive)
        before = torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]])
        currents = drive + recurrent.weights(before)
        y = net(x)
        error = (y.softmax(-1) - functional.one_hot(batch.targets, CLASSES)) / y.shape[:2].numel()
        signal = error @ getattr(out, "feedback", out.weight)
        for name, pre in (("model.0.weight", x.transpose(0, 1)), ("model.1.weights.weight", before)):
            traces = eligibility_traces(recurrent.cell, currents, pre)
            filtered, expected = torch.zeros_like(traces[0]), torch.zeros_like(ours[name])
            for now, learning in zip(traces, signal, strict=True):
                filtered = net.model[3].decay * filtered + now
                expected += torch.einsum("bn,bni->ni", learning, filtered)
            torch.testing.assert_close(ours[name], expected, rtol=1e-8, atol=1e-12)


def test_traces_are_the_published_recursion_where_the_reset_takes_a_constant() -> None:
    """Bellec et al.'s equations, for neurons that did not fire, whose reset therefore changed nothing."""
    cell = CELLS["alif"](threshold=50.0).double()
    generator = torch.Generator().manual_seed(0)
    currents = 5 * torch.rand(12, 1, 2, generator=generator, dtype=torch.double)
    pre = (torch.rand(12, 1, 3, generator=generator) < 0.4).double()
    cell.surrogate = type(cell.surrogate)(0.1)  # wide enough to be felt that far below
    traces = eligibility_traces(cell, currents, pre)[:, 0]
    v, x, adaptation = np.zeros(2), np.zeros(3), np.zeros((2, 3))
    decay, rho, beta = (float(v) for v in (cell.decay, cell.adaptation_decay, cell.adaptation_strength))
    for t in range(12):
        v = decay * v + currents[t, 0].numpy()
        psi = cell.surrogate.derivative(torch.from_numpy(v - 50.0)).numpy()[:, None]
        x = decay * x + pre[t, 0].numpy()
        np.testing.assert_allclose(traces[t], psi * (x - beta * adaptation), rtol=1e-10)
        adaptation = psi * x + (rho - psi * beta) * adaptation


def test_random_and_mirrored_feedback_send_errors_through_their_own_weights() -> None:
    torch.manual_seed(0)
    net = network(MirroredFeedbackLinear)
    out = net.model[2]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=0.02)
    learner, batch = EProp(net, optimizer), spike_batch()
    distance = [(out.weight - out.feedback).norm().item()]
    for _ in range(200):
        learner.update(batch)
        distance.append((out.weight - out.feedback).norm().item())
    shrink = (1 - 0.05 * 0.02) ** 200  # both move alike, so only the decay acts on what lies between them
    assert distance[-1] == pytest.approx(distance[0] * shrink, rel=1e-3)


def test_delays_and_parametrized_weights_learn() -> None:
    torch.manual_seed(0)

    class Positive(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight.abs()

    delayed = DelayLinear(NEURONS, NEURONS, 4, learn=True)
    plain = nn.Linear(NEURONS, NEURONS)
    parametrize.register_parametrization(plain, "weight", Positive())
    x = torch.rand(20, 2, NEURONS, requires_grad=True)
    for weights in (delayed, plain):
        spikes, _ = EPropRecurrent(LIF(0.9), weights)(x)
        expected, _ = Recurrent(LIF(0.9), weights)(x)
        assert torch.equal(spikes, expected)
        spikes.sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in weights.parameters())
    plain.zero_grad()
    with (
        parametrize.cached()
    ):  # which would keep the first weight it is asked for, with a gradient or without
        EPropRecurrent(LIF(0.9), plain)(x)[0].sum().backward()
    assert plain.parametrizations.weight.original.grad.any()


def test_rates_are_drawn_to_their_target() -> None:
    torch.manual_seed(0)
    learner, batch = eprop(rate=0.3)
    learner.rate_strength = 20.0
    net = learner.model.model

    def rate() -> float:
        with torch.no_grad():
            return net[:2](batch.inputs.transpose(0, 1)).mean().item()

    before = rate()
    for _ in range(60):
        learner.update(batch)
    assert abs(rate() - 0.3) < 0.5 * abs(before - 0.3)


def test_what_does_not_fit_is_told_in_one_line() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="no EPropRecurrent layer"):
        EProp(nn.Linear(2, 2), optimizer)
    mixed = nn.ModuleList([network(), Recurrent(LIF(), nn.Linear(2, 2))])
    with pytest.raises(ConfigError, match="layer '1' is recurrent in another way"):
        EProp(mixed, optimizer)
    for bad in ({"target_rate": 2.0}, {"rate_strength": -1.0}, {"burn_in": -1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            EProp(net, optimizer, **bad)
    with pytest.raises(ConfigError, match="leaves no step"):
        EProp(net, optimizer, burn_in=20).update(spike_batch())
    net.model.append(RateReadout())
    with pytest.raises(ShapeError, match="no readout"):
        EProp(net, optimizer).update(spike_batch())
    with pytest.raises(ConfigError, match="expected a LIF"):
        eligibility_traces(LeakyIntegrator(), torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
    with pytest.raises(ShapeError, match="same time"):
        eligibility_traces(LIF(), torch.zeros(2, 1, 1), torch.zeros(3, 1, 1))
