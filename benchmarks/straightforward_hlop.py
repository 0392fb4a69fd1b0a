"""HLOP in plain PyTorch as the equations read: what a person would write from the paper.

A multilayer spiking network without biases, a static image repeated over time, backpropagation through time.
Each layer has a lateral matrix H `[m, n]`; rows learned in earlier tasks are frozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Spike(torch.autograd.Function):
    """Step with the slope of a sigmoid of slope 4."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        s = torch.sigmoid(4 * u)
        return gradient * 4 * s * (1 - s)


class ProjectedLinear(torch.autograd.Function):
    """`x W^T`, whose weight gradient uses the part of `x` orthogonal to the frozen rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, frozen: Tensor) -> Tensor:
        orthogonal = x - x @ frozen.T @ frozen if len(frozen) else x
        ctx.save_for_backward(orthogonal, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        orthogonal, weight = ctx.saved_tensors
        return (gradient @ weight if ctx.needs_input_grad[0] else None), gradient.T @ orthogonal, None


class Layer:
    """A projected linear layer with its lateral circuit."""

    def __init__(self, weight: Tensor, directions: Tensor, frozen: int, rate: float) -> None:
        self.weight = weight.clone().requires_grad_()
        self.directions, self.frozen, self.rate = directions.clone(), frozen, rate
        self.velocity = torch.zeros_like(directions[frozen:])

    def __call__(self, x: Tensor) -> Tensor:
        output = ProjectedLinear.apply(x, self.weight, self.directions[: self.frozen])
        self.learn(x.detach())
        return output

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Five Hebbian steps on one batch."""
        for _ in range(5):
            y = x @ self.directions.T
            residual = x - y @ self.directions
            change = (y[:, self.frozen :].T @ residual / len(x)).clamp(-10, 10)
            self.velocity = 0.9 * self.velocity + 0.1 * change
            self.directions[self.frozen :] += self.rate * self.velocity


def answer(layers: list[Layer], x: Tensor, steps: int) -> Tensor:
    """Mean over time of the last layer's output for images `[batch, n]`."""
    sequence = x.repeat(steps, 1)
    for layer in layers[:-1]:
        membrane, spikes = torch.zeros(len(x), len(layer.weight)), []
        for current in layer(sequence).unflatten(0, (steps, len(x))).unbind(0):
            membrane = 0.5 * membrane + current
            spike = Spike.apply(membrane - 1)
            membrane = membrane - spike.detach()
            spikes.append(spike)
        sequence = torch.cat(spikes)
    return layers[-1](sequence).unflatten(0, (steps, len(x))).mean(0)
