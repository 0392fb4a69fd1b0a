"""Fast and slow learning of a memory's controllers: synthetic gradients from beyond the truncation, gated by surprise.

Fernando, Denman, Sridharan, Fookes: Fast & Slow Learning: Incorporating Synthetic Gradients in Neural Memory
Controllers. 2020. arXiv:2011.05438

This is a reconstruction: the abstract names the parts (controllers of a memory, decoupled learning by synthetic
gradients, a neuromodulator), and their equations here are those of the sources below.

Jaderberg et al.: Decoupled Neural Interfaces using Synthetic Gradients. ICML 2017. arXiv:1608.05343
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, NonFiniteError, ShapeError, UnknownNameError, nearest
from neuropil.nn.content_memory import ContentAddressableMemory, ContentMemoryState
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful
from neuropil.training.allowed import restrict
from neuropil.training.learner import Learner, check_gradients, check_labels
from neuropil.training.plugin import LossContext, Plugin, transform_gradients

if TYPE_CHECKING:
    from jaxtyping import Float

ItemLoss = Callable[[Tensor, Tensor], Tensor]  # logits [items, outputs], targets [items] -> [items]
_KEEP = 0.95  # of a running mean, per chunk


class SyntheticGradient(nn.Module):
    """Predicts the gradient that the future will send to a state, from the state: `[..., width]` to the same shape.

    The last axis is what one prediction is made for, so that one predictor serves all slots of a memory. It begins at
    zero: until it has learned, it changes nothing.

    >>> SyntheticGradient(8)(torch.randn(4, 16, 8)).shape
    torch.Size([4, 16, 8])
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        for name, value in (("width", width), ("hidden", hidden)):
            if value < 1:
                raise ConfigError(f"SyntheticGradient.{name}: got {value}, expected at least 1")
        last = nn.Linear(hidden, width)
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, state: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """The gradient expected at each row of the state."""
        out: Tensor = self.net(state)
        return out


class MemoryNetwork(Stateful):
    """Controllers around a content-addressable memory: `[time, batch, inputs]` to logits `[time, batch, outputs]`.

    An input controller, the memory that it writes and reads, and an output controller that sees both. Give the answer
    to each step's input with the next one's (labels shifted by one), and it can learn within a sequence. The state is
    the memory's.

    >>> net = MemoryNetwork(inputs=10, outputs=5, hidden=32, slots=8)
    >>> logits, state = net(torch.randn(6, 3, 10))
    >>> logits.shape
    torch.Size([6, 3, 5])
    """

    def __init__(
        self, inputs: int, outputs: int, *, hidden: int = 64, slots: int = 32, key: int = 16, value: int = 16
    ) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU())
        self.memory = ContentAddressableMemory(hidden + inputs, slots, key=key, value=value)
        self.leave = nn.Sequential(nn.Linear(hidden + value, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def initial_state(self, x: Tensor) -> ContentMemoryState:
        """An empty memory."""
        return self.memory.initial_state(x)

    def forward(
        self, x: Float[Tensor, "time batch inputs"], state: ContentMemoryState | None = None
    ) -> tuple[Float[Tensor, "time batch outputs"], ContentMemoryState]:
        """Logits at each step, and the state after the last one."""
        check_finite(x, "MemoryNetwork")
        hidden = self.enter(x)
        read, state = self.memory(torch.cat([hidden, x], dim=-1), state)
        return self.leave(torch.cat([hidden, read], dim=-1)), state


class SurpriseGate:
    """Neuromodulator: scales what is learned from each item by how unexpected its loss is.

    `2 sigmoid(gain (loss - expected) / spread)`, expected and spread being running statistics of the losses: 1 for a
    loss as expected, towards 2 for a surprise, towards 0 for what is known.

    >>> gate = SurpriseGate(gain=1.0)
    >>> _ = gate(torch.tensor([1.0, 3.0]))
    >>> gate(torch.tensor([2.0, 4.0])).round(decimals=2)
    tensor([1.0000, 1.7600])
    """

    def __init__(self, gain: float) -> None:
        if not (math.isfinite(gain) and gain >= 0):
            raise ConfigError(f"SurpriseGate.gain: got {gain}, expected at least 0")
        self.gain = gain
        self.mean: float | None = None
        self.square = 0.0

    def __call__(self, losses: Tensor) -> Tensor:
        """Factors of the shape of `losses`, without a gradient; the losses then enter the statistics."""
        losses = losses.detach()
        mean, square = float(losses.mean()), float(losses.square().mean())
        if self.mean is None:
            self.mean, self.square = mean, square
        spread = math.sqrt(max(self.square - self.mean**2, 1e-12))
        factors = 2 * torch.sigmoid(self.gain * (losses - self.mean) / spread)
        self.mean = _KEEP * self.mean + (1 - _KEEP) * mean
        self.square = _KEEP * self.square + (1 - _KEEP) * square
        return factors


class DecoupledUpdate(Learner):
    """Learns from sequences a few steps at a time, with predicted gradients where the rest would have to be awaited.

    A sequence is cut into chunks of `truncation` steps, and an optimizer's step follows each (the fast path). What the
    chunk's last state does to later losses is not known yet: `synthetic` predicts it. With `slow`, a second optimizer
    makes one step on the gradient through the whole sequence when it has ended (the slow path), and the predictors
    learn from the gradients met on that way. Without `slow`, a predictor is trained as soon as the next chunk has been
    seen, on the gradient that arrived at its first state and holds the prediction at that chunk's end in turn. With
    neither it is truncated backpropagation through time; with `truncation=None` the full one.

    The model is anybody's `model(x [time, batch, ...], state) -> (y [time, batch, outputs], state)` whose state is a
    NamedTuple of tensors. Batches hold sequences `[batch, time, ...]`, and targets for each step `[batch, time]`, or
    one for the last, `[batch]`.

    Args:
        model: the stateful model.
        optimizer: any optimizer over its parameters, stepped after each chunk.
        truncation: steps in a chunk.
        synthetic: predictors by the name of the state's field that they serve; one may be shared by several models.
        synthetic_lr: rate of the predictors' own Adam.
        gain: steepness of the `SurpriseGate` on each step of each sequence in the fast path; 0 for none.
        slow: another optimizer over the same parameters, stepped once a sequence.
        max_norm: longest gradient of a step.
        loss: `(logits [items, outputs], targets [items]) -> [items]`; cross-entropy by default.
        plugins: what else acts; a chunk is a step to them.

    Raises:
        ConfigError: a setting is out of range.
        UnknownNameError: the state has no field of a predictor's name.
        NonFiniteError, LabelError: as `Backprop`, before the step.

    >>> net = MemoryNetwork(inputs=10, outputs=5, hidden=16, slots=8)
    >>> learner = DecoupledUpdate(net, torch.optim.Adam(net.parameters()), synthetic={"memory": SyntheticGradient(32)})
    >>> sorted(learner.update(Batch(torch.randn(4, 20, 10), torch.randint(5, (4, 20)))))
    ['alignment', 'loss']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        truncation: int | None = 5,
        synthetic: Mapping[str, nn.Module] | None = None,
        synthetic_lr: float = 1e-3,
        gain: float = 0.0,
        slow: Optimizer | None = None,
        max_norm: float | None = 1.0,
        loss: ItemLoss | None = None,
        plugins: tuple[Plugin, ...] | list[Plugin] = (),
    ) -> None:
        if truncation is not None and truncation < 1:
            raise ConfigError(
                f"DecoupledUpdate.truncation: got {truncation}, expected at least 1 step, or None"
            )
        if max_norm is not None and not max_norm > 0:
            raise ConfigError(f"DecoupledUpdate.max_norm: got {max_norm}, expected above 0, or None")
        self.model, self.optimizer, self.plugins = model, optimizer, plugins
        self.truncation, self.slow, self.max_norm = truncation, slow, max_norm
        self.synthetic = nn.ModuleDict(dict(synthetic or {}))
        self.predictor_optimizer = (
            Adam(self.synthetic.parameters(), lr=synthetic_lr) if self.synthetic else None
        )
        self.gate = SurpriseGate(gain)
        self.loss: ItemLoss = loss or partial(functional.cross_entropy, reduction="none")
        self._scales: dict[str, float] = {}  # usual size of the gradients that are predicted, by field

    def update(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch of sequences; `alignment` is the cosine of predicted and arrived gradients."""
        for plugin in self.plugins:
            batch = plugin.before_batch(batch)
        check_finite(batch.inputs, "inputs")
        if batch.inputs.dim() < 3:
            raise ShapeError(
                f"DecoupledUpdate: inputs are {list(batch.inputs.shape)}, expected [batch, time, ...]"
            )
        time = batch.inputs.shape[1]
        length = self.truncation or time
        pieces = [(start, min(start + length, time)) for start in range(0, time, length)]
        loss, cosines = self._fast_path(batch, pieces)
        if self.slow is not None and len(pieces) > 1:
            cosines = self._slow_path(self.slow, batch, pieces)
        return {"loss": loss, "alignment": sum(cosines) / len(cosines) if cosines else 0.0}

    @torch.no_grad()
    def answers(self, x: Tensor) -> Tensor:
        """Answers `[batch, time, outputs]` to sequences `[batch, time, ...]` at every step."""
        output, _ = self.model(x.transpose(0, 1), None)
        return torch.as_tensor(output).transpose(0, 1)

    def predict(self, x: Tensor) -> Tensor:
        """Answers `[batch, outputs]` at the end of sequences `[batch, time, ...]`."""
        return self.answers(x)[:, -1]

    def state_dict(self) -> dict[str, Any]:
        """Optimizers, predictors and running statistics."""
        predictors = {} if self.predictor_optimizer is None else self.predictor_optimizer.state_dict()
        return {
            **super().state_dict(),
            "slow": {} if self.slow is None else self.slow.state_dict(),
            "synthetic": dict(self.synthetic.state_dict()), "predictor_optimizer": predictors,
            "scales": dict(self._scales), "mean": self.gate.mean, "square": self.gate.square,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        if self.slow is not None:
            self.slow.load_state_dict(state["slow"])
        self.synthetic.load_state_dict(state["synthetic"])
        if self.predictor_optimizer is not None:
            self.predictor_optimizer.load_state_dict(state["predictor_optimizer"])
        self._scales = dict(state["scales"])
        self.gate.mean, self.gate.square = state["mean"], state["square"]

    def _fast_path(self, batch: Batch, pieces: list[tuple[int, int]]) -> tuple[float, list[float]]:
        x, time = batch.inputs.transpose(0, 1), batch.inputs.shape[1]
        state: Any = None
        loss, cosines = 0.0, []
        for start, stop in pieces:
            state, watched = self._cut(state)
            output, state = self.model(x[start:stop], state)
            self._check_fields(state)
            value = self._chunk_loss(output, batch, (start, stop), gated=True)
            total = self._with_future(value, state) if stop < time else value
            _check_loss(total)
            if total.requires_grad:
                self.model.zero_grad(set_to_none=True)
                torch.autograd.backward(total)
                self._step(self.optimizer)
            loss += float(value.detach()) * (stop - start) / time
            if self.slow is None:
                cosines += [
                    self._teach(n, v.detach(), v.grad) for n, v in watched.items() if v.grad is not None
                ]
        return loss, cosines

    def _slow_path(self, slow: Optimizer, batch: Batch, pieces: list[tuple[int, int]]) -> list[float]:
        x = batch.inputs.transpose(0, 1)
        state: Any = None
        losses, watched = [], []
        for piece in pieces:
            output, state = self.model(x[slice(*piece)], state)
            losses.append(self._chunk_loss(output, batch, piece, gated=False))
            if piece != pieces[-1]:
                for name in self.synthetic:
                    value = getattr(state, name)
                    value.retain_grad()
                    watched.append((name, value))
        total = torch.stack(losses).mean()
        _check_loss(total)
        self.model.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        arrived = [(n, v.detach(), v.grad * len(pieces)) for n, v in watched if v.grad is not None]
        self._step(slow)
        return [self._teach(*seen) for seen in arrived]

    def _cut(self, state: Any) -> tuple[Any, dict[str, Tensor]]:
        """The state without its past, and those of its tensors whose gradient is to be predicted."""
        if state is None:
            return None, {}
        fields = {name: value.detach() for name, value in state._asdict().items()}
        watched = {name: fields[name].requires_grad_() for name in self.synthetic}
        return type(state)(**fields), watched

    def _chunk_loss(self, output: Tensor, batch: Batch, piece: tuple[int, int], *, gated: bool) -> Tensor:
        start, stop = piece
        targets = batch.targets
        check_labels(targets, output.shape[-1])
        if targets.dim() == 1:  # one answer, at the end
            if stop < batch.inputs.shape[1]:
                return output.new_zeros(())
            output, targets = output[-1:], targets[None]
        else:
            targets = targets[:, start:stop].T
        items = self.loss(restrict(output, batch.classes).flatten(0, 1), targets.flatten())
        if gated and self.gate.gain > 0:
            items = items * self.gate(items)
        loss = items.mean()
        for plugin in self.plugins:
            loss = plugin.on_loss(loss, LossContext(batch, output))
        return loss

    def _check_fields(self, state: Any) -> None:
        for name in self.synthetic:
            if name not in state._fields:
                raise UnknownNameError(
                    f"DecoupledUpdate.synthetic: the state has no field {name!r}{nearest(name, state._fields)}"
                )

    def _with_future(self, loss: Tensor, state: Any) -> Tensor:
        """The loss, with what the end of this chunk is predicted to do to the losses to come."""
        for name, predictor in self.synthetic.items():
            value = getattr(state, name)
            if name in self._scales and value.requires_grad:
                with torch.no_grad():
                    expected = predictor(value) * self._scales[name]
                loss = loss + (value * expected).sum()
        return loss

    def _step(self, optimizer: Optimizer | None) -> None:
        transform_gradients(self.model, self.plugins)
        check_gradients(self.model)
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        if optimizer is not None:
            optimizer.step()
        for plugin in self.plugins:
            plugin.after_step()

    def _teach(self, name: str, value: Tensor, arrived: Tensor) -> float:
        """Train a predictor on a gradient that has arrived; returns its cosine with the prediction."""
        size = float(arrived.square().mean().sqrt())
        if size == 0.0 or self.predictor_optimizer is None:
            return 0.0
        self._scales[name] = _KEEP * self._scales.get(name, size) + (1 - _KEEP) * size
        goal = arrived / self._scales[name]
        predicted = self.synthetic[name](value)
        self.predictor_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward((predicted - goal).square().mean())
        self.predictor_optimizer.step()
        return float(functional.cosine_similarity(predicted.detach().flatten(), goal.flatten(), dim=0))


def _check_loss(loss: Tensor) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonFiniteError(f"loss is {value}; lower the learning rate or look at the batch")
