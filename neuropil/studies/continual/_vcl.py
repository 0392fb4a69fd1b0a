"""Variational continual learning, a baseline: a mean-field posterior of the weights is the next task's prior.

Nguyen, Li, Bui, Turner: Variational Continual Learning. ICLR 2018. arXiv:1710.10628
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data.task import Task
from neuropil.training import LossContext, Plugin


class VariationalLinear(nn.Module):
    """Linear layer whose weights and biases are independent normals; local reparametrisation while it trains."""

    def __init__(self, inputs: int, outputs: int, *, scale: float = 0.02) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.mean = nn.Parameter(torch.empty(outputs, inputs + 1).uniform_(-bound, bound))
        self.log_scale = nn.Parameter(torch.full((outputs, inputs + 1), math.log(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs] -> [batch, outputs]`; in evaluation the mean weights answer."""
        x = functional.pad(x, (0, 1), value=1.0)
        out = functional.linear(x, self.mean)
        if not self.training:
            return out
        variance = functional.linear(x.square(), (2 * self.log_scale).exp())
        return out + variance.clamp_min(1e-12).sqrt() * torch.randn_like(out)


class VCL(Plugin):
    """Adds the divergence of the posterior from the last task's posterior, per sample, to the loss."""

    def __init__(self, model: nn.Module, *, prior_scale: float = 1.0) -> None:
        self.layers = [layer for layer in model.modules() if isinstance(layer, VariationalLinear)]
        self.prior = [
            (torch.zeros_like(layer.mean), torch.full_like(layer.mean, math.log(prior_scale)))
            for layer in self.layers
        ]
        self.samples = 1

    def before_task(self, task: Task) -> None:
        """Note how many samples share the divergence."""
        self.samples = len(cast("list[None]", task.train))

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Add the divergence."""
        return loss + self.divergence() / self.samples

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence of posterior from prior, summed over weights."""
        total = torch.zeros(())
        for layer, (mean, log_scale) in zip(self.layers, self.prior, strict=True):
            ratio = (2 * (layer.log_scale - log_scale)).exp()
            moved = ((layer.mean - mean) / log_scale.exp()).square()
            total = total + 0.5 * (ratio + moved - 1 - ratio.log()).sum()
        return total

    @torch.no_grad()
    def after_task(self, task: Task) -> None:
        """The posterior becomes the prior."""
        self.prior = [
            (layer.mean.detach().clone(), layer.log_scale.detach().clone()) for layer in self.layers
        ]
