"""Averaged gradient episodic memory.

Chaudhry, Ranzato, Rohrbach, Elhoseiny: Efficient Lifelong Learning with A-GEM. ICLR 2019. arXiv:1812.00420
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.continual.buffers import ReplayBuffer, RingBuffer
from neuropil.continual.projection import GradientProjection
from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.training.allowed import restrict
from neuropil.training.plugin import Gradients, Plugin

Loss = Callable[[Tensor, Tensor], Tensor]


class AGEM(Plugin):
    """A-GEM: a step that would raise the loss on remembered samples loses the component that would.

    Before each batch the gradient r of the loss on `batch_size` remembered samples of earlier tasks is taken. A
    gradient g with `g . r < 0` becomes `g - (g . r) / (r . r) r`. Each step costs one more forward and backward
    pass. Behind a plugin that projects gradients, only what the projection leaves of r is added.

    Args:
        model: the model that is trained.
        per_task: the latest samples remembered of each task, 256 unless a buffer is given.
        buffer: what is remembered instead, for instance `ReservoirBuffer(500)`.
        batch_size: remembered samples that r is taken on.
        loss: `(output, target) -> scalar`, cross-entropy by default.
        generator: chooses what is kept and drawn, where no buffer is given.

    In a loop of your own call `before_batch` before each step, pass gradients through `on_gradients` between
    `backward()` and `step()` and call `after_task(task)`.

    >>> net = nn.Linear(3, 2)
    >>> agem = AGEM(net, per_task=20)
    >>> agem.buffer.add(torch.randn(20, 3), torch.arange(20) % 2)
    >>> batch = agem.before_batch(Batch(torch.randn(8, 3), torch.zeros(8).long()))
    >>> r = agem.references[0]
    >>> g = agem.on_gradients({name: -value for name, value in r.items()})  # straight against it
    >>> bool(sum(value.abs().sum() for value in g.values()) < 1e-5)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        per_task: int | None = None,
        buffer: ReplayBuffer | None = None,
        batch_size: int = 256,
        loss: Loss | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"{type(self).__name__}.batch_size: got {batch_size}, expected at least 1")
        if buffer is not None and (per_task is not None or generator is not None):
            raise ConfigError(
                f"{type(self).__name__}: a buffer brings its size and generator; give per_task and generator to it"
            )
        if buffer is None:  # an empty one is false
            buffer = RingBuffer(256 if per_task is None else per_task, generator=generator)
        self.buffer = buffer
        self.model, self.batch_size, self.loss = model, batch_size, loss or functional.cross_entropy
        self.references: list[Gradients] = []  # gradients on remembered samples, for the step under way
        self.projections: list[GradientProjection] = []  # what leaves a step only some directions

    def beside(self, plugins: Sequence[Plugin]) -> None:
        """Note projections, which must come first; refuse a second plugin of this kind."""
        who = type(self).__name__
        here = next((i for i, other in enumerate(plugins) if other is self), len(plugins))
        self.projections = [other for other in plugins if isinstance(other, GradientProjection)]
        for place, other in enumerate(plugins):
            name = type(other).__name__
            if other is not self and isinstance(other, AGEM):
                raise IncompatibleError(
                    f"{who} beside {name}: the second changes a step that the first has found harmless; use one of them"
                )
            if isinstance(other, GradientProjection) and place > here:
                raise IncompatibleError(
                    f"{who} before {name}: the projection would turn a step that was found harmless; list {name} first"
                )

    def directions(self) -> list[Gradients]:
        """For each reference what may be added to a step: all of it, or what projections leave of it."""
        found = self.references
        for projection in self.projections:
            found = [projection.confine(reference) for reference in found]
        return found

    def before_batch(self, batch: Batch) -> Batch:
        """Take the gradient on remembered samples; the batch passes unchanged."""
        self.references = [self._reference(part) for part in self._remembered()]
        return batch

    def _remembered(self) -> list[Batch]:
        return [self.buffer.draw(min(self.batch_size, len(self.buffer)))] if len(self.buffer) else []

    def _reference(self, batch: Batch) -> Gradients:
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        device = next(iter(named.values())).device
        with torch.enable_grad():
            output = restrict(self.model(batch.inputs.to(device)), batch.classes)
            targets = batch.targets.to(device)
            if output.dim() > 2:  # a model that answers at every step
                output, targets = output.flatten(0, -2), targets.repeat(len(output))
            loss = self.loss(output, targets)
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {name: g for name, g in zip(named, gradients, strict=True) if g is not None}

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Remove from the gradients what would raise the loss on remembered samples."""
        if not self.references:
            return gradients
        (reference,), (direction,) = self.references, self.directions()
        shared = [name for name in gradients if name in reference]
        along = _inner(gradients, reference, shared)
        if not along < 0:
            return gradients
        factor = along / _inner(direction, reference, shared).clamp_min(1e-30)
        return gradients | {name: gradients[name] - factor * direction[name] for name in shared}

    def after_task(self, task: Task) -> None:
        """Remember samples of the finished task."""
        self.buffer.add_task(task)
        self.references = []

    def state_dict(self) -> dict[str, Any]:
        """The buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.buffer.load_state_dict(state)


def _inner(left: Gradients, right: Gradients, names: Sequence[str]) -> Tensor:
    """Inner product of two gradients over some parameters."""
    return torch.stack([(left[name] * right[name]).sum() for name in names]).sum()
