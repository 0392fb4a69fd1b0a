"""The scan of quadratic integrate-and-fire neurons, by forward Euler steps.

Per neuron, with input `x`, the membrane `v` left by the step before and `pace = dt / tau`:

    c[t] = min(v[t-1], threshold)
    u[t] = v[t-1] + pace * (sharpness * (c[t] - rest) * (c[t] - critical) + x[t])
    s[t] = 1[u[t] >= threshold]
    v[t] = u[t] * (1 - s[t]) + reset * s[t]

Ermentrout and Kopell (1986), "Parabolic bursting in an excitable system". Gradients as in `neuropil.kernels.lif`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def quadratic_scan(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    pace: Tensor,
    rest: Tensor,
    critical: Tensor,
    sharpness: Tensor,
    reset: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and the membrane after the last; see the module for the equations.

    The six parameters are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, numbers = torch.ones(40, 1, 1), [torch.tensor(v) for v in (0.1, 0.0, 1.0, 1.0, -1.0, 5.0)]
    >>> quadratic_scan(x, torch.zeros(1, 1), *numbers, Sigmoid())[0].sum().item()
    1.0
    """
    spikes, last = neuron_scan(
        "quadratic",
        quadratic_scan_reference,
        x,
        {"membrane": membrane},
        {
            "pace": pace,
            "rest": rest,
            "critical": critical,
            "sharpness": sharpness,
            "reset": reset,
            "threshold": threshold,
        },
        surrogate,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    return spikes, last


def quadratic_scan_reference(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    pace: Tensor,
    rest: Tensor,
    critical: Tensor,
    sharpness: Tensor,
    reset: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """`quadratic_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.ones(1, 1, 1), torch.tensor(1.0)
    >>> quadratic_scan_reference(x, 0 * x[0], one, one, one, one, -one, 5 * one, Sigmoid())[1].item()
    2.0
    """
    spikes = []
    for drive in x.unbind(0):
        if not temporal_gradient:
            membrane = membrane.detach()
        cut = torch.minimum(membrane, threshold)
        before_reset = membrane + pace * (sharpness * (cut - rest) * (cut - critical) + drive)
        spike = surrogate(before_reset - threshold)
        gate = spike.detach() if detach_reset else spike
        membrane = before_reset * (1 - gate) + reset * gate
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), membrane
