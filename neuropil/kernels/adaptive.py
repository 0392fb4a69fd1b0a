"""The scan of leaky integrate-and-fire neurons whose threshold rises with every spike and falls back.

Per neuron, with input `x` and the state `v`, `a` left by the step before:

    h[t] = threshold + adaptation_strength * a[t-1]
    u[t] = decay * v[t-1] + x[t]
    s[t] = 1[u[t] >= h[t]]
    v[t] = u[t] - h[t] * s[t]           reset="subtract"
    v[t] = u[t] * (1 - s[t])            reset="zero"
    a[t] = adaptation_decay * a[t-1] + s[t]

The spike that raises `a` is never detached: it is no reset. Bellec et al. (2018), "Long short-term memory and
learning-to-learn in networks of spiking neurons". Gradients otherwise as in `neuropil.kernels.lif`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.kernels.lif import Memory, Reset, SpikeFunction
from neuropil.kernels.neuron import neuron_scan

if TYPE_CHECKING:
    from jaxtyping import Float


def adaptive_scan(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    adaptation: Float[Tensor, "batch ..."],
    decay: Tensor,
    threshold: Tensor,
    adaptation_decay: Tensor,
    adaptation_strength: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step, and membrane and adaptation after the last; see the module for the equations.

    The four parameters are differentiable and broadcast over `features`. `memory` as for `lif_scan`. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, rest, one = torch.ones(4, 1, 1), torch.zeros(1, 1), torch.tensor(1.0)
    >>> spikes, membrane, adaptation = adaptive_scan(x, rest, rest, one, one, one, one, Sigmoid())
    >>> spikes.flatten().tolist(), membrane.item(), adaptation.item()
    ([1.0, 0.0, 1.0, 0.0], 1.0, 2.0)
    """
    states = {"membrane": membrane, "adaptation": adaptation}
    parameters = {
        "decay": decay,
        "threshold": threshold,
        "adaptation_decay": adaptation_decay,
        "adaptation_strength": adaptation_strength,
    }
    spikes, first, second = neuron_scan(
        "adaptive",
        adaptive_scan_reference,
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


def adaptive_scan_reference(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    adaptation: Float[Tensor, "batch ..."],
    decay: Tensor,
    threshold: Tensor,
    adaptation_decay: Tensor,
    adaptation_strength: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """`adaptive_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.ones(1, 1, 1), torch.tensor(1.0)
    >>> adaptive_scan_reference(x, 0 * x[0], 0 * x[0], one, one, one, one, Sigmoid())[2].item()
    1.0
    """
    spikes = []
    for drive in x.unbind(0):
        if not temporal_gradient:
            membrane, adaptation = membrane.detach(), adaptation.detach()
        before_reset = decay * membrane + drive
        raised = threshold + adaptation_strength * adaptation
        spike = surrogate(before_reset - raised)
        gate = spike.detach() if detach_reset else spike
        membrane = before_reset - raised * gate if reset == "subtract" else before_reset * (1 - gate)
        adaptation = adaptation_decay * adaptation + spike
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), membrane, adaptation
