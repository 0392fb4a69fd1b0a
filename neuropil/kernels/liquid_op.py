"""The compiled run of a liquid as a torch operator; it has no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.liquid_compiled import liquid_run


@torch.library.custom_op(
    "neuropil::liquid",
    mutates_args=(),
    schema="(Tensor x, Tensor membrane, Tensor conductance, Tensor left, Tensor pending, Tensor strong, "
    "Tensor parameters, Tensor offsets, Tensor targets, Tensor values, Tensor delays)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def liquid(
    x: Tensor,
    membrane: Tensor,
    conductance: Tensor,
    left: Tensor,
    pending: Tensor,
    strong: Tensor,
    parameters: Tensor,
    offsets: Tensor,
    targets: Tensor,
    values: Tensor,
    delays: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes `[time, batch, units]` and the four states after the run; shapes as in the kernel's module."""
    spikes = x.new_empty(x.shape[0], *membrane.shape)
    states = [
        state.clone(memory_format=torch.contiguous_format) for state in (membrane, conductance, left, pending)
    ]
    weak = torch.cat(strong.chunk(2, dim=1)[::-1], dim=1)
    steps, batch, units = spikes.shape
    run_over(
        liquid_run,
        batch,
        steps * batch * max(units, values.numel()),
        array(x),
        *(state.numpy() for state in states),
        array(strong),
        array(weak),
        array(parameters),
        array(offsets.long()).view(np.uint64),
        array(targets.int()).view(np.uint32),
        array(values),
        array(delays.int()),
        spikes.numpy(),
        grain=1,
    )
    return spikes, states[0], states[1], states[2], states[3]


@liquid.register_fake
def _(
    x: Tensor, membrane: Tensor, conductance: Tensor, left: Tensor, pending: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    states = (state.new_empty(state.shape) for state in (membrane, conductance, left, pending))
    return (x.new_empty(x.shape[0], *membrane.shape), *states)  # type: ignore[return-value]
