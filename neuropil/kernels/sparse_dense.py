"""From the values of a sparse matrix to the dense one and back, each the other's gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.kernels.compiled import Kernel, run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_compiled import gather, scatter
from neuropil.kernels.sparse_op import chunk_rows


@torch.library.custom_op(
    "neuropil::sparse_scatter",
    mutates_args=(),
    schema="(Tensor values, int rows, int features, Tensor pointers, Tensor lines, Tensor columns) -> Tensor",
)
def to_dense(
    values: Tensor, rows: int, features: int, pointers: Tensor, lines: Tensor, columns: Tensor
) -> Tensor:
    """The matrix `[rows, features]`."""
    dense = values.new_empty(rows, features)
    _move(scatter, dense, (pointers, lines, columns), array(values), dense.numpy())
    return dense


@to_dense.register_fake
def _(values: Tensor, rows: int, features: int, pointers: Tensor, lines: Tensor, columns: Tensor) -> Tensor:
    return values.new_empty(rows, features)


@torch.library.custom_op(
    "neuropil::sparse_gather",
    mutates_args=(),
    schema="(Tensor dense, Tensor pointers, Tensor lines, Tensor columns) -> Tensor",
)
def from_dense(dense: Tensor, pointers: Tensor, lines: Tensor, columns: Tensor) -> Tensor:
    """The values of a matrix."""
    values = dense.new_empty(columns.shape)
    _move(gather, dense, (pointers, lines, columns), array(dense), values.numpy())
    return values


@from_dense.register_fake
def _(dense: Tensor, pointers: Tensor, lines: Tensor, columns: Tensor) -> Tensor:
    return dense.new_empty(columns.shape)


def _move(kernel: Kernel, dense: Tensor, index: tuple[Tensor, ...], source: Any, target: Any) -> None:
    rows = len(dense)
    panels = (len(index[0]) - 1) // max(1, rows)
    run_over(kernel, rows, dense.numel(), panels, *map(array, index), source, target, grain=chunk_rows(rows))


def _remember_dense(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[3:])


def _remember_values(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.shape = inputs[0].shape
    ctx.save_for_backward(*inputs[1:])


def _from_dense(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return from_dense(g, *ctx.saved_tensors), *[None] * 5


def _to_dense(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return to_dense(g, *ctx.shape, *ctx.saved_tensors), *[None] * 3


to_dense.register_autograd(_from_dense, setup_context=_remember_dense)
from_dense.register_autograd(_to_dense, setup_context=_remember_values)
