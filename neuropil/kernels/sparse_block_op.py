"""The compiled product with a matrix of whole blocks as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuropil.kernels.compiled import run_over, traced
from neuropil.kernels.lanes import array
from neuropil.kernels.sparse_block_compiled import multiply_blocks, pack_panels, sample_blocks
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
) -> tuple[Tensor, Tensor]:
    """The product `[samples, rows]` with `x [samples, features]`, and `x` as the backward pass wants it."""
    packed = _pack(x, size)
    y = x.new_empty(len(x), rows)
    _multiply(pointers, columns, starts, None, values, features, packed, y)
    return y, packed


block_sparse = torch.library.custom_op(
    "neuropil::block_sparse",
    run_block_sparse,
    mutates_args=(),
    schema=f"(Tensor x, Tensor values, {_PATTERN}) -> (Tensor, Tensor)",
)


@block_sparse.register_fake
def _(x: Tensor, values: Tensor, *pattern: Any) -> tuple[Tensor, Tensor]:
    rows, _, size = pattern[-3:]
    return x.new_empty(x.shape[0], rows), x.new_empty(_packed_shape(x, size))


def run_block_sparse_backward(
    g: Tensor,
    packed: Tensor,
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
    packed_g = _pack(g, size)
    g_x, g_values = g.new_empty(0, 0), values.new_empty(0)
    if wants_x:
        g_x = g.new_empty(len(g), features)
        _multiply(pointers_t, columns_t, starts, order, values, rows, packed_g, g_x)
    if wants_values:
        g_values = torch.empty_like(values)
        parts = size * g.itemsize // REGISTER
        run_over(
            sample_blocks,
            len(pointers) - 1,
            values.numel() * len(g) // _LANES,
            *(array(tensor) for tensor in (pointers, columns, starts)),
            rows,
            features,
            len(g),
            packed_g.numpy(),
            array(packed),
            g_values.numpy(),
            (0,) * _tallest(parts),
            (0,) * parts,
            grain=1,
        )
    return g_x, g_values


block_sparse_backward = torch.library.custom_op(
    "neuropil::block_sparse_backward",
    run_block_sparse_backward,
    mutates_args=(),
    schema=f"(Tensor g, Tensor packed, Tensor values, {_PATTERN}, bool wants_x, bool wants_values)"
    " -> (Tensor, Tensor)",
)


@block_sparse_backward.register_fake
def _(g: Tensor, packed: Tensor, values: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    features, _, wants_x, wants_values = others[-4:]
    g_x = g.new_empty((g.shape[0], features) if wants_x else (0, 0))
    return g_x, torch.empty_like(values) if wants_values else values.new_empty(0)


_LANES = 16  # products that take about as long as touching a number


def _multiply(
    pointers: Tensor,
    columns: Tensor,
    starts: Tensor,
    order: Tensor | None,
    values: Tensor,
    features: int,
    packed: Tensor,
    y: Tensor,
) -> None:
    """Write the product of a matrix of that many features with packed activity to `y`."""
    parts = packed.shape[2] * packed.itemsize // REGISTER
    run_over(
        multiply_blocks,
        len(pointers) - 1,
        values.numel() * len(y) // _LANES + y.numel(),
        *(array(tensor) for tensor in (pointers, columns, starts)),
        None if order is None else array(order),
        array(values),
        features,
        packed.numpy(),
        y.numpy(),
        (0,) * _tile(len(y), parts),
        (0,) * parts,
        grain=1,
    )


def _tallest(parts: int) -> int:
    """Rows of vectors of that many parts whose sums stay in registers, with room for the factors."""
    return 8 if parts <= 2 else 4


def _tile(samples: int, parts: int) -> int:
    """Samples that share a vector: a power of two, no larger than few samples need."""
    return min(_tallest(parts), 1 << max(0, samples - 1).bit_length())


def _packed_shape(x: Tensor, size: int) -> tuple[int, int, int]:
    """`[panels, samples, size]`, with samples in whole tiles."""
    samples, features = x.shape
    tile = _tile(samples, size * x.itemsize // REGISTER)
    return -(-features // size), -(-samples // tile) * tile, size


def _pack(x: Tensor, size: int) -> Tensor:
    packed = x.new_empty(_packed_shape(x, size))
    parts = (0,) * (size * x.itemsize // REGISTER)
    run_over(pack_panels, len(packed), packed.numel(), array(x), packed.numpy(), parts, grain=1)
    return packed


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, values, *index, ctx.rows, ctx.features, ctx.size = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], values, *index)


def _backward(ctx: Any, g: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    wants = ctx.needs_input_grad[:2]
    if g is None:
        return (None,) * 11
    compute: Any = block_sparse_backward if traced(g) else run_block_sparse_backward
    found = compute(g, *ctx.saved_tensors, ctx.rows, ctx.features, ctx.size, *wants)
    return *(gradient if want else None for gradient, want in zip(found, wants, strict=True)), *[None] * 9


block_sparse.register_autograd(_backward, setup_context=_setup_context)


class BlockSparse(torch.autograd.Function):
    """The same without torch's dispatcher, which costs more than a small product."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Product and packed input."""
        found = run_block_sparse(*arguments)
        _setup_context(ctx, arguments, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of input and values."""
        return _backward(ctx, g, None)
