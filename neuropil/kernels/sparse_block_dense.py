"""From the values of a matrix of whole blocks to the dense one and back, each the other's gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.kernels.compiled import Kernel, run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_block_compiled import gather_blocks, scatter_blocks
from neuropil.kernels.vector import REGISTER

_PATTERN = "Tensor pointers, Tensor columns, Tensor starts, int rows, int features, int size, int kept"


@torch.library.custom_op(
    "neuropil::block_sparse_scatter", mutates_args=(), schema=f"(Tensor values, {_PATTERN}) -> Tensor"
)
def blocks_to_dense(
    values: Tensor,
    pointers: Tensor,
    columns: Tensor,
    starts: Tensor,
    rows: int,
    features: int,
    size: int,
    kept: int,
) -> Tensor:
    """The matrix `[rows, features]`."""
    dense = values.new_empty(rows, features)
    _move(scatter_blocks, dense, (pointers, columns, starts), size, array(values), dense.numpy())
    return dense


@blocks_to_dense.register_fake
def _(values: Tensor, *pattern: Any) -> Tensor:
    return values.new_empty(pattern[3:5])


@torch.library.custom_op(
    "neuropil::block_sparse_gather", mutates_args=(), schema=f"(Tensor dense, {_PATTERN}) -> Tensor"
)
def blocks_from_dense(
    dense: Tensor,
    pointers: Tensor,
    columns: Tensor,
    starts: Tensor,
    rows: int,
    features: int,
    size: int,
    kept: int,
) -> Tensor:
    """The values of a matrix."""
    values = dense.new_empty(kept)
    _move(gather_blocks, dense, (pointers, columns, starts), size, array(dense), values.numpy())
    return values


@blocks_from_dense.register_fake
def _(dense: Tensor, *pattern: Any) -> Tensor:
    return dense.new_empty(pattern[-1])


def _move(
    kernel: Kernel, dense: Tensor, index: tuple[Tensor, ...], size: int, source: Any, target: Any
) -> None:
    parts = (0,) * (size * dense.itemsize // REGISTER)
    run_over(kernel, len(index[0]) - 1, dense.numel(), *map(array, index), source, target, parts, grain=1)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.sizes = inputs[4:]
    ctx.save_for_backward(*inputs[1:4])


def _gather(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return blocks_from_dense(g, *ctx.saved_tensors, *ctx.sizes), *[None] * 7


def _scatter(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return blocks_to_dense(g, *ctx.saved_tensors, *ctx.sizes), *[None] * 7


blocks_to_dense.register_autograd(_gather, setup_context=_remember)
blocks_from_dense.register_autograd(_scatter, setup_context=_remember)
