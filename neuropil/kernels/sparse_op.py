"""The compiled sparse product as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuropil.kernels.compiled import run_over, traced
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_compiled import multiply, pack, sample_product
from neuropil.kernels.vector import REGISTER

_PATTERN = "Tensor pointers, Tensor columns, Tensor pointers_t, Tensor columns_t, Tensor order"


def run_sparse(
    x: Tensor,
    values: Tensor,
    rows: int,
    pointers: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
) -> tuple[Tensor, Tensor]:
    """The product `[samples, rows]` with `x [samples, features]`, and `x` as the backward pass wants it."""
    packed = _pack(x)
    return _multiply(packed, x.shape[0], rows, pointers, columns, values, None), packed


sparse = torch.library.custom_op(
    "neuropil::sparse",
    run_sparse,
    mutates_args=(),
    schema=f"(Tensor x, Tensor values, int rows, {_PATTERN}) -> (Tensor, Tensor)",
)


@sparse.register_fake
def _(x: Tensor, values: Tensor, rows: int, *pattern: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], rows), x.new_empty(_packed_shape(x))


def run_sparse_backward(
    g: Tensor,
    packed: Tensor,
    values: Tensor,
    pointers: Tensor,
    columns: Tensor,
    pointers_t: Tensor,
    columns_t: Tensor,
    order: Tensor,
    wants_x: bool,
    wants_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the input `[samples, features]` and of the values, empty where not wanted."""
    packed_g = _pack(g)
    g_x, g_values = g.new_empty(0, 0), values.new_empty(0)
    if wants_x:
        g_x = _multiply(packed_g, g.shape[0], packed.shape[1], pointers_t, columns_t, values, order)
    if wants_values:
        g_values = torch.empty_like(values)
        run_over(
            sample_product,
            g.shape[1],
            values.numel() * g.shape[0],
            (pointers.shape[0] - 1) // g.shape[1],
            array(pointers),
            array(columns),
            packed_g.numpy(),
            array(packed),
            g_values.numpy(),
            _parts(packed),
            grain=16,
        )
    return g_x, g_values


sparse_backward_op = torch.library.custom_op(
    "neuropil::sparse_backward",
    run_sparse_backward,
    mutates_args=(),
    schema=f"(Tensor g, Tensor packed, Tensor values, {_PATTERN}, bool wants_x, bool wants_values)"
    " -> (Tensor, Tensor)",
)


@sparse_backward_op.register_fake
def _(g: Tensor, packed: Tensor, values: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    wants_x, wants_values = others[-2:]
    g_x = g.new_empty((g.shape[0], packed.shape[1]) if wants_x else (0, 0))
    return g_x, torch.empty_like(values) if wants_values else values.new_empty(0)


def _multiply(
    x: Tensor,
    samples: int,
    rows: int,
    pointers: Tensor,
    columns: Tensor,
    values: Tensor,
    order: Tensor | None,
) -> Tensor:
    """Product `[samples, rows]` of a pattern of `rows` rows with packed `x`."""
    y = x.new_empty(samples, rows)
    run_over(
        multiply,
        rows,
        x.shape[0] * x.shape[2] * values.numel() + y.numel(),
        (pointers.shape[0] - 1) // rows,
        *(array(tensor) for tensor in (pointers, columns, values)),
        None if order is None else array(order),
        array(x),
        y.numpy(),
        _parts(x),
        grain=16,
    )
    return y


def _packed_shape(x: Tensor) -> tuple[int, int, int]:
    """`[blocks, features, width]`, of the width in which the samples fit best."""
    lanes = REGISTER // x.itemsize
    registers = -(-x.shape[0] // lanes)
    parts = next(parts for parts in (1, 2, 4) if parts >= min(registers, 3))
    return -(-registers // parts), x.shape[1], parts * lanes


def _parts(packed: Tensor) -> tuple[int, ...]:
    return (0,) * (packed.shape[2] * packed.itemsize // REGISTER)


def _pack(x: Tensor) -> Tensor:
    packed = x.new_empty(_packed_shape(x))
    run_over(pack, x.shape[1], packed.numel(), array(x), packed.numpy())
    return packed


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, values, _, *pattern = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], values, *pattern)


def _backward(ctx: Any, g: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    wants_x, wants_values = ctx.needs_input_grad[:2]
    if g is None:
        return (None,) * 8
    compute: Any = sparse_backward_op if traced(g) else run_sparse_backward
    g_x, g_values = compute(g, *ctx.saved_tensors, wants_x, wants_values)
    return g_x if wants_x else None, g_values if wants_values else None, *[None] * 6


sparse.register_autograd(_backward, setup_context=_setup_context)


class Sparse(torch.autograd.Function):
    """The same without torch's dispatcher, which costs as much as a small product."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Product and packed input."""
        found = run_sparse(*arguments)
        _setup_context(ctx, arguments, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of input and values."""
        return _backward(ctx, g, None)
