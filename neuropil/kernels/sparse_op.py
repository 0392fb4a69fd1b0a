"""The compiled sparse product as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_compiled import multiply, sample_product
from neuropil.kernels.vector import REGISTER

NARROWEST = 64  # columns of the narrowest panel; others have a power of two as many
CHUNK = 64  # rows in a chunk of a panel
_PATTERN = (
    "Tensor pointers, Tensor lines, Tensor columns, Tensor pointers_t, Tensor lines_t, Tensor columns_t, "
    "Tensor order"
)


def run_sparse(
    x: Tensor,
    values: Tensor,
    rows: int,
    pointers: Tensor,
    lines: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    lines_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
) -> Tensor:
    """The product `[samples, rows]` with `x [samples, features]`."""
    return _multiply(x, rows, (pointers, lines, columns), values, None)


sparse = torch.library.custom_op(
    "neuropil::sparse",
    run_sparse,
    mutates_args=(),
    schema=f"(Tensor x, Tensor values, int rows, {_PATTERN}) -> Tensor",
)


@sparse.register_fake
def _(x: Tensor, values: Tensor, rows: int, *pattern: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], rows)


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
    wants_x: bool,
    wants_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the input `[samples, features]` and of the values, empty where not wanted."""
    g_x, g_values = g.new_empty(0, 0), values.new_empty(0)
    if wants_x:
        g_x = _multiply(g, x.shape[1], (pointers_t, lines_t, columns_t), values, order)
    if wants_values:
        g_values = torch.empty_like(values)
        run_over(
            sample_product,
            g.shape[1],
            values.numel() * g.shape[0],
            *_panels(x.shape[1], g.shape[1], pointers),
            *(array(tensor) for tensor in (pointers, lines, columns, g, x)),
            g_values.numpy(),
            _parts(g),
            grain=CHUNK,
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


@sparse_backward_op.register_fake
def _(g: Tensor, x: Tensor, values: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    wants_x, wants_values = others[-2:]
    g_x = g.new_empty(x.shape if wants_x else (0, 0))
    return g_x, torch.empty_like(values) if wants_values else values.new_empty(0)


# Rows that a piece should have: each packs the whole input for itself, as fetching what another thread has packed
# takes longer.
_STRETCH = 1024


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
        *(array(tensor) for tensor in (*index, values)),
        None if order is None else array(order),
        array(x),
        y.numpy(),
        _parts(x),
        grain=CHUNK,
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
    return (0,) * next(parts for parts in (1, 2, 4) if parts >= min(registers, 3))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, _, *pattern = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, values, *pattern)


def _backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
    wants_x, wants_values = ctx.needs_input_grad[:2]
    if g is None:
        return (None,) * 10
    g_x, g_values = sparse_backward_op(g, *ctx.saved_tensors, wants_x, wants_values)
    return g_x if wants_x else None, g_values if wants_values else None, *[None] * 8


sparse.register_autograd(_backward, setup_context=_setup_context)


class Sparse(torch.autograd.Function):
    """The same without torch's dispatcher, which costs as much as a small product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, rows: int, pattern: tuple[Tensor, ...]) -> Tensor:
        """Product."""
        ctx.pattern = pattern
        ctx.save_for_backward(x, values)
        return run_sparse(x, values, rows, *pattern)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input and values."""
        wants = ctx.needs_input_grad[:2]
        found = run_sparse_backward(g, *ctx.saved_tensors, *ctx.pattern, *wants)
        return *(gradient if want else None for gradient, want in zip(found, wants, strict=True)), None, None
