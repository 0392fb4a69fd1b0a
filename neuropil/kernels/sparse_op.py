"""The compiled sparse product as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_compiled import multiply, sample_product
from neuropil.kernels.sparse_product import register
from neuropil.kernels.vector import REGISTER

NARROWEST = 64  # columns of the narrowest panel; others have a power of two as many
_PATTERN = (
    "Tensor pointers, Tensor lines, Tensor columns, Tensor pointers_t, Tensor lines_t, Tensor columns_t, "
    "Tensor order, int rows, int features"
)


def run_sparse(
    x: Tensor,
    values: Tensor,
    pointers: Tensor,
    lines: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    lines_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
    rows: int,
    features: int,
) -> Tensor:
    """The product `[samples, rows]` with `x [samples, features]`."""
    return _multiply(x, rows, (pointers, lines, columns), values, None)


sparse = torch.library.custom_op(
    "neuropil::sparse",
    run_sparse,
    mutates_args=(),
    schema=f"(Tensor x, Tensor values, {_PATTERN}) -> Tensor",
)


@sparse.register_fake
def _(x: Tensor, values: Tensor, *pattern: Any) -> Tensor:
    return x.new_empty(x.shape[0], pattern[-2])


def run_sparse_backward(
    g: Tensor,
    x: Tensor,
    values: Tensor,
    pointers: Tensor,
    lines: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    lines_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
    rows: int,
    features: int,
    wants_x: bool,
    wants_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the input `[samples, features]` and of the values, empty where not wanted."""
    g_x, g_values = g.new_empty(0, 0), values.new_empty(0)
    if wants_x:
        g_x = _multiply(g, features, (pointers_t, lines_t, columns_t), values, order)
    if wants_values:
        g_values = torch.empty_like(values)
        run_over(
            sample_product,
            rows,
            values.numel() * g.shape[0],
            *_panels(features, rows, pointers),
            *(array(tensor) for tensor in (pointers, lines, columns, g, x)),
            g_values.numpy(),
            _parts(g),
            grain=chunk_rows(rows),
            stretch=_STRETCH,
        )
    return g_x, g_values


sparse_backward_op = torch.library.custom_op(
    "neuropil::sparse_backward",
    run_sparse_backward,
    mutates_args=(),
    schema=f"(Tensor g, Tensor x, Tensor values, {_PATTERN}, bool wants_x, bool wants_values)"
    " -> (Tensor, Tensor)",
)


register(sparse, sparse_backward_op)


# Rows that a piece should have: each packs the whole input for itself, as fetching what another thread has packed
# takes longer.
_STRETCH = 1024


def chunk_rows(rows: int) -> int:
    """Rows in a chunk of a panel: the more, the more of them with as many entries, and the fewer to share out."""
    return 256 if rows >= _STRETCH else 64


def _multiply(
    x: Tensor, rows: int, index: tuple[Tensor, Tensor, Tensor], values: Tensor, order: Tensor | None
) -> Tensor:
    """Product `[samples, rows]` of a pattern of `rows` rows with `x [samples, features]`."""
    y = x.new_empty(x.shape[0], rows)
    run_over(
        multiply,
        rows,
        x.shape[0] * values.numel() + y.numel(),
        *_panels(x.shape[1], rows, index[0]),
        *[array(tensor) for tensor in index],
        array(values),
        None if order is None else array(order),
        array(x),
        y.numpy(),
        _parts(x),
        grain=chunk_rows(rows),
        stretch=_STRETCH,
    )
    return y


def _panels(features: int, rows: int, pointers: Tensor) -> tuple[int, int]:
    """Number and width of the panels of a pattern."""
    panels, size = (pointers.shape[0] - 1) // rows, NARROWEST
    while size * panels < features:
        size *= 2
    return panels, size


def _parts(x: Tensor) -> tuple[int, ...]:
    """Of the width in which the samples fit best."""
    registers = -(-x.shape[0] * x.itemsize // REGISTER)
    return (0,) * (min(registers, 2) if registers < 3 else 4)
