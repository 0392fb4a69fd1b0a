"""A linear layer's product with spikes, its weight as `nn.Linear` keeps it, at the cost of the spikes.

Sums of the weights of active neurons want the transpose of what `nn.Linear` keeps. A large product with few spikes is
worth turning it, piece by piece; any other is dense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.kernels.compiled import Kernel, run_over, serves
from neuropil.kernels.lanes import array
from neuropil.kernels.spike_linear_compiled import PANEL, linear_columns, weight_gradient_columns
from neuropil.kernels.spikes import Events, events_of
from neuropil.kernels.transposing import transposed

if TYPE_CHECKING:
    from jaxtyping import Float

_WORTH_LOOKING = (
    1 << 26
)  # multiplications of the dense product: below, it takes as long as finding the spikes
_PARTS = (0,) * 4
_COLUMNS = 512  # whose weights from one chunk of neurons fill half a megabyte
_DENSE_FROM = 0.16  # share of active neurons from which the dense product is faster


def spike_linear(
    spikes: Float[Tensor, "samples neurons"],
    weight: Float[Tensor, "outputs neurons"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "samples outputs"]:
    """`functional.linear(spikes, weight, bias)`, by adding up the weights of active neurons where that is faster.

    A neuron that is silent does not hand on what its weights hold, be it infinite. The gradient of `spikes` is
    dense, as every neuron gets one.

    >>> spike_linear(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0, 2.0, 4.0]]))
    tensor([[6.]])
    """
    large = spikes.dim() == 2 and spikes.numel() * weight.shape[0] >= _WORTH_LOOKING
    if not large or not serves(spikes, weight) or torch.is_autocast_enabled("cpu"):
        return functional.linear(spikes, weight, bias)
    product: Tensor = spike_linear_op(spikes, weight)
    return product if bias is None else product + bias


@torch.library.custom_op(
    "neuropil::spike_linear", mutates_args=(), schema="(Tensor spikes, Tensor weight) -> Tensor"
)
def spike_linear_op(spikes: Tensor, weight: Tensor) -> Tensor:
    """`spikes @ weight.mT` of `[samples, neurons]` and `[outputs, neurons]`."""
    events = events_of(spikes, PANEL)
    if events.active > _DENSE_FROM * spikes.numel():
        return spikes @ weight.mT
    out = weight.new_empty(spikes.shape[0], weight.shape[0])
    share = -(-weight.shape[0] // torch.get_num_threads() // 16) * 16
    _run(linear_columns, weight.shape[0], events, weight, out, grain=min(_COLUMNS, share))
    return out


@spike_linear_op.register_fake
def _(spikes: Tensor, weight: Tensor) -> Tensor:
    return spikes.new_empty(spikes.shape[0], weight.shape[0])


@torch.library.custom_op(
    "neuropil::spike_linear_weight", mutates_args=(), schema="(Tensor spikes, Tensor g) -> Tensor"
)
def weight_gradient_op(spikes: Tensor, g: Tensor) -> Tensor:
    """`g.mT @ spikes` of `[samples, neurons]` and `[samples, outputs]`."""
    events = events_of(transposed(spikes), PANEL)
    if events.active > _DENSE_FROM * spikes.numel():
        return g.mT @ spikes
    out = g.new_empty(g.shape[1], spikes.shape[1])
    _run(weight_gradient_columns, spikes.shape[1], events, g, out, grain=16)
    return out


def _run(function: Kernel, lanes: int, events: Events, dense: Tensor, out: Tensor, grain: int) -> None:
    work = events.active * out.numel() // len(events.ends)
    arguments = (events.ends, events.neurons, events.worth, array(dense), out.numpy(), _PARTS, _PARTS[:1])
    run_over(function, lanes, work, *arguments, grain=grain)


@weight_gradient_op.register_fake
def _(spikes: Tensor, g: Tensor) -> Tensor:
    return spikes.new_empty(g.shape[1], spikes.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    spikes, weight = ctx.saved_tensors
    wants_spikes, wants_weight = ctx.needs_input_grad
    return (
        g @ weight if wants_spikes else None,
        weight_gradient_op(spikes, g) if wants_weight else None,
    )


def _weight_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None]:
    spikes, g = ctx.saved_tensors
    wants_spikes, wants_g = ctx.needs_input_grad
    return (g @ h if wants_spikes else None, spike_linear_op(spikes, h) if wants_g else None)


spike_linear_op.register_autograd(_backward, setup_context=_setup_context)
weight_gradient_op.register_autograd(_weight_backward, setup_context=_setup_context)
