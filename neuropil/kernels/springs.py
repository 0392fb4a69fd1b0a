"""The pull of springs on weights, found or added to gradients in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.kernels.addresses import addresses
from neuropil.kernels.compiled import run_over
from neuropil.kernels.springs_compiled import CHUNK, add_pull, find_pulls

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


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
