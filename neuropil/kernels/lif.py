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
    return _scan(
        x,
        None,
        membrane,
        decay,
        threshold,
        surrogate,
        reset,
        memory,
        detach_reset,
        temporal_gradient,
        owner=owner,
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
    return _scan(
        x,
        time_steps,
        membrane,
        decay,
        threshold,
        surrogate,
        reset,
        memory,
        detach_reset,
        temporal_gradient,
        owner=owner,
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
    return _scan(
        x,
        None,
        membrane,
        decay,
        threshold,
        surrogate,
        reset,
        "recompute",
        detach_reset,
        temporal_gradient,
        known=known,
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
    time_steps: int | None,
    membrane: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    surrogate: SpikeFunction,
    reset: Reset,
    memory: Memory,
    detach_reset: bool,
    temporal_gradient: bool,
    *,
    known: tuple[Tensor, Tensor] | None = None,
    owner: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan with the compiled kernel where it serves; `x` is held for `time_steps`, or a sequence if that is None."""
    shape = x.shape[1:] if time_steps is None else x.shape
    _check(owner or "lif_scan", x, shape, membrane, decay, threshold, reset, memory)
    steps = x.shape[0] if time_steps is None else time_steps
    if decay.dtype is not x.dtype:  # asked first: a call that changes nothing costs as much as one that does
        decay = decay.to(x.dtype)
    if threshold.dtype is not x.dtype:
        threshold = threshold.to(x.dtype)
    name = fused_name(surrogate)
    floats = (x, decay, threshold) if membrane is None else (x, decay, threshold, membrane)
    if name is None or not serves(*floats):
        scanned = lif_scan_reference(
            x.expand(steps, *shape),
            x.new_zeros(shape) if membrane is None else membrane,
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
    decays = decay if decay.numel() == 1 else period(decay, shape[1:])
    thresholds = threshold if threshold.numel() == 1 else period(threshold, shape[1:])
    save, zero = learns and memory == "save", reset == "zero"
    settings = (steps, save, name, surrogate.scale, zero, detach_reset, temporal_gradient)
    if traced(*floats):
        rows = x.reshape(steps if time_steps is None else 1, shape.numel())
        rest = x.new_empty(0) if membrane is None else membrane.reshape(-1)
        spikes, final, _ = lif(rows, rest, decays.reshape(-1), thresholds.reshape(-1), *settings)
        if owner is not None:
            check_membrane(owner, final)
        return spikes.view(steps, *shape), final.view(shape)
    if learns:
        arguments = known, owner, shape, x, membrane, decays, thresholds, settings
        answer: tuple[Tensor, Tensor] = LIFScan.apply(*arguments)  # type: ignore[no-untyped-call]
        return answer
    return run_lif(x, membrane, decays, thresholds, shape, *settings, owner=owner)[:2]


def fused_name(surrogate: SpikeFunction) -> str | None:
    """Name of the compiled derivative; a subclass does not inherit it, as its formula may differ."""
    name = vars(type(surrogate)).get("fused")
    return name if name in KINDS else None


def _check(
    name: str,
    x: Tensor,
    shape: torch.Size,
    membrane: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    reset: str,
    memory: str,
) -> None:
    """Refuse, by `name`, arguments that do not fit together; `shape` is that of one step."""
    if reset not in _RESETS:
        raise ConfigError(f"{name}: reset={reset!r} is unknown{nearest(str(reset), _RESETS)}")
    if memory not in _MEMORIES:
        raise ConfigError(f"{name}: memory={memory!r} is unknown{nearest(str(memory), _MEMORIES)}")
    if not shape or not x.is_floating_point():
        raise ShapeError(
            f"{name}: input is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, ...features]"
        )
    if membrane is not None and (membrane.shape != shape or membrane.dtype != x.dtype):
        raise StateError(
            f"{name}: membrane is {membrane.dtype} of shape {list(membrane.shape)}, "
            f"x needs {x.dtype} of shape {list(shape)}"
        )
    check_per_neuron(name, "decay", decay, shape[1:])
    check_per_neuron(name, "threshold", threshold, shape[1:])
