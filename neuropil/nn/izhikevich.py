"""Izhikevich neurons: two equations, and most of the firing patterns of the cortex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

from torch import Tensor, nn

from neuropil.errors import ConfigError, nearest
from neuropil.kernels.izhikevich import izhikevich_scan
from neuropil.kernels.lif import Memory
from neuropil.nn.integrator import check_finite, check_input, describe, per_neuron
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from jaxtyping import Float


class IzhikevichState(NamedTuple):
    """What an Izhikevich neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], millivolts, after the reset
    recovery: Tensor  # [batch, ...features]


class Izhikevich(Stateful):
    """`v' = 0.04 v^2 + 5 v + 140 - w + x`, `w' = a (b v - w)`; at `v >= threshold` a spike, `v = c`, `w = w + d`.

    Steps are forward Euler of `dt` milliseconds, membranes in millivolts; the defaults are a regular spiking cell.
    Izhikevich (2003), "Simple model of spiking neurons".

    Args:
        a: Rate of the recovery, > 0; like b, c, d a number or a tensor of `features`.
        b: Sensitivity of the recovery to the membrane.
        c: Membrane after a spike, below the threshold.
        d: What a spike adds to the recovery.
        threshold: Peak of the spike.
        dt: Length of a step in milliseconds, in (0, 1].
        surrogate: Gradient of the spike; its scale is in millivolts.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Make a, b, c and d Parameters.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.
        memory: `"save"` the states of one step in 32 for the backward pass, or `"recompute"` them.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The membrane has become NaN or infinite.

    >>> import torch
    >>> spikes, state = Izhikevich()(torch.full((400, 1, 1), 10.0))  # [time, batch, features]: 200 ms
    >>> spikes.sum().item() > 3, state.membrane.shape
    (True, torch.Size([1, 1]))
    """

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    threshold: Tensor
    dt: Tensor

    def __init__(
        self,
        a: float | Tensor = 0.02,
        b: float | Tensor = 0.2,
        c: float | Tensor = -65.0,
        d: float | Tensor = 8.0,
        *,
        threshold: float | Tensor = 30.0,
        dt: float = 0.5,
        surrogate: Surrogate = Sigmoid(0.2),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
        memory: Memory = "save",
    ) -> None:
        super().__init__()
        given = {"a": a, "b": b, "c": c, "d": d, "threshold": threshold, "dt": dt}
        values = {name: per_neuron("Izhikevich", name, value, features) for name, value in given.items()}
        for name, tensor in values.items():
            positive = name not in ("a", "dt") or bool((tensor > 0).all())
            if not (positive and bool(tensor.isfinite().all())):
                expected = "a finite number > 0" if name in ("a", "dt") else "a finite number"
                raise ConfigError(f"Izhikevich.{name}: got {given[name]}, expected {expected}")
        if not (values["c"] < values["threshold"]).all():
            raise ConfigError(f"Izhikevich.c: got {c}, expected less than the threshold {threshold}")
        if dt > 1:
            raise ConfigError(f"Izhikevich.dt: got {dt}, expected milliseconds in (0, 1]")
        if memory not in get_args(Memory):
            raise ConfigError(f"Izhikevich.memory: got {memory!r}{nearest(memory, get_args(Memory))}")
        for name, tensor in values.items():
            if learn and name in ("a", "b", "c", "d"):
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self.surrogate, self.memory = surrogate, memory
        self.detach_reset, self.temporal_gradient = detach_reset, temporal_gradient

    def initial_state(self, x: Tensor) -> IzhikevichState:
        """Membranes at `c`, recovery in balance with them, for `x` of shape `[time, batch, ...features]`."""
        membrane = x.new_zeros(x.shape[1:]) + self.c.detach().to(x.dtype)
        return IzhikevichState(membrane, self.b.detach().to(x.dtype) * membrane)

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: IzhikevichState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], IzhikevichState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        check_input(self, x)
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        spikes, membrane, recovery = izhikevich_scan(
            x,
            *state,
            self.a,
            self.b,
            self.c,
            self.d,
            self.threshold,
            self.dt,
            self.surrogate,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
            memory=self.memory,
        )
        check_finite(self, membrane)
        return spikes, IzhikevichState(membrane, recovery)

    def extra_repr(self) -> str:
        """Settings that differ between neurons, for `repr`."""
        return ", ".join(describe(name, getattr(self, name)) for name in ("a", "b", "c", "d", "dt"))
