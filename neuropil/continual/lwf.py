"""Learning without forgetting.

Li, Hoiem: Learning without Forgetting. ECCV 2016, TPAMI 2018. arXiv:1606.09282
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.continual.teacher import Teacher
from neuropil.data.labels import labels_in
from neuropil.data.task import Task
from neuropil.errors import ConfigError
from neuropil.training.plugin import LossContext, Plugin


class LwF(Plugin):
    """Learning without forgetting: the network keeps giving its own earlier answers to the new task's inputs.

    At the end of each task the network is remembered, and later losses carry
    `strength * T^2 * KL(softmax(old / T) || softmax(new / T))`, a mean over the batch, between its remembered and
    its present answers. Where tasks name their classes (one head per task) every earlier head is compared on its
    own and the divergences are added; else one softmax runs over all classes met in earlier tasks. No sample of
    earlier tasks is needed; each step costs one more forward pass.

    Args:
        model: the model that is trained; its output is `[batch, outputs]` or `[time, batch, outputs]`.
        strength: weight of the old answers, at least 0.
        temperature: T, above 0; at higher ones small probabilities count more.

    >>> net = nn.Linear(4, 3)
    >>> lwf = LwF(net, strength=1.0, temperature=2.0)
    >>> lwf.remember((0, 1, 2))
    >>> x = torch.randn(5, 4)
    >>> lwf.distillation(x, net(x)).item()
    0.0
    """

    def __init__(self, model: nn.Module, *, strength: float = 1.0, temperature: float = 2.0) -> None:
        if not strength >= 0:
            raise ConfigError(f"LwF.strength: got {strength}, expected at least 0")
        if not temperature > 0:
            raise ConfigError(f"LwF.temperature: got {temperature}, expected more than 0")
        self.strength, self.temperature = strength, temperature
        self.teacher = Teacher(model)
        self.heads: list[tuple[int, ...]] = []  # of tasks that name their classes
        self.seen: tuple[int, ...] = ()  # classes of all other tasks

    def remember(self, classes: tuple[int, ...], *, own_head: bool = False) -> None:
        """Keep the present answers to `classes`: as a head of their own, or among all others."""
        if own_head:
            self.heads += [classes] if classes not in self.heads else []
        else:
            self.seen = tuple(sorted({*self.seen, *classes}))
        self.teacher.remember()

    def distillation(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The penalty, before `strength`, for the model's present `output` to `inputs`."""
        old = self.teacher(inputs).detach()
        parts = [head for head in (*self.heads, self.seen) if head]
        first, *others = (self._divergence(old, output, head) for head in parts)
        return torch.stack([first, *others]).sum() if others else first

    def _divergence(self, old: Tensor, new: Tensor, classes: tuple[int, ...]) -> Tensor:
        at = list(classes)
        if max(at) + 1 == len(at) < new.shape[-1]:
            old, new = old[..., : len(at)], new[..., : len(at)]
        elif max(at) + 1 > len(at):
            old, new = old[..., at], new[..., at]
        target = functional.log_softmax(old / self.temperature, -1).flatten(0, -2)
        answer = functional.log_softmax(new / self.temperature, -1).flatten(0, -2)
        divergence = functional.kl_div(answer, target, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Add the distance to the old answers."""
        if not self.teacher or not self.strength:
            return loss
        return loss + self.strength * self.distillation(context.batch.inputs, context.output)

    def after_task(self, task: Task) -> None:
        """Remember the network that has learned the task."""
        if task.classes is not None:
            self.remember(task.classes, own_head=True)
        else:
            self.remember(labels_in(task.train))

    def state_dict(self) -> dict[str, Any]:
        """The remembered network and its classes."""
        return {
            "teacher": self.teacher.state_dict(),
            "heads": [list(head) for head in self.heads],
            "seen": list(self.seen),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.teacher.load_state_dict(state["teacher"])
        self.heads = [tuple(head) for head in state["heads"]]
        self.seen = tuple(state["seen"])
