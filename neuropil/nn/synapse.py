"""Weighted sums whose learning signals may be other than their own input and their own weight.

The value is that of the ordinary layer, `y = W x + b`. In the backward pass an error `g` at `y` gives

    grad W = g p^T      p: the presynaptic factor; the input itself in backpropagation
    grad x = B^T g      B: the feedback weight; `W` itself in backpropagation
    grad b = g

summed over samples (and places, for convolutions). Feedback alignment changes `B`, traces change `p`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight


class _Geometry(NamedTuple):
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor, feedback: Tensor) -> Tensor:
        return functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[3], inputs[4])

    @staticmethod
    def backward(ctx: Any, *errors: Any) -> Any:
        (error,) = errors
        factor, feedback = ctx.saved_tensors
        rows = error.reshape(-1, error.shape[-1])
        grad_x = error @ feedback if ctx.needs_input_grad[0] else None
        grad_weight = rows.mT @ factor.reshape(-1, factor.shape[-1]) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, rows.sum(0) if ctx.needs_input_grad[2] else None, None, None


class _Conv2d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor, feedback: Tensor, geometry: _Geometry
    ) -> Tensor:
        return functional.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, factor, feedback, ctx.geometry = inputs
        ctx.input_shape = x.shape
        ctx.save_for_backward(factor, feedback)

    @staticmethod
    def backward(ctx: Any, *errors: Any) -> Any:
        (error,) = errors
        factor, feedback = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(ctx.input_shape, feedback, error, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            grad_weight = conv2d_weight(factor, feedback.shape, error, *ctx.geometry)
        return (
            grad_x,
            grad_weight,
            error.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
            None,
            None,
            None,
        )


def synaptic_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, presynaptic: Tensor, feedback: Tensor
) -> Tensor:
    """`y = W x + b` for `x` of `[..., inputs]`; learns from `presynaptic`, sends errors through `feedback`.

    `presynaptic` has the shape of `x`, `feedback` that of `weight`; neither receives a gradient.

    >>> x, weight = torch.ones(1, 2), torch.ones(1, 2, requires_grad=True)
    >>> y = synaptic_linear(x, weight, None, presynaptic=torch.tensor([[0.0, 3.0]]), feedback=weight)
    >>> torch.autograd.grad(y.sum(), weight)[0], y.item()
    (tensor([[0., 3.]]), 2.0)
    """
    return cast(Tensor, _Linear.apply(x, weight, bias, presynaptic.detach(), feedback.detach()))  # type: ignore[no-untyped-call]


def synaptic_conv2d(layer: nn.Conv2d, x: Tensor, *, presynaptic: Tensor, feedback: Tensor) -> Tensor:
    """The convolution `layer` on `x` of `[batch, channels, height, width]`, with the same two replacements.

    >>> layer, x = nn.Conv2d(1, 1, 1, bias=False), torch.ones(1, 1, 2, 2)
    >>> y = synaptic_conv2d(layer, x, presynaptic=0 * x, feedback=layer.weight)
    >>> torch.autograd.grad(y.sum(), layer.weight)[0].item()
    0.0
    """
    padding = layer.padding
    if isinstance(padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        around = layer._reversed_padding_repeated_twice
        x, presynaptic = (functional.pad(each, around, mode=mode) for each in (x, presynaptic))
        padding = (0, 0)
    geometry = _Geometry(layer.stride, padding, layer.dilation, layer.groups)
    return cast(
        Tensor,
        _Conv2d.apply(x, layer.weight, layer.bias, presynaptic.detach(), feedback.detach(), geometry),  # type: ignore[no-untyped-call]
    )
