"""Elastic weight consolidation.

Kirkpatrick et al.: Overcoming catastrophic forgetting in neural networks. PNAS 2017. arXiv:1612.00796
Online form: Schwarz et al.: Progress & Compress. ICML 2018. arXiv:1805.06370
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.quadratic import QuadraticPenalty, Via
from neuropil.data.task import Task
from neuropil.errors import ConfigError
from neuropil.training.fisher import fisher_diagonal


class EWC(QuadraticPenalty):
    """Elastic weight consolidation: weights that earlier tasks need are held by springs.

    After each task the diagonal Fisher information F of its answers is estimated, and later losses carry
    `strength / 2 * sum_tasks sum_i F_i (w_i - w_i*)^2`, w* the weights at the end of that task. The sum over tasks
    is one quadratic, so memory does not grow with their number. The loss is a mean over the batch and F a mean
    over samples, which fixes the scale of `strength`.

    Args:
        model: the model that is trained.
        strength: weight of the penalty, at least 0.
        samples: training samples of a finished task that F is estimated on.
        generator: draws samples and labels for the estimate.
        predict: `inputs -> logits`, when that is not `model(inputs)`.
        via: "loss" adds the penalty to the loss; "gradients" adds its gradient to that of the loss, the same step, and
            the loss told is the task's alone. Where no other plugin acts on loss or gradients both take as long: of a
            perceptron 784-256-10 on 64 images 1.25 times a plain step's time, beside others 1.6 and 1.3 times. Springs
            are two more arrays of weights, which do not fit into a core's cache beside weights and gradients; a
            larger batch or a convolutional network hides them. List "gradients" before other plugins: the first of
            them may change the gradients where they lie.

    >>> net = nn.Linear(2, 2)
    >>> ewc = EWC(net, strength=10.0)
    >>> ewc.consolidate({name: torch.ones_like(p) for name, p in net.named_parameters()})
    >>> with torch.no_grad():
    ...     _ = net.bias.add_(1.0)
    >>> print(f"{ewc.penalty():.3f}")
    10.000
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 100.0,
        samples: int = 256,
        generator: torch.Generator | None = None,
        predict: Callable[[Tensor], Tensor] | None = None,
        via: Via = "loss",
    ) -> None:
        super().__init__(model, strength=strength, via=via)
        self.samples, self.generator, self.predict = samples, generator, predict

    def after_task(self, task: Task) -> None:
        """Estimate what the finished task needs, and hold it."""
        self.consolidate(
            fisher_diagonal(
                self.model, task.train, count=self.samples, classes=task.classes,
                generator=self.generator, predict=self.predict,
            )
        )  # fmt: skip

    def _merge(self, old: Tensor, anchor: Tensor, new: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        total = old + new
        return total, torch.where(total > 0, (old * anchor + new * here) / total.clamp_min(1e-38), here)

    def state_dict(self) -> dict[str, Any]:
        """Stiffness, anchors and the generator's position."""
        generator = None if self.generator is None else self.generator.get_state()
        return {**super().state_dict(), "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])


class OnlineEWC(EWC):
    """EWC whose springs fade: `F <- decay F + F_new`, all anchored at the latest weights.

    Args:
        decay: share of the earlier stiffness that is kept at each task, in [0, 1].

    >>> OnlineEWC(nn.Linear(2, 2), strength=10.0, decay=0.9).decay
    0.9
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.95, **settings: Any) -> None:
        super().__init__(model, **settings)
        if not 0 <= decay <= 1:
            raise ConfigError(f"OnlineEWC.decay: got {decay}, expected a share in [0, 1]")
        self.decay = decay

    def _merge(self, old: Tensor, anchor: Tensor, new: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        return self.decay * old + new, here.clone()
