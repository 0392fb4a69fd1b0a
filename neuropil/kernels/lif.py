"""The leaky integrate-and-fire scan over a whole sequence.

Per neuron, with decay `d`, threshold `h` and the state `v` left by the step before:

    u[t] = d * v[t-1] + x[t]
    s[t] = 1[u[t] >= h]                 a membrane that just reaches the threshold spikes
    v[t] = u[t] - h * s[t]              reset="subtract"
    v[t] = u[t] * (1 - s[t])            reset="zero"

Backward, the step's derivative is the surrogate's at `u - h`. `detach_reset=True` treats the spike inside the
reset as a constant, `temporal_gradient=False` treats `v[t-1]` as one (online training through time, Xiao et
al. 2022). `decay` and `threshold` are differentiable, one number or one per neuron.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, ShapeError, StateError, nearest

if TYPE_CHECKING:
    from jaxtyping import Float

Reset = Literal["subtract", "zero"]
Memory = Literal["save", "recompute"]


class SpikeFunction(Protocol):
    """A step with a surrogate gradient, as `neuropil.nn.surrogate` has them."""

    @property
    def scale(self) -> float:
        """The one number of the compiled derivative."""

    def derivative(self, u: Tensor) -> Tensor:
        """Stand-in for the derivative of the step at `u`."""

    def __call__(self, u: Tensor) -> Tensor:
        """Spikes `1[u >= 0]`."""


def lif_scan(
    x: Float[Tensor, "time batch *features"],
    membrane: Float[Tensor, batch * features],
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch *features"], Float[Tensor, batch * features]]:
    """Spikes of every step and the membrane after the last reset; see the module for the equations.

    `decay` and `threshold` broadcast over `features`. `memory="save"` keeps one membrane per step for the
    backward pass, `"recompute"` keeps the input alone and scans it once more. Raises ShapeError, StateError
    or ConfigError when the arguments do not fit together.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, rest = torch.full((4, 1, 1), 0.6), torch.zeros(1, 1)
    >>> spikes, membrane = lif_scan(x, rest, torch.tensor(0.5), torch.tensor(1.0), Sigmoid())
    >>> spikes.flatten().tolist(), round(membrane.item(), 3)
    ([0.0, 0.0, 1.0, 0.0], 0.625)
    """
    decay, threshold = _checked(x, membrane, decay, threshold, reset, memory)
    return lif_scan_reference(
        x,
        membrane,
        decay,
        threshold,
        surrogate,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
    )


def lif_scan_static(
    x: Float[Tensor, batch * features],
    time_steps: int,
    membrane: Float[Tensor, batch * features],
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
) -> tuple[Float[Tensor, "time batch *features"], Float[Tensor, batch * features]]:
    """`lif_scan` of an input that stays the same for `time_steps` steps, which is read and summed once.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.full((1, 1), 0.6), torch.tensor(1.0)
    >>> lif_scan_static(x, 4, torch.zeros(1, 1), 0.5 * one, one, Sigmoid())[0].flatten().tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    if time_steps < 1:
        raise ConfigError(f"lif_scan_static: time_steps is {time_steps}, expected at least 1")
    sequence = x.expand(time_steps, *x.shape)
    decay, threshold = _checked(sequence, membrane, decay, threshold, reset, memory)
    return lif_scan_reference(
        sequence,
        membrane,
        decay,
        threshold,
        surrogate,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
    )


def lif_scan_reference(
    x: Float[Tensor, "time batch *features"],
    membrane: Float[Tensor, batch * features],
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch *features"], Float[Tensor, batch * features]]:
    """`lif_scan` as the equations read, in plain torch: the definition that the kernel is held against.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.full((2, 1, 1), 0.8), torch.tensor(1.0)
    >>> spikes, _ = lif_scan_reference(x, torch.zeros(1, 1), one, one, Sigmoid(), reset="zero")
    >>> spikes.flatten().tolist()
    [0.0, 1.0]
    """
    spikes = []
    for current in x.unbind(0):  # not x[t], whose backward writes a whole zero sequence per step
        carried = membrane if temporal_gradient else membrane.detach()
        before_reset = decay * carried + current
        spike = surrogate(before_reset - threshold)
        gate = spike.detach() if detach_reset else spike
        subtract = reset == "subtract"
        membrane = before_reset - threshold * gate if subtract else before_reset * (1 - gate)
        spikes.append(spike)
    return (torch.stack(spikes) if spikes else torch.empty_like(x)), membrane


def _checked(
    x: Tensor, membrane: Tensor, decay: Tensor, threshold: Tensor, reset: str, memory: str
) -> tuple[Tensor, Tensor]:
    """Check every argument once; return decay and threshold in the dtype of `x`."""
    for name, value, choices in (("reset", reset, get_args(Reset)), ("memory", memory, get_args(Memory))):
        if value not in choices:
            raise ConfigError(f"lif_scan: {name}={value!r} is unknown{nearest(str(value), choices)}")
    if x.dim() < 2 or not x.is_floating_point():
        raise ShapeError(
            f"lif_scan: x is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, ...features]"
        )
    if membrane.shape != x.shape[1:] or membrane.dtype != x.dtype:
        raise StateError(
            f"lif_scan: membrane is {membrane.dtype} of shape {list(membrane.shape)}, "
            f"x needs {x.dtype} of shape {list(x.shape[1:])}"
        )
    features = x.shape[2:]
    for name, parameter in (("decay", decay), ("threshold", threshold)):
        fits = parameter.dim() <= len(features) and all(
            mine in (1, theirs) for mine, theirs in zip(parameter.shape[::-1], features[::-1], strict=False)
        )
        if not fits:
            raise ShapeError(
                f"lif_scan: {name} has shape {list(parameter.shape)}, expected one number or a shape that "
                f"broadcasts to the features {list(features)}"
            )
    return decay.to(x.dtype), threshold.to(x.dtype)
