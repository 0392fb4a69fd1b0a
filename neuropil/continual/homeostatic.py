"""A learner whose own state depends on what it recognises, and which keeps its learning rate in balance.

Man, Damasio and Neven: Need is All You Need: Homeostatic Neural Networks Adapt to Concept Shift. 2022.
arXiv:2205.08645
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, ShapeError, nearest
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating
from neuropil.training.learner import Backprop, Loss
from neuropil.training.plugin import Plugin

Regulation = Literal["simulated", "random"]


class HomeostaticLearningRate(Backprop):
    """Gradient descent whose learning rate the inputs themselves push up and down.

    Some classes excite: taking one in raises the learning rate by `step`. All others inhibit and lower it. At every
    batch the learner looks at one new input, guesses its class, and imagines two steps with the batch's gradient: with
    the rate as it is (leave the input), and with the rate that the guessed class would bring (take it). Both are judged
    on the latest inputs met. When taking is strictly better it takes, and the rate really changes by what the *true*
    class does, so a learner that no longer recognises its world regulates wrongly, which is what keeps it learning.

    Args:
        model: `inputs -> logits [batch, classes]`.
        optimizer: plain SGD; its groups' learning rates are what is regulated, all by the same step.
        excitatory: classes that raise the rate.
        step: change of the learning rate at a time, above 0; the paper's is a tenth of the first rate.
        memory: latest inputs that the imagined steps are judged on, at least 1.
        regulation: `"simulated"` as above, or `"random"`, the paper's control, which takes an input by tossing a coin.
        floor: least learning rate, above 0.
        generator: tosses the coin of the control.
        loss, plugins: as in `Backprop`.

    Raises:
        ConfigError: a setting out of range, or an optimizer whose step is not its rate times the gradient.

    >>> net = nn.Linear(4, 3)
    >>> learner = HomeostaticLearningRate(net, torch.optim.SGD(net.parameters(), lr=0.1), excitatory=[2], step=0.01)
    >>> measured = learner.update(Batch(torch.rand(10, 4), torch.arange(10) % 3))
    >>> sorted(measured)
    ['loss', 'lr']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        excitatory: Iterable[int],
        step: float,
        memory: int = 20,
        regulation: Regulation = "simulated",
        floor: float = 1e-8,
        generator: torch.Generator | None = None,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, loss=loss, plugins=plugins)
        if not step > 0 or memory < 1 or not floor > 0:
            raise ConfigError(
                f"HomeostaticLearningRate: step {step}, memory {memory}, floor {floor}; expected above 0, at least 1, "
                "above 0"
            )
        if regulation not in ("simulated", "random"):
            raise ConfigError(
                f"regulation: {regulation!r} is unknown{nearest(regulation, ('simulated', 'random'))}"
            )
        if type(optimizer) is not torch.optim.SGD or any(
            group["momentum"] or group["weight_decay"] for group in optimizer.param_groups
        ):
            raise ConfigError(
                f"HomeostaticLearningRate with {type(optimizer).__name__}: imagined steps are rate times gradient; "
                "use SGD without momentum and weight decay"
            )
        self.excitatory = frozenset(int(c) for c in excitatory)
        self.step, self.memory, self.floor = step, memory, floor
        self.regulation, self.generator = regulation, generator
        self._inputs: Tensor | None = None  # the latest met, [at most memory, ...]
        self._targets: Tensor | None = None
        self._classes: Any = None

    @property
    def lr(self) -> float:
        """The learning rate at the moment, of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch, with the rate that was regulated in it."""
        return {**super().update(batch), "lr": self.lr}
