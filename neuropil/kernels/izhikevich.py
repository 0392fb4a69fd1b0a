"""The scan of Izhikevich neurons, by forward Euler steps of `dt` milliseconds.

Per neuron, with input `x`, membrane `v` (millivolts) and recovery `w` left by the step before:

    u[t] = v[t-1] + dt * (0.04 * v[t-1]**2 + 5 * v[t-1] + 140 - w[t-1] + x[t])
    r[t] = w[t-1] + dt * a * (b * v[t-1] - w[t-1])
    s[t] = 1[u[t] >= threshold]
    v[t] = u[t] * (1 - s[t]) + c * s[t]
    w[t] = r[t] + d * s[t]

Izhikevich (2003), "Simple model of spiking neurons". `detach_reset` treats the spike in the last two lines as a
constant. Other gradients as in `neuropil.kernels.lif`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def izhikevich_scan(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    recovery: Float[Tensor, "batch ..."],
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    threshold: Tensor,
    dt: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and membrane and recovery after the last; see the module for the equations.

    The six parameters are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, state = torch.full((200, 1, 1), 10.0), (torch.full((1, 1), -65.0), torch.full((1, 1), -13.0))
    >>> numbers = [torch.tensor(value) for value in (0.02, 0.2, -65.0, 8.0, 30.0, 0.5)]
    >>> izhikevich_scan(x, *state, *numbers, Sigmoid())[0].sum().item()
    3.0
    """
    states = {"membrane": membrane, "recovery": recovery}
    parameters = {"a": a, "b": b, "c": c, "d": d, "threshold": threshold, "dt": dt}
    spikes, first, second = neuron_scan(
        "izhikevich",
        izhikevich_scan_reference,
        x,
        states,
        parameters,
        surrogate,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    return spikes, first, second


def izhikevich_scan_reference(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    recovery: Float[Tensor, "batch ..."],
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    threshold: Tensor,
    dt: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """`izhikevich_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.zeros(1, 1, 1), torch.tensor(1.0)
    >>> izhikevich_scan_reference(x, x[0], x[0], one, one, -one, one, 30 * one, one, Sigmoid())[1].item()
    -1.0
    """
    spikes = []
    for drive in x.unbind(0):
        if not temporal_gradient:
            membrane, recovery = membrane.detach(), recovery.detach()
        rise = 0.04 * membrane * membrane + 5 * membrane + 140 - recovery + drive
        before_reset = membrane + dt * rise
        recovery = recovery + dt * (a * (b * membrane - recovery))
        spike = surrogate(before_reset - threshold)
        gate = spike.detach() if detach_reset else spike
        membrane = before_reset * (1 - gate) + c * gate
        recovery = recovery + d * gate
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), membrane, recovery
