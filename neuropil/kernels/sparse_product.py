"""What products with sparse matrices have in common, of entries or of blocks: how torch differentiates them.

A product is `run(x, values, *pattern)`. Its gradients are `run_backward(g, x, values, *pattern, wants_x,
wants_values)`, empty where not wanted. In a pattern tensors come before numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuropil.kernels.compiled import traced


def product(
    x: Tensor,
    values: Tensor,
    pattern: tuple[Any, ...],
    operator: Callable[..., Tensor],
    run: Callable[..., Tensor],
    run_backward: Callable[..., tuple[Tensor, Tensor]],
) -> Tensor:
    """What `run` computes; as an operator only where torch must know it."""
    if traced(x, values):
        return operator(x, values, *pattern)
    if torch.is_grad_enabled() and (x.requires_grad or values.requires_grad):
        y: Tensor = SparseProduct.apply(x, values, pattern, run, run_backward)  # type: ignore[no-untyped-call]
        return y
    return run(x, values, *pattern)


class SparseProduct(torch.autograd.Function):
    """The product without torch's dispatcher, which costs as much as a small one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        pattern: tuple[Any, ...],
        run: Callable[..., Tensor],
        run_backward: Callable[..., tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Product."""
        ctx.pattern, ctx.run_backward = pattern, run_backward
        ctx.save_for_backward(x, values)
        return run(x, values, *pattern)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input and values."""
        wants = ctx.needs_input_grad[:2]
        found = ctx.run_backward(g, *ctx.saved_tensors, *ctx.pattern, *wants)
        return *_wanted(found, wants), None, None, None


def _wanted(found: tuple[Tensor, Tensor], wants: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    return tuple(gradient if want else None for gradient, want in zip(found, wants, strict=True))


def register(operator: Any, backward_operator: Any) -> None:
    """Tell torch the gradients of an operator, and the shapes of its backward operator's results."""

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = [given for given in inputs if isinstance(given, Tensor)]
        ctx.numbers, ctx.others = inputs[len(tensors) :], [None] * (len(inputs) - 2)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, *ctx.others
        wants = ctx.needs_input_grad[:2]
        return *_wanted(backward_operator(g, *ctx.saved_tensors, *ctx.numbers, *wants), wants), *ctx.others

    def shapes(g: Tensor, x: Tensor, values: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        wants_x, wants_values = others[-2:]
        g_x = g.new_empty(x.shape if wants_x else (0, 0))
        return g_x, torch.empty_like(values) if wants_values else values.new_empty(0)

    operator.register_autograd(backward, setup_context=remember)
    backward_operator.register_fake(shapes)
