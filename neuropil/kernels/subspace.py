"""Learning a subspace by Oja's rule, several steps on one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.processes import sum_over_processes

if TYPE_CHECKING:
    from jaxtyping import Float

_LARGEST_CHANGE = 10.0  # bound on one entry of the Hebbian change, as in the authors' experiments


def quantise(y: Tensor, levels: int | None, span: float = 20.0) -> Tensor:
    """Signed rate code of `levels` lateral time steps: `y` clipped to +-`span` and rounded to span/levels.

    `levels=None` is the linear circuit and returns `y` itself.

    >>> quantise(torch.tensor([0.3, 7.0, 99.0]), levels=40).tolist()
    [0.5, 7.0, 20.0]
    """
    if levels is None:
        return y
    return torch.round(y.clamp(-span, span) * (levels / span)) * (span / levels)


def project(
    x: Float[Tensor, "rows n"], directions: Float[Tensor, "m n"], levels: int | None = None
) -> Tensor:
    """What the lateral circuit returns for `x`: `quantise(x H^T) H`, for `directions` H with orthonormal rows."""
    return quantise(x @ directions.mT, levels) @ directions


def oja_subspace(
    directions: Float[Tensor, "m n"],
    velocity: Float[Tensor, "m n"],
    x: Float[Tensor, "rows n"],
    *,
    lr: float,
    momentum: float = 0.9,
    iterations: int = 5,
    levels: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`iterations` steps of the Hebbian and anti-Hebbian rule on `x`; returns new directions and velocity.

    Each step computes the drive `y = x H^T`, what the circuit returns `y H`, and
    `D = clamp(y^T (x - y H) / rows, -10, 10)`, then `V <- momentum V + (1 - momentum) D` and `H <- H + lr V`:
    Oja's subspace rule, whose rows converge to an orthonormal basis of the principal subspace of `x`.

    `y^T (x - y H)` is evaluated as `y^T x - (y^T y) H`: the product of `rows x n` is never formed. Processes that
    train together see each its part of the rows and make the same step.

    >>> h, v = torch.tensor([[0.6, 0.8]]), torch.zeros(1, 2)
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> oja_subspace(h, v, x, lr=1.0, iterations=100)[0].round(decimals=2)
    tensor([[1., 0.]])
    """
    rows = sum_over_processes(torch.tensor(float(x.shape[0]), device=x.device)).clamp_min_(1)
    for _ in range(iterations):
        y = quantise(x @ directions.mT, levels)
        change = y.mT @ x
        change.addmm_(y.mT @ y, directions, alpha=-1.0)
        change = sum_over_processes(change).div_(rows).clamp_(-_LARGEST_CHANGE, _LARGEST_CHANGE)
        velocity = torch.lerp(change, velocity, momentum)
        directions = directions.add(velocity, alpha=lr)
    return directions, velocity
