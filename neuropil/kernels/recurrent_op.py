"""The compiled run of recurrent leaky neurons as a torch operator; it has no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.recurrent_compiled import recurrent_run


def run_recurrent(
    x: Tensor,
    output: Tensor,
    membrane: Tensor,
    trace: Tensor,
    outgoing: Tensor,
    bias: Tensor,
    decay: Tensor,
    threshold: Tensor,
    strength: Tensor,
    rho: Tensor,
    zero: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Currents and spikes `[time, batch, neurons]`, membrane and trace after the run; shapes as in the kernel."""
    driven, spikes = x.new_empty(x.shape), x.new_empty(x.shape)
    v, a = (state.clone(memory_format=torch.contiguous_format) for state in (membrane, trace))
    run_over(
        recurrent_run,
        x.shape[1],
        x.numel() * 8,  # what a step of a neuron costs in elements of a plain loop, about
        array(x),
        array(output),
        v.numpy(),
        a.numpy(),
        *(array(tensor) for tensor in (outgoing, bias, decay, threshold, strength, rho)),
        zero,
        driven.numpy(),
        spikes.numpy(),
        grain=1,
        stretch=8,  # rows of neighbours share lines of the cache
    )
    return driven, spikes, v, a


recurrent = torch.library.custom_op(
    "neuropil::recurrent",
    run_recurrent,
    mutates_args=(),
    schema="(Tensor x, Tensor output, Tensor membrane, Tensor trace, Tensor outgoing, Tensor bias, Tensor decay, "
    "Tensor threshold, Tensor strength, Tensor rho, bool zero) -> (Tensor, Tensor, Tensor, Tensor)",
)


@recurrent.register_fake
def _(
    x: Tensor, output: Tensor, membrane: Tensor, trace: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        x.new_empty(x.shape),
        x.new_empty(membrane.shape),
        x.new_empty(trace.shape),
    )
