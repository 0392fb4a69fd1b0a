"""A learner whose own state depends on what it recognises, and which keeps its learning rate in balance.

Man, Damasio and Neven: Need is All You Need: Homeostatic Neural Networks Adapt to Concept Shift. 2022.
arXiv:2205.08645
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, nearest
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
        self._met = _Met(Batch(torch.empty(0), torch.empty(0)), 0)

    @property
    def lr(self) -> float:
        """The learning rate at the moment, of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch, with the rate that was regulated in it."""
        handle = self.optimizer.register_step_pre_hook(self._regulate)
        try:
            return {**super().update(batch), "lr": self.lr}
        finally:
            handle.remove()

    def objective(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss of an output, which also tells what was met and what was guessed."""
        self._met = _Met(batch, int(restrict(output.detach()[-1:], _last(batch.classes)).argmax()))
        return super().objective(output, batch)

    def start_task(self) -> None:
        """A new task begins; the rate stays, the inputs remembered go."""
        super().start_task()
        self._inputs = self._targets = None

    def state_dict(self) -> dict[str, Any]:
        """Rate, inputs remembered and the generator's position."""
        generator = None if self.generator is None else self.generator.get_state()
        memory = {"inputs": self._inputs, "targets": self._targets}
        return {**super().state_dict(), **memory, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._inputs, self._targets = state["inputs"], state["targets"]
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])

    def _regulate(self, *_: Any) -> None:
        """Between gradient and step: remember the batch, look at its last input, and take it or leave it."""
        batch, guess = self._met
        self._remember(batch)
        if self.regulation == "random":
            takes = bool(torch.rand((), generator=self.generator) < 0.5)
        else:
            classes = batch.classes if isinstance(batch.classes, tuple) else None
            takes = self._imagine(self._change(guess), classes) < self._imagine(0.0, classes)
        if takes:
            change = self._change(int(batch.targets[-1]))
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] + change, self.floor)

    def _change(self, label: int) -> float:
        return self.step if label in self.excitatory else -self.step

    def _remember(self, batch: Batch) -> None:
        old = [] if self._inputs is None or self._targets is None else [(self._inputs, self._targets)]
        met = [*old, (batch.inputs, batch.targets)]
        self._inputs, self._targets = (
            torch.cat(part)[-self.memory :].detach() for part in zip(*met, strict=True)
        )

    @torch.no_grad()
    def _imagine(self, change: float, classes: tuple[int, ...] | None) -> float:
        """Loss on the inputs remembered after a step with the rate changed so."""
        if self._inputs is None or self._targets is None:
            return 0.0
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        after = {
            names[parameter]: parameter - max(group["lr"] + change, self.floor) * parameter.grad
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        }
        with evaluating(self.model):
            output = functional_call(self.model, after, (self._inputs,))
        return float(self.loss(restrict(output, classes), self._targets))


class _Met(NamedTuple):
    batch: Batch
    guess: int  # the class given to the last input


def _last(classes: Any) -> Any:
    return classes[-1:] if isinstance(classes, Tensor) else classes
