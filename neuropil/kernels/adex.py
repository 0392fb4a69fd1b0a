"""The scan of adaptive exponential integrate-and-fire neurons, by forward Euler steps.

Per neuron, with input `x`, the membrane `v` and the adaptation `w` left by the step before, `pace = dt / capacitance`
and `adaptation_pace = dt / tau`:

    e[t] = exp((min(v[t-1], threshold) - rheobase) / slope)
    u[t] = v[t-1] + pace * (leak * (slope * e[t] - (v[t-1] - rest)) - w[t-1] + x[t])
    r[t] = w[t-1] + adaptation_pace * (a * (v[t-1] - rest) - w[t-1])
    s[t] = 1[u[t] >= threshold]
    v[t] = u[t] * (1 - s[t]) + reset * s[t]
    w[t] = r[t] + b * s[t]

Brette and Gerstner (2005), "Adaptive exponential integrate-and-fire model as an effective description of neuronal
activity". The kernel's exponential is exact to rounding, not to torch's last bit. Gradients as in
`neuropil.kernels.lif`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def adex_scan(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    adaptation: Float[Tensor, "batch ..."],
    pace: Tensor,
    leak: Tensor,
    rest: Tensor,
    rheobase: Tensor,
    slope: Tensor,
    a: Tensor,
    b: Tensor,
    adaptation_pace: Tensor,
    reset: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and membrane and adaptation after the last; see the module for the equations.

    The ten parameters are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, rest = torch.full((600, 1, 1), 800.0), torch.full((1, 1), -70.6)
    >>> given = (0.1 / 281, 30.0, -70.6, -50.4, 2.0, 4.0, 80.5, 0.1 / 144, -70.6, -30.0)
    >>> adex_scan(x, rest, 0 * rest, *(torch.tensor(value) for value in given), Sigmoid())[0].sum().item()
    2.0
    """
    parameters = {
        "pace": pace,
        "leak": leak,
        "rest": rest,
        "rheobase": rheobase,
        "slope": slope,
        "a": a,
        "b": b,
        "adaptation_pace": adaptation_pace,
        "reset": reset,
        "threshold": threshold,
    }
    spikes, first, second = neuron_scan(
        "adex",
        adex_scan_reference,
        x,
        {"membrane": membrane, "adaptation": adaptation},
        parameters,
        surrogate,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    return spikes, first, second


def adex_scan_reference(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    adaptation: Float[Tensor, "batch ..."],
    pace: Tensor,
    leak: Tensor,
    rest: Tensor,
    rheobase: Tensor,
    slope: Tensor,
    a: Tensor,
    b: Tensor,
    adaptation_pace: Tensor,
    reset: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """`adex_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.ones(1, 1, 1), torch.tensor(1.0)
    >>> numbers = (one, one, 0 * one, 0 * one, one, 0 * one, one, one, -one, 9 * one)
    >>> adex_scan_reference(x, 0 * x[0], 0 * x[0], *numbers, Sigmoid())[1].item()  # exp(0) + 1
    2.0
    """
    spikes = []
    for drive in x.unbind(0):
        if not temporal_gradient:
            membrane, adaptation = membrane.detach(), adaptation.detach()
        above = membrane - rest
        upstroke = slope * torch.exp((torch.minimum(membrane, threshold) - rheobase) / slope)
        before_reset = membrane + pace * (leak * (upstroke - above) - adaptation + drive)
        adaptation = adaptation + adaptation_pace * (a * above - adaptation)
        spike = surrogate(before_reset - threshold)
        gate = spike.detach() if detach_reset else spike
        membrane = before_reset * (1 - gate) + reset * gate
        adaptation = adaptation + b * gate
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), membrane, adaptation
