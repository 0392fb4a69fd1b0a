"""Unlearnable examples: noise that makes a data set teach nothing, laid only where a sparse image has something to see.

Sun, Liu, Yan, Xu, Sun: Medical Unlearnable Examples: Securing Medical Data from Unauthorized Training via
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
from torch.optim import SGD, Optimizer
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
    class_wise: bool = False,
    rounds: int = 8,
    train_steps: int = 10,
    noise_steps: int = 5,
    batch_size: int = 64,
    low: float = 0.0,
    high: float = 1.0,
    make_optimizer: MakeOptimizer = STEPS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise `[samples, ...]` after which the samples are so easy to fit that there is little to learn from them.

    A copy of the surrogate learns the samples with their present noise for some steps; then the noise goes down the
    gradient of the copy's loss for some signed steps of `eps / 10`. Both take turns. With `pixel_fraction` each round
    chooses anew the pixels on which the copy's loss hangs most; only those are stepped on, and only those show noise:
    what others gathered in earlier rounds is kept out of sight until they are chosen again.

    Args:
        surrogate: untrained network `inputs -> logits`; it stays as it is. Others are kept from learning as well.
        samples: pairs to protect, inputs in [low, high], targets class numbers.
        eps: largest change of a number, in the inputs' unit, above 0; 8/255 is hard to see on photographs.
        pixel_fraction: share of each image's numbers that carry noise, in (0, 1]; `None` is noise over all of it.
        class_wise: one noise for all samples of a class, before `unlearnable` keeps each sample in its range.
        rounds: how often training and noise take turns, at least 1. Stopping early leaves the noise weak.
        train_steps: steps of the surrogate in a round.
        noise_steps: signed steps of the noise in a round.
        batch_size: samples per step.
        low, high: range in which protected inputs stay.
        make_optimizer: of the surrogate.
        generator: draws batches and dropout.

    Raises:
        ConfigError: a setting out of range.
        DataError: no samples, or inputs outside of the range.
        NonFiniteError: the surrogate's loss ran away.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> data = torch.utils.data.TensorDataset(torch.rand(20, 1, 4, 4), torch.arange(20) % 2)
    >>> noise = error_minimizing_noise(net, data, eps=0.1, pixel_fraction=0.25, rounds=2)
    >>> noise.shape, bool(noise.abs().max() <= 0.1), int((noise != 0).flatten(1).sum(1).max()) <= 4
    (torch.Size([20, 1, 4, 4]), True, True)
    """
    for name, value in (("eps", eps), ("high - low", high - low)):
        if not 0 < value < math.inf:
            raise ConfigError(f"error_minimizing_noise: {name} is {value}, expected a finite number above 0")
    if min(rounds, train_steps, noise_steps, batch_size) < 1:
        raise ConfigError("error_minimizing_noise: rounds, steps and batch size must be at least 1")
    if not len(samples):  # type: ignore[arg-type]
        raise DataError("error_minimizing_noise: there are no samples, expected at least one")
    mask = None if pixel_fraction is None else SparsityAwareMask(pixel_fraction)
    x, y = gather(samples, range(len(samples)))  # type: ignore[arg-type]
    if not bool(((x >= low) & (x <= high)).all()):
        raise DataError(f"error_minimizing_noise: inputs lie outside of [{low:g}, {high:g}], the range given")
    owner = y if class_wise else torch.arange(len(x), device=x.device)
    task = _Task(x, y, owner, not class_wise, eps, (low, high), batch_size)
    whole = x.new_zeros((int(owner.max()) + 1, *x.shape[1:]))
    shown = whole
    with own_randomness(generator) as seed:
        twin, own = trainable_copy(surrogate)
        optimizer, drawn = make_optimizer(list(own.values())), torch.Generator().manual_seed(seed)
        for _ in range(rounds):
            task.learn(twin, optimizer, shown, train_steps, drawn)
            whole, shown = task.descend(twin, whole, shown, noise_steps, mask)
    return shown[owner]


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


@dataclass(frozen=True, eq=False)
class _Task:
    """What both players see: samples, and whose noise each of them carries."""

    x: Tensor
    y: Tensor
    owner: Tensor  # row of the noise that a sample carries, [samples]
    own: bool  # each sample has a row to itself
    eps: float
    span: tuple[float, float]
    batch_size: int

    def noised(self, shown: Tensor, rows: Tensor) -> Tensor:
        """Some samples as the surrogate gets them."""
        return (self.x[rows] + shown[self.owner[rows]]).clamp(*self.span)

    def learn(
        self, twin: nn.Module, optimizer: Optimizer, shown: Tensor, steps: int, drawn: torch.Generator
    ) -> None:
        """Steps of the surrogate on samples with their noise."""
        twin.train()
        for _ in range(steps):
            rows = torch.randint(len(self.y), (self.batch_size,), generator=drawn)
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(twin(self.noised(shown, rows)), self.y[rows])
            if not bool(loss.isfinite()):
                raise NonFiniteError(
                    "error_minimizing_noise: the surrogate's loss is not finite; lower its rate"
                )
            torch.autograd.backward(loss)
            optimizer.step()

    def descend(
        self, twin: nn.Module, whole: Tensor, shown: Tensor, steps: int, mask: SparsityAwareMask | None
    ) -> tuple[Tensor, Tensor]:
        """All noise, and what of it is shown, after signed steps that make the surrogate's loss smaller."""
        chosen: Tensor | None = None
        with evaluating(twin):
            for _ in range(steps):
                gradient = self._gradient(twin, shown)
                if chosen is None:
                    chosen = torch.ones_like(whole) if mask is None else mask(gradient)
                whole = (whole - self.eps / 10 * chosen * gradient.sign()).clamp(-self.eps, self.eps)
                if self.own:
                    whole = ((self.x + whole).clamp(*self.span) - self.x).clamp(-self.eps, self.eps)
                shown = whole * chosen
        return whole, shown

    def _gradient(self, twin: nn.Module, shown: Tensor) -> Tensor:
        """Gradient of the summed loss by each row of the noise."""
        total = torch.zeros_like(shown)
        for rows in torch.arange(len(self.x)).split(self.batch_size):
            probe = self.noised(shown, rows).requires_grad_()
            loss = functional.cross_entropy(twin(probe), self.y[rows], reduction="sum")
            (gradient,) = torch.autograd.grad(loss, probe)
            total.index_add_(0, self.owner[rows], gradient)
        return total
