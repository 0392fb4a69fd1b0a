"""Spike-timing-dependent plasticity as a learner on one layer of a spiking network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, DataError, IncompatibleError
from neuropil.kernels.stdp import stdp_scan
from neuropil.kernels.stdp_rules import RewardSTDP, Rule
from neuropil.spiking.local_rule import LocalRule, Proposal, find_linear, over_time
from neuropil.training.learner import Loss
from neuropil.training.plugin import Plugin

Reward = Callable[
    [Tensor, Tensor], Tensor
]  # answers [batch, outputs] and targets to a reward per sample, [batch]


class STDP(LocalRule):
    """Trains a `nn.Linear` between spikes by the order of the spikes on its two sides.

    Rules are `PairSTDP` (additive or multiplicative bounds), `TripletSTDP` and `TraceHebbian`. The samples of a batch
    are met one after the other, each from rest, in one compiled run per sample. Without a teacher the postsynaptic
    spikes are those of the neurons behind the layer, which learn without labels: Song, Miller and Abbott (2000). With
    `teacher=k` the neuron of the right answer is made to fire at every k-th step and all others are kept silent, and
    the layer learns to recognise.

    Args:
        model: Answers `[batch, outputs]`, or a sequence of such, and gives the layer spikes (0 or 1) as input.
        optimizer: Makes the step; `torch.optim.SGD(..., lr=1.0)` makes the rule's own.
        rule: What pairs of spikes do, from `neuropil.kernels.stdp_rules`; its range is that of the weights.
        layer: Name of the `nn.Linear`; the last one by default.
        teacher: Steps between the spikes of the right answer, or None.
        loss: What is followed; cross-entropy by default.
        plugins: What else acts on batch, loss and changes.

    Raises:
        ConfigError: No such layer, weights outside the rule's range, or a setting out of range.
        IncompatibleError: The rule needs a reward: `RewardModulatedSTDP`.
        DataError: The layer's input or the neurons' output are not spikes.

    >>> from neuropil.kernels.stdp_rules import PairSTDP
    >>> from neuropil.nn import LIF, CountReadout, Sequential
    >>> net = Sequential(nn.Linear(4, 2, bias=False), LIF(), CountReadout())  # [time, batch, 4] -> [batch, 2]
    >>> _ = net[0].weight.data.uniform_(0.1, 0.5)
    >>> learner = STDP(net, torch.optim.SGD(net.parameters(), lr=1.0), PairSTDP())
    >>> before = net[0].weight.detach().clone()
    >>> _ = learner.update(Batch(torch.ones(5, 1, 4), torch.tensor([0])))
    >>> bool((net[0].weight > before).any())
    True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        rule: Rule,
        *,
        layer: str | None = None,
        teacher: int | None = None,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, loss=loss, plugins=plugins)
        name = type(self).__name__
        if isinstance(rule, RewardSTDP) and not isinstance(self, RewardModulatedSTDP):
            raise IncompatibleError("STDP: RewardSTDP needs a reward; use RewardModulatedSTDP")
        if teacher is not None and teacher < 1:
            raise ConfigError(
                f"{name}.teacher: got {teacher}, expected steps between spikes, at least 1, or None"
            )
        self.name, self.layer = find_linear(name, model, layer)
        self.rule, self.teacher = rule, teacher
        terms = rule.terms()
        low, high = (float(value) for value in self.layer.weight.detach().aminmax())
        if not terms.minimum <= low <= high <= terms.maximum:
            raise ConfigError(
                f"{name}: weights of {self.name} lie in [{low:.4g}, {high:.4g}], the rule keeps them in "
                f"[{terms.minimum:.4g}, {terms.maximum:.4g}]; initialise them there"
            )

    def propose(self, batch: Batch) -> Proposal:
        """The rule's change over all samples of a batch, one after the other."""
        output, pre, post = self._observe(batch)
        start = self.layer.weight.detach()
        weight = start.contiguous()
        for before, after in zip(pre.unbind(1), post.unbind(1), strict=True):
            weight = stdp_scan(before.contiguous(), after.contiguous(), weight, self.rule).weight
        return Proposal(output, self._changes(weight - start))

    def settle(self) -> None:
        """Keep the weights in the rule's range, whatever optimizer and plugins made of the change."""
        terms = self.rule.terms()
        self.layer.weight.data.clamp_(terms.minimum, terms.maximum)

    def outputs(self) -> int | None:
        """With a teacher, one neuron of the layer for each answer."""
        return self.layer.out_features if self.teacher is not None else None

    def _changes(self, change: Tensor) -> dict[str, Tensor]:
        return {f"{self.name}.weight" if self.name else "weight": change}

    def _observe(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The model's answer `[batch, outputs]`, and the layer's spikes on both sides, `[time, batch, ...]`."""
        pre, post, output = observe(self.model, self.layer, batch.inputs)
        count = len(batch.targets)
        pre = over_time(pre, count)
        if output.dim() > 2:
            output = output.mean(0)
        if self.teacher is not None:
            post = pre.new_zeros(len(pre), count, self.layer.out_features)
            right = functional.one_hot(batch.targets, self.layer.out_features).to(post.dtype)
            post[self.teacher - 1 :: self.teacher] = right
        elif post is None:
            raise ConfigError(f"{type(self).__name__}: no spiking neurons follow {self.name}; give a teacher")
        else:
            post = over_time(post, count)
        if not ((pre == 0) | (pre == 1)).all():
            raise DataError(f"{type(self).__name__}: the input of {self.name} is not spikes (0 or 1)")
        return output, pre, post


class RewardModulatedSTDP(STDP):
    """STDP that only marks synapses; a reward at the end of each sample turns the marks into weight.

    `w += rate * (reward - expected) * eligibility`, where the expected reward is the running mean of the rewards
    (Fremaux, Sprekeler and Gerstner, 2010, show that this is what makes the rule climb the reward). Eligibility is that
    of `RewardSTDP` after the last step: Izhikevich (2007).

    Args:
        reward: `(answers [batch, outputs], targets) -> [batch]`; by default 1 for the right answer, else 0.
        smoothing: Share of the expected reward that is kept from sample to sample, in [0, 1).

    The other arguments and errors are those of `STDP`; the weights change once per batch.

    >>> from neuropil.nn import LIF, CountReadout, Sequential
    >>> net = Sequential(nn.Linear(4, 2, bias=False), LIF(), CountReadout())
    >>> _ = net[0].weight.data.uniform_(0.1, 0.5)
    >>> learner = RewardModulatedSTDP(net, torch.optim.SGD(net.parameters(), lr=1.0), RewardSTDP(rate=0.1))
    >>> sorted(learner.update(Batch(torch.ones(5, 1, 4), torch.tensor([0]))))
    ['loss', 'reward']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        rule: RewardSTDP,
        *,
        layer: str | None = None,
        reward: Reward | None = None,
        smoothing: float = 0.9,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, rule, layer=layer, loss=loss, plugins=plugins)
        if not isinstance(rule, RewardSTDP):
            raise IncompatibleError(f"RewardModulatedSTDP: got {type(rule).__name__}, expected RewardSTDP")
        if not 0 <= smoothing < 1:
            raise ConfigError(f"RewardModulatedSTDP.smoothing: got {smoothing}, expected a number in [0, 1)")
        self.reward: Reward = reward or right_or_wrong
        self.smoothing, self.expected, self.last_reward = smoothing, 0.0, 0.0

    def propose(self, batch: Batch) -> Proposal:
        """Reward times eligibility, over all samples of the batch."""
        output, pre, post = self._observe(batch)
        rewards = self.reward(output, batch.targets).to(pre.dtype)
        weight = self.layer.weight.detach().contiguous()
        silent = pre.new_zeros(len(pre))
        change = torch.zeros_like(weight)
        for reward, before, after in zip(rewards, pre.unbind(1), post.unbind(1), strict=True):
            run = stdp_scan(before.contiguous(), after.contiguous(), weight, self.rule, reward=silent)
            change += (reward - self.expected) * run.state.eligibility
            self.expected += (1 - self.smoothing) * (float(reward) - self.expected)
        self.last_reward = float(rewards.mean())
        return Proposal(output, self._changes(self.rule.terms().rate * change / len(rewards)))

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch; also returns its mean reward."""
        return {**super().update(batch), "reward": self.last_reward}

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's own weights."""
        return {**super().state_dict(), "expected": self.expected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.expected = state["expected"]


def right_or_wrong(output: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest answer is the target, else 0.

    >>> right_or_wrong(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0]))
    tensor([1., 0.])
    """
    return (output.argmax(-1) == targets).to(output.dtype)


@torch.no_grad()
def observe(model: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run a model; return what a layer was given, what the next spiking neurons gave out (or None), and the answer."""
    pre: list[Tensor] = []
    post: list[Tensor] = []

    def hear(_: nn.Module, given: tuple[Tensor, ...], __: Any) -> None:
        pre.append(given[0].detach())

    def fire(_: nn.Module, __: Any, answer: Any) -> None:
        if len(post) < len(pre):
            post.append((answer[0] if isinstance(answer, tuple) else answer).detach())

    handles = [layer.register_forward_hook(hear)]
    handles += [cell.register_forward_hook(fire) for cell in model.modules() if hasattr(cell, "threshold")]
    try:
        output: Tensor = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not pre:
        raise ConfigError(f"the model ran without its layer {type(layer).__name__}")
    return torch.cat(pre), torch.cat(post) if post else None, output
