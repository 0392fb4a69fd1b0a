"""Unlearnable examples: noise that makes a data set teach nothing, laid only where a sparse image has something to see.

Sun, Zhang, Zhang, Sun, Zhang: Medical Unlearnable Examples: Securing Medical Data from Unauthorized Training via
Sparsity-Aware Local Masking. 2024. arXiv:2403.10573; noise over the whole image: Huang, Ma, Erfani, Bailey, Wang:
Unlearnable Examples: Making Personal Data Unexploitable. ICLR 2021. arXiv:2101.04898
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import Dataset

from neuropil.data.arrays import Arrays
from neuropil.data.batching import gather
from neuropil.editing.descent import MakeOptimizer, own_randomness, trainable_copy
from neuropil.errors import ConfigError, DataError, NonFiniteError
from neuropil.training.evaluating import evaluating

STEPS: MakeOptimizer = partial(SGD, lr=0.05, momentum=0.9)


class ProtectedSamples(Arrays):
    """Pairs whose inputs carry noise; `noise` `[samples, ...]` is what was added."""

    def __init__(self, inputs: Tensor, targets: Tensor, noise: Tensor) -> None:
        super().__init__(inputs, targets)
        self.noise = noise


@dataclass(frozen=True)
class SparsityAwareMask:
    """The share of an image's pixels on which the loss hangs most: where noise is worth its visibility.

    >>> SparsityAwareMask(0.5)(torch.tensor([[0.1, -3.0, 2.0, 0.0]]))
    tensor([[0., 1., 1., 0.]])
    """

    fraction: float  # of each image's numbers, in (0, 1]

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(
                f"SparsityAwareMask: fraction is {self.fraction}, expected above 0 and at most 1"
            )

    def __call__(self, gradient: Tensor) -> Tensor:
        """Ones at the largest absolute gradients of each image `[batch, ...]`, zeros elsewhere."""
        flat = gradient.flatten(1).abs()
        keep = max(1, round(self.fraction * flat.shape[1]))
        return torch.zeros_like(flat).scatter_(1, flat.topk(keep, dim=1).indices, 1.0).view_as(gradient)


def error_minimizing_noise(
    surrogate: nn.Module,
    samples: Dataset[Any],
    *,
    eps: float = 8 / 255,
    pixel_fraction: float | None = 0.3,
    rounds: int = 8,
    train_steps: int = 10,
    noise_steps: int = 5,
    batch_size: int = 64,
    low: float = 0.0,
    high: float = 1.0,
    make_optimizer: MakeOptimizer = STEPS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise `[samples, ...]` after which the samples are so easy to fit that there is nothing to learn from them.

    A copy of the surrogate learns the samples with their present noise for some steps; then the noise of every sample
    goes down the gradient of the copy's loss for some signed steps of `eps / 10`, on the pixels that matter most to it.
    Both take turns. The pixels are chosen anew in each round; all that was ever chosen may carry noise.

    Args:
        surrogate: untrained network `inputs -> logits`; it stays as it is. Others are kept from learning as well.
        samples: pairs to protect, inputs in [low, high].
        eps: largest change of a number, in the inputs' unit, above 0; 8/255 is hard to see on photographs.
        pixel_fraction: share of each image that a round may change, in (0, 1]; `None` is noise over all of it.
        rounds: how often training and noise take turns, at least 1. Let the surrogate's error go below 1 %.
        train_steps: steps of the surrogate in a round.
        noise_steps: signed steps of the noise in a round.
        batch_size: samples per step.
        low, high: range in which protected inputs stay.
        make_optimizer: of the surrogate.
        generator: draws batches and dropout.

    Raises:
        ConfigError: a setting out of range.
        DataError: inputs outside of the range.
        NonFiniteError: the surrogate's loss ran away.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> data = torch.utils.data.TensorDataset(torch.rand(20, 1, 4, 4), torch.arange(20) % 2)
    >>> noise = error_minimizing_noise(net, data, eps=0.1, rounds=2)
    >>> noise.shape, bool(noise.abs().max() <= 0.1)
    (torch.Size([20, 1, 4, 4]), True)
    """
    for name, value in (("eps", eps), ("high - low", high - low)):
        if not 0 < value < math.inf:
            raise ConfigError(f"error_minimizing_noise: {name} is {value}, expected a finite number above 0")
    if min(rounds, train_steps, noise_steps, batch_size) < 1:
        raise ConfigError("error_minimizing_noise: rounds, steps and batch size must be at least 1")
    mask = None if pixel_fraction is None else SparsityAwareMask(pixel_fraction)
    x, y = gather(samples, range(len(samples)))  # type: ignore[arg-type]
    if not bool(((x >= low) & (x <= high)).all()):
        raise DataError(f"error_minimizing_noise: inputs lie outside of [{low:g}, {high:g}], the range given")
    noise = torch.zeros_like(x)
    with own_randomness(generator) as seed:
        twin, own = trainable_copy(surrogate)
        optimizer, drawn = make_optimizer(list(own.values())), torch.Generator().manual_seed(seed)
        for _ in range(rounds):
            _learn(twin, optimizer, x + noise, y, train_steps, batch_size, drawn)
            for rows in torch.arange(len(x)).split(batch_size):
                noise[rows] = _down(twin, x[rows], y[rows], noise[rows], eps, noise_steps, mask, (low, high))
    return noise


def unlearnable(
    samples: Dataset[Any], noise: Tensor, *, low: float = 0.0, high: float = 1.0
) -> ProtectedSamples:
    """The samples with noise of their own, their inputs kept in [low, high].

    >>> data = torch.utils.data.TensorDataset(torch.tensor([[0.0, 0.9]]), torch.tensor([1]))
    >>> unlearnable(data, torch.tensor([[-0.5, 0.5]])).inputs
    tensor([[0., 1.]])
    """
    x, y = gather(samples, range(len(samples)))  # type: ignore[arg-type]
    if noise.shape != x.shape:
        raise DataError(
            f"unlearnable: noise is {list(noise.shape)}, inputs {list(x.shape)}; expected the same"
        )
    inputs = (x + noise).clamp(low, high)
    return ProtectedSamples(inputs, y, inputs - x)


def _learn(
    twin: nn.Module, optimizer: Any, x: Tensor, y: Tensor, steps: int, batch_size: int, drawn: torch.Generator
) -> None:
    twin.train()
    for _ in range(steps):
        rows = torch.randint(len(y), (batch_size,), generator=drawn)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(twin(x[rows]), y[rows])
        if not bool(loss.isfinite()):
            raise NonFiniteError("error_minimizing_noise: the surrogate's loss is not finite; lower its rate")
        torch.autograd.backward(loss)
        optimizer.step()


def _down(
    twin: nn.Module, x: Tensor, y: Tensor, noise: Tensor, eps: float, steps: int,
    mask: SparsityAwareMask | None, span: tuple[float, float],
) -> Tensor:  # fmt: skip
    """Noise of some samples after signed steps that make the surrogate's loss smaller."""
    chosen: Tensor | None = None
    with evaluating(twin):
        for _ in range(steps):
            probe = (x + noise).requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(twin(probe), y), probe)
            if mask is not None and chosen is None:
                chosen = mask(gradient)
            step = gradient.sign() if chosen is None else gradient.sign() * chosen
            noise = (noise - eps / 10 * step).clamp(-eps, eps)
            noise = ((x + noise).clamp(*span) - x).clamp(-eps, eps)
    return noise
