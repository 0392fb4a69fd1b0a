"""A two-layer block of rectified units of which only a few are active, for one sample.

`y = sum over active units i of relu(up_i x + bias_i) * down_i`. A unit's incoming and outgoing weights are one row
each, `up [units, features]` and `down [units, outputs]` (the transpose of what `nn.Linear` keeps for the second
layer), so that a unit that is silent costs nothing, neither arithmetic nor memory traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.errors import DataError, ShapeError
from neuropil.kernels.active_compiled import drive_units
from neuropil.kernels.compiled import run_over, serves
from neuropil.kernels.lanes import array
from neuropil.kernels.spikes import spike_product

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_PIECE = 32  # units that add up in one place: fixed, so that the order of sums is the same on any number of threads


def active_block(
    x: Float[Tensor, " features"],
    up: Float[Tensor, "units features"],
    down: Float[Tensor, "units outputs"],
    active: Int[Tensor, " active"],
    bias: Float[Tensor, " units"] | None = None,
) -> Float[Tensor, " outputs"]:
    """The output for one sample when only units `active` (int64) may be, as an oracle or a predictor says.

    Where a gradient is wanted the rows are gathered by torch, and it is exact with `active` held fixed. Raises
    ShapeError or DataError when the arguments do not fit together. Deja Vu (Liu et al. 2023, ICML) predicts such sets.

    >>> up, down = torch.eye(2), torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    >>> active_block(torch.tensor([3.0, 5.0]), up, down, torch.tensor([0]))
    tensor([3., 0., 6.])
    """
    _check(x, up, down, bias)
    if active.dim() != 1 or active.dtype != torch.int64:
        raise ShapeError(
            f"active_block: active is {active.dtype} of shape {list(active.shape)}, expected int64 [count]"
        )
    tensors = [tensor for tensor in (x, up, down, bias) if tensor is not None]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    laid_out = up.is_contiguous() and down.is_contiguous()
    if learns or not serves(*tensors) or not laid_out or 0 in (active.numel(), x.numel(), down.shape[1]):
        return active_block_reference(x, up, down, active, bias)
    total: Tensor = sum_active(x, up, x.new_empty(0) if bias is None else bias, down, active)
    return total


def active_block_reference(
    x: Float[Tensor, " features"],
    up: Float[Tensor, "units features"],
    down: Float[Tensor, "units outputs"],
    active: Int[Tensor, " active"],
    bias: Float[Tensor, " units"] | None = None,
) -> Float[Tensor, " outputs"]:
    """`active_block` in plain torch, gathering the rows first.

    >>> one = torch.ones(1, 1)
    >>> active_block_reference(one[0], 2 * one, one, torch.tensor([0]), -one[0])
    tensor([1.])
    """
    drive = up.index_select(0, active) @ x
    if bias is not None:
        drive = drive + bias.index_select(0, active)
    return drive.relu() @ down.index_select(0, active)


def thresholded_block(
    x: Float[Tensor, "... features"],
    up: Float[Tensor, "units features"],
    down: Float[Tensor, "units outputs"],
    threshold: float,
    bias: Float[Tensor, " units"] | None = None,
) -> Float[Tensor, "... outputs"]:
    """The output when units count as active whose drive exceeds `threshold` (0 or more): the second layer is sparse.

    All drives are computed, then only the rows of `down` that are needed are read. Differentiable. Raises
    ShapeError when the arguments do not fit together, DataError for a negative threshold.

    >>> thresholded_block(torch.tensor([3.0, 5.0]), torch.eye(2), torch.eye(2), 4.0)
    tensor([0., 5.])
    """
    _check(x, up, down, bias, dim=None)
    if not threshold >= 0:
        raise DataError(f"thresholded_block: threshold is {threshold}, expected 0 or more")
    drive = torch.nn.functional.linear(x, up, bias)
    return spike_product(torch.nn.functional.threshold(drive, threshold, 0.0), down)


@torch.library.custom_op(
    "neuropil::active_block",
    mutates_args=(),
    schema="(Tensor x, Tensor up, Tensor bias, Tensor down, Tensor active) -> Tensor",
)
def sum_active(x: Tensor, up: Tensor, bias: Tensor, down: Tensor, active: Tensor) -> Tensor:
    """The sum over active units; an empty `bias` is none."""
    units = array(active)
    if units.min() < 0 or units.max() >= len(up):
        raise DataError(f"active_block: active names units outside 0 to {len(up) - 1}")
    pieces = -(-len(units) // _PIECE)
    sums = x.new_empty(pieces, down.shape[1])
    run_over(
        drive_units,
        pieces,
        len(units) * (up.shape[1] + down.shape[1]),
        *(array(tensor) for tensor in (x, up, bias, down)),
        units,
        _PIECE,
        sums.numpy(),
        (0,) * 4,
        grain=1,
    )
    return sums.sum(0)


@sum_active.register_fake
def _(x: Tensor, up: Tensor, bias: Tensor, down: Tensor, active: Tensor) -> Tensor:
    return x.new_empty(down.shape[1])


def _check(x: Tensor, up: Tensor, down: Tensor, bias: Tensor | None, dim: int | None = 1) -> None:
    """Refuse weights and input that do not fit together."""
    fits = up.dim() == down.dim() == 2 and len(up) == len(down) and x.shape[-1:] == up.shape[1:]
    if not fits or (dim is not None and x.dim() != dim):
        raise ShapeError(
            f"active block: x {list(x.shape)}, up {list(up.shape)}, down {list(down.shape)} do not fit, "
            "expected [features], [units, features], [units, outputs]"
        )
    if bias is not None and bias.shape != up.shape[:1]:
        raise ShapeError(f"active block: bias has shape {list(bias.shape)}, expected [{len(up)}]")
