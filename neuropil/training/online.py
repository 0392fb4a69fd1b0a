"""Accuracy on every batch just before it is learned: how well a learner keeps up with a stream that changes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from neuropil.training.allowed import restrict
from neuropil.training.plugin import LossContext, Plugin


class OnlineAccuracy(Plugin):
    """Tests on each batch before learning from it (prequential evaluation); nothing is held out, nothing is lost.

    `accuracies` holds one share in [0, 1] a step, `mean` their mean weighted by samples. What is judged is the batch
    as it is learned from, with all that other plugins added to it.

    Gama, Sebastião and Rodrigues: On evaluating stream learning algorithms. Machine Learning 90, 2013.

    >>> import torch
    >>> from torch import nn
    >>> from neuropil.data import Batch
    >>> from neuropil.training import Backprop
    >>> net, online = nn.Linear(4, 3), OnlineAccuracy()
    >>> learner = Backprop(net, torch.optim.SGD(net.parameters(), lr=0.1), plugins=[online])
    >>> _ = learner.update(Batch(torch.rand(8, 4), torch.arange(8) % 3))
    >>> len(online.accuracies)
    1
    """

    def __init__(self) -> None:
        self.accuracies: list[float] = []
        self._right = self._seen = 0

    @property
    def mean(self) -> float | None:
        """Share of all samples so far that were answered rightly when they were met; None before any."""
        return self._right / self._seen if self._seen else None

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Judge the answers that the step to come will learn from."""
        batch = context.batch
        output = context.output.detach()
        output = (
            output.flatten(0, -3).mean(0) if output.dim() > 2 else output
        )  # of a model that answers at each step
        right = int((restrict(output, batch.classes).argmax(-1) == batch.targets).sum())
        self.accuracies.append(right / len(batch.targets))
        self._right, self._seen = self._right + right, self._seen + len(batch.targets)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """What has been judged so far."""
        return {"accuracies": list(self.accuracies), "right": self._right, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.accuracies, self._right, self._seen = list(state["accuracies"]), state["right"], state["seen"]
