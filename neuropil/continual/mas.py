"""Memory aware synapses.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars: Memory Aware Synapses: Learning what (not) to forget. ECCV 2018.
arXiv:1711.09601
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.quadratic import QuadraticPenalty
from neuropil.data.batching import batches
from neuropil.data.task import Task
from neuropil.training.fisher import sample_gradients


class MAS(QuadraticPenalty):
    """Memory aware synapses: weights that the answers are sensitive to are held by springs.

    After each task a weight's stiffness grows by `mean_samples |d ||f(x)||^2 / d w_i|`, f the model's output (that
    of the task's own classes, where it names them); its anchor is the present weight. No labels are needed. In the
    paper's `lambda sum Omega (w - w*)^2`, lambda is half the `strength` here.

    Args:
        model: the model that is trained.
        strength: weight of the penalty, at least 0.
        samples: training samples of a finished task that the sensitivity is estimated on.
        generator: chooses the samples.
        predict: `inputs -> outputs`, when that is not `model(inputs)`.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> mas = MAS(net, strength=1.0)
    >>> _ = net.weight.data.fill_(1.0)
    >>> mas.consolidate(mas.sensitivity(torch.tensor([[1.0, 2.0]])))  # f = 3, d f^2 / d w = 2 f x
    >>> mas.state_dict()["stiffness"]["weight"]
    tensor([[ 6., 12.]])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 1.0,
        samples: int = 256,
        generator: torch.Generator | None = None,
        predict: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model, strength=strength)
        self.samples, self.generator, self.predict = samples, generator, predict

    def after_task(self, task: Task) -> None:
        """Estimate what the finished task's answers are sensitive to, and hold it."""
        seed = int(torch.randint(2**31, (), generator=self.generator))
        inputs = next(iter(batches(task.train, self.samples, seed=seed, epoch=0))).inputs
        self.consolidate(self.sensitivity(inputs, task.classes))

    def sensitivity(self, inputs: Tensor, classes: tuple[int, ...] | None = None) -> dict[str, Tensor]:
        """Mean over `inputs` `[n, ...]` of the size of each weight's effect on the squared length of the output."""
        total = {name: torch.zeros_like(p) for name, p in self.model.named_parameters() if p.requires_grad}

        def length(x: Tensor) -> Tensor:
            output = (self.predict or self.model)(x)
            return (output if classes is None else output[..., list(classes)]).square().sum()

        for gradients in sample_gradients(self.model, inputs, length):
            for name, gradient in gradients.items():
                total[name].add_(gradient.abs())
        return {name: value.div_(len(inputs)) for name, value in total.items()}

    def state_dict(self) -> dict[str, Any]:
        """Springs and the generator's position."""
        generator = None if self.generator is None else self.generator.get_state()
        return {**super().state_dict(), "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])
