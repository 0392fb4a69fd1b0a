"""STDP on a layer of a network: the window and its integral, triplets, bounds, teachers and rewards."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, DataError, IncompatibleError
from neuropil.kernels.stdp_rules import PairSTDP, RewardSTDP, Rule, TraceHebbian, TripletSTDP
from neuropil.nn import LIF, BatchFirst, CountReadout, Sequential
from neuropil.spiking import STDP, RewardModulatedSTDP
from neuropil.training import Learner
from tests.spiking.patterns import CHANNELS, CLASSES, spike_batch


def network(outputs: int = CLASSES, channels: int = CHANNELS) -> BatchFirst:
    net = BatchFirst(Sequential(nn.Linear(channels, outputs, bias=False), LIF(decay=0.9), CountReadout()))
    nn.init.uniform_(net.model[0].weight, 0.1, 0.12)
    return net


def taught(rule: Rule) -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    net = network()
    return STDP(net, torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.0), rule, teacher=1), spike_batch()


TEACHABLE = [
    TraceHebbian(potentiation=1e-3, target=1.2, pre_decay=0.8),
    TraceHebbian(potentiation=1e-3, target=1.2, pre_decay=0.8, bounds="multiplicative"),
]
PARTS = [("learner", partial(taught, rule)) for rule in TEACHABLE]


def free(rule: Rule, inputs: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight after one update without a teacher, and the spikes that the neurons made."""
    net = network(*weight.shape)
    net.model[0].weight.data.copy_(weight)
    learner = STDP(net, torch.optim.SGD(net.parameters(), lr=1.0), rule)
    with torch.no_grad():
        spikes = net.model[:2](inputs.transpose(0, 1))
    learner.update(Batch(inputs, torch.zeros(len(inputs), dtype=torch.long)))
    return net.model[0].weight.detach(), spikes


def pair(distance: int, rule: Rule) -> float:
    """Change by one presynaptic spike and one that the neuron is driven to `distance` steps later, from 1/2."""
    steps = 401
    inputs = torch.zeros(1, steps, 1)
    inputs[0, 200] = 1
    net = network(1, 1)
    net.model[0].weight.data.fill_(0.5)
    learner = STDP(net, torch.optim.SGD(net.parameters(), lr=1.0), rule)
    cell = net.model[1]
    forced = torch.zeros(steps, 1, 1)
    forced[200 + distance] = 1.0
    cell.register_forward_pre_hook(lambda module, given: (given[0] * 0 + forced, *given[1:]))
    cell.decay.fill_(1e-6)
    learner.update(Batch(inputs, torch.tensor([0])))
    return net.model[0].weight.item() - 0.5


def test_the_window_is_exponential_on_both_sides_and_its_integral_is_the_closed_form() -> None:
    rule = PairSTDP(potentiation=0.01, depression=0.006, pre_decay=0.9, post_decay=0.8)
    distances = np.arange(-60, 61)
    window = np.array([pair(int(k), rule) for k in distances[::4]])
    expected = np.where(distances >= 0, 0.01 * 0.9 ** np.abs(distances), -0.006 * 0.8 ** np.abs(distances))
    np.testing.assert_allclose(window, expected[::4], atol=2e-7)
    everything = np.array([pair(int(k), rule) for k in range(-25, 26)]).sum()
    tail = 0.01 * 0.9**26 / 0.1 - 0.006 * 0.8**26 / 0.2
    assert everything + tail == pytest.approx(0.01 / 0.1 - 0.006 * 0.8 / 0.2, abs=1e-6)


def test_poisson_spikes_drift_by_the_integral_of_the_window() -> None:
    """Independent spikes on both sides: rate * rate * integral per step; triplets add a term with the post rate."""
    generator = torch.Generator().manual_seed(0)
    steps, inputs, outputs, p, q = 4000, 30, 30, 0.05, 0.1
    from neuropil.kernels.stdp import stdp_scan

    pre = (torch.rand(steps, inputs, generator=generator) < p).double()
    post = (torch.rand(steps, outputs, generator=generator) < q).double()
    start = torch.full((outputs, inputs), 0.5, dtype=torch.double)
    pairs = PairSTDP(potentiation=1e-5, depression=8e-6, pre_decay=0.9, post_decay=0.85)
    drift = (stdp_scan(pre, post, start, pairs).weight - start).mean() / steps
    integral = 1e-5 / (1 - 0.9) - 8e-6 * 0.85 / (1 - 0.85)
    assert drift.item() == pytest.approx(p * q * integral, rel=0.02)
    triplets = TripletSTDP(
        potentiation=1e-5, depression=8e-6, pre_decay=0.9, post_decay=0.85, triplet_potentiation=2e-6,
        slow_post_decay=0.9,
    )  # fmt: skip
    more = (stdp_scan(pre, post, start, triplets).weight - start).mean() / steps
    assert (more - drift).item() == pytest.approx(p * q * q * 2e-6 / 0.1 * 0.9 / 0.1, rel=0.05)


def test_a_batch_is_the_equations_read_sample_by_sample() -> None:
    batch = spike_batch(6)
    rule = PairSTDP(potentiation=0.02, depression=0.015, pre_decay=0.8, post_decay=0.7)
    start = torch.rand(4, CHANNELS, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    learned, spikes = free(rule, batch.inputs, start)
    weight = start.double().numpy().copy()
    for sample in range(6):
        x, y = np.zeros(CHANNELS), np.zeros(4)
        for s, z in zip(batch.inputs[sample].numpy(), spikes[:, sample].numpy(), strict=True):
            x, y = 0.8 * x + s, 0.7 * y
            weight = np.clip(weight - 0.015 * np.outer(y, s), 0, 1)
            weight = np.clip(weight + 0.02 * np.outer(z, x), 0, 1)
            y = y + z
    np.testing.assert_allclose(learned, weight, atol=1e-5)


def test_multiplicative_bounds_are_approached_and_never_reached() -> None:
    inputs = torch.ones(1, 200, 3)
    hard = PairSTDP(potentiation=0.05, depression=0.0)
    soft = PairSTDP(potentiation=0.05, depression=0.0, bounds="multiplicative", pre_decay=0.0)
    weight, _ = free(hard, inputs, torch.full((1, 3), 0.5))
    assert (weight == 1).all()
    weight, spikes = free(soft, inputs, torch.full((1, 3), 0.5))
    assert weight.max() < 1
    torch.testing.assert_close(weight[0, 0].item(), 1 - 0.5 * 0.95 ** spikes.sum().item())


def test_the_rule_is_kept_in_its_range_whatever_the_optimizer_does() -> None:
    torch.manual_seed(0)
    net = network()
    learner = STDP(net, torch.optim.SGD(net.parameters(), lr=1e4), PairSTDP(), teacher=2)
    learner.update(spike_batch())
    assert net.model[0].weight.min() >= 0 and net.model[0].weight.max() <= 1


def rewarded(expected: float = 0.5) -> tuple[RewardModulatedSTDP, Batch]:
    torch.manual_seed(0)
    net = network()
    rule = RewardSTDP(depression=0.0, pre_decay=0.5, eligibility_decay=0.9, rate=0.01)
    learner = RewardModulatedSTDP(net, torch.optim.SGD(net.parameters(), lr=1.0), rule, smoothing=0.0)
    learner.expected = expected
    return learner, spike_batch(1)


def test_reward_turns_eligibility_into_weight_and_punishment_takes_it_away() -> None:
    moved = []
    for reward in (1.0, 0.5, 0.0):
        learner, batch = rewarded()
        learner.reward = lambda output, targets, value=reward: torch.full((len(targets),), value)
        net = learner.model.model
        before = net[0].weight.detach().clone()
        with torch.no_grad():
            spikes = net[:2](batch.inputs.transpose(0, 1))[:, 0]
        assert learner.update(batch)["reward"] == reward
        assert learner.expected == reward
        moved.append((net[0].weight.detach() - before, spikes, batch.inputs[0]))
    (up, spikes, pre), (none, *_), (down, *_) = moved
    assert not none.any() and up.any()
    torch.testing.assert_close(up, -down, atol=1e-7, rtol=0)
    x, marks = np.zeros(CHANNELS), np.zeros((CLASSES, CHANNELS))
    for s, z in zip(pre.numpy(), spikes.numpy(), strict=True):
        x = 0.5 * x + s
        marks = 0.9 * marks + np.outer(z, x)
    np.testing.assert_allclose(up, 0.01 * 0.5 * marks, rtol=1e-4, atol=1e-7)


def test_reward_alone_teaches_which_channel_to_listen_to() -> None:
    """One neuron, rewarded for firing when the first half of its inputs is active and for silence otherwise."""
    torch.manual_seed(0)
    net = BatchFirst(Sequential(nn.Linear(8, 1, bias=False), LIF(decay=0.8), CountReadout()))
    nn.init.constant_(net.model[0].weight, 0.3)
    rule = RewardSTDP(depression=0.0, pre_decay=0.5, eligibility_decay=0.95, rate=2e-3)
    learner = RewardModulatedSTDP(
        net,
        torch.optim.SGD(net.parameters(), lr=1.0),
        rule,
        reward=lambda counts, side: torch.where(side == 0, counts[:, 0], -counts[:, 0]),
        loss=lambda output, targets: output.new_zeros(()),
        smoothing=0.0,
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        side = torch.randint(2, (8,), generator=generator)
        rates = torch.zeros(8, 8)
        rates[side == 0, :4] = 0.4
        rates[side == 1, 4:] = 0.4
        spikes = (torch.rand(8, 30, 8, generator=generator) < rates.unsqueeze(1)).float()
        learner.expected = 0.0
        LocalTargets.update(learner, spikes, side)
    weight = net.model[0].weight[0]
    assert weight[:4].min() > 0.5 > 0.1 > weight[4:].max()


class LocalTargets:
    """Targets that are sides, not answers: every one of them is class 0 to the label check."""

    @staticmethod
    def update(learner: RewardModulatedSTDP, inputs: torch.Tensor, side: torch.Tensor) -> None:
        given = learner.reward
        learner.reward = lambda output, _: given(output, side)
        learner.update(Batch(inputs, torch.zeros_like(side)))
        learner.reward = given


def test_expected_reward_goes_into_the_checkpoint() -> None:
    learner, batch = rewarded()
    learner.update(batch)
    twin, _ = rewarded(0.1)
    twin.load_state_dict(learner.state_dict())
    assert twin.expected == learner.expected


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda n, o: STDP(n, o, RewardSTDP()), IncompatibleError, "RewardModulatedSTDP"),
        (lambda n, o: RewardModulatedSTDP(n, o, PairSTDP()), IncompatibleError, "expected RewardSTDP"),
        (lambda n, o: RewardModulatedSTDP(n, o, RewardSTDP(), smoothing=1.0), ConfigError, "smoothing"),
        (lambda n, o: STDP(n, o, PairSTDP(), teacher=0), ConfigError, "teacher"),
        (lambda n, o: STDP(n, o, PairSTDP(), layer="model.7"), ConfigError, "did you mean 'model.0'"),
        (lambda n, o: STDP(n, o, PairSTDP(minimum=0.5)), ConfigError, "initialise them there"),
        (lambda n, o: STDP(nn.ReLU(), o, PairSTDP()), ConfigError, "no nn.Linear"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(make, kind, match) -> None:
    net = network()
    with pytest.raises(kind, match=match) as caught:
        make(net, torch.optim.SGD(net.parameters(), lr=1.0))
    assert "\n" not in str(caught.value)


def test_inputs_that_are_not_spikes_and_layers_without_neurons_are_told() -> None:
    learner, batch = taught(TEACHABLE[0])
    with pytest.raises(DataError, match="not spikes"):
        learner.update(Batch(batch.inputs * 0.5, batch.targets))
    bare = nn.Sequential(nn.Linear(4, 2, bias=False))
    nn.init.uniform_(bare[0].weight, 0.2, 0.3)
    with pytest.raises(ConfigError, match="no spiking neurons follow"):
        STDP(bare, torch.optim.SGD(bare.parameters(), lr=1.0), PairSTDP()).update(
            Batch(torch.ones(3, 4), torch.tensor([0, 1, 0]))
        )
    assert math.isfinite(learner.update(batch)["loss"])
