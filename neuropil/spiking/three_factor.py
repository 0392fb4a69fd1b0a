"""Three-factor learning: what both neurons did marks a synapse, and a third signal turns the mark into weight.

    e[t] = decay * e[t-1] + post[t] pre[t]^T        eligibility of every synapse
    w   += sum_t modulator[t] * e[t]                modulator: one number, or one per postsynaptic neuron

Gerstner, Lehmann, Liakoni, Corneil and Brea (2018), "Eligibility traces and plasticity on behavioral time scales:
experimental support of neoHebbian three-factor learning rules".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, IncompatibleError, ShapeError
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.lif import LIF
from neuropil.nn.recording import record
from neuropil.spiking.local_rule import LocalRule, Proposal, over_time
from neuropil.training.allowed import restrict
from neuropil.training.learner import Loss
from neuropil.training.plugin import Plugin

if TYPE_CHECKING:
    from jaxtyping import Float

Modulator = Callable[
    [Tensor, Batch], Tensor
]  # answers [batch, outputs] and the batch to [batch] or [batch, outputs]


@torch.no_grad()
def three_factor_change(
    pre: Float[Tensor, "time batch inputs"],
    post: Float[Tensor, "time batch outputs"],
    modulator: Float[Tensor, "time batch ..."],
    decay: float,
) -> Float[Tensor, "outputs inputs"]:
    """Weight change after a whole run, summed over the batch; `modulator` is `[time, batch]` or one per output.

    The eligibility of every synapse at every step is never built: as the sum over later modulators weights each
    coincidence, it is taken over them first, in one scan per output instead of one per synapse.

    Raises ConfigError unless `decay` lies in [0, 1], ShapeError when the arguments do not fit together.

    >>> one = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    >>> reward = torch.tensor([0.0, 0.0, 1.0]).view(3, 1)  # two steps after both neurons fired
    >>> three_factor_change(one, one, reward, decay=0.5)
    tensor([[0.2500]])
    """
    if not 0 <= decay <= 1:
        raise ConfigError(f"three_factor.decay: got {decay}, expected a number in [0, 1]")
    if modulator.dim() == 2:
        modulator = modulator.unsqueeze(-1)
    if pre.shape[:2] != post.shape[:2] or modulator.shape[:2] != post.shape[:2]:
        raise ShapeError(
            f"three_factor: pre {list(pre.shape)}, post {list(post.shape)} and modulator {list(modulator.shape)} "
            "do not have the same time and batch"
        )
    if modulator.shape[2] not in (1, post.shape[2]):
        raise ShapeError(
            f"three_factor: modulator {list(modulator.shape)}, expected one or {post.shape[2]} per step and sample"
        )
    backwards = modulator.flip(0).contiguous()
    later, _ = leaky_scan(backwards, torch.zeros_like(backwards[0]), backwards.new_tensor(decay))
    marked = (post * later.flip(0)).flatten(0, 1)
    return marked.mT @ pre.flatten(0, 1)


class ThreeFactor(LocalRule):
    """Trains every `nn.Linear` of a network of leaky neurons by local traces and a broadcast third factor.

    The first factor is the input's trace (with the decay of the neurons that follow), the second the surrogate
    derivative at the neuron's membrane, the third arrives once for the whole sample: by default the error at the
    answer, sent to the neurons of each hidden layer through fixed random weights and to the last layer as it is. A
    `modulator` that gives one number per sample, such as a reward, is broadcast to all neurons alike.

    Args:
        model: `[batch, outputs]` or a sequence of such; `nn.Linear` layers, each followed by `LIF` neurons except
            perhaps the last.
        optimizer: Makes the step.
        modulator: `(answers, batch) -> [batch, outputs] or [batch]`; the error of cross-entropy by default.
        generator: For the random feedback weights, drawn at once.
        loss: What is followed; cross-entropy by default.
        plugins: What else acts on batch, loss and changes.

    Raises:
        ConfigError: The model has no `nn.Linear`.

    >>> from neuropil.nn import RateReadout, Sequential
    >>> net = Sequential(nn.Linear(3, 8), LIF(), nn.Linear(8, 2), RateReadout(), time_steps=5)
    >>> learner = ThreeFactor(net, torch.optim.SGD(net.parameters(), lr=0.1))
    >>> sorted(learner.update(Batch(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))))
    ['loss']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        modulator: Modulator | None = None,
        generator: torch.Generator | None = None,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, loss=loss, plugins=plugins)
        self.synapses = _synapses(model)
        if not self.synapses:
            raise ConfigError("ThreeFactor: the model has no nn.Linear to train")
        self.modulator: Modulator = modulator or error_of_answer
        self._generator = generator
        last = self.synapses[-1].layer
        self.feedback = {  # [outputs, neurons] of the hidden layers
            synapse.name: nn.init.kaiming_uniform_(
                last.weight.detach().new_empty(last.out_features, synapse.layer.out_features),
                a=5**0.5,
                generator=generator,
            )
            for synapse in self.synapses[:-1]
        }

    def propose(self, batch: Batch) -> Proposal:
        """Changes of all weights and biases."""
        inputs: dict[str, Tensor] = {}
        handles = [s.layer.register_forward_hook(_listener(inputs, s.name)) for s in self.synapses]
        try:
            seen = record(self.model, batch.inputs)
        finally:
            for handle in handles:
                handle.remove()
        output = seen.output.mean(0) if seen.output.dim() > 2 else seen.output
        third = self.modulator(output, batch)
        changes: dict[str, Tensor] = {}
        steps = max((len(value) for value in seen.spikes.values()), default=1)
        for synapse in self.synapses:
            x = inputs[synapse.name]
            pre = _over_time(x, steps, len(batch.targets), synapse.name)
            post = pre.new_ones(len(pre), len(batch.targets), synapse.layer.out_features)
            ones = pre.new_ones(*pre.shape[:2], 1)
            if synapse.cell is not None:
                post = _sensitivity(
                    synapse.cell, seen.currents[synapse.follower], seen.membranes[synapse.follower]
                )
                pre, ones = _trace(pre, synapse.cell.decay), _trace(ones, synapse.cell.decay)
            signal = third
            if signal.dim() == 1:
                signal = signal.unsqueeze(-1)
            elif synapse.name in self.feedback:
                signal = signal @ self._feedback_of(synapse.name, signal.shape[1])
            signal = (signal / (len(pre) * len(batch.targets))).expand(len(pre), *signal.shape)
            changes[_parameter(synapse.name, "weight")] = three_factor_change(pre, post, signal, 0.0)
            if synapse.layer.bias is not None:
                changes[_parameter(synapse.name, "bias")] = three_factor_change(
                    ones, post, signal, 0.0
                ).squeeze(-1)
        return Proposal(output, changes)

    def _feedback_of(self, name: str, outputs: int) -> Tensor:
        """A layer's random weights; for answers that the model has learned to give since, new ones are drawn."""
        known = self.feedback[name]
        if len(known) < outputs:
            drawn = known.new_empty(outputs, known.shape[1])
            nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=self._generator)
            self.feedback[name] = known = torch.cat([known, drawn[len(known) :]])
        return known

    def outputs(self) -> int | None:
        """Those of the last layer."""
        return self.synapses[-1].layer.out_features

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's own weights."""
        return {**super().state_dict(), "feedback": dict(self.feedback)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.feedback = {name: weight.clone() for name, weight in state["feedback"].items()}


def error_of_answer(output: Tensor, batch: Batch) -> Tensor:
    """What each answer should have been more, `one-hot - softmax`: the negative gradient of cross-entropy.

    >>> error_of_answer(torch.zeros(1, 2), Batch(torch.zeros(1, 3), torch.tensor([1])))
    tensor([[-0.5000,  0.5000]])
    """
    chances = restrict(output, batch.classes).softmax(-1)
    return functional.one_hot(batch.targets, output.shape[-1]).to(output.dtype) - chances


class _Synapse(NamedTuple):
    name: str
    layer: nn.Linear
    follower: str  # name of the neurons that follow
    cell: LIF | None  # those neurons


def _synapses(model: nn.Module) -> list[_Synapse]:
    """The linear layers of a model in their order, each with the leaky neurons before the next of them."""
    found: list[_Synapse] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found.append(_Synapse(name, module, "", None))
        elif isinstance(module, LIF) and found and found[-1].cell is None:
            found[-1] = found[-1]._replace(follower=name, cell=module)
    return found


def _over_time(x: Tensor, steps: int, batch: int, name: str) -> Tensor:
    """Inputs of a layer `[time, batch, features]`; those of one that is asked once are held."""
    if x.dim() == 2 and len(x) == batch:
        return x.expand(steps, *x.shape)
    if (x.shape[1] != batch) if x.dim() == 3 else (len(x) % batch != 0):
        raise IncompatibleError(
            f"ThreeFactor: layer {name!r} is given {list(x.shape)} for a batch of {batch}: it drives no neurons of the "
            "network, as one that writes weights does not; train with Backprop"
        )
    return over_time(x, batch)


def _sensitivity(cell: LIF, currents: Tensor, membranes: Tensor) -> Tensor:
    """Surrogate derivative at each step's membrane before its reset."""
    before = torch.cat([torch.zeros_like(membranes[:1]), membranes[:-1]])
    return cell.surrogate.derivative(cell.decay * before + currents - cell.threshold)


def _trace(x: Tensor, decay: Tensor) -> Tensor:
    if decay.numel() > 1:
        raise IncompatibleError(
            "ThreeFactor: neurons with different decays need one trace per synapse; use one decay"
        )
    return leaky_scan(x.contiguous(), torch.zeros_like(x[0]), decay.detach().to(x.dtype).reshape(()))[0]


def _parameter(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _listener(inputs: dict[str, Tensor], name: str) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...], __: Any) -> None:
        inputs[name] = given[0].detach()

    return hook
