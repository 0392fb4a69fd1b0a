"""The scan of leaky integrate-and-fire neurons whose input first charges a synaptic current.

Per neuron, with input `x` and the state `i`, `v` left by the step before:

    i[t] = current_decay * i[t-1] + x[t]
    u[t] = decay * v[t-1] + i[t]
    s[t] = 1[u[t] >= threshold]
    v[t] = u[t] - threshold * s[t]      reset="subtract"
    v[t] = u[t] * (1 - s[t])            reset="zero"

Below the threshold the membrane answers a single input with `(current_decay**(n+1) - decay**(n+1)) /
(current_decay - decay)` after `n` more steps. Gradients as in `neuropil.kernels.lif`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, Reset, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def synaptic_scan(
    x: Float[Tensor, "time batch ..."],
    current: Float[Tensor, "batch ..."],
    membrane: Float[Tensor, "batch ..."],
    current_decay: Tensor,
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and current and membrane after the last; see the module for the equations.

    The decays and the threshold are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, rest, half = torch.tensor([1.0, 0.0]).view(2, 1, 1), torch.zeros(1, 1), torch.tensor(0.5)
    >>> spikes, current, membrane = synaptic_scan(x, rest, rest, half, half, torch.tensor(1.0), Sigmoid())
    >>> spikes.flatten().tolist(), current.item(), membrane.item()
    ([1.0, 0.0], 0.5, 0.5)
    """
    states = {"current": current, "membrane": membrane}
    parameters = {"current_decay": current_decay, "decay": decay, "threshold": threshold}
    spikes, first, second = neuron_scan(
        "synaptic",
        synaptic_scan_reference,
        x,
        states,
        parameters,
        surrogate,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    return spikes, first, second


def synaptic_scan_reference(
    x: Float[Tensor, "time batch ..."],
    current: Float[Tensor, "batch ..."],
    membrane: Float[Tensor, "batch ..."],
    current_decay: Tensor,
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """`synaptic_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, half = torch.ones(1, 1, 1), torch.tensor(0.5)
    >>> synaptic_scan_reference(x, 0 * x[0], 0 * x[0], half, half, 4 * half, Sigmoid())[2].item()
    1.0
    """
    spikes = []
    for drive in x.unbind(0):
        if not temporal_gradient:
            current, membrane = current.detach(), membrane.detach()
        current = current_decay * current + drive
        before_reset = decay * membrane + current
        spike = surrogate(before_reset - threshold)
        gate = spike.detach() if detach_reset else spike
        subtract = reset == "subtract"
        membrane = before_reset - threshold * gate if subtract else before_reset * (1 - gate)
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), current, membrane
