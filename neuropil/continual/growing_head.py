"""An output layer that grows while learning, when labels appear that it has no output for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from neuropil.data.task import Batch, Task
from neuropil.nn.growing import count_outputs, grown_tensors, head_of
from neuropil.training.plugin import Plugin, unwrapped


class GrowingHead(Plugin):
    """Grows the output layer of the model that is trained as soon as a label is met that it cannot answer.

    It grows before a task that names its `classes`, and otherwise before the first batch with a new label, so streams
    without boundaries are served too. The layer's tensors are widened in place: the optimizer goes on with the same
    parameters, and what it remembers of them, as momentum, begins at zero for the new outputs. Old outputs keep their
    bits. Put it before plugins that look at the model's outputs. Penalties such as EWC leave new outputs free; plugins
    that protect directions of the layer's inputs are not concerned.

    Args:
        model: the model that is trained.
        layer: name of its output layer; left out, the last linear or convolutional layer that it registered.
        generator: draws the new weights.

    Raises:
        UnknownNameError, IncompatibleError: the layer is not there or cannot grow, see `grow_outputs`.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> head = GrowingHead(net)
    >>> _ = head.before_batch(Batch(torch.rand(3, 4), torch.tensor([0, 1, 4])))
    >>> net(torch.rand(3, 4)).shape
    torch.Size([3, 5])
    """

    def __init__(
        self, model: nn.Module, *, layer: str | None = None, generator: torch.Generator | None = None
    ) -> None:
        self.model, self.generator = unwrapped(model), generator
        self.name, _ = head_of(self.model, layer)
        self.optimizer: Optimizer | None = None

    @property
    def head(self) -> nn.Linear | _ConvNd:
        """The layer that grows."""
        return head_of(self.model, self.name)[1]

    @property
    def outputs(self) -> int:
        """Answers that the model has now."""
        return len(self.head.weight)

    def before_fit(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Remember the optimizer, whose memory of the layer grows with it."""
        self.optimizer = optimizer

    def before_task(self, task: Task) -> None:
        """Grow for the classes that the task names."""
        if task.classes:
            self.grow_to(max(task.classes) + 1)

    def before_batch(self, batch: Batch) -> Batch:
        """Grow for the labels of the batch."""
        if len(batch.targets) and not batch.targets.is_floating_point():
            self.grow_to(int(batch.targets.max()) + 1)
        return batch

    @torch.no_grad()
    def grow_to(self, outputs: int) -> None:
        """Grow to so many outputs; nothing happens when there are as many."""
        extra = outputs - self.outputs
        if extra <= 0:
            return
        head = self.head
        for name, tensor in grown_tensors(head, extra, self.generator).items():
            own = head._parameters.get(name)
            if own is None:
                head._buffers[name] = tensor
                continue
            old, own.grad = own.shape, None
            own.data = tensor
            if self.optimizer is not None:
                _widen(self.optimizer.state.get(own, {}), old, extra)
        count_outputs(head, extra)

    def state_dict(self) -> dict[str, Any]:
        """Number of outputs and the generator's position."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"outputs": self.outputs, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Grow to the saved size, so that the saved weights fit; they are loaded afterwards."""
        self.grow_to(int(state["outputs"]))
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])


def _widen(memory: dict[str, Any], old: torch.Size, extra: int) -> None:
    """Zeros for the new outputs in all that an optimizer remembers, row by row, of a parameter."""
    for key, value in memory.items():
        if isinstance(value, Tensor) and value.shape == old:
            memory[key] = torch.cat([value, value.new_zeros(extra, *old[1:])])
