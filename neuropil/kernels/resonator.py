"""The scan of resonate-and-fire neurons, exact between spikes.

Per neuron, with input `x`, the current `i` and the membrane `v` left by the step before, real and imaginary part of an
oscillation that one step turns and shrinks by `cosine + sine * 1j`:

    r[t] = i[t-1] + x[t]
    q[t] = cosine * r[t] - sine * v[t-1]
    u[t] = sine * r[t] + cosine * v[t-1]
    s[t] = 1[u[t] >= threshold]
    i[t] = q[t] * (1 - s[t])
    v[t] = u[t] * (1 - s[t]) + reset * s[t]

Izhikevich (2001), "Resonate-and-fire neurons". Gradients as in `neuropil.kernels.lif`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def resonator_scan(
    x: Float[Tensor, "time batch ..."],
    current: Float[Tensor, "batch ..."],
    membrane: Float[Tensor, "batch ..."],
    cosine: Tensor,
    sine: Tensor,
    reset: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and current and membrane after the last; see the module for the equations.

    The four parameters are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, zero, one = torch.tensor([2.0, 0.0]).view(2, 1, 1), torch.tensor(0.0), torch.tensor(1.0)
    >>> resonator_scan(x, zero.view(1, 1), zero.view(1, 1), zero, one, zero, one, Sigmoid())[0].flatten().tolist()
    [1.0, 0.0]
    """
    spikes, first, second = neuron_scan(
        "resonator",
        resonator_scan_reference,
        x,
        {"current": current, "membrane": membrane},
        {"cosine": cosine, "sine": sine, "reset": reset, "threshold": threshold},
        surrogate,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    return spikes, first, second


def resonator_scan_reference(
    x: Float[Tensor, "time batch ..."],
    current: Float[Tensor, "batch ..."],
    membrane: Float[Tensor, "batch ..."],
    cosine: Tensor,
    sine: Tensor,
    reset: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """`resonator_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.ones(1, 1, 1), torch.tensor(1.0)
    >>> resonator_scan_reference(x, 0 * x[0], 0 * x[0], 0 * one, one, 0 * one, 9 * one, Sigmoid())[2].item()
    1.0
    """
    spikes = []
    for drive in x.unbind(0):
        if not temporal_gradient:
            current, membrane = current.detach(), membrane.detach()
        real = current + drive
        turned = cosine * real - sine * membrane
        before_reset = sine * real + cosine * membrane
        spike = surrogate(before_reset - threshold)
        gate = spike.detach() if detach_reset else spike
        current = turned * (1 - gate)
        membrane = before_reset * (1 - gate) + reset * gate
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), current, membrane
