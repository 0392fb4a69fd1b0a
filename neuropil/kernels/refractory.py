"""The scan of leaky integrate-and-fire neurons that rest after a spike.

Per neuron, with input `x`, the membrane `v` and the steps `w` that it still waits, left by the step before:

    u[t] = decay * v[t-1] + x[t]
    s[t] = 1[u[t] >= threshold] if w[t-1] <= 0, else 0
    v[t] = v[t-1] if w[t-1] > 0, else u[t] - threshold * s[t]      reset="subtract"
    v[t] = v[t-1] if w[t-1] > 0, else u[t] * (1 - s[t])            reset="zero"
    w[t] = steps if s[t], else max(w[t-1] - 1, 0)

Gradients as in `neuropil.kernels.lif`; none passes the waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, Reset, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def refractory_scan(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    waiting: Float[Tensor, "batch ..."],
    decay: Tensor,
    threshold: Tensor,
    steps: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and membrane and waiting after the last; see the module for the equations.

    Decay and threshold are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.ones(5, 1, 1), torch.tensor(1.0)
    >>> refractory_scan(x, 0 * x[0], 0 * x[0], one, one, 2 * one, Sigmoid())[0].flatten().tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0]
    """
    spikes, first, second = neuron_scan(
        "refractory",
        refractory_scan_reference,
        x,
        {"membrane": membrane, "waiting": waiting.detach()},
        {"decay": decay, "threshold": threshold, "steps": steps},
        surrogate,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    return spikes, first, second


def refractory_scan_reference(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    waiting: Float[Tensor, "batch ..."],
    decay: Tensor,
    threshold: Tensor,
    steps: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """`refractory_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.ones(1, 1, 1), torch.tensor(1.0)
    >>> refractory_scan_reference(x, 0 * x[0], 0 * x[0], one, one, 2 * one, Sigmoid())[2].item()
    2.0
    """
    spikes, waiting = [], waiting.detach()
    for drive in x.unbind(0):
        if not temporal_gradient:
            membrane = membrane.detach()
        before_reset = decay * membrane + drive
        ready = waiting <= 0
        spike = surrogate(before_reset - threshold) * ready
        gate = spike.detach() if detach_reset else spike
        subtract = reset == "subtract"
        after = before_reset - threshold * gate if subtract else before_reset * (1 - gate)
        membrane = torch.where(ready, after, membrane)
        waiting = torch.where(spike.detach() > 0, steps.detach(), (waiting - 1).clamp(min=0))
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), membrane, waiting
