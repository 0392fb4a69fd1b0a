"""Test-time adaptation by entropy minimisation.

Wang, Shelhamer, Liu, Olshausen and Darrell: Tent: Fully Test-Time Adaptation by Entropy Minimization. ICLR 2021.
arXiv:2006.10726
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from neuropil.continual.adapter import (
    MakeOptimizer,
    SourceFreeAdapter,
    adam,
    batch_norms,
    entropy,
    measuring,
    minimise,
)
from neuropil.errors import ConfigError


class TENT(SourceFreeAdapter):
    """Trains the gains and shifts of normalisation layers so that the answers to test inputs become certain.

    Each batch is one forward pass with its own batch statistics, which the model keeps, and one step on the mean
    entropy of the answers; nothing else in the model changes. It goes beyond `BatchNormStatistics` where there are
    many batches of one kind; with a large step it may collapse to one answer, so watch the answers' histogram and
    `reset()` when the inputs change.

    Args:
        model: the finished model, with batch normalisation.
        optimizer: makes the optimizer of the gains and shifts.

    Raises:
        ConfigError: no batch normalisation, or none whose gains and shifts may be trained.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    >>> adapter = TENT(net, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    >>> x = torch.randn(32, 4)
    >>> losses = [adapter.update(x)["loss"] for _ in range(20)]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(
        self, model: nn.Module, *, optimizer: MakeOptimizer = adam
    ) -> None:
        super().__init__(model)
        self.layers = batch_norms(self.model, "TENT")
        self.parameters = _gains_and_shifts(self.model)
        self.optimizer: Optimizer = optimizer(self.parameters)

    def adapt_to(self, inputs: Tensor) -> float:
        """One step on the entropy of the answers."""
        with measuring(self.layers), torch.enable_grad():
            loss = entropy(self.model(inputs))
        return minimise(loss, self.parameters, self.optimizer)


def _gains_and_shifts(model: nn.Module) -> list[nn.Parameter]:
    kinds = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
    found = [
        parameter
        for module in model.modules()
        if isinstance(module, kinds)
        for parameter in (module.weight, module.bias)
        if isinstance(parameter, nn.Parameter) and parameter.requires_grad
    ]
    if not found:
        raise ConfigError("TENT: no normalisation layer has a gain or shift that may be trained")
    return found
