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
from neuropil.kernels.compiled import serves, traced
from neuropil.kernels.finite import check_membrane
from neuropil.kernels.lanes import check_per_neuron, period
from neuropil.kernels.lif_op import LIFScan, lif, run_lif
from neuropil.kernels.surrogate_compiled import KINDS

if TYPE_CHECKING:
    from jaxtyping import Float

Reset = Literal["subtract", "zero"]
Memory = Literal["save", "recompute"]
_RESETS, _MEMORIES = get_args(Reset), get_args(Memory)


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
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."] | None,
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
    owner: str | None = None,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """Spikes of every step and the membrane after the last reset; see the module for the equations.

    `membrane` is where neurons start, None at rest. `decay` and `threshold` broadcast over `features`. The backward
    pass scans the input once more, a segment of 32 steps at a time, from membranes that `memory="save"` keeps at the
    start of each segment and `"recompute"` finds by a scan of its own. Raises ShapeError, StateError or ConfigError
    when the arguments do not fit together; in the name of an `owner`, NonFiniteError where the last membrane is NaN
    or infinite.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, rest = torch.full((4, 1, 1), 0.6), torch.zeros(1, 1)
    >>> spikes, membrane = lif_scan(x, rest, torch.tensor(0.5), torch.tensor(1.0), Sigmoid())
    >>> spikes.flatten().tolist(), round(membrane.item(), 3)
    ([0.0, 0.0, 1.0, 0.0], 0.625)
    """
    _check(x, membrane, decay, threshold, reset, memory)
    return _scan(
        x,
        membrane,
        decay,
        threshold,
        surrogate,
        x.shape[0],
        memory,
        owner=owner,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
    )


def lif_scan_static(
    x: Float[Tensor, "batch ..."],
    time_steps: int,
    membrane: Float[Tensor, "batch ..."] | None,
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
    memory: Memory = "save",
    owner: str | None = None,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """`lif_scan` of an input that stays the same for `time_steps` steps, which is read and summed once.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.full((1, 1), 0.6), torch.tensor(1.0)
    >>> lif_scan_static(x, 4, torch.zeros(1, 1), 0.5 * one, one, Sigmoid())[0].flatten().tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    if time_steps < 1:
        raise ConfigError(f"lif_scan_static: time_steps is {time_steps}, expected at least 1")
    x = x.unsqueeze(0)
    _check(x, membrane, decay, threshold, reset, memory)
    return _scan(
        x,
        membrane,
        decay,
        threshold,
        surrogate,
        time_steps,
        memory,
        owner=owner,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
    )


def lif_scan_known(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    known: tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]],
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """`lif_scan` where its answer is `known`, from a run without gradients: only the way back is computed.

    >>> import torch
    >>> from neuropil.nn.surrogate import Sigmoid
    >>> x, one = torch.full((4, 1, 1), 0.6, requires_grad=True), torch.tensor(1.0)
    >>> given = torch.zeros(1, 1), 0.5 * one, one, Sigmoid()
    >>> with torch.no_grad():
    ...     known = lif_scan(x, *given)
    >>> again, _ = lif_scan_known(x, *given, known)
    >>> again.sum().backward()
    >>> again.flatten().tolist(), x.grad.shape
    ([0.0, 0.0, 1.0, 0.0], torch.Size([4, 1, 1]))
    """
    _check(x, membrane, decay, threshold, reset, "recompute")
    return _scan(
        x,
        membrane,
        decay,
        threshold,
        surrogate,
        x.shape[0],
        "recompute",
        known,
        reset=reset,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
    )


def lif_scan_reference(
    x: Float[Tensor, "time batch ..."],
    membrane: Float[Tensor, "batch ..."],
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    *,
    reset: Reset = "subtract",
    detach_reset: bool = True,
    temporal_gradient: bool = True,
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
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


def _scan(
    x: Tensor,
    membrane: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    time_steps: int,
    memory: Memory,
    known: tuple[Tensor, Tensor] | None = None,
    *,
    owner: str | None = None,
    reset: Reset,
    detach_reset: bool,
    temporal_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Scan with the compiled kernel where it serves; `x` has `time_steps` rows, or one that is held."""
    if decay.dtype is not x.dtype:  # asked first: a call that changes nothing costs as much as one that does
        decay = decay.to(x.dtype)
    if threshold.dtype is not x.dtype:
        threshold = threshold.to(x.dtype)
    name = fused_name(surrogate)
    floats = (x, decay, threshold) if membrane is None else (x, decay, threshold, membrane)
    if name is None or not serves(*floats):
        scanned = lif_scan_reference(
            x.expand(time_steps, *x.shape[1:]),
            x.new_zeros(x.shape[1:]) if membrane is None else membrane,
            decay,
            threshold,
            surrogate,
            reset=reset,
            detach_reset=detach_reset,
            temporal_gradient=temporal_gradient,
        )
        if owner is not None:
            check_membrane(owner, scanned[1])
        return scanned
    learns = torch.is_grad_enabled() and any([tensor.requires_grad for tensor in floats])
    settings = (
        period(decay, x.shape[2:]),
        period(threshold, x.shape[2:]),
        time_steps,
        learns and memory == "save",
        name,
        surrogate.scale,
        reset == "zero",
        detach_reset,
        temporal_gradient,
    )
    if traced(*floats):
        rest = x.new_empty(0) if membrane is None else membrane.reshape(-1)
        spikes, final, _ = lif(x.reshape(x.shape[0], x.shape[1:].numel()), rest, *settings)
        if owner is not None:
            check_membrane(owner, final)
    elif learns:
        answer: tuple[Tensor, Tensor] = LIFScan.apply(known, owner, x, membrane, *settings)  # type: ignore[no-untyped-call]
        return answer
    else:
        rows = x.reshape(x.shape[0], x.shape[1:].numel())
        start = None if membrane is None else membrane.reshape(-1)
        spikes, final, _ = run_lif(rows, start, *settings, owner)
    return spikes.view(time_steps, *x.shape[1:]), final.view(x.shape[1:])


def fused_name(surrogate: SpikeFunction) -> str | None:
    """Name of the compiled derivative; a subclass does not inherit it, as its formula may differ."""
    name = vars(type(surrogate)).get("fused")
    return name if name in KINDS else None


def _check(
    x: Tensor, membrane: Tensor | None, decay: Tensor, threshold: Tensor, reset: str, memory: str
) -> None:
    """Refuse arguments that do not fit together."""
    if reset not in _RESETS:
        raise ConfigError(f"lif_scan: reset={reset!r} is unknown{nearest(str(reset), _RESETS)}")
    if memory not in _MEMORIES:
        raise ConfigError(f"lif_scan: memory={memory!r} is unknown{nearest(str(memory), _MEMORIES)}")
    if x.dim() < 2 or not x.is_floating_point():
        raise ShapeError(
            f"lif_scan: x is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, ...features]"
        )
    if membrane is not None and (membrane.shape != x.shape[1:] or membrane.dtype != x.dtype):
        raise StateError(
            f"lif_scan: membrane is {membrane.dtype} of shape {list(membrane.shape)}, "
            f"x needs {x.dtype} of shape {list(x.shape[1:])}"
        )
    check_per_neuron("lif_scan", "decay", decay, x.shape[2:])
    check_per_neuron("lif_scan", "threshold", threshold, x.shape[2:])
