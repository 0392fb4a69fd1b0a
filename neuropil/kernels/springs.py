"""The pull of springs on weights, found or added to gradients in one pass over memory."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.kernels.addresses import addresses
from neuropil.kernels.compiled import run_over
from neuropil.kernels.finite import all_finite
from neuropil.kernels.springs_compiled import CHUNK, add_pull, add_pull_and_check, find_pulls

_STRETCH = 32  # chunks that a thread takes at once, so that it meets the same ones in the next step's cache
_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


class Springs:
    """Weights held at anchors: their energy is `strength / 2 * sum stiffness (weight - anchor)^2`.

    Where everything lies is looked up once, for all steps in which it stays there.

    Args:
        weights: what is held.
        anchors: where, a tensor for each weight, of its shape.
        stiffnesses: how stiffly: of the weight's shape, or one number for all of it.
        strength: factor of all stiffnesses.

    >>> springs = Springs([torch.tensor([3.0, 1.0])], [torch.ones(2)], [torch.full((2,), 0.5)], 10.0)
    >>> gradient = torch.zeros(2)
    >>> pull_gradients([gradient], springs)
    Pulled(energy=10.0, finite=True)
    >>> gradient
    tensor([10.,  0.])
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        anchors: Sequence[Tensor],
        stiffnesses: Sequence[Tensor],
        strength: float,
    ) -> None:
        self.weights, self.anchors, self.stiffnesses = weights, anchors, stiffnesses
        self.strength = strength
        rows = addresses(weights, anchors, stiffnesses)
        self.rows = None if rows is None or not rows[-1, -1] else rows
        self.ends = [] if rows is None else rows[:, -1].tolist()
        self._places = _places(weights, anchors, stiffnesses)

    @functools.cached_property
    def count(self) -> int:
        """Numbers that are held."""
        return sum(weight.numel() for weight in self.weights)

    @functools.cached_property
    def scale(self) -> np.ndarray[Any, Any]:
        """The strength, of the dtype of the weights."""
        return np.array([self.strength], dtype=_DTYPES[self.weights[0].dtype])

    def are(
        self,
        weights: Sequence[Tensor],
        anchors: Sequence[Tensor],
        stiffnesses: Sequence[Tensor],
        strength: float,
    ) -> bool:
        """Whether these are the springs of these tensors, and the tensors where they were."""
        return (
            strength == self.strength
            and len(weights) == len(self.weights)
            and all(map(operator.is_, weights, self.weights))
            and _places(weights, anchors, stiffnesses) == self._places
        )


def _places(*columns: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for column in columns for tensor in column]


class Pulled(NamedTuple):
    """What adding pulls to gradients found on the way."""

    energy: float
    finite: bool  # whether every gradient is finite with the pull added


def add_pulls(
    gradients: Sequence[Tensor],
    weights: Sequence[Tensor],
    anchors: Sequence[Tensor],
    stiffnesses: Sequence[Tensor],
    strength: float,
) -> None:
    """`gradient += strength * stiffness * (weight - anchor)`, in place, for each of several weights.

    With hundreds of thousands of weights a training step is bound by memory, and so is this: four arrays are read and
    one is written, where separate operators pass over them twice. A stiffness may be one number for all. Raises
    ShapeError when the shapes do not fit.

    >>> gradient = torch.zeros(2)
    >>> add_pulls([gradient], [torch.tensor([3.0, 1.0])], [torch.ones(2)], [torch.tensor([0.5, 2.0])], strength=10.0)
    >>> gradient
    tensor([10.,  0.])
    """
    for gradient, weight, anchor, stiffness in zip(gradients, weights, anchors, stiffnesses, strict=True):
        shape = weight.shape
        if not gradient.shape == shape == anchor.shape or (stiffness.shape != shape and stiffness.dim()):
            raise ShapeError(
                f"add_pulls: gradient {list(gradient.shape)}, weight {list(shape)}, anchor {list(anchor.shape)} "
                f"and stiffness {list(stiffness.shape)}, expected one shape"
            )
    rows = addresses(gradients, weights, anchors, stiffnesses)
    if rows is None:
        for gradient, weight, anchor, stiffness in zip(gradients, weights, anchors, stiffnesses, strict=True):
            gradient.addcmul_(stiffness, weight.detach() - anchor, value=strength)
        return
    count = int(rows[-1, -1])
    run_over(add_pull, count, count, rows, np.array([strength], dtype=_DTYPES[gradients[0].dtype]))


def pulls_and_energy(
    weights: Sequence[Tensor], anchors: Sequence[Tensor], stiffnesses: Sequence[Tensor], strength: float
) -> tuple[list[Tensor], Tensor]:
    """`strength * stiffness * (weight - anchor)` for each of several weights, and half the sum of it times what moved.

    >>> pulls, energy = pulls_and_energy([torch.tensor([3.0, 1.0])], [torch.ones(2)], [torch.full((2,), 0.5)], 10.0)
    >>> pulls[0].tolist(), energy.item()
    ([10.0, 0.0], 10.0)
    """
    pulls = [torch.empty_like(weight) for weight in weights]
    rows = addresses(weights, anchors, stiffnesses, pulls)
    if rows is None or not rows[-1, -1]:
        moved = torch._foreach_sub(list(weights), list(anchors))
        pulls = list(torch._foreach_mul(moved, list(stiffnesses)))
        torch._foreach_mul_(pulls, strength)
        energies = [torch.dot(m.flatten(), p.flatten()) for m, p in zip(moved, pulls, strict=True)]
        return pulls, 0.5 * torch.stack(energies).sum()
    sums = np.empty(-(-int(rows[-1, -1]) // CHUNK))
    scale = np.array([strength], dtype=_DTYPES[weights[0].dtype])
    run_over(find_pulls, len(sums), int(rows[-1, -1]), rows, scale, sums, grain=1)
    return pulls, torch.tensor(0.5 * float(sums.sum()), dtype=weights[0].dtype)


def pull_gradients(gradients: Sequence[Tensor], springs: Springs) -> Pulled:
    """Add the springs' pulls to the weights' gradients, in place, and find in the same pass what a step must know.

    Pulls, sums and energy are rounded as `pulls_and_energy` and autograd round them: `gradient + pull`. Where weights
    outgrow the caches a training step is bound by memory: this reads four arrays and writes one, where a penalty in
    the loss and a look at the finished gradients read eight and write two.
    """
    rows, found = springs.rows, addresses(gradients)
    if rows is None or found is None or found[:, -1].tolist() != springs.ends:
        with torch.no_grad():
            pulls, energy = pulls_and_energy(
                springs.weights, springs.anchors, springs.stiffnesses, springs.strength
            )
            torch._foreach_add_(list(gradients), pulls)
        return Pulled(float(energy), all_finite(gradients))
    sums = np.zeros(-(-springs.count // CHUNK) + 1)  # the last is no sum, but whether a number is not finite
    run_over(
        add_pull_and_check, len(sums) - 1, springs.count, found, rows, springs.scale, sums,
        grain=1, stretch=_STRETCH,
    )  # fmt: skip
    total = 0.5 * float(np.add.reduce(sums[:-1]))  # as `sum()` does, which does more
    return Pulled(float(springs.scale.dtype.type(total)), not sums[-1])
