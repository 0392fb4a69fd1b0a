"""The compiled product with a matrix of whole blocks as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_block_compiled import multiply_blocks, sample_blocks
from neuropil.kernels.sparse_product import register
from neuropil.kernels.vector import REGISTER

_PATTERN = (
    "Tensor pointers, Tensor columns, Tensor pointers_t, Tensor columns_t, Tensor order, Tensor starts, "
    "int rows, int features, int size"
)


def run_block_sparse(
    x: Tensor,
    values: Tensor,
    pointers: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    features: int,
    size: int,
) -> Tensor:
    """The product `[samples, rows]` with `x [samples, features]`."""
    return _multiply((pointers, columns, starts), None, values, rows, size, x)


block_sparse = torch.library.custom_op(
    "neuropil::block_sparse",
    run_block_sparse,
    mutates_args=(),
    schema=f"(Tensor x, Tensor values, {_PATTERN}) -> Tensor",
)


@block_sparse.register_fake
def _(x: Tensor, values: Tensor, *pattern: Any) -> Tensor:
    return x.new_empty(x.shape[0], pattern[-3])


def run_block_sparse_backward(
    g: Tensor,
    x: Tensor,
    values: Tensor,
    pointers: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    features: int,
    size: int,
    wants_x: bool,
    wants_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the input `[samples, features]` and of the values, empty where not wanted."""
    g_x, g_values = g.new_empty(0, 0), values.new_empty(0)
    if wants_x:
        g_x = _multiply((pointers_t, columns_t, starts), order, values, features, size, g)
    if wants_values:
        g_values = torch.empty_like(values)
        parts = size * g.itemsize // REGISTER
        run_over(
            sample_blocks,
            len(pointers) - 1,
            values.numel() * len(g) // _LANES,
            *(array(tensor) for tensor in (pointers, columns, starts, g, x)),
            g_values.numpy(),
            (0,) * _tallest(parts),
            (0,) * parts,
            grain=1,
            stretch=_STRETCH // size,
        )
    return g_x, g_values


block_sparse_backward = torch.library.custom_op(
    "neuropil::block_sparse_backward",
    run_block_sparse_backward,
    mutates_args=(),
    schema=f"(Tensor g, Tensor x, Tensor values, {_PATTERN}, bool wants_x, bool wants_values)"
    " -> (Tensor, Tensor)",
)


register(block_sparse, block_sparse_backward)

_LANES = 16  # products that take about as long as touching a number
# Rows that a piece should have: each packs the whole input for itself, as fetching what another thread has packed
# takes longer.
_STRETCH = 1024


def _multiply(
    index: tuple[Tensor, Tensor, Tensor],
    order: Tensor | None,
    values: Tensor,
    rows: int,
    size: int,
    x: Tensor,
) -> Tensor:
    """The product `[samples, rows]` of a matrix with blocks of a size and `x [samples, features]`."""
    y, parts = x.new_empty(len(x), rows), size * x.itemsize // REGISTER
    run_over(
        multiply_blocks,
        len(index[0]) - 1,
        values.numel() * len(y) // _LANES + y.numel(),
        *(array(tensor) for tensor in index),
        None if order is None else array(order),
        array(values),
        array(x),
        y.numpy(),
        (0,) * _tile(len(y), parts),
        (0,) * parts,
        grain=1,
        stretch=_STRETCH // size,
    )
    return y


def _tallest(parts: int) -> int:
    """Rows of vectors of that many parts whose sums stay in registers, with room for the factors."""
    return 8 if parts <= 2 else 4


def _tile(samples: int, parts: int) -> int:
    """Samples that share a vector: a power of two, no larger than few samples need."""
    return min(_tallest(parts), 1 << max(0, samples - 1).bit_length())
